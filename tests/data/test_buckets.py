"""Batches of examples of similar length."""

from itertools import combinations

import numpy as np
import pytest

from bert_keras.data import Sentence, SentenceTaskData, labelled_generator
from bert_keras.data.buckets import lengths_of

PAD = 0
RNG = np.random.default_rng(0)
SIZES = np.clip(RNG.lognormal(2.5, 0.6, 101).astype(int), 1, 60)


@pytest.fixture(scope="module")
def sentences():
    return [
        Sentence(
            [100 * n + i for i in range(size)], [0] * size, [True] * size, {}, {"t": SentenceTaskData(n, 0)}
        )
        for n, size in enumerate(SIZES.tolist(), 1)
    ]


def examples(batch):
    """The examples of a batch, after a look at every row."""
    found = []
    for row, label, index in zip(batch.tokens, *batch.sentence_classification["t"], strict=True):
        number = int(row[0]) // 100
        if number == 0:
            assert not row.any() and index == -1
            continue
        size = SIZES[number - 1]
        assert row[:size].tolist() == [100 * number + i for i in range(size)] and not row[size:].any()
        assert (label, index) == (number, 0)
        found.append(number)
    return found


@pytest.mark.parametrize("wrap", [True, False])
@pytest.mark.parametrize("buckets", [(8, 16, 24, 64), 3])
def test_every_example_once_an_epoch(sentences, buckets, wrap):
    generator = labelled_generator(
        sentences, pad_id=PAD, batch_size=8, buckets=buckets, wrap=wrap, max_len=64
    )
    assert len(generator) == 13
    orders, lengths = [], []
    for epoch in range(4):
        order = []
        for index in range(13):
            batch = generator[epoch * 13 + index]
            numbers = examples(batch)
            lengths.append(batch.tokens.shape[1])
            assert len(batch.tokens) == 8 and len(numbers) in (8, 5)
            assert SIZES[np.array(numbers) - 1].max() <= lengths[-1]
            order.append(numbers)
        assert sorted(sum(order, [])) == list(range(1, 102))
        orders.append(order)
    assert {*lengths} == ({*buckets} if isinstance(buckets, tuple) else {*lengths}) and len({*lengths}) <= 4
    assert lengths[:13] != lengths[13:26] != sorted(lengths[13:26])
    assert len({tuple(sorted(numbers)) for order in orders for numbers in order}) > 40  # neighbours change


def test_batches_hold_similar_lengths(sentences):
    buckets = (8, 16, 24, 64)
    generator = labelled_generator(sentences, pad_id=PAD, batch_size=8, buckets=buckets)
    mixed = 0
    for index in range(13):
        bucket_of = np.searchsorted(buckets, SIZES[np.array(examples(generator[index])) - 1])
        assert generator[index].tokens.shape[1] == buckets[bucket_of.max()]
        mixed += bucket_of.min() != bucket_of.max()
    assert mixed <= 3
    plain = labelled_generator(sentences, pad_id=PAD, batch_size=8)
    used = [np.mean([g[i].padding_mask.mean() for i in range(13)]) for g in (plain, generator)]
    assert used[1] > 1.3 * used[0]


def test_in_order_and_pure(sentences):
    arguments = dict(pad_id=PAD, batch_size=8, buckets=(16, 64))
    generator = labelled_generator(sentences, shuffle=False, **arguments)
    line = sum((examples(generator[i]) for i in range(13)), [])
    short = [n for n in range(1, 102) if SIZES[n - 1] <= 16]
    assert line == short + [n for n in range(1, 102) if SIZES[n - 1] > 16]
    one, other = (labelled_generator(sentences, seed=5, **arguments) for _ in range(2))
    for index in (10**9, 3):
        np.testing.assert_array_equal(one[index].tokens, other[index].tokens)
    assert any(
        one[i].tokens.tolist() != labelled_generator(sentences, seed=6, **arguments)[i].tokens.tolist()
        for i in range(3)
    )


@pytest.mark.parametrize("seed", range(12))
def test_the_best_lengths(seed):
    """Against all choices."""
    rng = np.random.default_rng(seed)
    sizes, multiple = rng.integers(1, 40, rng.integers(1, 50)), int(rng.integers(1, 9))
    number = int(rng.integers(1, 5))
    found = lengths_of(number, sizes, multiple, 40)
    possible = sorted({min(40, -(-int(size) // multiple) * multiple) for size in sizes})

    def cost(lengths):
        return sum(min(length for length in lengths if length >= size) for size in sizes)

    choices = combinations(possible[:-1], min(number, len(possible)) - 1)
    assert len(found) == min(number, len(possible)) and {*found} <= {*possible}
    assert cost(found) == min(cost([*choice, possible[-1]]) for choice in choices)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(buckets=()), "`buckets` must be ascending"),
        (dict(buckets=(64, 16)), "`buckets` must be ascending"),
        (dict(buckets=(16, 32)), r"longest example \(40 tokens\)"),
        (dict(buckets=(16, 128), max_len=64), r"`max_len` \(64\)"),
        (dict(buckets=0), "`buckets` must be at least 1"),
        (dict(buckets=3, pack=True, max_len=64), "only one of them"),
    ],
)
def test_bad_buckets(sentences, options, message):
    with pytest.raises(ValueError, match=message):
        labelled_generator(sentences, pad_id=PAD, **options)
