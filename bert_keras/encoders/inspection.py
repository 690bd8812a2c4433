"""A look inside a transformer, outside of its fast path: its attention taken over by another function."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from bert_keras.encoders.layers import TransformerBlock
from bert_keras.encoders.transformer import Transformer

# From number of the block, block, normed hidden states, visible pairs and rotation to the context.
Attention = Callable[[int, TransformerBlock, Any, Any, Any], Any]


@contextlib.contextmanager
def attention_by(encoder: Transformer, attention: Attention) -> Iterator[None]:
    """Within this context the encoder, called eagerly, uses another attention.

    Args:
        encoder: a transformer.
        attention: from number of the block, the block, normed hidden states `(batch, length, width)`, visible
            pairs and rotation to the context, `(batch, length, width)`, before the output projection.
    """
    blocks = encoder_blocks(encoder)

    def taken_over(number: int, block: TransformerBlock) -> Callable[..., Any]:
        def call(hidden: Any, visible: Any, rotation: Any = None, dropout: Any = None) -> Any:
            return attention(number, block, hidden, visible, rotation)

        return call

    try:
        for number, block in enumerate(blocks):
            block.attention = taken_over(number, block)  # type: ignore[method-assign]
        yield
    finally:
        for block in blocks:
            if "attention" in vars(block):
                del block.attention


def encoder_blocks(encoder: Any) -> list[TransformerBlock]:
    """Return the blocks of a transformer.

    Raises:
        TypeError: if the encoder is none of this library.
    """
    if not isinstance(encoder, Transformer):
        raise TypeError(
            "Only transformers of `create_transformer` and the `load_` functions can be looked into. "
            f"Received: {type(encoder).__name__}"
        )
    return list(encoder._parts.blocks)


def weigh(query: Any, key: Any, visible: Any) -> Any:
    """Return attention probabilities, float32 `(batch, heads, from, to)`.

    Args:
        query, key: `(batch, from, heads, head_dim)` and `(batch, to, heads, head_dim)`.
        visible: bool, broadcastable to the result; exactly 0 where it is False.
    """
    query, key = ops.cast(query, "float32"), ops.cast(key, "float32")
    scores = ops.matmul(ops.transpose(query, (0, 2, 1, 3)), ops.transpose(key, (0, 2, 3, 1)))
    scores = scores / float(np.sqrt(query.shape[-1]))
    return ops.softmax(ops.where(visible, scores, -1e9), axis=-1)


def gather(probabilities: Any, value: Any) -> Any:
    """Return the means of the values that `weigh` tells, `(batch, from, heads, head_dim)`."""
    context = ops.matmul(ops.cast(probabilities, value.dtype), ops.transpose(value, (0, 2, 1, 3)))
    return ops.transpose(context, (0, 2, 1, 3))


def attention_probabilities(encoder: keras.Model, inputs: Mapping[str, Any]) -> np.ndarray:
    """Return how much each position attends to each other one, in every head of every layer.

    The encoder runs as always, but eagerly and without dropout; the probabilities, which the fast path never
    forms, are computed beside it from the same queries and keys.

    Args:
        encoder: of `create_transformer` or the `load_` functions, or a model with such an `encoder`.
        inputs: the four arrays by name, `(batch, length)`, as `encoder_arrays` gives.

    Returns:
        float32, `(layers, batch, heads, length, length)`: [..., from, to]; the last axis adds up to 1. Rows
        of padding mean nothing.

    Raises:
        TypeError: if the encoder is no transformer of this library.

    Example:

    ```python
    attention_probabilities(model.encoder, encoder_arrays(batch))[0, 0, 3]  # first layer, first row, head 3
    ```

    Source: Vaswani et al. 2017, equation 1.
    """
    encoder = getattr(encoder, "encoder", encoder)
    found: list[np.ndarray] = []

    def attend(number: int, block: TransformerBlock, hidden: Any, visible: Any, rotation: Any) -> Any:
        query, key, value = block.split_heads(hidden, rotation)
        probabilities = weigh(query, key, visible)
        found.append(np.asarray(keras.ops.convert_to_numpy(ops.stop_gradient(probabilities)), "float32"))
        return ops.reshape(gather(probabilities, value), ops.shape(hidden))

    with attention_by(encoder, attend):
        encoder({name: ops.convert_to_tensor(array) for name, array in inputs.items()}, training=False)
    return np.stack(found)
