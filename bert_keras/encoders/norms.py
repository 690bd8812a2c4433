"""Kinds of normalisation, and activations: what the transformer's layers and its heads choose from."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from bert_keras.encoders.torch_kernels import is_torch, layer_normed, rms_normed

NORM_KINDS = ("layer", "layer_no_bias", "rms")
ACTIVATIONS = ("gelu", "silu", "relu_squared")


class RMSNorm(keras.layers.Layer):
    """Divides by the root mean square of the features, then scales (Zhang and Sennrich 2019).

    Computed in float32 whatever the dtype, as Keras' layer normalisation is. The scale is named `gamma`, like
    that of all norms here.

    Args:
        epsilon: added to the mean square.
        gamma_initializer: what the scales start from.
    """

    def __init__(self, epsilon: float, gamma_initializer: Any = "ones", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon, self.gamma_initializer = epsilon, gamma_initializer

    def build(self, shape: Any) -> None:
        self.gamma = self.add_weight(
            shape=(shape[-1],), initializer=self.gamma_initializer, name="gamma", autocast=False
        )
        self.built = True

    def call(self, features: Any) -> Any:
        if is_torch():
            return rms_normed(features, self.gamma.value, self.epsilon)
        x = ops.cast(features, "float32")
        mean_square = ops.sum(ops.square(x), axis=-1, keepdims=True) * (1.0 / x.shape[-1])
        return ops.cast(x * ops.rsqrt(mean_square + self.epsilon) * self.gamma, features.dtype)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


@keras.saving.register_keras_serializable(package="bert_keras")
class LayerNorm(keras.layers.LayerNormalization):
    """Keras' layer normalisation (Ba et al. 2016) over the last axis; on torch by its own kernel."""

    def call(self, features: Any) -> Any:
        if not is_torch():
            return super().call(features)
        gamma, beta = (None if v is None else v.value for v in (self.gamma, self.beta))
        return layer_normed(features, gamma, beta, self.epsilon)


def make_norm(
    kind: str, epsilon: float, name: str, policy: Any, gamma: Any = "ones", beta: Any = "zeros"
) -> keras.layers.Layer:
    """Return a normalisation layer over the last axis.

    Args:
        kind: `"layer"` (Ba et al. 2016), `"layer_no_bias"` (the same without a shift) or `"rms"`.
        epsilon: added to the variance or mean square.
        name: of the layer.
        policy: dtype policy.
        gamma, beta: initialisers of scale and shift.
    """
    if kind == "rms":
        return RMSNorm(epsilon, gamma_initializer=gamma, dtype=policy, name=name)
    return LayerNorm(
        epsilon=epsilon,
        center=kind == "layer",
        gamma_initializer=gamma,
        beta_initializer=beta,
        dtype=policy,
        name=name,
    )


def activation(name: str, use_exact_gelu: bool, training: bool = False) -> Callable[[Any], Any]:
    """Return the function that one of `ACTIVATIONS` names; with `training` as it is fastest together with its
    gradient.

    GELU: Hendrycks and Gimpel 2016; SiLU: Elfwing et al. 2017; squared ReLU: So et al. 2021.
    """
    if name == "gelu":
        if training and use_exact_gelu and keras.backend.backend() == "tensorflow":
            return _tensorflow_gelu
        return lambda x: ops.gelu(x, approximate=not use_exact_gelu)
    if name == "silu":
        return ops.silu
    return lambda x: ops.square(ops.relu(x))


def _tensorflow_gelu(features: Any) -> Any:
    """Exact GELU whose gradient is kept, in the features' dtype, instead of what it is computed from.

    In half the time of TensorFlow's own, which goes through bfloat16 features a dozen times (docs/log.md,
    Where a step's time goes). Both are computed in float32.
    """
    import tensorflow as tf

    @tf.custom_gradient
    def gelu(features: Any) -> tuple[Any, Any]:
        x = tf.cast(features, "float32")
        below = 0.5 + 0.5 * tf.math.erf(x * 0.5**0.5)  # the share of a normal distribution below x
        density = tf.exp(-0.5 * tf.square(x)) * (2.0 * math.pi) ** -0.5
        slope = tf.cast(below + x * density, features.dtype)
        return tf.cast(x * below, features.dtype), lambda upstream: upstream * slope

    return gelu(features)
