"""Masking by statistics, over at least 100,000 tokens each."""

from collections import Counter

import numpy as np
import pytest
from number_text import NUM_SPECIAL, NumberEncoder, originals
from scipy.stats import binom, chisquare

from bert_keras.data import Corpus, lm_generator
from bert_keras.data.masking import next_token_labels, vocabulary_of

SMALL = 1031  # vocabulary of the statistics on replacements


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """150,000 tokens in words of three, some of them unknown, of a small vocabulary."""
    encoder = NumberEncoder(SMALL)
    folder = tmp_path_factory.mktemp("counted")
    rng = np.random.default_rng(0)
    lines = []
    for _ in range(5000):
        words = 3 * rng.integers(0, (SMALL - NUM_SPECIAL) // 3, 10)
        line = [str(w + k) for w in words for k in range(3)]
        line[rng.integers(30)] = "?"
        lines.append(" ".join(line) + "\n" * (1 + (rng.random() < 0.1)))
    (folder / "text").write_text("".join(lines))
    return Corpus.prepare(encoder, folder / "text", cache_dir=folder / "cache"), encoder


def tally(generator, encoder, num_batches):
    """Counts over ordinary tokens, after checking that nothing else is touched."""
    counts, replacements = Counter(), []
    special = np.array(sorted(encoder.special_ids))
    for index in range(num_batches):
        batch = generator[index]
        target, mask = batch.token_classification["lm"]
        assert target.dtype == np.int32 and mask.dtype == bool and batch.tokens.dtype == np.int32
        ordinary = ~np.isin(target, special)
        assert not mask[~ordinary].any()
        np.testing.assert_array_equal(batch.tokens[~mask], target[~mask])
        new, old = batch.tokens[mask], target[mask]
        is_msk = new == encoder.msk_id
        assert not np.isin(new[~is_msk], special).any()
        counts["tokens"] += int(ordinary.sum())
        counts["selected"] += new.size
        counts["masked"] += int(is_msk.sum())
        counts["same"] += int((new == old).sum())
        replacements.append(new[~is_msk & (new != old)])
    counts["replaced"] = sum(map(len, replacements))
    return counts, np.concatenate(replacements)


def is_plausible(count, total, probability):
    return 1e-5 < binom.cdf(count, total, probability) and 1e-5 < binom.sf(count - 1, total, probability)


OPTIONS = [
    {},
    dict(use_single_sentence=True),
    dict(fill=False),
    dict(keep_prob=0.6, mask_prob=0.1, rand_prob=0.2),
    dict(keep_prob=0.0, mask_prob=0.5, rand_prob=0.5),
    dict(keep_prob=0.5, mask_prob=0.0, rand_prob=0.5),
]


@pytest.mark.parametrize("options", OPTIONS)
def test_shares(counted, options):
    corpus, encoder = counted
    generator = lm_generator(encoder, corpus, batch_size=64, max_len=128, **options)
    counts, replacements = tally(generator, encoder, 40)
    keep, mask, rand = (
        options.get(name, default)
        for name, default in (("keep_prob", 0.85), ("mask_prob", 0.12), ("rand_prob", 0.015))
    )
    tokens, num_ordinary = counts["tokens"], SMALL - NUM_SPECIAL
    assert tokens > 100_000
    assert is_plausible(counts["selected"], tokens, 1 - keep)
    assert is_plausible(counts["masked"], tokens, mask)
    assert is_plausible(counts["replaced"], tokens, rand * (1 - 1 / num_ordinary))
    assert is_plausible(counts["same"], tokens, 1 - keep - mask - rand + rand / num_ordinary)
    drawn = np.bincount(replacements, minlength=SMALL)
    assert drawn[:NUM_SPECIAL].sum() == 0
    if rand:
        groups = np.bincount(np.arange(num_ordinary) % 97, drawn[NUM_SPECIAL:])
        sizes = np.bincount(np.arange(num_ordinary) % 97)
        assert chisquare(groups, sizes / sizes.sum() * groups.sum()).pvalue > 1e-4
    if rand >= 0.2:
        assert drawn[NUM_SPECIAL:].min() > 0


def test_everything_or_nothing(counted):
    corpus, encoder = counted
    nothing = lm_generator(
        encoder, corpus, batch_size=8, max_len=64, keep_prob=1.0, mask_prob=0.0, rand_prob=0.0
    )
    assert tally(nothing, encoder, 5)[0]["selected"] == 0
    for probabilities in (dict(mask_prob=1.0, rand_prob=0.0), dict(mask_prob=0.0, rand_prob=0.0)):
        for whole_word in (False, True):
            options = dict(keep_prob=0.0, whole_word=whole_word, **probabilities)
            counts, _ = tally(lm_generator(encoder, corpus, batch_size=8, max_len=64, **options), encoder, 5)
            assert counts["selected"] == counts["tokens"]
            assert counts["masked"] == probabilities["mask_prob"] * counts["tokens"]


def test_selection_does_not_depend_on_the_place(counted):
    """Neither on the position in the row, nor on whether the neighbour is selected."""
    corpus, encoder = counted
    generator = lm_generator(
        encoder, corpus, batch_size=128, max_len=64, use_single_sentence=True, short_prob=0
    )
    masks = np.concatenate([generator[i].token_classification["lm"].target_mask for i in range(40)])
    ordinary = np.concatenate([~np.isin(originals(generator[i]), range(NUM_SPECIAL)) for i in range(40)])
    share = masks.sum(0)[1:-1] / ordinary.sum(0)[1:-1]
    assert np.abs(share - 0.15).max() < 5 * np.sqrt(0.15 * 0.85 / ordinary.sum(0)[1:-1].min())
    both = ordinary[:, 1:] & ordinary[:, :-1]
    assert is_plausible(int((masks[:, 1:] & masks[:, :-1] & both).sum()), int(both.sum()), 0.15**2)


def test_whole_words(counted):
    corpus, encoder = counted
    generator = lm_generator(encoder, corpus, batch_size=64, max_len=128, whole_word=True, fill=False)
    counts, replacements = tally(generator, encoder, 60)
    assert counts["tokens"] > 100_000
    words = chosen = 0
    kinds = Counter()
    for index in range(60):
        batch = generator[index]
        target, mask = batch.token_classification["lm"]
        for row in range(len(target)):
            starts = np.flatnonzero(encoder.starts_word(target[row]))
            for part in np.split(np.arange(128), starts[1:]):
                part = part[~np.isin(target[row, part], range(NUM_SPECIAL))]
                if part.size:
                    words += 1
                    assert len({*mask[row, part].tolist()}) == 1  # All of it or nothing.
                    chosen += bool(mask[row, part[0]])
                if part.size == 3 and mask[row, part[0]]:
                    kinds[int((batch.tokens[row, part] == encoder.msk_id).sum())] += 1
    assert is_plausible(chosen, words, 0.15)
    # The kind is drawn for each token, so within a word all mixtures occur as often as they should.
    total = sum(kinds.values())
    for count in range(4):
        assert is_plausible(kinds[count], total, binom.pmf(count, 3, 0.8))
    assert is_plausible(counts["replaced"], counts["selected"], 0.1 * (1 - 1 / (SMALL - NUM_SPECIAL)))
    assert chisquare(np.bincount((replacements - NUM_SPECIAL) % 41, minlength=41)[:41]).pvalue > 1e-5


def test_masks_are_drawn_afresh_each_epoch(make_corpus, numbers):
    corpus, documents = make_corpus([[50]])
    generator = lm_generator(
        numbers, corpus, batch_size=1, max_len=52, use_single_sentence=True, short_prob=0
    )
    assert len(generator) == 1
    masks = np.concatenate([generator[i].token_classification["lm"].target_mask for i in range(2000)])
    assert is_plausible(int(masks.sum()), masks[:, 1:-1].size, 0.15)
    per_position = masks.sum(0)[1:-1]
    assert 200 < per_position.min() and per_position.max() < 400
    again = (masks[1:] & masks[:-1]).sum()
    assert is_plausible(int(again), 1999 * 50, 0.15**2)


def test_real_text(english, english_encoder):
    """The same on English and WordPiece, with whole words."""
    for whole_word in (False, True):
        generator = lm_generator(english_encoder, english, batch_size=64, max_len=128, whole_word=whole_word)
        counts, _ = tally(generator, english_encoder, 20)
        assert counts["tokens"] > 100_000
        assert abs(counts["selected"] / counts["tokens"] - 0.15) < 0.01
        assert abs(counts["masked"] / counts["selected"] - 0.8) < 0.02


def test_causal(large, numbers):
    corpus, _ = large
    special = sorted(numbers.special_ids)
    for options in ({}, dict(use_single_sentence=True), dict(fill=False)):
        generator = lm_generator(numbers, corpus, batch_size=11, max_len=37, is_causal=True, **options)
        for index in range(20):
            batch = generator[index]
            target, mask = batch.token_classification["lm"]
            assert numbers.msk_id not in batch.tokens
            np.testing.assert_array_equal(target[:, :-1], batch.tokens[:, 1:])
            np.testing.assert_array_equal(mask[:, :-1], ~np.isin(batch.tokens[:, 1:], special))
            assert not mask[:, -1].any() and mask[:, 0].all() and target.dtype == np.int32
        masked = lm_generator(numbers, corpus, batch_size=11, max_len=37, **options)
        np.testing.assert_array_equal(originals(masked[7]), generator[7].tokens)


def test_next_tokens_by_hand():
    tokens = np.array([[2, 7, 8, 4, 9], [2, 8, 3, 0, 0]], np.int32)
    target, mask = next_token_labels(tokens, vocabulary_of(NumberEncoder(10)))
    assert target[:, :-1].tolist() == [[7, 8, 4, 9], [8, 3, 0, 0]]
    assert mask.tolist() == [[True, True, False, True, False], [True, False, False, False, False]]
