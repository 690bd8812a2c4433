"""Errors of Keras and its backends that say what, but not what to do: they get a note (PEP 678)."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable
from typing import Any

BACKENDS = ("tensorflow", "jax", "torch")

# Names and words by which the backends say that memory is full.
_FULL = ("ResourceExhaustedError", "OutOfMemoryError", "MemoryError", "RESOURCE_EXHAUSTED", "out of memory")


class advising(contextlib.AbstractContextManager):  # noqa: N801  # read as a word of `with`
    """Let errors pass through this context with a note added to those that `note_on` has one for.

    Args:
        note_on: from an error to what should be done, or None.
    """

    def __init__(self, note_on: Callable[[BaseException], str | None]) -> None:
        self.note_on = note_on

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        note = None if error is None else self.note_on(error)
        if error is not None and note is not None and note not in getattr(error, "__notes__", ()):
            error.add_note(note)


def on_backend(error: BaseException) -> str | None:
    """Return what to do where Keras' backend is not there."""
    is_unknown = isinstance(error, ValueError) and "Unable to import backend" in str(error)
    missing = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if missing not in BACKENDS and not is_unknown:
        return None
    installed = [name for name in BACKENDS if name != missing and importlib.util.find_spec(name)]
    wanted = missing if missing in BACKENDS else "tensorflow"
    there = f", or one that is installed: KERAS_BACKEND={installed[0]}" if installed else ""
    return (
        "The environment variable KERAS_BACKEND names Keras' backend: tensorflow (if it is not set), jax or "
        f"torch. Install it, pip install 'bert_keras[{wanted}]'{there}. Set it before Python starts."
    )


def on_full_memory(error: BaseException) -> str | None:
    """Return what to do where the memory is full."""
    said = f"{type(error).__name__} {error}"
    if not any(words in said for words in _FULL):
        return None
    return (
        "The memory is full. In this order: halve `max_len`; halve `batch_size` (and double "
        "`accumulation_steps` of `create_optimizer`); dtype='mixed_bfloat16' for the encoder; "
        "train_model(rematerialize=True); a smaller `size`."
    )
