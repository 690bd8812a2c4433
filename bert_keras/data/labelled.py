"""Labelled texts to examples."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from bert_keras.data.sentence import Sentence, SentenceTaskData, TokenTaskData
from bert_keras.text import TextEncoder

# A class, a number, or several of either.
Label: TypeAlias = "int | float | Sequence[int] | Sequence[float]"

_NO_LABELS: Mapping[str, Label] = MappingProxyType({})
_NO_TOKEN_LABELS: Mapping[str, Sequence[Label | None]] = MappingProxyType({})


def sentence_from_text(
    text_encoder: TextEncoder,
    text: str,
    second_text: str | None = None,
    *,
    sentence_labels: Mapping[str, Label] = _NO_LABELS,
    max_len: int = 512,
    read_from: str = "first",
) -> Sentence:
    """Make an example of a text or a pair of texts.

    Args:
        text_encoder: turns text into ids.
        text: A of `[bos] A [eos]`.
        second_text: B of `[bos] A [del] B [eos]`, if it is a pair.
        sentence_labels: by task name: a class; a tuple of classes, as many as apply (multi-label); or a float
            or a tuple of floats (regression). What is not named has no label.
        max_len: tokens of the example, special tokens included. What is longer is cut at its end, in a pair
            the longer text first.
        read_from: the token whose hidden state the classes are read from: `"first"` (bos) or, for causal
            encoders, `"last"` (eos).

    Returns:
        The example.

    Raises:
        ValueError: if `max_len` leaves no room for text, a label is neither a class from 0 up nor a number,
            or `read_from` is unknown.

    Example:

    ```python
    sentence_from_text(text_encoder, "A fine film.", sentence_labels={"sentiment": 1})
    sentence_from_text(text_encoder, "It rains.", "The street is wet.", sentence_labels={"entails": 1})
    ```
    """
    _check_max_len(max_len, 3 if second_text is None else 5)
    first = text_encoder.encode(text)
    if second_text is None:
        return _sentence(text_encoder, first[: max_len - 2], sentence_labels, {}, read_from)
    second = text_encoder.encode(second_text)
    room = max_len - 3
    first_size = min(len(first), max(room - len(second), (room + 1) // 2))
    first, second = first[:first_size], second[: room - first_size]
    tokens = [text_encoder.bos_id, *first, text_encoder.del_id, *second, text_encoder.eos_id]
    segments = [0] * (len(first) + 2) + [1] * (len(second) + 1)
    labels = _sentence_labels(sentence_labels, len(tokens), read_from)
    return Sentence(tokens, segments, [True] * len(tokens), {}, labels)


def sentence_from_words(
    text_encoder: TextEncoder,
    words: Sequence[str],
    *,
    token_labels: Mapping[str, Sequence[Label | None]] = _NO_TOKEN_LABELS,
    sentence_labels: Mapping[str, Label] = _NO_LABELS,
    max_len: int = 512,
    read_from: str = "first",
) -> Sentence:
    """Make an example of a text that is split into labelled words.

    Args:
        text_encoder: turns words into ids.
        words: the text. A word that comes to no ids loses its labels and leaves the others' where they
            belong.
        token_labels: for each task a label, or None, for each word; it is put on the first piece of the word.
            Labels are as in `sentence_labels`.
        sentence_labels: as in `sentence_from_text`.
        max_len: tokens of the example, special tokens included. What is longer is cut at its end.
        read_from: as in `sentence_from_text`.

    Returns:
        The example, `[bos] words [eos]`.

    Raises:
        ValueError: if labels and words differ in number, a label is neither a class from 0 up nor a number, a
            task is given both ways, or `max_len` leaves no room for text.

    Example:

    ```python
    sentence_from_words(text_encoder, ["She", "laughed"], token_labels={"pos": [3, 5]})
    ```
    """
    _check_max_len(max_len, 3)
    both = sorted({*token_labels} & {*sentence_labels})
    if both:
        raise ValueError(f"A task is either token-level or sentence-level. Received as both: {both}")
    ids, word_of = text_encoder.encode_words(words)
    ids = ids[: max_len - 2]
    is_first = [i == 0 or word_of[i] != word_of[i - 1] for i in range(len(ids))]
    tasks = {}
    for name, labels in token_labels.items():
        if len(labels) != len(words):
            raise ValueError(
                f"`token_labels`: task {name!r} must have a label for each of the {len(words)} words. "
                f"Received: {len(labels)}"
            )
        checked = [None if label is None else _checked_label(name, label) for label in labels]
        target: list[Any]
        target, mask = [0] * (len(ids) + 2), [False] * (len(ids) + 2)
        for i, first in enumerate(is_first):
            label = checked[word_of[i]]
            if first and label is not None:
                target[i + 1], mask[i + 1] = label, True
        tasks[name] = TokenTaskData(target, mask)
    return _sentence(text_encoder, ids, sentence_labels, tasks, read_from)


def _sentence(
    text_encoder: TextEncoder,
    ids: Sequence[int],
    sentence_labels: Mapping[str, Label],
    token_labels: dict[str, TokenTaskData],
    read_from: str,
) -> Sentence:
    tokens = [text_encoder.bos_id, *ids, text_encoder.eos_id]
    labels = _sentence_labels(sentence_labels, len(tokens), read_from)
    return Sentence(tokens, [0] * len(tokens), [True] * len(tokens), token_labels, labels)


def _sentence_labels(
    labels: Mapping[str, Label], num_tokens: int, read_from: str
) -> dict[str, SentenceTaskData]:
    if read_from not in ("first", "last"):
        raise ValueError(f"`read_from` must be 'first' or 'last'. Received: {read_from!r}")
    index = 0 if read_from == "first" else num_tokens - 1
    return {name: SentenceTaskData(_checked_label(name, label), index) for name, label in labels.items()}


def _checked_label(name: str, label: Label) -> Any:
    if isinstance(label, str | bytes | Mapping) or label is None:
        return _checked_number(name, label)
    if isinstance(label, Iterable):
        return tuple(_checked_number(name, part) for part in label)
    return _checked_number(name, label)


def _checked_number(name: str, label: Any) -> int | float:
    if isinstance(label, float | np.floating) and math.isfinite(label):
        return float(label)
    try:
        value = operator.index(label)
    except TypeError:
        value = -1
    if value < 0 or isinstance(label, bool):
        raise ValueError(
            f"The labels of task {name!r} must be integers from 0 up, as classes are, or floats, in a "
            f"regression. Received: {label!r} ({type(label).__name__}). Number the classes first."
        )
    return value


def _check_max_len(max_len: int, least: int) -> None:
    if operator.index(max_len) < least:
        raise ValueError(f"`max_len` must be at least {least}. Received: max_len={max_len}")
