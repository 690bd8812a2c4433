"""Examples of similar length in one batch, with few different lengths of rows."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np

from bert_keras.data.randomness import permuted


class Buckets:
    """Batches of examples of similar length.

    All examples of an epoch stand in line, bucket by bucket, in each bucket in an order drawn for the epoch;
    batches are cut from the line and come in an order of their own. So every example is in one batch of the
    epoch, at most one batch for each boundary holds examples of two buckets, and one is not full.

    Args:
        sizes: tokens of every example, int `(n,)`.
        lengths: of rows, ascending; the last is no less than any size.
        batch_size: rows of a batch.
        seed: of the orders.
        shuffle: whether to draw; otherwise the line is that of buckets, and in them as given.
    """

    def __init__(
        self, sizes: np.ndarray, lengths: Sequence[int], batch_size: int, seed: int, shuffle: bool
    ) -> None:
        bucket_of = np.searchsorted(lengths, sizes)
        self._line = np.argsort(bucket_of, kind="stable")
        self._bucket_sizes = np.bincount(bucket_of, minlength=len(lengths))
        self._ends = np.cumsum(self._bucket_sizes)
        self._lengths, self._batch_size, self._seed, self._shuffle = lengths, batch_size, seed, shuffle
        self._num_batches = -(-sizes.size // batch_size)

    def rows(self, index: int) -> tuple[np.ndarray, int]:
        """Return the examples of a batch, int64 `(batch_size,)`, the number of examples for an empty row; and
        the length of its rows."""
        epoch, batch = divmod(index, self._num_batches)
        rounds = epoch * (len(self._lengths) + 1)
        if self._shuffle:
            batch = int(permuted(np.array([batch]), self._num_batches, self._seed, np.array([rounds]))[0])
        places = batch * self._batch_size + np.arange(self._batch_size)
        places = places[places < self._line.size]
        bucket = np.searchsorted(self._ends, places, side="right")
        sizes = self._bucket_sizes[bucket]
        if self._shuffle:
            begins = self._ends[bucket] - sizes
            places = begins + permuted(places - begins, sizes, self._seed, rounds + 1 + bucket)
        rows = np.full(self._batch_size, self._line.size)
        rows[: places.size] = self._line[places]
        return rows, self._lengths[int(bucket[-1])]


def lengths_of(
    buckets: int | Sequence[int], sizes: np.ndarray, length_multiple: int, max_len: int | None
) -> list[int]:
    """Return the lengths of rows.

    Args:
        buckets: the lengths, or how many there shall be: then they are chosen so that the least padding is
            left, among multiples of `length_multiple` and `max_len`.
        sizes: tokens of every example.
        length_multiple, max_len: as in `labelled_generator`.

    Raises:
        ValueError: if the lengths are no ascending numbers, or too small.
    """
    longest = int(max(1, sizes.max()))
    if isinstance(buckets, Sequence):
        lengths = [operator.index(length) for length in buckets]
        last = max(lengths, default=0)
        is_ascending = lengths == sorted({*lengths}) and min(lengths, default=0) > 0
        if not is_ascending or last < longest or last > (max_len or last):
            raise ValueError(
                "`buckets` must be ascending lengths of rows, the last one no less than the longest example "
                f"({longest} tokens) and no more than `max_len` ({max_len}). Received: {list(buckets)}"
            )
        return lengths
    if operator.index(buckets) < 1:
        raise ValueError(f"`buckets` must be at least 1, or a list of lengths. Received: buckets={buckets}")
    rounded = -(-np.maximum(sizes, 1) // length_multiple) * length_multiple
    lengths_, counts = np.unique(np.minimum(rounded, max_len or rounded.max()), return_counts=True)
    return _best_lengths(lengths_, counts, min(buckets, lengths_.size))


def _best_lengths(lengths: np.ndarray, counts: np.ndarray, number: int) -> list[int]:
    """Choose so many of the lengths that padding everything up to the next chosen one costs least: by
    dynamic programming over the last one chosen."""
    ends = np.cumsum(counts)
    cost = ends * lengths  # of all up to here, with the last length alone
    choices = []
    for _ in range(number - 1):
        # (i, j): i is the last but one, j the last.
        total = cost[:, None] + np.maximum(ends[None] - ends[:, None], 0) * lengths[None]
        total[np.tril_indices(lengths.size)] = np.iinfo(np.int64).max
        before = total.argmin(axis=0)
        choices.append(before)
        cost = np.minimum(total.min(axis=0), np.iinfo(np.int64).max // 2)
    chosen = [lengths.size - 1]
    for before in reversed(choices):
        chosen.append(int(before[chosen[-1]]))
    return [int(lengths[place]) for place in reversed(chosen)]
