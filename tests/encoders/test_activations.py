"""Activations and their gradients against formulas in float64."""

import math

import keras
import numpy as np
import pytest
from gradients import gradient
from keras import ops

from bert_keras.encoders.norms import activation


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def tanh_gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def silu(x):
    return x / (1 + np.exp(-x))


def relu_squared(x):
    return np.maximum(x, 0) ** 2


CASES = [
    ("gelu", True, gelu),
    ("gelu", False, tanh_gelu),
    ("silu", True, silu),
    ("relu_squared", True, relu_squared),
]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("name", "is_exact", "formula"), CASES)
def test_values_and_slopes(name, is_exact, formula, training):
    x = np.linspace(-6, 6, 240).astype("float32").reshape(3, -1)
    weights = np.random.default_rng(0).normal(size=x.shape).astype("float32")
    function = activation(name, is_exact, training)
    values = ops.convert_to_numpy(function(ops.convert_to_tensor(x)))
    exact = x.astype("float64")
    np.testing.assert_allclose(values, formula(exact), rtol=1e-5, atol=1e-6)
    slopes = (formula(exact + 1e-4) - formula(exact - 1e-4)) / 2e-4
    found = gradient(lambda array: ops.sum(function(array) * ops.convert_to_tensor(weights)), x)
    np.testing.assert_allclose(found, weights * slopes, rtol=1e-3, atol=2e-4)


def test_half_precision_in_training():
    x = ops.cast(ops.convert_to_tensor(np.linspace(-4, 4, 81).astype("float32")), "bfloat16")
    values = activation("gelu", True, training=True)(x)
    assert keras.backend.standardize_dtype(values.dtype) == "bfloat16"
    exact = gelu(ops.convert_to_numpy(ops.cast(x, "float32")).astype("float64"))
    np.testing.assert_allclose(ops.convert_to_numpy(ops.cast(values, "float32")), exact, rtol=0.01, atol=1e-3)
