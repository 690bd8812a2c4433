"""New words get the mean of their old pieces, everything else stays, training goes on."""

import keras
import numpy as np
import pytest

from bert_keras import (
    BERTTextEncoder,
    MultiTaskModel,
    TaskMetadata,
    create_transformer,
    extend_vocabulary,
    labelled_generator,
    load_huggingface,
    save_huggingface,
    sentence_from_text,
    train_model,
)

LINES = [
    "the cell makes a protein, the sky is quickly over",
    "a protein of the cell wall",
    "walls and cells and genes",
] * 9
WORDS = ["cytokine", "interleukin"]


@pytest.fixture(scope="module")
def text_encoder():
    return BERTTextEncoder.train(LINES, vocab_size=60)


def make(text_encoder):
    encoder = create_transformer(text_encoder.vocab_size, 12, 19, 2, 3, 20, seed=1)
    tasks = [TaskMetadata("lm", True, text_encoder.vocab_size), TaskMetadata("kind", False, 3)]
    model = MultiTaskModel(encoder, tasks)
    rng = np.random.default_rng(2)
    model.set_weights([rng.standard_normal(w.shape).astype("float32") for w in model.get_weights()])
    return model


def value(variable):
    return keras.ops.convert_to_numpy(variable.value)


def inputs(tokens):
    tokens = np.asarray(tokens, "int32")
    return {
        "token_ids": tokens,
        "segment_ids": np.zeros_like(tokens),
        "position_ids": np.tile(np.arange(tokens.shape[1], dtype="int32"), (len(tokens), 1)),
        "sequence_ids": np.ones_like(tokens),
    }


def test_rows_are_means_and_the_rest_stays(text_encoder):
    model = make(text_encoder)
    size = text_encoder.vocab_size
    longer, longer_text_encoder = extend_vocabulary(model, text_encoder, WORDS)
    assert longer_text_encoder.vocab_size == size + 2 == longer.encoder.vocab_size
    for old, new in (
        (value(model.encoder.token_embedding.embeddings), value(longer.encoder.token_embedding.embeddings)),
        (value(model.heads["lm"].bias), value(longer.heads["lm"].bias)),
    ):
        np.testing.assert_array_equal(new[:size], old)
        for i, word in enumerate(WORDS):
            pieces = text_encoder.encode(word)
            assert len(pieces) > 1
            np.testing.assert_allclose(new[size + i], old[pieces].mean(axis=0), rtol=1e-6)
    ids = np.array([text_encoder.encode(LINES[1])])
    before, after = model(inputs(ids)), longer(inputs(ids))
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(x["kind"]) for x in (before, after)))
    logits = keras.ops.convert_to_numpy(after["lm"])
    assert logits.shape[-1] == size + 2
    np.testing.assert_allclose(
        logits[..., :size], keras.ops.convert_to_numpy(before["lm"]), rtol=1e-5, atol=1e-5
    )


def test_training_goes_on_with_the_new_words(text_encoder):
    longer, longer_text_encoder = extend_vocabulary(make(text_encoder), text_encoder, WORDS)
    rows = [
        sentence_from_text(longer_text_encoder, f"the cell makes {word}", sentence_labels={"kind": i})
        for i, word in enumerate(WORDS)
    ] * 5
    batches = labelled_generator(rows, pad_id=longer_text_encoder.pad_id, batch_size=5)
    table = value(longer.encoder.token_embedding.embeddings)[-2:].copy()
    kind = next(task for task in longer.tasks if task.name == "kind")
    trained = train_model(longer, [kind], finetune_generator=batches, finetune_epochs=3, verbose=0)
    assert np.abs(value(trained.encoder.token_embedding.embeddings)[-2:] - table).max() > 1e-6
    again, _ = extend_vocabulary(trained, longer_text_encoder, ["receptor"])
    assert again.trained_heads == trained.trained_heads == {"kind"}


def test_heads_of_a_checkpoint_grow_along(text_encoder, tmp_path):
    model = make(text_encoder)
    save_huggingface(model, tmp_path, task="lm", verbose=0)
    encoder = load_huggingface(tmp_path, verbose=0)
    longer, longer_text_encoder = extend_vocabulary(encoder, text_encoder, WORDS)
    lm = TaskMetadata("lm", True, longer_text_encoder.vocab_size)
    bias = value(MultiTaskModel(longer, [lm]).heads["lm"].bias)
    np.testing.assert_array_equal(bias[:-2], value(model.heads["lm"].bias))
    expected = value(model.heads["lm"].bias)[text_encoder.encode(WORDS[1])].mean()
    np.testing.assert_allclose(bias[-1], expected, rtol=1e-6)


def test_what_does_not_belong_together(text_encoder):
    other = create_transformer(text_encoder.vocab_size + 1, 12, 19, 1, 3)
    with pytest.raises(ValueError, match=r"61 rows of token embeddings, but `text_encoder` 60 ids"):
        extend_vocabulary(other, text_encoder, WORDS)
    own = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="Only encoders of `create_transformer`.*Sequential"):
        extend_vocabulary(own, text_encoder, WORDS)
    with pytest.raises(ValueError, match="'Cytokine' would be spelled"):
        extend_vocabulary(make(text_encoder), text_encoder, ["Cytokine"])
