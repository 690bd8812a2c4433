"""From raw texts to rows, in windows where they are long, with the way back to words and characters."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

from bert_keras.data.sentence import SentenceBatch, TaskDataBatch
from bert_keras.tasks import TaskMetadata
from bert_keras.text import TextEncoder

# A text, a pair of texts, or the words of a text.
Text: TypeAlias = "str | tuple[str, str] | list[str]"
Spans: TypeAlias = "list[tuple[int, int]]"

LONG_TEXTS = ("windows", "cut_end", "cut_start")
BATCHES_AT_ONCE = 64  # batches whose texts are held in memory and sorted by length

Result = TypeVar("Result")


class Pieces(NamedTuple):
    """A text as ids, and what each stands for.

    Attributes:
        head: ids that every window begins with: bos, and in a pair the first text and del.
        ids: the ids that windows are cut from.
        word_of: for each of `ids` the number of its word, or None if words are not wanted.
        offsets: for each of `ids` its characters, or None if they are not wanted.
    """

    head: list[int]
    ids: list[int]
    word_of: list[int] | None
    offsets: Spans | None


class Row(NamedTuple):
    """One window of one text.

    Attributes:
        item: number of the text.
        pieces: the whole text.
        tokens: `head`, some of the ids, eos.
        start: which of the ids is the first in the window.
    """

    item: int
    pieces: Pieces
    tokens: list[int]
    start: int

    @property
    def num_pieces(self) -> int:
        """How many of the text's ids are in the window."""
        return len(self.tokens) - len(self.pieces.head) - 1

    def first_pieces(self) -> list[tuple[int, int]]:
        """Return column and number of every word that begins in the window; none where words are unknown."""
        words, first = self.pieces.word_of, len(self.pieces.head) - self.start
        if words is None:
            return []
        return [
            (first + i, words[i])
            for i in range(self.start, self.start + self.num_pieces)
            if i == 0 or words[i] != words[i - 1]
        ]

    def margin(self, column: int) -> int:
        """Return how many of the text's ids are between a column and the nearer edge that is no end of the
        text."""
        i = column - len(self.pieces.head)
        before = i if self.start else len(self.pieces.ids)
        is_last = self.start + self.num_pieces == len(self.pieces.ids)
        return min(before, len(self.pieces.ids) if is_last else self.num_pieces - 1 - i)


def text_pieces(
    text_encoder: TextEncoder, texts: Sequence[Text], max_len: int, wants_offsets: bool
) -> list[Pieces]:
    """Encode texts and pairs as in training: `[bos] A [eos]` or `[bos] A [del] B [eos]`; of a pair A is cut
    to half of the room."""
    first = [text if isinstance(text, str) else text[0] for text in texts]
    ids, offsets = _encoded(text_encoder, first, wants_offsets)
    second = [text[1] for text in texts if not isinstance(text, str)]
    second_ids, second_offsets = _encoded(text_encoder, second, wants_offsets)
    pieces, pair = [], 0
    for number, text in enumerate(texts):
        if isinstance(text, str):
            spans = offsets[number] if wants_offsets else None
            pieces.append(Pieces([text_encoder.bos_id], ids[number], None, spans))
            continue
        room = max(max_len - 3 - len(second_ids[pair]), (max_len - 3) // 2)
        head = [text_encoder.bos_id, *ids[number][:room], text_encoder.del_id]
        spans = second_offsets[pair] if wants_offsets else None
        pieces.append(Pieces(head, second_ids[pair], None, spans))
        pair += 1
    return pieces


def word_pieces(text_encoder: TextEncoder, words: Iterable[Sequence[str]]) -> Iterator[Pieces]:
    """Encode lists of words."""
    for some in words:
        ids, word_of = text_encoder.encode_words(some)
        yield Pieces([text_encoder.bos_id], list(ids), list(word_of), None)


def windows(
    item: int, pieces: Pieces, eos_id: int, max_len: int, stride: int, long_texts: str
) -> Iterator[Row]:
    """Cut a text into rows of at most `max_len` tokens; neighbours share `stride` of the text's ids."""
    room, size = max_len - len(pieces.head) - 1, len(pieces.ids)
    step = max(1, room - stride)
    starts = range(0, max(1, size - min(stride, room - 1)), step)
    if long_texts != "windows" or size <= room:
        starts = (
            range(max(0, size - room), max(0, size - room) + 1) if long_texts == "cut_start" else range(1)
        )
    for start in starts:
        tokens = [*pieces.head, *pieces.ids[start : start + room], eos_id]
        yield Row(item, pieces, tokens, start)


def as_batch(
    rows: Sequence[Row],
    tasks: Sequence[TaskMetadata],
    batch_size: int,
    pad_id: int,
    length: int,
    reads_last: bool,
) -> SentenceBatch:
    """Put rows in a batch whose labels are only places: where each task is to be predicted.

    Args:
        rows: at most `batch_size`; empty ones are added.
        tasks: the tasks.
        batch_size: rows of the batch.
        pad_id: of the text encoder.
        length: of the rows.
        reads_last: whether sentences are read from their last token.
    """
    tokens = np.full((batch_size, length), pad_id, "int32")
    segments = np.zeros_like(tokens)
    padding_mask = np.zeros(tokens.shape, bool)
    is_first = np.zeros(tokens.shape, bool)
    index = np.full(batch_size, -1, "int32")
    for number, row in enumerate(rows):
        size, head = len(row.tokens), len(row.pieces.head)
        tokens[number, :size], padding_mask[number, :size] = row.tokens, True
        segments[number, head:size] = head > 1
        index[number] = size - 1 if reads_last else 0
        if row.pieces.word_of is not None:
            is_first[number, [column for column, _ in row.first_pieces()]] = True
    batch = SentenceBatch(tokens, segments, padding_mask)
    for task in tasks:
        target = np.zeros_like(tokens) if task.is_token_level else np.zeros_like(index)
        if task.kind in ("multi_label", "span"):
            target = np.full((*target.shape, 2 if task.kind == "span" else 1), -1, "int32")
        labels = batch.token_classification if task.is_token_level else batch.sentence_classification
        labels[task.name] = TaskDataBatch(target, is_first if task.is_token_level else index)
    return batch


def by_length(
    items: Iterable[Any],
    length_of: Callable[[Any], int],
    run: Callable[[list[Any]], Iterable[Result]],
    batch_size: int,
) -> Iterator[Result]:
    """Run batches of like length and give the results in the order of the items, in bounded memory.

    Args:
        items: a stream.
        length_of: of an item.
        run: from at most `batch_size` items, the longest first, to their results.
        batch_size: items of a batch.
    """
    source = iter(items)
    while chunk := list(itertools.islice(source, batch_size * BATCHES_AT_ONCE)):
        order = sorted(range(len(chunk)), key=lambda number: -length_of(chunk[number]))
        results: dict[int, Result] = {}
        for start in range(0, len(order), batch_size):
            some = order[start : start + batch_size]
            results.update(zip(some, run([chunk[number] for number in some]), strict=True))
        for number in range(len(chunk)):
            yield results.pop(number)


def words_of(text: Text, split_words: Callable[[str], Spans]) -> tuple[list[str], Spans | None]:
    """Return the words of a text and where they are in it; of a list of words nothing is known of that."""
    if isinstance(text, list):
        return text, None
    if not isinstance(text, str):
        raise ValueError(
            f"Token-level tasks are predicted on single texts or lists of words. Received a pair: {text!r}"
        )
    spans = split_words(text)
    return [text[start:end] for start, end in spans], spans


def check_texts(texts: Sequence[Any]) -> None:
    """Raise TypeError if something is no text."""
    for text in texts:
        is_pair = isinstance(text, tuple) and len(text) == 2
        if isinstance(text, str):
            continue
        if not (is_pair or isinstance(text, list)) or not all(isinstance(part, str) for part in text):
            raise TypeError(
                "Each text must be a string, a pair (tuple) of strings, or a list of words. "
                f"Received: {text!r:.200}"
            )


def _encoded(
    text_encoder: TextEncoder, texts: Sequence[str], wants_offsets: bool
) -> tuple[list[list[int]], list[Spans]]:
    if not wants_offsets:
        return text_encoder.encode_batch(texts), []
    both = text_encoder.encode_batch_with_offsets(texts)
    return [ids for ids, _ in both], [spans for _, spans in both]
