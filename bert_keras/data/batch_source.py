"""What every source of batches offers: a length, an index, iteration."""

from __future__ import annotations

import abc
import itertools
import math
import operator
from collections.abc import Iterator

from bert_keras.data.sentence import SentenceBatch


class BatchSource(abc.ABC):
    """Batches of equally many rows, numbered from 0 without end.

    Attributes:
        batch_size: rows of every batch.
        num_examples: examples of an epoch.
    """

    batch_size: int
    num_examples: int

    @abc.abstractmethod
    def _batch(self, index: int) -> SentenceBatch:
        """Return batch `index`, which is at least 0."""

    def __len__(self) -> int:
        return math.ceil(self.num_examples / self.batch_size)

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
