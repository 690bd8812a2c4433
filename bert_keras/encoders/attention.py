"""Attention and positions: the mathematics of the transformer in plain functions.

Axes are added by `expand_dims`: indexing with None becomes an operation that LiteRT does not have.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from bert_keras.encoders.dropout import drop_features, number_of
from bert_keras.encoders.torch_kernels import attended, is_on_gpu, is_torch, rotated

_SHORT = 256  # positions


def visible_pairs(sequence_ids: Any, is_causal: bool) -> Any:
    """Return which position may attend to which.

    Args:
        sequence_ids: int32, `(batch, length)`; 0 is padding, k the k-th sequence packed into the row.
        is_causal: whether a position sees only itself and what is before it.

    Returns:
        bool, `(batch, 1, length, length)`: [row, 0, from, to]. Padding "sees" padding, so that no softmax is
        over nothing.
    """
    visible = ops.equal(ops.expand_dims(sequence_ids, (1, 3)), ops.expand_dims(sequence_ids, (1, 2)))
    if is_causal:
        steps = ops.arange(ops.shape(sequence_ids)[1], dtype="int32")
        is_before = ops.greater_equal(ops.expand_dims(steps, 1), ops.expand_dims(steps, 0))
        visible = ops.logical_and(visible, ops.expand_dims(is_before, (0, 1)))
    return visible


def near_pairs(position_ids: Any, window: int) -> Any:
    """Return which positions are near enough for local attention (Beltagy et al. 2020, section 3.1).

    Args:
        position_ids: int32, `(batch, length)`: positions within the sequence.
        window: tokens; a position sees those at most half of it away, to either side.

    Returns:
        bool, `(batch, 1, length, length)`: [row, 0, from, to].
    """
    distances = ops.abs(ops.expand_dims(position_ids, (1, 3)) - ops.expand_dims(position_ids, (1, 2)))
    return ops.less_equal(distances, window // 2)


class AttentionDropout(NamedTuple):
    """Share of the attention probabilities to drop, and the seed that is asked once."""

    rate: float
    seed: keras.random.SeedGenerator


def attend(query: Any, key: Any, value: Any, visible: Any, dropout: AttentionDropout | None = None) -> Any:
    """Scaled dot-product attention (Vaswani et al. 2017, equation 1).

    Args:
        query, key, value: float, `(batch, length, heads, head_dim)`.
        visible: bool, broadcastable to `(batch, heads, length, length)`; True where attention may go.
        dropout: share of the attention probabilities that are dropped, and the seed; or None.

    Returns:
        float, `(batch, length, heads, head_dim)`.
    """
    if is_on_gpu(query):
        rate, number = (0.0, None) if dropout is None else (dropout.rate, number_of(dropout.seed))
        return attended(query, key, value, visible, rate, number)
    if dropout is None and _fused_is_faster(query):
        if is_torch():
            return attended(query, key, value, visible, 0.0, None)
        return ops.dot_product_attention(query, key, value, mask=visible)
    return attend_by_products(query, key, value, visible, dropout)


def attend_by_products(
    query: Any, key: Any, value: Any, visible: Any, dropout: AttentionDropout | None = None
) -> Any:
    """`attend` by two products with the probabilities between them."""
    scale = 1.0 / float(np.sqrt(query.shape[-1]))
    query = ops.transpose(query, (0, 2, 1, 3)) * ops.cast(scale, query.dtype)
    scores = ops.matmul(query, ops.transpose(key, (0, 2, 3, 1)))  # (batch, heads, from, to)
    scores = ops.where(visible, scores, ops.cast(-1e9, scores.dtype))
    # Keras warns of a softmax over one position, where all is 1.
    probabilities = ops.ones_like(scores) if scores.shape[-1] == 1 else _softmax(scores)
    if dropout is not None:
        probabilities = drop_features(probabilities, *dropout)
    return ops.transpose(ops.matmul(probabilities, ops.transpose(value, (0, 2, 1, 3))), (0, 2, 1, 3))


def _softmax(scores: Any) -> Any:
    if keras.backend.backend() == "jax" and _jax_has_gpu():
        return jax_softmax()(scores)
    return ops.softmax(scores, axis=-1)


@functools.cache
def _jax_has_gpu() -> bool:
    import jax

    return jax.default_backend() == "gpu"


@functools.cache
def jax_softmax() -> Any:
    """Return softmax over the last axis, computed in float32, with a gradient from the probabilities alone.

    JAX' own is differentiated through its exponentials and sums, of which XLA makes a kernel of ten
    milliseconds a step of BERT-base on a GPU; on a CPU it is the faster one (docs/log.md, On a GPU).
    """
    import jax

    @jax.custom_jvp
    def softmax(scores: Any) -> Any:
        x = scores.astype("float32")
        powers = jax.numpy.exp(x - x.max(-1, keepdims=True))
        return (powers / powers.sum(-1, keepdims=True)).astype(scores.dtype)

    @softmax.defjvp
    def slope(values: Any, changes: Any) -> Any:
        found = softmax(*values)
        p, change = found.astype("float32"), changes[0].astype("float32")
        return found, (p * (change - (p * change).sum(-1, keepdims=True))).astype(found.dtype)

    return softmax


def _fused_is_faster(query: Any) -> bool:
    """Return whether Keras' attention is faster than products of transposed arrays (benchmarks.operations).

    On TensorFlow it is an einsum. torch's kernel for CPUs is slower in bfloat16, but for long rows.
    """
    if keras.backend.backend() == "torch":
        is_long = query.device.type != "cpu" or query.shape[1] > _SHORT
        return is_long or keras.backend.standardize_dtype(query.dtype) != "bfloat16"
    return keras.backend.backend() != "tensorflow"


def sinusoidal_positions(max_len: int, embedding_dim: int) -> np.ndarray:
    """Return the fixed position table, float32 `(max_len, embedding_dim)` (Vaswani et al. 2017, section 3.5).

    Even columns hold the sines, odd columns the cosines.
    """
    column = np.arange(embedding_dim)
    angle = np.arange(max_len)[:, None] / 10000.0 ** (2 * (column // 2) / embedding_dim)
    return np.where(column % 2 == 0, np.sin(angle), np.cos(angle)).astype("float32")


def rotary_angles(position_ids: Any, head_dim: int, base: float = 10000.0) -> tuple[Any, Any]:
    """Return cosines and sines of the rotary position embedding (Su et al. 2021): angle = position / base^(2k
    / head_dim).

    Args:
        position_ids: int32, `(batch, length)`.
        head_dim: features of a head, an even number.
        base: the longest wavelength is about this times two pi.

    Returns:
        Two float32 arrays, `(batch, length, 1, head_dim // 2)`.
    """
    frequencies = base ** (-np.arange(0, head_dim, 2, dtype="float32") / head_dim)
    angles = ops.expand_dims(ops.cast(position_ids, "float32"), (2, 3)) * ops.convert_to_tensor(
        frequencies, "float32"
    )
    return ops.cos(angles), ops.sin(angles)


def rotate(features: Any, cosines: Any, sines: Any) -> Any:
    """Turn the pairs (k, k + head_dim / 2) of features `(batch, length, heads, head_dim)` by the given
    angles."""
    if is_torch():
        return rotated(features, cosines, sines)
    first, second = ops.split(features, 2, axis=-1)
    cosines, sines = ops.cast(cosines, features.dtype), ops.cast(sines, features.dtype)
    return ops.concatenate([first * cosines - second * sines, second * cosines + first * sines], axis=-1)
