"""Several sources of batches as one: for tasks whose labels lie in different sets."""

from __future__ import annotations

import copy
import dataclasses
import operator
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from bert_keras.data.batch_source import BatchSource
from bert_keras.data.randomness import RandomStream, permuted
from bert_keras.data.sentence import SentenceBatch, TaskDataBatch

Shares: TypeAlias = "Mapping[str, float] | Callable[[int], Mapping[str, float]]"

_BLOCK = 1024  # steps whose draws are made at once


class _Form(NamedTuple):
    """How the labels of a task look.

    Attributes:
        is_token_level: whether there is one for every token.
        last_axis: length of a further axis, or None.
        dtype: of the targets.
    """

    is_token_level: bool
    last_axis: int | None
    dtype: np.dtype

    def empty(self, batch: SentenceBatch) -> TaskDataBatch:
        """Return labels for a batch that has none."""
        rows, length = batch.tokens.shape
        shape: tuple[int, ...] = (rows, length) if self.is_token_level else (rows,)
        if batch.is_packed and not self.is_token_level:
            shape = (rows, 1)
        mask = np.zeros(shape, bool) if self.is_token_level else np.full(shape, -1, np.int32)
        if self.last_axis is None:
            return TaskDataBatch(np.zeros(shape, self.dtype), mask)
        filling = -1 if self.dtype.kind == "i" else 0
        return TaskDataBatch(np.full((*shape, self.last_axis), filling, self.dtype), mask)


class MixedGenerator(BatchSource):
    """What `mixed_generator` returns: sized, indexable, iterable. See there.

    Attributes:
        sources: the sources by name.
        vocab_size: the largest of those that the sources tell, or None.
    """

    def __init__(self, sources: Mapping[str, Any], plan: _FixedPlan | _DrawnPlan, num_batches: int) -> None:
        self.sources = dict(sources)
        self._names, self._plan, self._num_batches = list(sources), plan, num_batches
        first = {name: source[0] for name, source in sources.items()}
        self._forms = _common_forms(first)
        self.batch_size = max(len(batch.tokens) for batch in first.values())
        self.num_examples = self.num_rows = self.batch_size * num_batches
        sizes = [getattr(source, "vocab_size", None) for source in sources.values()]
        self.vocab_size = max((size for size in sizes if size is not None), default=None)

    def __len__(self) -> int:
        return self._num_batches

    def source_of(self, index: int) -> tuple[str, int]:
        """Return which source batch `index` comes from, and its number there."""
        number, local = self._plan.place(index)
        return self._names[number], local

    def with_sources(self, sources: Mapping[str, Any]) -> MixedGenerator:
        """Return a generator that draws in the same order from other sources.

        Args:
            sources: by the same names, with labels of the same forms.

        Raises:
            ValueError: if the names are others.
        """
        if {*sources} != {*self.sources}:
            raise ValueError(f"`sources` must be {self._names}. Received: {list(sources)}")
        other = copy.copy(self)
        other.sources = dict(sources)
        return other

    def _batch(self, index: int) -> SentenceBatch:
        name, local = self.source_of(index)
        source = self.sources[name]
        try:
            batch = source[local]
        except IndexError:  # a list, say, which begins again
            batch = source[local % len(source)]
        token_level, sentence_level = dict(batch.token_classification), dict(batch.sentence_classification)
        for task, form in self._forms.items():
            labels = token_level if form.is_token_level else sentence_level
            if task not in labels:
                labels[task] = form.empty(batch)
        return dataclasses.replace(
            batch, token_classification=token_level, sentence_classification=sentence_level
        )


class _FixedPlan:
    """In every epoch each source gives a fixed number of batches, in an order of the epoch's own."""

    def __init__(self, counts: Sequence[int], seed: int) -> None:
        self._counts, self._seed = np.array(counts, np.int64), seed
        self._ends = np.cumsum(self._counts)

    def place(self, index: int) -> tuple[int, int]:
        epoch, step = divmod(index, int(self._ends[-1]))
        position = int(permuted(np.array([step]), int(self._ends[-1]), self._seed, np.array([epoch]))[0])
        source = int(np.searchsorted(self._ends, position, side="right"))
        count = int(self._counts[source])
        return source, epoch * count + position - int(self._ends[source] - count)


class _DrawnPlan:
    """Each step draws its source with probabilities that a function gives. The source goes on from where it
    was, so all earlier draws have to be known: they are kept, one byte each, with counts once a block."""

    def __init__(self, names: Sequence[str], shares: Callable[[int], Mapping[str, float]], seed: int) -> None:
        self._names, self._shares, self._seed = list(names), shares, seed
        self._drawn: list[np.ndarray] = []
        self._before = [np.zeros(len(names), np.int64)]
        self._lock = threading.Lock()

    def place(self, index: int) -> tuple[int, int]:
        block, step = divmod(index, _BLOCK)
        with self._lock:
            while len(self._drawn) <= block:
                self._extend()
            drawn, before = self._drawn[block], self._before[block]
        source = int(drawn[step])
        return source, int(before[source] + np.count_nonzero(drawn[:step] == source))

    def _extend(self) -> None:
        block = len(self._drawn)
        uniform = RandomStream(self._seed, block).uniform(1, _BLOCK)[0]
        drawn = np.empty(_BLOCK, np.uint8)
        for step in range(_BLOCK):
            shares = _checked_shares(self._shares(block * _BLOCK + step), self._names, "`shares(step)`")
            drawn[step] = np.searchsorted(np.cumsum(shares), uniform[step], side="right")
        self._drawn.append(drawn)
        self._before.append(self._before[-1] + np.bincount(drawn, minlength=len(self._names)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())


def mixed_generator(
    sources: Mapping[str, Any],
    *,
    shares: Shares | None = None,
    temperature: float = 1.0,
    num_batches: int | None = None,
    seed: int = 0,
) -> MixedGenerator:
    """Mix sources of batches: each batch comes whole from one of them.

    Every batch has an entry for every task of any source; where its source has no labels for a task, they are
    empty, and the task adds nothing to the loss of that step. Language modelling goes on during fine-tuning
    if an `lm_generator` is among the sources. Batch i depends on the sources, the arguments and i alone.
    (Examples that label different tasks can also share a batch: give them to one `labelled_generator`.)

    Batches of different sources may differ in rows and length; JAX compiles a step once for each shape.

    Args:
        sources: by name; each a generator of this library, or anything sized and indexable of
            `SentenceBatch`.
        shares: how often each source is drawn. By default in proportion to their lengths, so that an epoch
            takes each batch of each source once. A mapping from name to share: in an epoch each source gives
            its share of the batches, in random order, and in the next epoch goes on from there. A function
            from the step (from 0, over all epochs) to such a mapping: each step draws by chance. Shares need
            not add up to 1.
        temperature: shares are proportional to the length to the power of 1 / temperature: 1 for the default
            proportions, larger numbers for more even ones (multilingual BERT took 1 / 0.7).
        num_batches: length of an epoch; by default the sum of the sources' lengths.
        seed: another seed gives another order. From 0 to 2**64 - 1.

    Returns:
        A sized, indexable, iterable `MixedGenerator` of `SentenceBatch`.

    Raises:
        ValueError: if there is no source, one is empty, an argument is out of its range, or two sources label
            one task in different forms.

    Example:

    ```python
    text = lm_generator(text_encoder, corpus, batch_size=32, max_len=128)
    generator = mixed_generator({"reviews": reviews, "tagged": tagged, "text": text},
                                shares={"reviews": 1, "tagged": 1, "text": 2})
    model = train_model(encoder, [lm, is_next, sentiment, pos], finetune_generator=generator)
    ```
    """
    names = list(sources)
    lengths = {name: len(source) for name, source in sources.items()}
    if not 1 <= len(names) <= 255 or min(lengths.values()) < 1:
        raise ValueError(
            "`sources` must be 1 to 255, none of them empty. "
            f"Received: {len(names)} sources, lengths {lengths}"
        )
    if not 0.0 < temperature < float("inf") or (shares is not None and temperature != 1.0):
        raise ValueError(
            "`temperature` must be above 0, and 1 where `shares` are given. "
            f"Received: temperature={temperature}, shares={shares!r}"
        )
    if not 0 <= operator.index(seed) < 2**64:
        raise ValueError(f"`seed` must be from 0 to 2**64 - 1. Received: seed={seed}")
    total = sum(lengths.values()) if num_batches is None else operator.index(num_batches)
    if total < 1:
        raise ValueError(f"`num_batches` must be at least 1. Received: {num_batches}")
    if callable(shares):
        _checked_shares(shares(0), names, "`shares(0)`")
        return MixedGenerator(sources, _DrawnPlan(names, shares, seed), total)
    if shares is None:
        weights = np.array([float(lengths[name]) ** (1.0 / temperature) for name in names])
        portions = weights / weights.sum()
    else:
        portions = _checked_shares(shares, names, "`shares`")
    return MixedGenerator(sources, _FixedPlan(_whole_numbers(portions * total), seed), total)


def _whole_numbers(amounts: np.ndarray) -> list[int]:
    """Round so that the sum stays: the largest remainders are rounded up."""
    counts = np.floor(amounts + 1e-9).astype(np.int64)
    missing = round(float(amounts.sum())) - int(counts.sum())
    order = np.argsort(counts - amounts, kind="stable")
    counts[order[:missing]] += 1
    return [int(count) for count in counts]


def _checked_shares(shares: Mapping[str, float], names: Sequence[str], what: str) -> np.ndarray:
    """Return the shares in the order of the names, with the sum 1."""
    if not isinstance(shares, Mapping) or not {*shares} <= {*names}:
        raise ValueError(
            f"{what} must be a mapping from names among {list(names)} to numbers. Received: {shares!r}"
        )
    values = np.array([float(shares.get(name, 0.0)) for name in names])
    if not (np.isfinite(values).all() and (values >= 0).all() and values.sum() > 0):
        raise ValueError(f"{what} must be finite, at least 0, and not all 0. Received: {shares!r}")
    return values / values.sum()


def _common_forms(first: Mapping[str, SentenceBatch]) -> dict[str, _Form]:
    forms: dict[str, _Form] = {}
    found_in: dict[str, str] = {}
    for name, batch in first.items():
        if not isinstance(batch, SentenceBatch):
            raise TypeError(
                f"Batches of the source {name!r} must be SentenceBatch. Received: {type(batch).__name__}"
            )
        for labels, is_token_level in (
            (batch.token_classification, True),
            (batch.sentence_classification, False),
        ):
            for task, data in labels.items():
                target = np.asarray(data.target)
                has_more = target.ndim > (2 if is_token_level or batch.is_packed else 1)
                form = _Form(is_token_level, target.shape[-1] if has_more else None, target.dtype)
                other = forms.setdefault(task, form)
                found_in.setdefault(task, name)
                if _kind_of(form) != _kind_of(other):
                    raise ValueError(
                        f"The task {task!r} has labels of another form in the source {name!r} "
                        f"({_described(form)}) than in {found_in[task]!r} ({_described(other)}). Name the "
                        "tasks differently, or label them alike."
                    )
    return forms


def _kind_of(form: _Form) -> tuple[bool, bool, str]:
    return form.is_token_level, form.last_axis is not None, form.dtype.kind


def _described(form: _Form) -> str:
    level = "token-level" if form.is_token_level else "sentence-level"
    return f"{level}, {'several' if form.last_axis is not None else 'one'} of {form.dtype}"
