"""`predict`: from raw texts to the user's own labels, words and spans."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import Any, NamedTuple

import keras
import numpy as np
from tqdm import tqdm

from bert_keras.data.rows import (
    BATCHES_AT_ONCE,
    LONG_TEXTS,
    Row,
    Spans,
    Text,
    as_batch,
    by_length,
    check_texts,
    text_pieces,
    windows,
    word_pieces,
    words_of,
)
from bert_keras.tasks import IS_NEXT_TASK, LM_TASK, TaskMetadata
from bert_keras.text import TextEncoder, split_words
from bert_keras.training.checks import EncoderFacts, encoder_facts
from bert_keras.training.feed import training_arrays
from bert_keras.training.model import MultiTaskModel

_COMPILED_MULTIPLE = 16  # lengths are rounded up to it where each one is compiled anew


class LabelPrediction(NamedTuple):
    """A class, and how probable the model holds it to be."""

    label: str | int
    probability: float


class WordPrediction(NamedTuple):
    """What is told of one word.

    Attributes:
        word: as it is in the text.
        start, end: its characters in the text, `text[start:end]`; None for texts given as words.
        label: name or number of the class; of a multi-label task a tuple of them; in a regression a float,
            or a tuple if there are several.
        probability: of the label; None where there is none for it.
    """

    word: str
    start: int | None
    end: int | None
    label: Any
    probability: float | None


class SpanPrediction(NamedTuple):
    """An answer found in a text.

    Attributes:
        text: the answer as it is in the text (of a pair: in the second), or None if there is no answer.
        start, end: its characters, or None.
        probability: that this is first and last token, within its window.
    """

    text: str | None
    start: int | None
    end: int | None
    probability: float


def predict(
    model: MultiTaskModel,
    text_encoder: TextEncoder,
    texts: Iterable[Text],
    *,
    tasks: Iterable[str] | None = None,
    batch_size: int = 32,
    max_len: int | None = None,
    long_texts: str = "windows",
    stride: int = 32,
    threshold: float = 0.5,
    max_answer_len: int = 30,
    word_splitter: Callable[[str], Spans] = split_words,
    verbose: int = 1,
) -> Iterator[dict[str, Any]]:
    """Predict labels of raw texts.

    Texts are read and results given as they come, in order: memory does not grow with their number. Within
    some thousand texts, those of like length share a batch, so that little is computed for padding.

    Args:
        model: of `train_model` or `load_model`.
        text_encoder: the one that the model was trained with.
        texts: each a string, a pair (tuple) of strings, or a list of words.
        tasks: names of the tasks to predict; by default all but `lm` and `is_next`.
        batch_size: rows of a batch.
        max_len: tokens of a row; by default the encoder's `max_len`, at most 512.
        long_texts: what is done with longer texts: `"windows"` (several rows that overlap; a sentence-level
            task takes the mean of their logits, a word the row in which it is farthest from an edge, an
            answer the best one), `"cut_end"` or `"cut_start"` (what is cut off is not read; its words get
            the label None).
        stride: tokens that neighbouring windows share.
        threshold: probability from which on a class of a multi-label task counts.
        max_answer_len: tokens of the longest answer.
        word_splitter: from a text to the characters (start, end) of its words, for token-level tasks.
        verbose: 1 shows a progress bar on a terminal; 0 does not.

    Yields:
        For each text a dictionary by task name: `LabelPrediction` (classification), list of them, most
        probable first (multi-label), float or array (regression), `SpanPrediction`, or, for a token-level
        task, a list of one `WordPrediction` for each word. Labels are the task's `labels` where it has them,
        else numbers.

    Raises:
        ValueError: if the model has no such task, or an argument is out of its range.
        TypeError: if something is no text.

    Example:

    ```python
    for result in predict(model, text_encoder, ["A fine film.", "Dull."]):
        print(result["sentiment"].label)
    ```
    """
    chosen = _chosen_tasks(model, tasks)
    facts, max_len = reading_limits(model.encoder, text_encoder, batch_size, max_len, least=8)
    if long_texts not in LONG_TEXTS:
        raise ValueError(f"`long_texts` must be one of {list(LONG_TEXTS)}. Received: {long_texts!r}")
    if stride < 0:
        raise ValueError(f"`stride` must be at least 0. Received: stride={stride}")
    if isinstance(texts, str):
        raise TypeError(f"`texts` must be an iterable of texts: give [text]. Received: {texts!r:.200}")
    by_text = [task for task in chosen if not task.is_token_level]
    by_word = [task for task in chosen if task.is_token_level]
    join = _Joiner(threshold, max_answer_len)
    run = _Runner(model, text_encoder, batch_size, max_len, long_texts, stride, facts.is_causal)
    return _results(texts, by_text, by_word, run, join, word_splitter, batch_size * BATCHES_AT_ONCE, verbose)


def _results(
    texts: Iterable[Text],
    by_text: list[TaskMetadata],
    by_word: list[TaskMetadata],
    run: _Runner,
    join: _Joiner,
    word_splitter: Callable[[str], Spans],
    chunk_size: int,
    verbose: int,
) -> Iterator[dict[str, Any]]:
    source = iter(texts)
    total = len(texts) if isinstance(texts, Sized) else None
    with tqdm(total=total, unit=" texts", disable=None if verbose else True) as bar:
        while chunk := list(itertools.islice(source, chunk_size)):
            check_texts(chunk)
            results: list[dict[str, Any]] = [{} for _ in chunk]
            if by_text:
                whole = [" ".join(text) if isinstance(text, list) else text for text in chunk]
                for task, logits in run.on_texts(whole, by_text):
                    for number, found in enumerate(logits):
                        text = whole[number]
                        results[number][task.name] = join.of_text(
                            task, found, text if isinstance(text, str) else text[1]
                        )
            if by_word:
                split = [words_of(text, word_splitter) for text in chunk]
                for task, logits in run.on_words([words for words, _ in split], by_word):
                    for number, found in enumerate(logits):
                        results[number][task.name] = join.of_words(task, found, *split[number])
            for result in results:
                yield result
                bar.update(1)


class _Runner:
    """Runs the model on texts: rows of like length together, the logits back in the order of the texts."""

    def __init__(
        self,
        model: MultiTaskModel,
        text_encoder: TextEncoder,
        batch_size: int,
        max_len: int,
        long_texts: str,
        stride: int,
        reads_last: bool,
    ) -> None:
        self.model, self.text_encoder, self.batch_size = model, text_encoder, batch_size
        self.max_len, self.long_texts, self.stride, self.reads_last = max_len, long_texts, stride, reads_last

    def on_texts(self, texts: Sequence[Any], tasks: list[TaskMetadata]) -> list[tuple[TaskMetadata, Any]]:
        """Return for each task and text the rows of it and their logits."""
        wants_offsets = any(task.kind == "span" for task in tasks)
        pieces = text_pieces(self.text_encoder, texts, self.max_len, wants_offsets)
        return self._run(pieces, tasks)

    def on_words(self, words: list[list[str]], tasks: list[TaskMetadata]) -> list[tuple[TaskMetadata, Any]]:
        """Return for each task and list of words the rows of it and the logits at first pieces."""
        return self._run(list(word_pieces(self.text_encoder, words)), tasks)

    def _run(self, pieces: list[Any], tasks: list[TaskMetadata]) -> list[tuple[TaskMetadata, Any]]:
        cut = (self.text_encoder.eos_id, self.max_len, self.stride, self.long_texts)
        rows = [row for item, some in enumerate(pieces) for row in windows(item, some, *cut)]
        found: dict[str, list[list[tuple[Row, np.ndarray]]]] = {
            task.name: [[] for _ in pieces] for task in tasks
        }

        def run(some: list[Row]) -> Iterator[tuple[np.ndarray, ...]]:
            length = row_length(self.model, some, self.max_len)
            pad_id = self.text_encoder.pad_id
            batch = as_batch(some, tasks, self.batch_size, pad_id, length, self.reads_last)
            x, _ = training_arrays(batch, tasks, [1.0] * len(tasks))
            logits = self.model.predict_on_batch(x)
            by_task = [_dealt(task, some, np.asarray(logits[task.name], "float32")) for task in tasks]
            return zip(*by_task, strict=True)

        results = by_length(rows, lambda row: len(row.tokens), run, self.batch_size)
        for row, logits in zip(rows, results, strict=True):
            for task, own in zip(tasks, logits, strict=True):
                found[task.name][row.item].append((row, own))
        return [(task, found[task.name]) for task in tasks]


def _dealt(task: TaskMetadata, rows: list[Row], logits: np.ndarray) -> list[np.ndarray]:
    """Return the logits of each row: one vector, or one for each word that begins in it."""
    if not task.is_token_level:
        return list(logits[: len(rows)])
    ends = np.cumsum([len(row.first_pieces()) for row in rows])
    return np.split(logits[: ends[-1]], ends[:-1])


def row_length(model: keras.Model, rows: Sequence[Row], max_len: int) -> int:
    """Return the length of the longest row, rounded up where each length is compiled anew."""
    is_compiled = keras.backend.backend() == "jax" or bool(getattr(model, "jit_compile", False))
    multiple = _COMPILED_MULTIPLE if is_compiled else 1
    longest = max(len(row.tokens) for row in rows)
    return min(-(-longest // multiple) * multiple, max_len)


def reading_limits(
    encoder: keras.Model, text_encoder: TextEncoder, batch_size: int, max_len: int | None, least: int = 3
) -> tuple[EncoderFacts, int]:
    """Return what is known of an encoder that is to read texts, and the most tokens of a row.

    Args:
        encoder: the encoder.
        text_encoder: the one that belongs to it.
        batch_size: rows of a batch, to be checked.
        max_len: tokens of a row; None for the encoder's `max_len`, at most 512.
        least: tokens that a row must have at least.

    Raises:
        ValueError: if an argument is out of its range, or the text encoder has more ids than the encoder.
    """
    facts = encoder_facts(encoder)
    chosen = min(facts.max_len or 512, 512) if max_len is None else max_len
    is_too_long = facts.max_len is not None and chosen > facts.max_len and not facts.takes_any_length
    if chosen < least or is_too_long:
        raise ValueError(
            f"`max_len` must be from {least} to the encoder's {facts.max_len}. Received: {max_len}"
        )
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1. Received: batch_size={batch_size}")
    if facts.vocab_size is not None and text_encoder.vocab_size > facts.vocab_size:
        raise ValueError(
            f"`text_encoder` has {text_encoder.vocab_size} ids, but the encoder {facts.vocab_size}: they do "
            "not belong together."
        )
    return facts, chosen


class _Joiner:
    """Makes results of the logits of a text's rows."""

    def __init__(self, threshold: float, max_answer_len: int) -> None:
        self.threshold, self.max_answer_len = threshold, max_answer_len

    def of_text(self, task: TaskMetadata, found: list[tuple[Row, np.ndarray]], text: str) -> Any:
        if task.kind == "span":
            return self._span(found, text)
        logits = np.mean([logits for _, logits in found], axis=0)
        if task.kind == "regression":
            return float(logits[0]) if task.num_classes == 1 else logits
        if task.kind == "multi_label":
            return self._set(task, logits)
        label, probability = _best(task, logits)
        return LabelPrediction(label, probability)

    def of_words(
        self, task: TaskMetadata, found: list[tuple[Row, np.ndarray]], words: list[str], spans: Spans | None
    ) -> list[WordPrediction]:
        chosen: dict[int, tuple[int, np.ndarray]] = {}
        for row, logits in found:
            for (column, number), values in zip(row.first_pieces(), logits, strict=True):
                margin = row.margin(column)
                if number not in chosen or margin > chosen[number][0]:
                    chosen[number] = margin, values
        predictions = []
        for number, word in enumerate(words):
            start, end = (None, None) if spans is None else spans[number]
            label, probability = self._of_word(task, chosen[number][1]) if number in chosen else (None, None)
            predictions.append(WordPrediction(word, start, end, label, probability))
        return predictions

    def _of_word(self, task: TaskMetadata, logits: np.ndarray) -> tuple[Any, float | None]:
        if task.kind == "classification":
            return _best(task, logits)
        if task.kind == "multi_label":
            return tuple(label for label, _ in self._set(task, logits)), None
        return (float(logits[0]) if task.num_classes == 1 else tuple(logits.tolist())), None

    def _set(self, task: TaskMetadata, logits: np.ndarray) -> list[LabelPrediction]:
        probabilities = 1.0 / (1.0 + np.exp(-np.clip(logits, -80, 80)))
        classes = np.flatnonzero(probabilities >= self.threshold)
        order = classes[np.argsort(-probabilities[classes], kind="stable")]
        return [LabelPrediction(_name(task, c), float(probabilities[c])) for c in order]

    def _span(self, found: list[tuple[Row, np.ndarray]], text: str) -> SpanPrediction:
        """Take the best answer of all windows, unless the least score of "no answer" is higher, as in Devlin
        et al. 2018, section 4.3."""
        best: tuple[float, float, int, int] = (-np.inf, 0.0, 0, 0)
        no_answer = (np.inf, 0.0)
        for row, scores in found:
            log = scores - np.logaddexp.reduce(scores, axis=0, keepdims=True)
            none = float(scores[0].sum())
            if none < no_answer[0]:
                no_answer = none, float(np.exp(log[0].sum()))
            head, size = len(row.pieces.head), row.num_pieces
            if size == 0:
                continue
            own = scores[head : head + size]
            sums = own[:, None, 0] + own[None, :, 1]
            distance = np.arange(size)[None] - np.arange(size)[:, None]
            sums[(distance < 0) | (distance >= self.max_answer_len)] = -np.inf
            first, last = np.unravel_index(sums.argmax(), sums.shape)
            if sums[first, last] > best[0]:
                offsets = row.pieces.offsets or []
                start, end = offsets[row.start + int(first)][0], offsets[row.start + int(last)][1]
                probability = float(np.exp(log[head + first, 0] + log[head + last, 1]))
                best = float(sums[first, last]), probability, start, end
        score, probability, start, end = best
        if score <= no_answer[0]:
            return SpanPrediction(None, None, None, no_answer[1])
        return SpanPrediction(text[start:end], start, end, probability)


def _best(task: TaskMetadata, logits: np.ndarray) -> tuple[str | int, float]:
    best = int(logits.argmax())
    return _name(task, best), float(np.exp(logits[best] - np.logaddexp.reduce(logits)))


def _name(task: TaskMetadata, number: int) -> str | int:
    return int(number) if task.labels is None else task.labels[number]


def _chosen_tasks(model: MultiTaskModel, names: Iterable[str] | None) -> list[TaskMetadata]:
    own = {task.name: task for task in model.tasks}
    if names is None:
        names = [name for name in own if name not in (LM_TASK, IS_NEXT_TASK)]
    names = [names] if isinstance(names, str) else list(names)
    wrong = [name for name in names if name not in own or name == LM_TASK]
    if wrong or not names:
        raise ValueError(
            f"`tasks` must be among the model's tasks without 'lm': {[n for n in own if n != LM_TASK]}. "
            f"Received: {names}"
        )
    return [own[name] for name in names]
