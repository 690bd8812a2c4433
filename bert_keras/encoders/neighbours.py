"""What a position may know of those beside it in a row of packed sequences."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


def shifted(array: Any, steps: int) -> Any:
    """Return an array whose entry at t is that at t - `steps` of the given one, or zero where there is none.

    Args:
        array: `(batch, length, ...)`.
        steps: positive to look back, negative to look ahead.
    """
    if steps == 0:
        return array
    padding = [[0, 0], [max(steps, 0), max(-steps, 0)]] + [[0, 0]] * (len(array.shape) - 2)
    length = ops.shape(array)[1]
    padded = ops.pad(array, padding)
    return padded[:, :length] if steps > 0 else padded[:, -steps:]


def neighbour(features: Any, sequence_ids: Any, steps: int) -> Any:
    """Return the features `steps` before each position, zeros where that is beyond its sequence.

    Args:
        features: float, `(batch, length, width)`.
        sequence_ids: int32, `(batch, length)`; 0 is padding, k the k-th sequence of the row.
        steps: positive to look back, negative to look ahead.
    """
    if steps == 0:
        return features
    is_same = ops.equal(shifted(sequence_ids + 1, steps), sequence_ids + 1)  # 0 is beyond the row
    return shifted(features, steps) * ops.expand_dims(ops.cast(is_same, features.dtype), 2)


def goes_on(sequence_ids: Any) -> Any:
    """Return where the position before belongs to the same sequence: float32, `(batch, length)`."""
    return ops.cast(ops.equal(shifted(sequence_ids + 1, 1), sequence_ids + 1), "float32")


def linear_recurrence(keep: Any, new: Any) -> Any:
    """Return h with `h[t] = keep[t] * h[t - 1] + new[t]` along axis 1, and h[-1] = 0.

    JAX scans associatively and torch doubles the reach of each pass, both parallel over time; TensorFlow does
    so where the length is known, and steps through it in graphs of open length.

    Args:
        keep, new: float, `(batch, length, width)`.
    """
    backend, length = keras.backend.backend(), keep.shape[1]
    if backend == "jax":
        return ops.associative_scan(_compose, (keep, new), axis=1)[1]
    if backend == "tensorflow" and not isinstance(length, int):
        return _step_by_step(keep, new)
    reach = 1
    while reach < length:
        new = new + keep * shifted(new, reach)
        keep = keep * shifted(keep, reach)
        reach *= 2
    return new


def _compose(earlier: Any, later: Any) -> Any:
    return earlier[0] * later[0], earlier[1] * later[0] + later[1]


def _step_by_step(keep: Any, new: Any) -> Any:
    def step(state: Any, now: Any) -> Any:
        keep_now, new_now = ops.split(now, 2, axis=-1)
        state = keep_now * state + new_now
        return state, state

    both = ops.transpose(ops.concatenate([keep, new], axis=-1), (1, 0, 2))
    _, states = ops.scan(step, ops.zeros_like(new[:, 0]), both)
    return ops.transpose(states, (1, 0, 2))
