"""Exported files in the programs that serve them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

Arrays = Mapping[str, np.ndarray]
Run = Callable[[Arrays], dict[str, np.ndarray]]


def is_installed(package: str) -> bool:
    """Whether a package can be imported; it is not."""
    return importlib.util.find_spec(package) is not None


def open_onnx(path: Path) -> Run:
    """Open an ONNX file in ONNX Runtime.

    Raises:
        ValueError: if it takes the file for none.
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except (state.Fail, state.InvalidArgument, state.InvalidGraph, state.NotImplemented) as error:
        raise ValueError(
            "ONNX Runtime does not open what tf2onnx made of the model, which has operations that ONNX "
            f"lacks; format='tf_saved_model' takes any. It said: {str(error):.300}"
        ) from error
    names = [entry.name for entry in session.get_inputs()]
    outputs = [entry.name for entry in session.get_outputs()]

    def run(arrays: Arrays) -> dict[str, np.ndarray]:
        found = session.run(outputs, {name: arrays[name] for name in names})
        return dict(zip(outputs, found, strict=True))

    return run


def open_saved_model(path: Path) -> Run:
    """Open a SavedModel in TensorFlow."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures["serving_default"]
    names = serve.structured_input_signature[1]

    def run(arrays: Arrays) -> dict[str, np.ndarray]:
        found = serve(**{name: tf.constant(arrays[name]) for name in names})
        return {name: array.numpy() for name, array in found.items()}

    run.loaded = loaded  # type: ignore[attr-defined]  # its variables live as long as it does
    return run


def open_litert(path: Path) -> Run:
    """Open a LiteRT file in LiteRT's interpreter."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=str(path)).get_signature_runner("serving_default")
    names = [*runner.get_input_details()]

    def run(arrays: Arrays) -> dict[str, np.ndarray]:
        return dict(runner(**{name: arrays[name] for name in names}))

    return run
