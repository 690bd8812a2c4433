"""Examples and batches of examples, with the labels of any number of tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np


class TokenTaskData(NamedTuple):
    """Labels of one example for a token-level task.

    Attributes:
        target: for every token a class, a tuple of classes (multi-label) or a number (regression); anything
            where the token has no label.
        target_mask: for every token whether it has a label.

    Example:

    ```python
    TokenTaskData(target=[0, 3, 0, 0], target_mask=[False, True, False, False])
    ```
    """

    target: Sequence[Any]
    target_mask: Sequence[bool]


class SentenceTaskData(NamedTuple):
    """Label of one example for a sentence-level task.

    Attributes:
        target: the class; a tuple of classes (multi-label; empty if none applies); a float or a tuple of
            floats (regression); or, for a span, the positions of its first and its last token, both
            `target_index` where the text has no answer.
        target_index: the position (token) that the label is read from; -1 if the example has no label.

    Example:

    ```python
    SentenceTaskData(target=1, target_index=0)
    ```
    """

    target: Any
    target_index: int


class TaskDataBatch(NamedTuple):
    """Labels of a batch for one task.

    Attributes:
        target: `(batch, length)` for a token-level task, `(batch,)` for a sentence-level one: int32 classes,
            or float32 numbers. Tuples make one more axis: of floats as long as they are, of integers as long
            as the longest, with -1 after the end of shorter ones.
        target_mask: token-level: `(batch, length)` bool, True where there is a label. Sentence-level:
            `(batch,)` int32, the position that the label is read from, -1 where the example has no label.

    Of a packed batch the arrays of a sentence-level task are `(batch, k)`, with further axes of the target as
    above: column j is about the sequence j + 1 of the row, -1 in `target_mask` where there is none or it has
    no label. All positions, those of spans too, count from the first token of their own sequence, just as
    they would if it were alone. Token-level arrays look the same as ever.

    Example:

    ```python
    target, places = np.array([1, 0, 0], "int32"), np.array([0, 0, -1], "int32")
    TaskDataBatch(target, places)  # three examples, two labels
    ```
    """

    target: np.ndarray
    target_mask: np.ndarray


@dataclass
class Sentence:
    """One example: a text or a pair of texts as ids, and its labels for any subset of the tasks.

    Attributes:
        tokens: ids: `[bos] A [eos]` or `[bos] A [del] B [eos]`, then padding if any.
        segments: 0 for bos, A and del, 1 for B and its eos; all 0 where there is no B.
        padding_mask: True for real tokens, False for padding.
        token_classification: labels of token-level tasks, by task name.
        sentence_classification: labels of sentence-level tasks, by task name.
        document: number of the corpus document that A comes from, if it comes from a corpus.

    Example:

    ```python
    topic = {"topic": SentenceTaskData(1, 0)}
    Sentence([2, 17, 9, 3], [0, 0, 0, 0], [True] * 4, sentence_classification=topic)
    ```
    """

    tokens: Sequence[int]
    segments: Sequence[int]
    padding_mask: Sequence[bool]
    token_classification: Mapping[str, TokenTaskData] = field(default_factory=dict)
    sentence_classification: Mapping[str, SentenceTaskData] = field(default_factory=dict)
    document: int | None = None


@dataclass
class SentenceBatch:
    """The same as `Sentence`, for a batch and as arrays.

    Attributes:
        tokens: `(batch, length)` int32.
        segments: `(batch, length)` int32.
        padding_mask: `(batch, length)` bool, True for real tokens.
        token_classification: labels of token-level tasks, by task name.
        sentence_classification: labels of sentence-level tasks, by task name.
        sequence_ids: `(batch, length)` int32 in a packed batch, whose rows hold several sequences: 0 at
            padding, k in the k-th sequence of the row. None if every row is one sequence.
        position_ids: `(batch, length)` int32, counted from 0 in every sequence. None for columns of the row;
            made from `sequence_ids` where only those are given.

    Example:

    ```python
    batch = generator[0]
    text_encoder.decode(batch.tokens[0][batch.padding_mask[0]])
    batch.sentence_classification["is_next"].target  # (batch,) int32
    ```
    """

    tokens: np.ndarray
    segments: np.ndarray
    padding_mask: np.ndarray
    token_classification: dict[str, TaskDataBatch] = field(default_factory=dict)
    sentence_classification: dict[str, TaskDataBatch] = field(default_factory=dict)
    sequence_ids: np.ndarray | None = None
    position_ids: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.sequence_ids is not None and self.position_ids is None:
            self.position_ids = _counted(self.sequence_ids)

    @property
    def is_packed(self) -> bool:
        """Whether rows hold several sequences."""
        return self.sequence_ids is not None

    def sequence_starts(self, num_columns: int) -> np.ndarray:
        """Return the first column of every sequence of a packed batch.

        Args:
            num_columns: of how many sequences a row at most.

        Returns:
            int64, `(batch, num_columns)`; 0 where the row has fewer sequences.
        """
        starts = np.zeros((len(self.tokens), num_columns + 1), np.int64)
        if self.sequence_ids is not None and self.position_ids is not None:
            row, column = np.nonzero(self.sequence_ids)
            number = np.minimum(self.sequence_ids[row, column], num_columns + 1)
            starts[row, number - 1] = column - self.position_ids[row, column]
        return starts[:, :num_columns]


def _counted(sequence_ids: np.ndarray) -> np.ndarray:
    """Return positions from 0 in every stretch of equal ids, 0 at padding."""
    columns = np.arange(sequence_ids.shape[1], dtype=np.int32)
    begins = np.ones(sequence_ids.shape, bool)
    begins[:, 1:] = sequence_ids[:, 1:] != sequence_ids[:, :-1]
    begin = np.maximum.accumulate(np.where(begins, columns, 0), axis=1)
    return np.where(sequence_ids > 0, columns - begin, 0).astype(np.int32)
