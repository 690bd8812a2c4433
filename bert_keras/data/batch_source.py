"""What every source of batches offers: a length, an index, iteration."""

from __future__ import annotations

import abc
import itertools
import math
import operator
from collections.abc import Iterator

import numpy as np

from bert_keras.data.randomness import permuted
from bert_keras.data.sentence import SentenceBatch


class BatchSource(abc.ABC):
    """Batches of equally many rows, numbered from 0 without end.

    Attributes:
        batch_size: rows of every batch.
        num_examples: examples of an epoch.
        num_rows: rows of an epoch: as many as examples, or fewer where several share a row.
    """

    batch_size: int
    num_examples: int
    num_rows: int

    @abc.abstractmethod
    def _batch(self, index: int) -> SentenceBatch:
        """Return batch `index`, which is at least 0."""

    def __len__(self) -> int:
        return math.ceil(self.num_rows / self.batch_size)

    def __iter__(self) -> Iterator[SentenceBatch]:
        return self.epochs(1)

    def epochs(self, num_epochs: int | None = None) -> Iterator[SentenceBatch]:
        """Iterate over the batches of the first `num_epochs` epochs, or without end."""
        indices = itertools.count() if num_epochs is None else range(num_epochs * len(self))
        return (self[index] for index in indices)

    def __getitem__(self, index: int) -> SentenceBatch:
        index = operator.index(index)
        if index < 0:
            raise IndexError(
                "Batches are numbered from 0 without end, so none can be counted from the end. Received: "
                f"{index}"
            )
        return self._batch(index)


def rows_of_batch(index: int, batch_size: int, num_rows: int, wrap: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows of which epochs make up a batch.

    Args:
        index: number of the batch.
        batch_size: rows of it.
        num_rows: of an epoch.
        wrap: whether epochs follow one another without a gap. Otherwise every epoch begins with a batch, and
            rows that its last one lacks have the number `num_rows`.

    Returns:
        Row numbers and epochs, int64 `(batch_size,)`.
    """
    if wrap:
        epochs, numbers = np.divmod(index * batch_size + np.arange(batch_size), num_rows)
        return numbers, epochs
    epoch, batch = divmod(index, math.ceil(num_rows / batch_size))
    numbers = np.minimum(batch * batch_size + np.arange(batch_size), num_rows)
    return numbers, np.full(batch_size, epoch)


def shuffled(numbers: np.ndarray, epochs: np.ndarray, num_rows: int, seed: int) -> np.ndarray:
    """Draw an order for every epoch; the number `num_rows` stays."""
    is_real = numbers < num_rows
    result = numbers.copy()
    result[is_real] = permuted(numbers[is_real], num_rows, seed, epochs[is_real])
    return result
