"""Streams and permutations: uniform, independent, and the same for ever."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from scipy.stats import chisquare

from bert_keras.data.randomness import RandomStream, below, permuted, uniform_of


def test_permutations_are_one_to_one():
    for size in [*range(1, 260), 1021, 4096, 4097, 65_537, 100_003]:
        for epoch in (0, 5):
            result = permuted(np.arange(size), size, 3, np.full(size, epoch))
            assert result.dtype == np.int64
            np.testing.assert_array_equal(np.sort(result), np.arange(size))


def test_rows_of_different_epochs_do_not_mix():
    size, epochs = 97, np.repeat([4, 1, 9], 97)
    together = permuted(np.tile(np.arange(size), 3), size, 7, epochs)
    for k, epoch in enumerate((4, 1, 9)):
        alone = permuted(np.arange(size), size, 7, np.full(size, epoch))
        np.testing.assert_array_equal(together[k * size : (k + 1) * size], alone)


def test_ranges_of_different_sizes_do_not_mix():
    """A size for each position gives what each size gives alone."""
    sizes = [1, 2, 3, 16, 17, 97, 4096, 10_007]
    positions = np.concatenate([np.arange(size) for size in sizes])
    epochs = np.arange(positions.size) % 3
    each = np.repeat(sizes, sizes)
    together = permuted(positions, each, 5, epochs)
    for size in sizes:
        alone = permuted(np.arange(size), size, 5, epochs[each == size])
        np.testing.assert_array_equal(together[each == size], alone)


def test_numbers_of_integers():
    values = uniform_of(3, np.arange(50_000))
    assert 0 <= values.min() and values.max() < 1
    assert chisquare(np.histogram(values, 64, (0, 1))[0]).pvalue > 1e-4
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.02
    np.testing.assert_array_equal(uniform_of(3, np.array([7])), values[7:8])
    assert (uniform_of(4, np.arange(9)) != values[:9]).all()


def test_all_orders_are_about_equally_likely():
    draws = 24_000
    orders = permuted(np.tile(np.arange(4), draws), 4, 11, np.repeat(np.arange(draws), 4)).reshape(draws, 4)
    counts = Counter(map(tuple, orders.tolist()))
    assert set(counts) == set(permutations(range(4)))
    assert 800 < min(counts.values()) <= max(counts.values()) < 1200  # 1,000 are expected.


@pytest.mark.parametrize("size", [2, 6, 100, 1009])
def test_each_position_goes_everywhere(size):
    draws = 200 * size
    for position in (0, size - 1):
        found = permuted(np.full(draws, position), size, 2, np.arange(draws))
        assert chisquare(np.bincount(found, minlength=size)).pvalue > 1e-4


def test_neighbours_are_torn_apart():
    size = 10_007
    order = permuted(np.arange(size), size, 5, np.zeros(size, int))
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 4 / np.sqrt(size)
    assert np.count_nonzero(np.abs(np.diff(order)) == 1) < 12  # 2 are expected.


def test_huge_sizes():
    size = 2**61 + 5
    result = permuted(np.array([0, 1, size - 1]), size, 1, np.zeros(3, int))
    assert (result >= 0).all() and (result < size).all() and len(set(result.tolist())) == 3


def test_streams_differ_by_seed_and_index():
    words = [
        RandomStream(seed, index).words(7).tolist() for seed in (0, 1, 2**64 - 1) for index in (0, 1, 10**15)
    ]
    assert len({tuple(w) for w in words}) == 9
    assert RandomStream(3, 4).words(7).tolist() == RandomStream(3, 4).words(7).tolist()


def test_frozen_values():
    """These numbers decide which batches a seed stands for; they must never change."""
    assert RandomStream(1, 2).words(3).tolist() == [3042142985, 1328497427, 564130602]
    assert permuted(np.arange(7), 7, 1, np.full(7, 2)).tolist() == [4, 0, 3, 1, 2, 5, 6]


def test_uniform_draws():
    stream = RandomStream(5, 6)
    values = stream.uniform(100, 1000)
    assert values.shape == (100, 1000) and 0 <= values.min() and values.max() < 1
    assert chisquare(np.histogram(values, 64, (0, 1))[0]).pvalue > 1e-4
    words = stream.words(99_999)
    assert words.dtype == np.uint32 and words.shape == (99_999,)
    assert chisquare(np.bincount(below(words, 13), minlength=13)).pvalue > 1e-4
    assert below(np.array([0, 2**32 - 1], np.uint32), 7).tolist() == [0, 6]
    assert below(np.array([0, 2**32 - 1], np.uint32), 2**32).tolist() == [0, 2**32 - 1]
