"""The forms that models are exported to: how each is written by Keras' `export`, and what runs it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bert_keras.sharing.runtimes import Run, open_litert, open_onnx, open_saved_model

_ERFC_SINCE = 9  # the version of ONNX that brought Erf


@dataclass(frozen=True)
class Format:
    """A form that models are exported to.

    Attributes:
        file: what is written, within the folder.
        packages: needed to write it, besides TensorFlow.
        runtime: the package that runs it.
        takes_loops: whether it has encoders that go through a text step by step.
        write: writes a model from int32 rows of any number and length to a path.
        open: opens it in its runtime.
    """

    file: str
    packages: tuple[str, ...]
    runtime: str
    takes_loops: bool
    write: Callable[[keras.Model, Path], None]
    open: Callable[[Path], Run]


def write_onnx(model: keras.Model, path: Path) -> None:
    """Write an ONNX file, by tf2onnx."""
    from tf2onnx.handler import tf_op

    tf_op.register_handler(_erfc, _ERFC_SINCE, ["Erfc"], "", {})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)  # of Keras' exporter
        model.export(str(path), "onnx", verbose=False, input_signature=_signature(model))


def write_saved_model(model: keras.Model, path: Path) -> None:
    """Write a SavedModel."""
    model.export(str(path), "tf_saved_model", verbose=False, input_signature=_signature(model))


def write_litert(model: keras.Model, path: Path) -> None:
    """Write a LiteRT file of LiteRT's own operations: others run only where TensorFlow is linked in.

    Raises:
        ValueError: if they are not enough for the model.
    """
    import tensorflow as tf
    from tensorflow.lite.python.convert_phase import ConverterError

    own = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
    try:
        model.export(str(path), "litert", verbose=False, input_signature=_signature(model), target_spec=own)
    except ConverterError as error:
        raise ValueError(
            "LiteRT's own operations are not enough for this model; format='tf_saved_model' takes any. "
            f"Its converter said: {str(error):.300}"
        ) from error


FORMATS: Mapping[str, Format] = {
    "onnx": Format("model.onnx", ("tf2onnx", "onnx"), "onnxruntime", False, write_onnx, open_onnx),
    "tf_saved_model": Format("saved_model", (), "tensorflow", True, write_saved_model, open_saved_model),
    "litert": Format("model.tflite", (), "ai_edge_litert", False, write_litert, open_litert),
}


def _signature(model: keras.Model) -> list[dict[str, keras.InputSpec]]:
    """Return the inputs, rows of any number and length; Keras' ONNX does not find them by itself."""
    spec = {"shape": (None, None), "dtype": "int32"}
    return [{name: keras.InputSpec(**spec, name=name) for name in model.input}]


def _erfc(graph: Any, node: Any, **options: Any) -> None:
    """Write `Erfc`, of which TensorFlow makes the exact GELU and which ONNX does not have, as 1 - Erf."""
    from tf2onnx.utils import make_name

    result = node.output[0]
    dtype, shape = graph.get_dtype(result), graph.get_shape(result)
    argument = node.input[0]
    graph.remove_node(node.name)
    erf = graph.make_node("Erf", [argument], name=make_name("erf"), dtypes=[dtype], shapes=[shape])
    one = graph.make_const(make_name("one"), np.array(1.0, "float32"))
    graph.make_node(
        "Sub",
        [one.output[0], erf.output[0]],
        outputs=[result],
        name=node.name,
        dtypes=[dtype],
        shapes=[shape],
    )
