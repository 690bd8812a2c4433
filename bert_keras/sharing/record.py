"""How a model was trained, as JSON can hold it."""

from __future__ import annotations

import importlib
import math
import platform
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from bert_keras.advice import BACKENDS
from bert_keras.version import __version__


def versions() -> dict[str, str]:
    """Return the versions of what runs here: bert_keras, Python, Keras, its backend, NumPy."""
    backend = keras.backend.backend()
    found = {
        "bert_keras": __version__,
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": backend,
        "numpy": np.__version__,
    }
    if backend in BACKENDS:
        found[backend] = importlib.import_module(backend).__version__
    return found


def training_record(model: keras.Model, history: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what is known of a model's training.

    Args:
        model: a model with tasks, or an encoder.
        history: for each phase Keras' `History`, or a mapping from measure to one number for each epoch; by
            default the model's own `training_history`.

    Returns:
        `phases`, `recipes`, `seed`, `parameters` and `versions`. Numbers that are not finite are None.

    Raises:
        ValueError: if a history is of another form.
    """
    given = getattr(model, "training_history", {}) if history is None else history
    encoder = getattr(model, "encoder", model)
    return {
        "phases": {phase: _phase(phase, one) for phase, one in given.items()},
        "recipes": {phase: recipe.get_config() for phase, recipe in getattr(model, "recipes", {}).items()},
        "seed": {
            "heads": getattr(model, "seed", None) if encoder is not model else None,
            "encoder": getattr(getattr(encoder, "config", None), "seed", None),
        },
        "parameters": {"all": model.count_params(), "encoder": encoder.count_params()},
        "versions": versions(),
    }


def plain_number(value: Any) -> float | None:
    """Return a number as JSON knows it: None for what is not finite.

    Example:
        >>> plain_number(np.float32(0.5)), plain_number(float("nan"))
        (0.5, None)
    """
    number = float(value)
    return number if math.isfinite(number) else None


def _phase(phase: str, history: Any) -> dict[str, Any]:
    measures = getattr(history, "history", history)
    if not isinstance(measures, Mapping):
        raise ValueError(
            "`history` must give for each phase Keras' History or a mapping from measure to a list of "
            f"numbers. Received for {phase!r}: {history!r:.100}"
        )
    values = {str(name): [plain_number(value) for value in found] for name, found in measures.items()}
    return {
        "epochs": max(map(len, values.values()), default=0),
        "batches_per_epoch": (getattr(history, "params", None) or {}).get("steps"),
        "history": values,
    }
