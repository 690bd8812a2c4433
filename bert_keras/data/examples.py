"""Labelled examples to `Sentence`s: texts to ids, names of classes to numbers, answers to positions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bert_keras.data.example import Example, Faults, OnError, describe
from bert_keras.data.rows import LONG_TEXTS, Row, text_pieces, windows, word_pieces
from bert_keras.data.sentence import Sentence, SentenceTaskData, TokenTaskData
from bert_keras.tasks import TaskMetadata
from bert_keras.text import TextEncoder

_AT_ONCE = 2048  # examples that are encoded together


def label_names(examples: Iterable[Example], task: str) -> tuple[str, ...]:
    """Return all class names that occur for a task, sorted: what `TaskMetadata` takes as `labels`.

    Args:
        examples: all that the names are to be found in.
        task: name of the task.

    Raises:
        ValueError: if no example has a label for it, or labels are no names.

    Example:

    ```python
    examples = list(read_conll("train.tsv", labels={"pos": 1}))
    pos = TaskMetadata("pos", is_token_level=True, labels=label_names(examples, "pos"))
    ```
    """
    names: set[str] = set()
    for example in examples:
        label = example.labels.get(task)
        for part in label if isinstance(label, list | tuple) else [label]:
            for name in part if isinstance(part, list | tuple) else [part]:
                if isinstance(name, bool) or not isinstance(name, str | int | None):
                    raise ValueError(
                        f"{example.where}: labels of task {task!r} must be names of classes. "
                        f"Received: {describe(label)}"
                    )
                if name is not None:
                    names.add(str(name))
    if not names:
        raise ValueError(f"No example has a label for the task {task!r}.")
    return tuple(sorted(names))


def encode_examples(
    text_encoder: TextEncoder,
    examples: Iterable[Example],
    tasks: Iterable[TaskMetadata],
    *,
    max_len: int = 128,
    long_texts: str = "cut_end",
    stride: int = 32,
    read_from: str = "first",
    on_error: OnError = "raise",
) -> list[Sentence]:
    """Turn labelled examples into `Sentence`s, for `labelled_generator`.

    Class names become numbers by each task's `labels`; without them labels are numbers already. Labels of
    words go on the first piece of the word. Labels for tasks that are not given are left out.

    Args:
        text_encoder: turns text into ids.
        examples: of a reader, or made by hand.
        tasks: what is to be learned.
        max_len: tokens of a row, special tokens included.
        long_texts: what is done with longer texts: `"cut_end"` or `"cut_start"`; `"windows"`, several rows
            that overlap (each with the labels of the whole text; a word has its label in the window where it
            is farthest from the edges; windows without the answer have "no answer"); or `"refuse"`. Of a pair
            the second text is cut, the first to half of the room.
        stride: tokens that neighbouring windows share.
        read_from: the token that sentence-level labels name: `"first"` or, for causal encoders, `"last"`.
        on_error: `"raise"`, or `"skip"` examples with faults and warn how many.

    Returns:
        The sentences, in order.

    Raises:
        ValueError: naming file and line: an empty text, an unknown label, labels and words that differ in
            number, an answer that is not where it is said to be, a text that is too long if such are refused.

    Example:

    ```python
    examples = list(read_delimited("train.tsv", text=0, labels={"topic": 1}))
    topic = TaskMetadata("topic", is_token_level=False, labels=label_names(examples, "topic"))
    sentences = encode_examples(text_encoder, examples, [topic])
    generator = labelled_generator(sentences, pad_id=text_encoder.pad_id)
    ```
    """
    choices = (*LONG_TEXTS, "refuse")
    if long_texts not in choices:
        raise ValueError(f"`long_texts` must be one of {list(choices)}. Received: {long_texts!r}")
    if max_len < 8 or stride < 0:
        raise ValueError(
            f"`max_len` must be at least 8 and `stride` 0. Received: max_len={max_len}, stride={stride}"
        )
    if read_from not in ("first", "last"):
        raise ValueError(f"`read_from` must be 'first' or 'last'. Received: {read_from!r}")
    faults = Faults(on_error)
    numbers = {task.name: _Numbers(task) for task in tasks}
    source = iter(examples)
    sentences: list[Sentence] = []
    while chunk := list(itertools.islice(source, _AT_ONCE)):
        good = []
        for example in chunk:
            try:
                good.append((example, _numbered(example, numbers)))
            except ValueError as error:
                faults.add(str(error))
        for (example, labels), rows in zip(
            good,
            _rows_of(text_encoder, [e for e, _ in good], numbers, max_len, long_texts, stride),
            strict=True,
        ):
            if long_texts == "refuse" and len(rows[0].pieces.ids) > rows[0].num_pieces:
                size = len(rows[0].pieces.head) + len(rows[0].pieces.ids) + 1
                faults.add(f"{example.where}: the text has {size} tokens, more than max_len={max_len}.")
                continue
            sentences += _sentences(rows, labels, numbers, read_from == "last")
    faults.warn()
    return sentences


class _Numbers:
    """Turns labels of one task, as people wrote them, into classes and numbers."""

    def __init__(self, task: TaskMetadata) -> None:
        self.task = task
        self._of = {name: number for number, name in enumerate(task.labels or ())}

    def __call__(self, label: Any) -> Any:
        if self.task.kind == "regression":
            return self._number(label)
        if self.task.kind == "multi_label":
            parts = label if isinstance(label, list | tuple | set) else [label]
            return tuple(sorted({self._class(part) for part in parts}))
        return self._class(label)

    def _class(self, label: Any) -> int:
        if self._of:
            if str(label) in self._of:
                return self._of[str(label)]
            some = list(self._of)[:10]
            raise ValueError(
                f"the label {describe(label)} of task {self.task.name!r} is unknown. Known are "
                f"{some}{' and others' if len(self._of) > 10 else ''}."
            )
        if not str(label).strip().isdecimal() or int(label) >= self.task.num_classes:
            raise ValueError(
                f"the label {describe(label)} of task {self.task.name!r} is no class from 0 to "
                f"{self.task.num_classes - 1}. Give the task `labels` if its classes have names."
            )
        return int(label)

    def _number(self, label: Any) -> float | tuple[float, ...]:
        if isinstance(label, list | tuple):
            return tuple(float(self._number(part)) for part in label)  # type: ignore[arg-type]
        try:
            value = float(label)
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"the label {describe(label)} of task {self.task.name!r} is no number.")
        return value


def _numbered(example: Example, numbers: Mapping[str, _Numbers]) -> dict[str, Any]:
    """Return the labels as numbers; of a span the characters from first to last, or ().

    Raises:
        ValueError: naming what is wrong.
    """
    where, words = example.where, example.words
    if not any(word.strip() for word in words) if words is not None else not example.text.strip():
        raise ValueError(f"{where}: the text is empty.")
    if example.second_text is not None and not example.second_text.strip():
        raise ValueError(f"{where}: the second text is empty.")
    found: dict[str, Any] = {}
    for name, label in example.labels.items():
        if name not in numbers or label is None:
            continue
        task = numbers[name].task
        try:
            if task.kind == "span":
                found[name] = _answer(example, name, label)
            elif not task.is_token_level:
                found[name] = numbers[name](label)
            elif words is None or not isinstance(label, list | tuple) or len(label) != len(words):
                raise ValueError(
                    f"task {name!r} is token-level and needs `words` and a label for each of them. "
                    f"Received: {None if words is None else len(words)} words, labels {describe(label)}"
                )
            else:
                found[name] = [None if part is None else numbers[name](part) for part in label]
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    return found


def _answer(example: Example, name: str, answers: Sequence[tuple[int, str]]) -> tuple[int, ...]:
    context = example.text if example.second_text is None else example.second_text
    if example.words is not None:
        raise ValueError(f"task {name!r} is a span and needs a text, not words.")
    if not answers:
        return ()
    start, answer = answers[0]
    if not answer or context[start : start + len(answer)] != answer or start < 0:
        raise ValueError(
            f"the answer {describe(answer)} of task {name!r} is not at character {start} of the text, where "
            f"there is {describe(context[max(0, start) : max(0, start) + len(answer)])}."
        )
    return start, start + len(answer)


def _rows_of(
    text_encoder: TextEncoder,
    examples: Sequence[Example],
    numbers: Mapping[str, _Numbers],
    max_len: int,
    long_texts: str,
    stride: int,
) -> Iterator[list[Row]]:
    wants_offsets = any(each.task.kind == "span" for each in numbers.values())
    texts = [
        example.text if example.second_text is None else (example.text, example.second_text)
        for example in examples
        if example.words is None
    ]
    of_texts = iter(text_pieces(text_encoder, texts, max_len, wants_offsets))
    of_words = word_pieces(text_encoder, (e.words for e in examples if e.words is not None))
    for number, example in enumerate(examples):
        pieces = next(of_texts if example.words is None else of_words)
        yield list(windows(number, pieces, text_encoder.eos_id, max_len, stride, long_texts))


def _sentences(
    rows: Sequence[Row], labels: Mapping[str, Any], numbers: Mapping[str, _Numbers], reads_last: bool
) -> Iterator[Sentence]:
    best: dict[int, tuple[int, int]] = {}  # of each word: margin, and in which row
    for number, row in enumerate(rows):
        for column, word in row.first_pieces():
            best[word] = max(best.get(word, (-1, 0)), (row.margin(column), -number))
    for number, row in enumerate(rows):
        size, head = len(row.tokens), len(row.pieces.head)
        segments = [0] * head + [int(head > 1)] * (size - head)
        token_level, sentence_level = {}, {}
        for name, label in labels.items():
            task = numbers[name].task
            if task.kind == "span":
                sentence_level[name] = SentenceTaskData(_span(row, label), 0)
            elif not task.is_token_level:
                sentence_level[name] = SentenceTaskData(label, size - 1 if reads_last else 0)
            else:
                target: list[Any] = [() if task.kind == "multi_label" else 0] * size
                mask = [False] * size
                for column, word in row.first_pieces():
                    if label[word] is not None and -best[word][1] == number:
                        target[column], mask[column] = label[word], True
                token_level[name] = TokenTaskData(target, mask)
        yield Sentence(row.tokens, segments, [True] * size, token_level, sentence_level)


def _span(row: Row, characters: tuple[int, ...]) -> tuple[int, int]:
    """Return the columns of an answer's first and last token; (0, 0) if it is not whole in the row."""
    offsets = row.pieces.offsets or []
    if not characters:
        return 0, 0
    start, end = characters
    inside = [i for i, (a, b) in enumerate(offsets) if a < end and b > start]
    stop = row.start + row.num_pieces
    if not inside or inside[0] < row.start or inside[-1] >= stop:
        return 0, 0
    shift = len(row.pieces.head) - row.start
    return inside[0] + shift, inside[-1] + shift
