"""Dropout from sixteen random bits a feature."""

from __future__ import annotations

from typing import Any

import keras

_LEVELS = 1 << 16


class Dropout(keras.layers.Dropout):
    """`keras.layers.Dropout` (Srivastava et al. 2014) that draws sixteen bits for a feature.

    Keras draws a float for each, which on a CPU takes most of dropout's time (docs/log.md, Where a step's
    time goes). The share that is dropped is `rate` to within 1 / 65,536, and what stays is divided by the
    share that really stays.

    Args:
        rate: share of the features that training drops, from 0 to below 1.
        seed: int.
    """

    def __init__(self, rate: float, seed: int, **kwargs: Any) -> None:
        super().__init__(rate, seed=seed, **kwargs)

    def call(self, inputs: Any, training: bool = False) -> Any:
        return drop_features(inputs, self.rate, self.seed_generator) if training and self.rate > 0 else inputs


def drop_features(features: Any, rate: float, seed: keras.random.SeedGenerator) -> Any:
    """Set a share of some features to zero, and divide the others by the share that stays.

    Args:
        features: float, any shape.
        rate: share to drop, from 0 to below 1.
        seed: asked for its next seed once.
    """
    drop = min(round(rate * _LEVELS), _LEVELS - 1)
    return _BY_BACKEND[keras.backend.backend()](features, drop, _LEVELS / (_LEVELS - drop), seed.next())


def _with_tensorflow(features: Any, drop: int, scale: float, seed: Any) -> Any:
    import tensorflow as tf

    seed = tf.cast(tf.math.floormod(seed, tf.int32.max - 1), "int32")  # Keras' are int64, XLA takes int32
    count = tf.size(features)
    words = tf.random.stateless_uniform([(count + 1) // 2], seed, minval=None, maxval=None, dtype="uint32")
    bits = tf.reshape(tf.bitcast(words, "uint16"), [-1])[:count]
    keep = tf.reshape(bits, tf.shape(features)) >= tf.constant(drop, "uint16")
    return tf.where(keep, features * tf.constant(scale, features.dtype), tf.zeros((), features.dtype))


def _with_jax(features: Any, drop: int, scale: float, seed: Any) -> Any:
    import jax

    keep = jax.random.bits(seed, features.shape, "uint16") >= drop
    return jax.numpy.where(keep, features * jax.numpy.asarray(scale, features.dtype), 0)


def _with_torch(features: Any, drop: int, scale: float, seed: Any) -> Any:
    import torch

    if features.device.type == "meta":  # Keras asks for the shape alone
        return features
    generator = torch.Generator(device=features.device)
    generator.manual_seed(int(seed.sum()) & 0xFFFFFFFF)
    count = features.numel()
    words = torch.empty((count + 3) // 4, dtype=torch.int64, device=features.device)
    bits = words.random_(-(2**63), None, generator=generator).view(torch.int16)[:count]
    keep = bits.view(features.shape) >= drop - _LEVELS // 2  # int16 begins at -32,768
    return torch.where(keep, features * scale, 0.0)


_BY_BACKEND = {"tensorflow": _with_tensorflow, "jax": _with_jax, "torch": _with_torch}
