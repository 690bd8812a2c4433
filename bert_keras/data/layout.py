"""From stretches of a corpus to the rows of a batch, one or several examples in each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bert_keras.data.packing import Places
from bert_keras.data.sampling import Spans
from bert_keras.data.sentence import SentenceBatch, TaskDataBatch
from bert_keras.text import TextEncoder


class Layout(NamedTuple):
    """Where the n examples of a batch lie.

    Attributes:
        shape: rows and length of the batch.
        begins: `(n,)` int64, row times length plus column of each example's first token.
        label_shape: of the arrays of sentence-level tasks: `(rows,)`, or `(rows, k)` if examples are packed.
        slots: `(n,)` int64, where in these arrays, made flat, each example has its label.
    """

    shape: tuple[int, int]
    begins: np.ndarray
    label_shape: tuple[int, ...]
    slots: np.ndarray

    @classmethod
    def one_a_row(cls, rows: int, length: int) -> Layout:
        """Return the layout of as many examples as rows."""
        row = np.arange(rows)
        return cls((rows, length), row * length, (rows,), row)

    @classmethod
    def packed(cls, places: Places, sizes: np.ndarray, rows: int, length: int, most: int) -> Layout:
        """Return the layout of examples at some places, at most `most` in a row; those that come out smaller
        than their places move up."""
        before = np.cumsum(sizes) - sizes
        columns = before - np.maximum.accumulate(np.where(places.number == 0, before, 0))
        slots = places.row * most + places.number
        return cls((rows, length), places.row * length + columns, (rows, most), slots)


def lay_out(
    spans: Spans, layout: Layout, corpus_tokens: np.ndarray, text_encoder: TextEncoder, reads_last: bool
) -> tuple[SentenceBatch, TaskDataBatch | None]:
    """Write examples into rows: `[bos] A [eos]` or `[bos] A [del] B [eos]`, then padding.

    Args:
        spans: the stretches.
        layout: where each example goes.
        corpus_tokens: what the stretches are of.
        text_encoder: names the special tokens.
        reads_last: whether `is_next` is read from the last token, where only that has seen both texts.

    Returns:
        The batch without labels, and `is_next`, or None if there are no pairs.
    """
    rows, length = layout.shape
    tokens = np.full(rows * length, text_encoder.pad_id, np.int32)
    tokens[layout.begins] = text_encoder.bos_id
    _copy(tokens, layout.begins + 1, corpus_tokens, spans.first_start, spans.first_size)
    last, middle, is_next = spans.first_size + 1, None, None
    if spans.second_start is not None and spans.second_size is not None and spans.is_next is not None:
        middle = last
        tokens[layout.begins + middle] = text_encoder.del_id
        _copy(tokens, layout.begins + middle + 1, corpus_tokens, spans.second_start, spans.second_size)
        last = middle + spans.second_size + 1
        is_next = _is_next(spans.is_next, last if reads_last else np.zeros_like(last), layout)
    tokens[layout.begins + last] = text_encoder.eos_id
    arrange = _rows_of_one if len(layout.label_shape) == 1 else _rows_of_several
    batch = arrange(tokens.reshape(rows, length), layout, middle, last)
    return batch, is_next


def _is_next(labels: np.ndarray, places: np.ndarray, layout: Layout) -> TaskDataBatch:
    target, index = np.zeros(layout.label_shape, np.int32), np.full(layout.label_shape, -1, np.int32)
    target.reshape(-1)[layout.slots], index.reshape(-1)[layout.slots] = labels, places
    return TaskDataBatch(target, index)


def _rows_of_one(
    tokens: np.ndarray, layout: Layout, middle: np.ndarray | None, last: np.ndarray
) -> SentenceBatch:
    columns = np.arange(layout.shape[1], dtype=np.int32)
    padding_mask = columns <= last.astype(np.int32)[:, None]
    segments = np.zeros(layout.shape, np.int32)
    if middle is not None:
        np.greater(columns, middle.astype(np.int32)[:, None], out=segments, casting="unsafe")
        segments &= padding_mask
    return SentenceBatch(tokens, segments, padding_mask)


def _rows_of_several(
    tokens: np.ndarray, layout: Layout, middle: np.ndarray | None, last: np.ndarray
) -> SentenceBatch:
    sizes = last + 1
    within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    places = np.repeat(layout.begins, sizes) + within
    number = layout.slots % layout.label_shape[1] + 1
    segments, sequences, positions = np.zeros((3, tokens.size), np.int32)
    if middle is not None:
        segments[places] = within > np.repeat(middle, sizes)
    sequences[places] = np.repeat(number, sizes)
    positions[places] = within
    segments, sequences, positions = (a.reshape(layout.shape) for a in (segments, sequences, positions))
    return SentenceBatch(tokens, segments, sequences > 0, sequence_ids=sequences, position_ids=positions)


def _copy(
    tokens: np.ndarray, places: np.ndarray, corpus: np.ndarray, starts: np.ndarray, sizes: np.ndarray
) -> None:
    """Copy one stretch of the corpus for each example: quicker, one by one, than any index array."""
    for place, start, size in zip(places.tolist(), starts.tolist(), sizes.tolist(), strict=True):
        tokens[place : place + size] = corpus[start : start + size]
