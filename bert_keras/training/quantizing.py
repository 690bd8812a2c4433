"""`quantize`: smaller models that only predict."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import keras

from bert_keras.encoders.changes import (
    adaptable_layers,
    check_plain,
    forget_functions,
    make_int8,
    quantized_layers,
)


class QuantizedSize(NamedTuple):
    """What quantising saved; as text, in words.

    Attributes:
        bytes_before, bytes_after: of the weights.
        num_layers: layers whose weights are integers now.
    """

    bytes_before: int
    bytes_after: int
    num_layers: int

    def __str__(self) -> str:
        before, after = self.bytes_before / 1e6, self.bytes_after / 1e6
        return f"{before:.1f} MB of weights are {after:.1f} MB now; {self.num_layers} layers are int8"


def quantize(model: keras.Model, mode: str = "int8", *, activations: bool = False) -> QuantizedSize:
    """Turn the matrices of an encoder into 8-bit integers, for prediction, in place.

    Dense layers of the encoder and its table of token embeddings get one scale for each column or row, by
    Keras' own `quantize`. Norms, biases, tables of positions and segments, poolers and heads stay as they
    are; the decoder of `lm`, which is tied to the token embeddings, uses them with their scales. `predict`,
    `classify`, `embed` and the others work as before; `save_weights` writes the integers, and `load_model`
    reads them. Training is refused: train first, and keep the file.

    Args:
        model: an encoder of dense layers, or a model of `train_model` or `load_model` on one.
        mode: `"int8"`.
        activations: whether the inputs of dense layers are rounded too, row by row, so that products are of
            integers. It costs accuracy, and pays only where the backend has fast products of int8.

    Returns:
        Bytes of the weights before and after; print it.

    Raises:
        ValueError: for another mode; if the encoder has LoRA (`merge_lora` first) or is quantised; if it
            has no layers that Keras can quantise (those of `create_lstm` and `create_qrnn` have only the
            embeddings).

    Example:

    ```python
    model.save_weights("my_weights")  # to train it again
    print(quantize(model, "int8"))
    model.save_weights("my_small_weights")
    ```

    Source: Dettmers et al. 2022, "LLM.int8()", section 2, for scales by row and column.
    """
    if mode != "int8":
        raise ValueError(f"`mode` must be 'int8'. Received: mode={mode!r}")
    encoder = getattr(model, "encoder", model)
    check_plain(encoder, "quantise it")
    layers = [layer for layer in adaptable_layers(encoder) if _is_meant(encoder, layer)]
    if not layers:
        raise ValueError(f"The encoder {encoder.name!r} has no dense layers or embeddings to quantise.")
    before = weight_bytes(model)
    make_int8(encoder, layers, activations)
    forget_functions(model)
    return QuantizedSize(before, weight_bytes(model), len(quantized_layers(encoder)))


def _is_meant(encoder: keras.Model, layer: Any) -> bool:
    if isinstance(layer, keras.layers.Embedding):
        return layer is getattr(encoder, "token_embedding", layer)
    return isinstance(layer, keras.layers.Dense)


def weight_bytes(model: keras.Model) -> int:
    """Return the bytes of a model's weights, in the types that they are kept in."""
    sizes = {"int8": 1, "uint8": 1, "float16": 2, "bfloat16": 2, "float64": 8, "int64": 8}
    return sum(
        math.prod(v.shape) * sizes.get(keras.backend.standardize_dtype(v.dtype), 4) for v in model.weights
    )


def check_not_quantized(encoder: keras.Model) -> None:
    """Refuse to train a quantised encoder.

    Raises:
        ValueError: saying what to do instead.
    """
    if quantized_layers(encoder):
        check_plain(encoder, "train it")
