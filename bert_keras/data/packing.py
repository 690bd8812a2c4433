"""Several examples in one row: which sizes share a row, and which example is in which place."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bert_keras.data.randomness import permuted


class Places(NamedTuple):
    """Where the examples of a batch are; all int64, `(n,)`, in the order of rows and columns.

    Attributes:
        row: of the batch.
        number: which sequence of the row it is, from 0.
        column: of its first token.
        example: which one it is.
        size: tokens that are kept for it.
    """

    row: np.ndarray
    number: np.ndarray
    column: np.ndarray
    example: np.ndarray
    size: np.ndarray


class Packing:
    """Rows of one length, filled with examples of known sizes.

    Sizes alone decide how rows are filled, so every epoch has the same number of rows. Which of the examples
    of a size is in which place of that size is drawn anew for every epoch, and so is the order of the rows.
    Every example is in one row of an epoch, and a row is found without looking at any other.

    Args:
        sizes: tokens of every example, int `(n,)`, none above `length`.
        length: of a row.
        seed: of the order.
        shuffle: whether to draw anew; otherwise all epochs are alike.

    Attributes:
        num_rows: rows of an epoch.
        most: examples in the fullest row.
    """

    def __init__(self, sizes: np.ndarray, length: int, seed: int, shuffle: bool = True) -> None:
        sizes = np.maximum(sizes, 1)
        self.length, self._seed, self._shuffle = length, seed, shuffle
        # By size; those of a size keep their order. (A stable sort of 16 bits is linear.)
        self._examples = np.argsort(sizes.astype(np.uint16 if length < 2**16 else np.int64), kind="stable")
        self._class_sizes = np.bincount(sizes, minlength=length + 1)
        self._class_starts = np.cumsum(self._class_sizes) - self._class_sizes
        patterns = fill_rows(self._class_sizes, length)
        self._row_ends = np.cumsum([rows for _, rows in patterns])
        self.num_rows = int(self._row_ends[-1])
        taken = np.zeros(length + 1, np.int64)
        slots: list[tuple[int, int, int, int]] = []
        self._slot_starts = np.zeros(len(patterns) + 1, np.int64)
        for pattern, (parts, rows) in enumerate(patterns):
            column = 0
            for size, count in parts:
                for turn in range(count):
                    slots.append((size, column, int(taken[size]) + turn, count))
                    column += size
                taken[size] += count * rows
            self._slot_starts[pattern + 1] = len(slots)
        self._sizes, self._columns, self._firsts, self._steps = np.array(slots, np.int64).T
        self.most = int(np.diff(self._slot_starts).max())

    def places(self, numbers: np.ndarray, epochs: np.ndarray) -> Places:
        """Return the examples of some rows.

        Args:
            numbers: rows from 0, int64 `(batch,)`; `num_rows` is an empty row.
            epochs: which epoch each row is of, int64 `(batch,)`.
        """
        rows = np.flatnonzero(numbers < self.num_rows)
        numbers, epochs = numbers[rows], epochs[rows]
        if self._shuffle:
            numbers = permuted(numbers, self.num_rows, self._seed, epochs * (self.length + 1))
        pattern = np.searchsorted(self._row_ends, numbers, side="right")
        before = np.concatenate([[0], self._row_ends])[pattern]
        counts = self._slot_starts[pattern + 1] - self._slot_starts[pattern]
        number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        slot = np.repeat(self._slot_starts[pattern], counts) + number
        size = self._sizes[slot]
        place = self._firsts[slot] + np.repeat(numbers - before, counts) * self._steps[slot]
        if self._shuffle:
            rounds = np.repeat(epochs, counts) * (self.length + 1) + size
            place = permuted(place, self._class_sizes[size], self._seed, rounds)
        example = self._examples[self._class_starts[size] + place]
        return Places(np.repeat(rows, counts), number, self._columns[slot], example, size)


def fill_rows(counts: np.ndarray, length: int) -> list[tuple[list[tuple[int, int]], int]]:
    """Fill rows one after the other with the largest example that is left and fits: first fit decreasing.

    Rows that come out alike are made at once, so the time depends on the number of different sizes, not on
    that of the examples.

    Args:
        counts: number of examples of every size, int `(length + 1,)`; none of size 0.
        length: of a row.

    Returns:
        For each kind of row its sizes with their numbers, largest first, and how many such rows there are.
    """
    left = {size: int(counts[size]) for size in range(length, 0, -1) if counts[size]}
    patterns = []
    while left:
        parts, room = [], length
        for size, count in left.items():
            fitting = min(count, room // size)
            if fitting:
                parts.append((size, fitting))
                room -= fitting * size
        rows = min(left[size] // count for size, count in parts)
        for size, count in parts:
            left[size] -= count * rows
            if not left[size]:
                del left[size]
        patterns.append((parts, rows))
    return patterns
