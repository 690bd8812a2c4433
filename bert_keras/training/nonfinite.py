"""Where in a model numbers stop being finite."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from bert_keras.data import SentenceBatch
from bert_keras.training.feed import training_arrays


def break_point(
    model: Any, tasks: Sequence[Any], batch: SentenceBatch | None, earlier: Sequence[np.ndarray] | None
) -> str:
    """Say in words where in a model numbers stop being finite.

    Args:
        model: a `MultiTaskModel`.
        tasks: those that are trained.
        batch: the one on which it happened, if known.
        earlier: the model's weights of a step before, in order, if known.
    """
    bad, number = nonfinite_weights(model)
    words = f"{len(bad)} of {number} weights are not finite, the first is {bad[0]}. " if bad else ""
    if batch is None:
        return f"{words}The batch is not at hand any more."
    if bad and earlier is not None and len(bad) == number:
        now = [keras.ops.convert_to_numpy(v).copy() for v in model.weights]
        _assign(model.weights, earlier)
        layer = first_nonfinite_layer(model, tasks, batch)
        _assign(model.weights, now)
        words += "With the weights of some steps before, on the same batch: "
    else:
        layer = first_nonfinite_layer(model, tasks, batch)
    if layer is None:
        return f"{words}All layers give finite numbers; the loss or its gradient does not."
    return f"{words}The first layer whose output is not finite is '{layer}'."


def first_nonfinite_layer(model: Any, tasks: Sequence[Any], batch: SentenceBatch) -> str | None:
    """Return the name of the first layer, in the order of computation, whose output is not finite; None if
    there is none."""
    x, _ = training_arrays(batch, tasks, [1.0] * len(tasks))
    seen: list[str] = []
    with contextlib.ExitStack() as stack:
        for layer in model._flatten_layers(include_self=False):
            stack.enter_context(_observed(layer, seen))
        model(x, training=False)
    return seen[0] if seen else None


@contextlib.contextmanager
def _observed(layer: keras.layers.Layer, seen: list[str]) -> Iterator[None]:
    call = layer.call

    def observed(*args: Any, **kwargs: Any) -> Any:
        outputs = call(*args, **kwargs)
        if not seen and not all(_is_finite(output) for output in keras.tree.flatten(outputs)):
            seen.append(_path_of(layer))
        return outputs

    layer.call = observed
    try:
        yield
    finally:
        del layer.call


def _is_finite(array: Any) -> bool:
    if "float" not in keras.backend.standardize_dtype(array.dtype):
        return True
    return bool(np.isfinite(keras.ops.convert_to_numpy(keras.ops.cast(array, "float32"))).all())


def _path_of(layer: keras.layers.Layer) -> str:
    return layer.weights[0].path.rsplit("/", 1)[0] if layer.weights else layer.path or layer.name


def _assign(variables: Sequence[Any], arrays: Sequence[np.ndarray]) -> None:
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def nonfinite_weights(model: Any) -> tuple[list[str], int]:
    """Return the paths of weights that are not finite, in order, and the number of all weights."""
    arrays = ((v.path, keras.ops.convert_to_numpy(keras.ops.cast(v, "float32"))) for v in model.weights)
    return [path for path, array in arrays if not np.isfinite(array).all()], len(model.weights)
