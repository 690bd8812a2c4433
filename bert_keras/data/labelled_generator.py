"""Batches of labelled examples, each a pure function of its number."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bert_keras.data.batch_source import BatchSource, rows_of_batch, shuffled
from bert_keras.data.buckets import Buckets, lengths_of
from bert_keras.data.labels import TaskLabels, check_level, is_token_level
from bert_keras.data.packing import Packing, Places
from bert_keras.data.sentence import Sentence, SentenceBatch, TaskDataBatch


class LabelledGenerator(BatchSource):
    """What `labelled_generator` returns: sized, indexable, iterable. See there.

    `generator[i]` is batch i for every i >= 0; from `len(generator)` on they are those of later epochs.
    Iterating gives one epoch, `epochs(n)` gives n of them or, without n, no end.

    Attributes:
        batch_size: rows of every batch.
        num_examples: examples of an epoch.
        num_rows: rows of an epoch: as many, or fewer if they are packed.
        token_tasks, sentence_tasks: names of the tasks that every batch has entries for.
    """

    def __init__(
        self,
        sentences: Sequence[Sentence],
        pad_id: int,
        batch_size: int,
        max_len: int | None,
        length_multiple: int,
        shuffle: bool,
        seed: int,
        wrap: bool,
        pack: bool,
        buckets: int | Sequence[int] | None,
    ) -> None:
        self.batch_size = batch_size
        self.num_examples = self.num_rows = len(sentences)
        self._max_len, self._length_multiple = max_len, length_multiple
        self._shuffle, self._seed, self._wrap = shuffle, seed, wrap
        self._examples = _Examples(sentences, pad_id, max_len)
        self.token_tasks = tuple(self._examples.token_tasks)
        self.sentence_tasks = tuple(self._examples.sentence_tasks)
        self._packing: Packing | None = None
        if pack and max_len is not None:
            self._packing = Packing(self._examples.sizes[:-1], max_len, seed, shuffle)
            self.num_rows = self._packing.num_rows
        self._buckets: Buckets | None = None
        if buckets is not None:
            sizes = self._examples.sizes[:-1]
            lengths = lengths_of(buckets, sizes, length_multiple, max_len)
            self._buckets = Buckets(sizes, lengths, batch_size, seed, shuffle)

    def _batch(self, index: int) -> SentenceBatch:
        if self._buckets is not None:
            return self._examples.batch(*self._buckets.rows(index))
        rows, epochs = rows_of_batch(index, self.batch_size, self.num_rows, self._wrap)
        if self._packing is not None:
            places = self._packing.places(rows, epochs)
            return self._examples.packed(places, self.batch_size, self._packing)
        if self._shuffle:
            rows = shuffled(rows, epochs, self.num_rows, self._seed)
        longest = int(self._examples.sizes[rows].max())
        length = math.ceil(max(1, longest) / self._length_multiple) * self._length_multiple
        return self._examples.batch(rows, length if self._max_len is None else min(length, self._max_len))


class _Examples:
    """All examples end to end in flat arrays, one element of padding after them, and one empty example."""

    def __init__(self, sentences: Sequence[Sentence], pad_id: int, max_len: int | None) -> None:
        self.sizes = np.array([_size(s, i, max_len) for i, s in enumerate(sentences)] + [0], np.int64)
        self._starts = np.cumsum(self.sizes) - self.sizes
        self._tokens = self._flat([s.tokens for s in sentences], np.int32, pad_id)
        self._segments = self._flat([s.segments for s in sentences], np.int32, 0)
        self._padding_mask = self._flat([s.padding_mask for s in sentences], np.bool_, False)
        tasks: dict[str, TaskLabels] = {}
        for number, sentence in enumerate(sentences):
            self._add_labels(tasks, sentence, number)
        self.token_tasks = {name: task.collected() for name, task in tasks.items() if task.is_token_level}
        self.sentence_tasks = {
            name: task.collected() for name, task in tasks.items() if not task.is_token_level
        }

    def batch(self, rows: np.ndarray, length: int) -> SentenceBatch:
        """Return some examples, padded to a length."""
        columns = np.arange(length)
        places = self._starts[rows][:, None] + columns
        places[columns >= self.sizes[rows][:, None]] = self._tokens.size - 1
        return SentenceBatch(
            self._tokens[places],
            self._segments[places],
            self._padding_mask[places],
            _chosen(self.token_tasks, places),
            _chosen(self.sentence_tasks, rows),
        )

    def packed(self, where: Places, num_rows: int, packing: Packing) -> SentenceBatch:
        """Return some examples, several in a row."""
        size, length = self.sizes[where.example], packing.length
        within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        target = np.repeat(where.row * length + where.column, size) + within
        source = np.full(num_rows * length, self._tokens.size - 1)
        source[target] = np.repeat(self._starts[where.example], size) + within
        places = source.reshape(num_rows, length)
        sequences, positions = np.zeros((2, num_rows * length), np.int32)
        sequences[target], positions[target] = np.repeat(where.number + 1, size), within
        shape = num_rows, length
        examples = np.full((num_rows, packing.most), self.sizes.size - 1)
        examples[where.row, where.number] = where.example
        padding_mask = self._padding_mask[places]
        return SentenceBatch(
            self._tokens[places],
            self._segments[places],
            padding_mask,
            _chosen(self.token_tasks, places),
            _chosen(self.sentence_tasks, examples),
            sequences.reshape(shape) * padding_mask,
            positions.reshape(shape),
        )

    def _flat(self, parts: Sequence[Sequence[int]], dtype: type[np.generic], padding: int) -> np.ndarray:
        return np.fromiter(itertools.chain(*parts, [padding]), dtype, int(self.sizes.sum()) + 1)

    def _add_labels(self, tasks: dict[str, TaskLabels], sentence: Sentence, number: int) -> None:
        where = f"`sentences[{number}]`"
        start, size = int(self._starts[number]), int(self.sizes[number])
        given: list[tuple[str, Any, bool]] = [(*item, True) for item in sentence.token_classification.items()]
        given += [(*item, False) for item in sentence.sentence_classification.items()]
        for name, data, on_tokens in given:
            if is_token_level(name, data, where) != on_tokens:
                field, kind = ("token", "TokenTaskData") if on_tokens else ("sentence", "SentenceTaskData")
                raise TypeError(f"{where}: `{field}_classification[{name!r}]` must be {kind}.")
            if name not in tasks:
                tasks[name] = TaskLabels(name, on_tokens, self._tokens.size if on_tokens else self.sizes.size)
            check_level(tasks[name], on_tokens, "`sentences`")
            tasks[name].add(data, start if on_tokens else number, size, where)


def _chosen(tasks: dict[str, TaskDataBatch], places: np.ndarray) -> dict[str, TaskDataBatch]:
    return {name: TaskDataBatch(*(array[places] for array in data)) for name, data in tasks.items()}


def labelled_generator(
    sentences: Iterable[Sentence],
    *,
    pad_id: int,
    batch_size: int = 32,
    max_len: int | None = None,
    length_multiple: int = 16,
    shuffle: bool = True,
    seed: int = 0,
    wrap: bool = True,
    pack: bool = False,
    buckets: int | Sequence[int] | None = None,
) -> LabelledGenerator:
    """Return a source of batches of given examples: to fine-tune, to validate, or to predict without labels.

    Batch i depends on the arguments and i alone. Every epoch has an order of its own and takes each example
    once. Rows are padded to the longest example of the batch. Every batch has an entry for every task that
    occurs in any example; where an example has no label, its token-level mask is False and its sentence-level
    position -1.

    Args:
        sentences: the examples. They may differ in their tasks.
        pad_id: id of padding, as in `text_encoder.pad_id`.
        batch_size: rows of every batch.
        max_len: rows are never longer; examples must not be either. None for no limit.
        length_multiple: the length of a batch is rounded up to a multiple of it (but not above `max_len`), so
            that few different lengths occur.
        shuffle: draw a new order each epoch; otherwise examples keep theirs.
        seed: another seed gives other orders. From 0 to 2**64 - 1.
        wrap: fill the last batch of an epoch with the first examples of the next one. If False, as for
            validation and prediction, fill it with empty rows (nothing but padding, no labels), and begin
            every epoch anew.
        pack: put several examples into each row, apart from one another, so that hardly any padding is left.
            Every row has `max_len` tokens, which must be given; `length_multiple` does not matter. A batch
            still has `batch_size` rows, but more examples, not always equally many (`num_rows` is the rows of
            an epoch). Labels look as `TaskDataBatch` tells. Each epoch draws anew which examples share a row;
            without `shuffle` all epochs are alike, and the order is that of sizes.
        buckets: let examples of similar length share a batch, so that less padding is left where `pack` is
            not wanted. Either the lengths of rows, as (16, 32, 64), or how many there shall be: 4, say, best
            for these examples. Batches of all lengths come in random order. The one batch of an epoch that
            is not full is filled with empty rows, whatever `wrap` says.

    Returns:
        A sized, indexable, iterable `LabelledGenerator` of `SentenceBatch`.

    Raises:
        ValueError: if there are no examples, one is longer than `max_len`, its parts or labels differ in
            length, a label is no integer, a task is token-level here and sentence-level there, or an argument
            is missing or out of its range.
        TypeError: if something is no `Sentence`, or a label is of another type.

    Example:

    ```python
    sentences = [
        sentence_from_text(text_encoder, text, sentence_labels={"topic": topic}) for text, topic in rows
    ]
    generator = labelled_generator(sentences, pad_id=text_encoder.pad_id, batch_size=16)
    generator[0].sentence_classification["topic"].target  # (16,) int32
    ```
    """
    sentences = list(sentences)
    if not sentences:
        raise ValueError("`sentences` is empty: give at least one Sentence.")
    least = {"batch_size": (batch_size, 1), "length_multiple": (length_multiple, 1)}
    if max_len is not None:
        least["max_len"] = (max_len, 1)
    for name, (value, bound) in least.items():
        if operator.index(value) < bound:
            raise ValueError(f"`{name}` must be at least {bound}. Received: {name}={value}")
    if not 0 <= operator.index(seed) < 2**64:
        raise ValueError(f"`seed` must be from 0 to 2**64 - 1. Received: seed={seed}")
    if pack and max_len is None:
        raise ValueError("`pack` needs `max_len`, the length of every row: 128, say. Received: max_len=None")
    if pack and buckets is not None:
        raise ValueError("`pack` and `buckets` are two ways to save padding. Pass only one of them.")
    return LabelledGenerator(
        sentences, pad_id, batch_size, max_len, length_multiple, shuffle, seed, wrap, pack, buckets
    )


def _size(sentence: Sentence, number: int, max_len: int | None) -> int:
    if not isinstance(sentence, Sentence):
        raise TypeError(f"`sentences[{number}]` must be a Sentence. Received: {type(sentence).__name__}")
    sizes = {
        "tokens": len(sentence.tokens),
        "segments": len(sentence.segments),
        "padding_mask": len(sentence.padding_mask),
    }
    if len({*sizes.values()}) != 1:
        raise ValueError(f"`sentences[{number}]`: its parts must be of one length. Received: {sizes}")
    size = sizes["tokens"]
    if max_len is not None and size > max_len:
        raise ValueError(
            f"`sentences[{number}]` has {size} tokens, but `max_len` is {max_len}. Cut it "
            "(sentence_from_text and "
            "sentence_from_words take `max_len`), or raise `max_len`."
        )
    return size
