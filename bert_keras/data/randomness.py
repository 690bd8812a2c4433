"""Random numbers as pure functions: the same on every machine, in every order, under every NumPy.

NumPy promises that the raw stream of a bit generator never changes, and promises no such thing of what
`Generator` makes of it. So only raw streams are used here, and what is made of them is made here.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

_NUM_ROUNDS = 6  # Turns of the network; even.
_HALF = np.uint64(32)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


class RandomStream:
    """A stream of random numbers that belongs to one batch.

    Args:
        seed: from 0 to 2**64 - 1.
        index: number of the batch, from 0 to 2**64 - 1. Streams that differ in either are independent.

    Source: Philox 4x64-10, Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3".
    """

    def __init__(self, seed: int, index: int) -> None:
        self._bits = np.random.Philox(key=np.array([seed, index], np.uint64))

    def uniform(self, rows: int, columns: int) -> np.ndarray:
        """Return `(rows, columns)` float64, uniform in [0, 1), multiples of 2**-53."""
        raw = self._bits.random_raw(rows * columns).reshape(rows, columns)
        return (raw >> np.uint64(11)) * 2.0**-53

    def words(self, count: int) -> np.ndarray:
        """Return `(count,)` uint32, uniform over all 2**32 values."""
        raw = self._bits.random_raw(-(-count // 2)).astype("<u8", copy=False)
        return raw.view("<u4")[:count]


def below(words: np.ndarray, bound: int) -> np.ndarray:
    """Map uint32 random words to uniform integers from 0 to `bound - 1` (int64); `bound` is at most 2**32.

    Source: multiply and shift, Lemire, 2019, "Fast random integer generation in an interval", without its
    rejection: no value is off by more than `bound / 2**32` of its probability.
    """
    return ((words.astype(np.uint64) * np.uint64(bound)) >> np.uint64(32)).view(np.int64)


def permuted(positions: np.ndarray, size: int | np.ndarray, seed: int, rounds: np.ndarray) -> np.ndarray:
    """Apply pseudorandom permutations of `range(size)`, without holding any of them.

    Args:
        positions: `(n,)` integers from 0 to `size - 1`.
        size: of the permuted range, at most 2**62; or `(n,)` integers up to 2**52, one for each position.
        seed: from 0 to 2**64 - 1.
        rounds: `(n,)` integers: which permutation each position goes through. Each seed and round has its
            own.

    Returns:
        `(n,)` int64. For one seed and round, `range(size)` maps onto itself one to one.

    Source: a Feistel network over pairs of digits, with cycle walking: whatever falls outside goes through
    again. The digits have bases near the square root of `size`, so that hardly anything does. Black and
    Rogaway, 2002, "Ciphers with arbitrary finite domains".
    """
    keys = _keys(seed, rounds)
    values = np.asarray(positions).astype(np.uint64)
    if isinstance(size, np.ndarray):
        return _permuted_each(values, size.astype(np.uint64), keys)
    base = math.isqrt(size - 1) + 1
    bases = np.uint64(base), np.uint64(-(-size // base))
    values = _feistel(values, keys, bases)
    while (values >= size).any():
        outside = np.flatnonzero(values >= size)
        values[outside] = _feistel(values[outside], keys[:, outside], bases)
    return values.view(np.int64)


def uniform_of(seed: int, numbers: np.ndarray) -> np.ndarray:
    """Return for each integer a float64 in [0, 1) that belongs to it and the seed."""
    return (_keys(seed, numbers)[0] >> np.uint64(11)) * 2.0**-53


def _permuted_each(values: np.ndarray, sizes: np.ndarray, keys: np.ndarray) -> np.ndarray:
    base = np.sqrt((sizes - np.uint64(1)).astype(np.float64)).astype(np.uint64) + np.uint64(1)
    bases = base, (sizes + base - np.uint64(1)) // base
    values = _feistel(values, keys, bases)
    outside = np.flatnonzero(values >= sizes)
    while outside.size:
        values[outside] = _feistel(values[outside], keys[:, outside], (bases[0][outside], bases[1][outside]))
        outside = outside[values[outside] >= sizes[outside]]
    return values.view(np.int64)


def _feistel(values: np.ndarray, keys: np.ndarray, bases: tuple[Any, Any]) -> np.ndarray:
    first, second = bases
    left, right = values // second, values % second
    for turn in range(0, _NUM_ROUNDS, 2):
        left = (left + _digit(right + keys[turn], first)) % first
        right = (right + _digit(left + keys[turn + 1], second)) % second
    return left * second + right


def _digit(values: np.ndarray, base: Any) -> np.ndarray:
    """Hash 64 bits to a digit from 0 to `base - 1`."""
    values = values * _MIX_1
    values = (values ^ (values >> _HALF)) * _MIX_2
    return ((values >> _HALF) * base) >> _HALF


def _keys(seed: int, rounds: np.ndarray) -> np.ndarray:
    """Return a key for every turn and position, `(_NUM_ROUNDS, n)` uint64, by SplitMix64.

    Source: Steele, Lea and Flood, 2014, "Fast splittable pseudorandom number generators".
    """
    start = _mix(np.asarray(rounds).astype(np.uint64) + _mix(np.array([seed], np.uint64) + _GOLDEN))
    return _mix(start + _GOLDEN * np.arange(1, _NUM_ROUNDS + 1, dtype=np.uint64)[:, None])


def _mix(values: np.ndarray) -> np.ndarray:
    values = (values ^ (values >> np.uint64(30))) * _MIX_1
    values = (values ^ (values >> np.uint64(27))) * _MIX_2
    return values ^ (values >> np.uint64(31))
