"""Dropout from sixteen random bits a feature."""

from __future__ import annotations

from typing import Any

import keras

from bert_keras.encoders.torch_kernels import is_compiling, is_torch, next_on_host

_LEVELS = 1 << 16


class DrawnSeed(keras.random.SeedGenerator):
    """A seed that was drawn before, and is the same every time.

    Args:
        seed: what a seed generator's `next` gave, or for torch what `number_of` gave.
    """

    def __init__(self, seed: Any) -> None:
        self.drawn = seed  # and no variable, which a traced function may not make
        self._initial_seed = 0  # Keras' dropout on torch looks whether there is one

    def next(self, ordered: bool = True) -> Any:
        return self.drawn


def draw(seed: keras.random.SeedGenerator) -> DrawnSeed:
    """Ask for a seed's next value, to use it more than once."""
    return DrawnSeed(number_of(seed) if is_torch() else seed.next())


def number_of(seed: keras.random.SeedGenerator) -> int | None:
    """Return a seed's next value as one number for torch; None where torch.compile draws."""
    if isinstance(seed, DrawnSeed):
        return seed.drawn
    if type(seed) is not keras.random.SeedGenerator:  # one that draws in its own way
        return int(seed.next().sum())
    return None if is_compiling() else next_on_host(seed)


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
    return _BY_BACKEND[keras.backend.backend()](features, drop, _LEVELS / (_LEVELS - drop), seed)


def _with_tensorflow(features: Any, drop: int, scale: float, seed: Any) -> Any:
    import tensorflow as tf

    seed = tf.cast(
        tf.math.floormod(seed.next(), tf.int32.max - 1), "int32"
    )  # Keras' are int64, XLA takes int32
    count = tf.size(features)
    words = tf.random.stateless_uniform([(count + 1) // 2], seed, minval=None, maxval=None, dtype="uint32")
    bits = tf.reshape(tf.bitcast(words, "uint16"), [-1])[:count]
    keep = tf.reshape(bits, tf.shape(features)) >= tf.constant(drop, "uint16")
    return tf.where(keep, features * tf.constant(scale, features.dtype), tf.zeros((), features.dtype))


def _with_jax(features: Any, drop: int, scale: float, seed: Any) -> Any:
    """XLA's own generator: that of `jax.random.bits` in less time (docs/log.md, JAX' random bits)."""
    import jax

    numpy, lax = jax.numpy, jax.lax
    columns = features.shape[-1]
    key = numpy.concatenate([numpy.asarray(seed.next(), "uint32"), numpy.zeros(2, "uint32")])
    words = (*features.shape[:-1], (columns + 1) // 2)
    _, bits = lax.rng_bit_generator(key, words, "uint32", algorithm=lax.RandomAlgorithm.RNG_THREE_FRY)
    keep = numpy.concatenate([bits & 0xFFFF >= drop, bits >> 16 >= drop], axis=-1)[..., :columns]
    return numpy.where(keep, features * numpy.asarray(scale, features.dtype), 0)


def _with_torch(features: Any, drop: int, scale: float, seed: Any) -> Any:
    import torch

    if features.is_meta:  # Keras asks for the shape alone
        return features
    number = number_of(seed)
    if number is None:
        return torch.nn.functional.dropout(features, drop / _LEVELS)
    generator = torch.Generator(device=features.device)
    generator.manual_seed(number & 0xFFFFFFFF)
    count = features.numel()
    words = torch.empty((count + 3) // 4, dtype=torch.int64, device=features.device)
    bits = words.random_(-(2**63), None, generator=generator).view(torch.int16)[:count]
    keep = bits.view(features.shape) >= drop - _LEVELS // 2  # int16 begins at -32,768
    return torch.where(keep, features * scale, 0.0)


_BY_BACKEND = {"tensorflow": _with_tensorflow, "jax": _with_jax, "torch": _with_torch}
