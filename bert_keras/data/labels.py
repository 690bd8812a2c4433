"""Checking the labels of examples, and collecting them in arrays."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from bert_keras.data.sentence import SentenceTaskData, TaskDataBatch, TokenTaskData

_INT32 = np.iinfo(np.int32)


def token_labels(name: str, data: TokenTaskData, size: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of one example for a token-level task: `(size,)` int32 and `(size,)` bool.

    Raises:
        ValueError: if there is not one for each of the `size` tokens, or they are no integers and bools.
    """
    target, mask = np.asarray(data.target), np.asarray(data.target_mask)
    if target.shape != (size,) or mask.shape != (size,):
        raise ValueError(
            f"{where}: task {name!r} must have a target and a mask for each of the {size} tokens. "
            f"Received: shapes {target.shape} and {mask.shape}"
        )
    if size and target.dtype.kind not in "iu":
        raise ValueError(
            f"{where}: the targets of task {name!r} must be integers. Received: {_shown(data.target)}"
        )
    if size and (mask.dtype.kind not in "biu" or not np.isin(mask, (0, 1)).all()):
        raise ValueError(
            f"{where}: the mask of task {name!r} must hold bools. Received: {_shown(data.target_mask)}"
        )
    mask = mask.astype(bool)
    labelled = target[mask]
    if labelled.size and not 0 <= labelled.min() <= labelled.max() <= _INT32.max:
        raise ValueError(
            f"{where}: the classes of task {name!r} must be 0 or more. Received: {labelled.min()}"
        )
    return np.where(mask, target, 0).astype(np.int32), mask


def sentence_label(name: str, data: SentenceTaskData, size: int, where: str) -> tuple[int, int]:
    """Return class and position of one example of `size` tokens for a sentence-level task.

    Raises:
        ValueError: if they are no integers, or the position is not in the example (-1: no label).
    """
    target, index = data
    for value in (target, index):
        if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
            raise ValueError(
                f"{where}: task {name!r} must have an integer class and position. Received: "
                f"{_shown(tuple(data))}"
            )
    if not -1 <= index < size:
        raise ValueError(
            f"{where}: the class of task {name!r} is read from position {index}, but there are {size} "
            "tokens (-1: no label)."
        )
    if index >= 0 and not 0 <= target <= _INT32.max:
        raise ValueError(f"{where}: the class of task {name!r} must be 0 or more. Received: {target}")
    return (int(target), int(index)) if index >= 0 else (0, -1)


def collate_labels(
    labels: Sequence[Any], sizes: Sequence[int], length: int, taken: Collection[str], where: str
) -> tuple[dict[str, TaskDataBatch], dict[str, TaskDataBatch]]:
    """Collect what a function said of each example of a batch.

    Args:
        labels: for each example a mapping from task name to `TokenTaskData` or `SentenceTaskData`.
        sizes: number of tokens of each example.
        length: of the rows.
        taken: task names that may not be used.
        where: what to call the function in messages.

    Returns:
        Token-level and sentence-level tasks; examples without a label are masked out.

    Raises:
        ValueError: naming what is wrong with which label.
        TypeError: if something is of another type.
    """
    rows = len(labels)
    token_level: dict[str, TaskDataBatch] = {}
    sentence_level: dict[str, TaskDataBatch] = {}
    for row, (mapping, size) in enumerate(zip(labels, sizes, strict=True)):
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
            if is_token_level(name, data, where):
                if name not in token_level:
                    token_level[name] = TaskDataBatch(
                        np.zeros((rows, length), np.int32), np.zeros((rows, length), bool)
                    )
                for array, values in zip(
                    token_level[name], token_labels(name, data, size, where), strict=True
                ):
                    array[row, :size] = values
            else:
                if name not in sentence_level:
                    sentence_level[name] = TaskDataBatch(
                        np.zeros(rows, np.int32), np.full(rows, -1, np.int32)
                    )
                for array, value in zip(
                    sentence_level[name], sentence_label(name, data, size, where), strict=True
                ):
                    array[row] = value
    check_levels(token_level, sentence_level, where)
    return token_level, sentence_level


def is_token_level(name: Any, data: Any, where: str) -> bool:
    """Return which of the two kinds of labels this is; TypeError if neither, or `name` is no string."""
    if not isinstance(name, str):
        raise TypeError(f"{where}: task names must be strings. Received: {_shown(name)}")
    if not isinstance(data, TokenTaskData | SentenceTaskData):
        raise TypeError(
            f"{where}: task {name!r} must have TokenTaskData or SentenceTaskData. Received: {_shown(data)}"
        )
    return isinstance(data, TokenTaskData)


def check_levels(token_level: Collection[str], sentence_level: Collection[str], where: str) -> None:
    """Raise ValueError if a task is both token-level and sentence-level."""
    both = sorted({*token_level} & {*sentence_level})
    if both:
        raise ValueError(f"{where}: a task is either token-level or sentence-level. Received as both: {both}")


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text[:80]}{'...' if len(text) > 80 else ''} ({type(value).__name__})"
