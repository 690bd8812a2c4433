"""Masks and lengths of rows in the course of a training, as a recipe says."""

import pydoc_data.topics

import numpy as np
import pytest

from bert_keras import (
    BERTTextEncoder,
    Corpus,
    TaskMetadata,
    create_recipe,
    create_transformer,
    labelled_generator,
    lm_generator,
    mixed_generator,
    train_model,
)
from bert_keras.data import Sentence, SentenceTaskData
from bert_keras.training.recipe_course import RecipeCourse, course_of

OPTIONS = {"batch_size": 16, "max_len": 64, "use_single_sentence": True}


@pytest.fixture(scope="module")
def small_corpus(tmp_path_factory):
    """A text encoder and a corpus of the language reference that comes with Python."""
    folder = tmp_path_factory.mktemp("corpus")
    topics = list(pydoc_data.topics.topics.values())[:40]
    text = "\n\n".join("\n".join(line for line in topic.split("\n") if line.strip()) for topic in topics)
    (folder / "text.txt").write_text(text, encoding="utf-8")
    text_encoder = BERTTextEncoder.train(folder / "text.txt", vocab_size=500)
    return text_encoder, Corpus.prepare(text_encoder, folder / "text.txt", cache_dir=folder)


@pytest.fixture
def seen(monkeypatch):
    """The batches that training asks for, by step."""
    found, original = {}, RecipeCourse.__getitem__

    def noted(self, index):
        found[index] = original(self, index)
        return found[index]

    monkeypatch.setattr(RecipeCourse, "__getitem__", noted)
    return found


def labelled_share(batch, text_encoder):
    """Which share of the ordinary tokens is predicted."""
    labels = batch.token_classification["lm"]
    return labels.target_mask.sum() / (~np.isin(labels.target, list(text_encoder.special_ids))).sum()


def trained(text_encoder, generator, recipe, steps):
    """A small encoder, trained for two epochs of so many steps."""
    encoder = create_transformer(text_encoder.vocab_size, 12, 64, 1, 3, 20)
    lm = TaskMetadata("lm", True, text_encoder.vocab_size)
    return train_model(
        encoder, [lm], generator, pretrain_steps=steps, pretrain_epochs=2, recipe=recipe, verbose=0
    )


def test_masks_follow_the_recipe(small_corpus, seen):
    text_encoder, corpus = small_corpus
    generator = lm_generator(text_encoder, corpus, **OPTIONS)
    recipe = create_recipe("modern", predicted_share=0.6, final_predicted_share=0.1)
    trained(text_encoder, generator, recipe, steps=6)
    shares = [labelled_share(seen[step], text_encoder) for step in range(12)]
    expected = np.repeat([0.6, 0.5, 0.4, 0.3, 0.2, 0.1], 2)
    np.testing.assert_allclose(shares, expected, atol=0.06)
    own = lm_generator(text_encoder, corpus, **OPTIONS, **recipe.masking(progress=0.5))
    np.testing.assert_array_equal(seen[6].tokens, own[6].tokens)
    assert generator.masks_are_open and not own.masks_are_open
    assert not generator.with_masking(0.5, 0.4, 0.1).masks_are_open
    np.testing.assert_allclose(labelled_share(generator[0], text_encoder), 0.15, atol=0.05)  # as it was


def test_shares_of_one_s_own_stay(small_corpus):
    text_encoder, corpus = small_corpus
    causal = lm_generator(text_encoder, corpus, is_causal=True)
    assert not causal.masks_are_open
    with pytest.raises(ValueError, match="masks nothing"):
        causal.with_masking(0.5, 0.4, 0.1)
    own = lm_generator(text_encoder, corpus, keep_prob=0.85)
    assert not own.masks_are_open
    assert course_of(create_recipe("modern"), own, 10, None) is own
    assert course_of("adam", causal, 10, None) is causal
    constant = create_recipe("modern", predicted_share=0.2, final_predicted_share=None)
    assert (
        constant.masking(0.0)
        == constant.masking(1.0)
        == pytest.approx({"keep_prob": 0.8, "mask_prob": 0.16, "rand_prob": 0.02})
    )
    falling = create_recipe("modern", predicted_share=0.3, final_predicted_share=0.15)
    assert [round(1 - falling.masking(p)["keep_prob"], 3) for p in (-1.0, 0.0, 0.5, 0.99, 1.0, 2.0)] == [
        0.3, 0.3, 0.21, 0.15, 0.15, 0.15
    ]  # fmt: skip
    with pytest.raises(ValueError, match="final_predicted_share=1.5"):
        create_recipe("modern", final_predicted_share=1.5)


def test_rows_are_short_at_first(small_corpus, seen):
    text_encoder, corpus = small_corpus
    generator = lm_generator(text_encoder, corpus, keep_prob=0.8, **OPTIONS)
    recipe = create_recipe("modern", short_length=24, short_share=0.5)
    model = trained(text_encoder, generator, recipe, steps=4)
    assert [seen[step].tokens.shape for step in range(8)] == [(16, 24)] * 4 + [(16, 64)] * 4
    short = lm_generator(text_encoder, corpus, keep_prob=0.8, **{**OPTIONS, "max_len": 24})
    for step, same in ((1, short), (6, generator)):  # the figures of one's own are kept
        np.testing.assert_array_equal(seen[step].tokens, same[step].tokens)
    assert len(model.training_history["pretrain"].history["loss"]) == 2
    assert model.recipes["pretrain"] == recipe


@pytest.mark.parametrize("fill", [True, False])
@pytest.mark.parametrize("pack", [True, False])
def test_other_lengths_of_the_same_text(small_corpus, fill, pack):
    text_encoder, corpus = small_corpus
    options = {"batch_size": 8, "fill": fill, "pack": pack, "seed": 3}
    generator = lm_generator(text_encoder, corpus, max_len=60, **options)
    other = generator.with_masking(0.5, 0.5, 0.0).with_length(31)
    same = lm_generator(
        text_encoder, corpus, max_len=31, keep_prob=0.5, mask_prob=0.5, rand_prob=0, **options
    )
    assert (len(other), other.num_rows, other.num_examples) == (len(same), same.num_rows, same.num_examples)
    for number in (0, 5, len(same)):
        np.testing.assert_array_equal(other[number].tokens, same[number].tokens)
        np.testing.assert_array_equal(
            other[number].token_classification["lm"].target_mask,
            same[number].token_classification["lm"].target_mask,
        )
    assert generator.max_len == 60 and generator[0].tokens.shape == (8, 60)


def test_the_paper_s_lengths(small_corpus):
    text_encoder, corpus = small_corpus
    long = lm_generator(text_encoder, corpus, batch_size=4, max_len=140)
    course = course_of(create_recipe("bert"), long, 100, None)
    assert [course[step].tokens.shape[1] for step in (0, 89, 90, 99)] == [128, 128, 140, 140]
    as_short = lm_generator(text_encoder, corpus, batch_size=4, max_len=128)
    np.testing.assert_array_equal(
        course_of(create_recipe("bert"), as_short, 100, None)[0].tokens, course[0].tokens
    )


def test_within_a_mixture(small_corpus):
    text_encoder, corpus = small_corpus
    sentences = [
        Sentence([5, 6 + i], [0, 0], [True] * 2, {}, {"parity": SentenceTaskData(i % 2, 0)})
        for i in range(40)
    ]
    labelled = labelled_generator(sentences, pad_id=text_encoder.pad_id, batch_size=4)
    text = lm_generator(text_encoder, corpus, **OPTIONS)
    mixed = mixed_generator(
        {"text": text, "labels": labelled}, shares={"text": 1, "labels": 1}, num_batches=40
    )
    recipe = create_recipe(
        "modern", predicted_share=0.6, final_predicted_share=0.1, short_length=24, short_share=0.25
    )
    course = course_of(recipe, mixed, 40, None)
    assert len(course) == 40 and course.vocab_size == text_encoder.vocab_size
    shares = {}
    for step in range(40):
        name, local = mixed.source_of(step)
        batch = course[step]
        if name == "labels":
            np.testing.assert_array_equal(batch.tokens, labelled[local].tokens)
        else:
            assert batch.tokens.shape == (16, 24 if step < 10 else 64)
            masking = recipe.masking(step / 40)
            shares[step] = labelled_share(batch, text_encoder), 1 - masking["keep_prob"]
            if step >= 10:
                np.testing.assert_array_equal(batch.tokens, text.with_masking(**masking)[local].tokens)
    assert len(shares) == 20
    found, expected = zip(*shares.values(), strict=True)
    np.testing.assert_allclose(found, expected, atol=0.1)
    plain = mixed_generator({"labels": labelled})
    assert course_of(recipe, plain, 10, None) is plain
    with pytest.raises(ValueError, match=r"\['text', 'labels'\].*\['text'\]"):
        mixed.with_sources({"text": text})


def test_lengths_that_make_no_sense(small_corpus):
    text_encoder, corpus = small_corpus
    with pytest.raises(ValueError, match="`short_share`.*with `short_length`.*short_share=None"):
        create_recipe("modern", short_length=64)
    with pytest.raises(ValueError, match="`short_share`.*None without.*short_share=0.5"):
        create_recipe("modern", short_share=0.5)
    with pytest.raises(ValueError, match="short_length=0"):
        create_recipe("modern", short_length=0, short_share=0.5)
    recipe = create_recipe("modern", short_length=16, short_share=0.5)
    generator = lm_generator(text_encoder, corpus, min_len=20, **OPTIONS)
    with pytest.raises(ValueError, match="`short_length=16`.*min_len=20, max_len=16.*Change the recipe"):
        trained(text_encoder, generator, recipe, steps=2)
    with pytest.raises(ValueError, match="whole number of tokens. Received: short_length=64.5"):
        create_recipe("modern", short_length=64.5, short_share=0.5)
