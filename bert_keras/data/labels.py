"""Checking the labels of examples, and collecting them in arrays."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from bert_keras.data.layout import Layout
from bert_keras.data.sentence import SentenceTaskData, TaskDataBatch, TokenTaskData

_INT32 = np.iinfo(np.int32)
_SETS = (tuple, list, set, frozenset, np.ndarray)


class TaskLabels:
    """The labels of one task, collected example by example.

    Args:
        name: of the task.
        is_token_level: whether every token may have a label, or each example one.
        num_places: tokens or examples in all.
    """

    def __init__(self, name: str, is_token_level: bool, num_places: int) -> None:
        self.name, self.is_token_level, self._num_places = name, is_token_level, num_places
        self._mask = np.zeros(num_places, bool) if is_token_level else np.full(num_places, -1, np.int32)
        self._places: list[np.ndarray] = []
        self._values: list[Any] = []
        self._are_sets: bool | None = None
        self._are_floats = False

    def add(self, data: TokenTaskData | SentenceTaskData, place: int, size: int, where: str) -> None:
        """Add one example.

        Args:
            data: its labels.
            place: number of its first token, or of the example.
            size: number of its tokens.
            where: what to call it in messages.

        Raises:
            ValueError: if the labels are none, or of another form than those before.
        """
        if isinstance(data, TokenTaskData):
            places, values = self._token_labels(data, size, where)
            self._mask[place + places] = True
            places = place + places
        else:
            target, index = self._sentence_label(data, size, where)
            if index < 0:
                return
            self._mask[place] = index
            places, values = np.array([place]), [target]
        if len(values) == 0:
            return
        are_sets = isinstance(values[0], _SETS)
        if any(isinstance(value, _SETS) != are_sets for value in values) or self._are_sets is (not are_sets):
            raise ValueError(
                f"{where}: the labels of task {self.name!r} must all be single values, or all be tuples. "
                f"Received: {_shown(values)}"
            )
        self._are_sets = are_sets
        array = self._checked([number for value in values for number in value] if are_sets else values, where)
        self._are_floats |= array.dtype.kind == "f"
        self._places.append(places)
        self._values.append([tuple(value) for value in values] if are_sets else array)

    def collected(self, shape: tuple[int, ...] | None = None) -> TaskDataBatch:
        """Return all labels as arrays whose first axes are `shape`, by default the number of places."""
        shape = (self._num_places,) if shape is None else shape
        dtype = np.float32 if self._are_floats else np.int32
        places = np.concatenate(self._places) if self._places else np.zeros(0, np.int64)
        if self._are_sets:
            sets = [value for values in self._values for value in values]
            target = self._padded(places, sets, dtype)
            return TaskDataBatch(target.reshape(*shape, -1), self._mask.reshape(shape))
        target = np.zeros(self._num_places, dtype)
        if self._values:
            target[places] = np.concatenate(self._values)
        return TaskDataBatch(target.reshape(shape), self._mask.reshape(shape))

    def _padded(self, places: np.ndarray, sets: list[tuple], dtype: Any) -> np.ndarray:
        sizes = np.array([len(value) for value in sets])
        width = max(1, int(sizes.max()))
        if dtype == np.float32 and (sizes != width).any():
            raise ValueError(
                f"Task {self.name!r}: labels that are tuples of numbers must be equally long. Received: "
                f"lengths {sorted({*sizes.tolist()})}"
            )
        target = np.full((self._num_places, width), -1 if dtype == np.int32 else 0, dtype)
        flat = np.array([number for value in sets for number in value], dtype)
        rows = np.repeat(places, sizes)
        columns = np.arange(len(flat)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        target[rows, columns] = flat
        return target

    def _checked(self, numbers: Any, where: str) -> np.ndarray:
        """Return single values as int32 or float32."""
        array = np.asarray(numbers)
        if array.size == 0:
            return np.zeros(0, np.int32)
        if array.ndim != 1 or array.dtype.kind not in "iuf":
            raise ValueError(
                f"{where}: the labels of task {self.name!r} must be integers, or numbers in a regression. "
                f"Received: {_shown(numbers)}"
            )
        if array.dtype.kind == "f":
            if not np.isfinite(array).all():
                raise ValueError(
                    f"{where}: the labels of task {self.name!r} must be finite. Received: {_shown(numbers)}"
                )
            return array.astype(np.float32)
        if array.min() < 0 or array.max() > _INT32.max:
            raise ValueError(
                f"{where}: the classes of task {self.name!r} must be 0 or more. Received: {array.min()}"
            )
        return array.astype(np.int32)

    def _token_labels(self, data: TokenTaskData, size: int, where: str) -> tuple[np.ndarray, Any]:
        """Return the places that have labels, and these."""
        target, mask = data.target, np.asarray(data.target_mask)
        if len(target) != size or mask.shape != (size,):
            raise ValueError(
                f"{where}: task {self.name!r} must have a target and a mask for each of the {size} tokens. "
                f"Received: {len(target)} targets and a mask of shape {mask.shape}"
            )
        if size and (mask.dtype.kind not in "biu" or not np.isin(mask, (0, 1)).all()):
            raise ValueError(
                f"{where}: the mask of task {self.name!r} must hold bools. "
                f"Received: {_shown(data.target_mask)}"
            )
        places = np.flatnonzero(mask)
        if isinstance(target, np.ndarray):
            return places, list(target[places]) if target.ndim > 1 else target[places]
        return places, [target[place] for place in places.tolist()]

    def _sentence_label(self, data: SentenceTaskData, size: int, where: str) -> tuple[Any, int]:
        target, index = data
        if isinstance(index, bool | np.bool_) or not isinstance(index, int | np.integer):
            raise ValueError(
                f"{where}: task {self.name!r} must have an integer position. Received: {_shown(tuple(data))}"
            )
        if isinstance(target, bool | np.bool_) or not isinstance(target, (int, float, np.number, *_SETS)):
            raise ValueError(
                f"{where}: the label of task {self.name!r} must be an integer, a float, or a tuple of them. "
                f"Received: {_shown(tuple(data))}"
            )
        if not -1 <= index < size:
            raise ValueError(
                f"{where}: the label of task {self.name!r} is read from position {index}, but there are "
                f"{size} tokens (-1: no label)."
            )
        return target, int(index)


def collate_labels(
    labels: Sequence[Any],
    sizes: Sequence[int] | np.ndarray,
    layout: Layout,
    taken: Collection[str],
    where: str,
) -> tuple[dict[str, TaskDataBatch], dict[str, TaskDataBatch]]:
    """Collect what a function said of each example of a batch.

    Args:
        labels: for each example a mapping from task name to `TokenTaskData` or `SentenceTaskData`.
        sizes: number of tokens of each example.
        layout: where the examples lie.
        taken: task names that may not be used.
        where: what to call the function in messages.

    Returns:
        Token-level and sentence-level tasks; examples without a label are masked out.

    Raises:
        ValueError: naming what is wrong with which label.
        TypeError: if something is of another type.
    """
    num_tokens, num_labels = math.prod(layout.shape), math.prod(layout.label_shape)
    places = zip(labels, sizes, layout.begins.tolist(), layout.slots.tolist(), strict=True)
    tasks: dict[str, TaskLabels] = {}
    for mapping, size, begin, slot in places:
        if not isinstance(mapping, Mapping):
            raise TypeError(
                f"{where} must return a mapping from task name to labels. Received: {_shown(mapping)}"
            )
        for name, data in mapping.items():
            if name in taken:
                raise ValueError(
                    f"{where} labels the task {name!r}, which the generator labels itself. Choose another "
                    "name."
                )
            on_tokens = is_token_level(name, data, where)
            if name not in tasks:
                tasks[name] = TaskLabels(name, on_tokens, num_tokens if on_tokens else num_labels)
            check_level(tasks[name], on_tokens, where)
            tasks[name].add(data, begin if on_tokens else slot, int(size), where)
    token_level = {n: t.collected(layout.shape) for n, t in tasks.items() if t.is_token_level}
    return token_level, {n: t.collected(layout.label_shape) for n, t in tasks.items() if not t.is_token_level}


def is_token_level(name: Any, data: Any, where: str) -> bool:
    """Return which of the two kinds of labels this is; TypeError if neither, or `name` is no string."""
    if not isinstance(name, str):
        raise TypeError(f"{where}: task names must be strings. Received: {_shown(name)}")
    if not isinstance(data, TokenTaskData | SentenceTaskData):
        raise TypeError(
            f"{where}: task {name!r} must have TokenTaskData or SentenceTaskData. Received: {_shown(data)}"
        )
    return isinstance(data, TokenTaskData)


def check_level(task: TaskLabels, on_tokens: bool, where: str) -> None:
    """Raise ValueError if a task is both token-level and sentence-level."""
    if task.is_token_level != on_tokens:
        raise ValueError(
            f"{where}: a task is either token-level or sentence-level. Received as both: {[task.name]}"
        )


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text[:80]}{'...' if len(text) > 80 else ''} ({type(value).__name__})"
