"""Attention by two products, and its gradients, against NumPy in float64."""

import keras
import numpy as np
import pytest
from gradients import gradient
from keras import ops

from bert_keras.encoders.attention import attend_by_products, jax_softmax

SEEN = np.array([True, True, True, False, False, True])  # by every position


def expected(query, key, value):
    """For arrays `(batch, length, heads, head_dim)`."""
    query, key, value = (np.transpose(part.astype("float64"), (0, 2, 1, 3)) for part in (query, key, value))
    scores = query @ np.swapaxes(key, 2, 3) / np.sqrt(query.shape[-1])
    powers = np.where(SEEN, np.exp(scores - scores.max(-1, keepdims=True)), 0.0)
    return np.transpose(powers / powers.sum(-1, keepdims=True) @ value, (0, 2, 1, 3))


def arrays():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(2, 6, 3, 4)).astype("float32") for _ in range(3)]


def attended(query, key, value):
    visible = ops.convert_to_tensor(SEEN[None, None, None])
    return attend_by_products(query, key, value, visible)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 3e-2)])
def test_values(dtype, tolerance):
    parts = arrays()
    found = attended(*(ops.cast(ops.convert_to_tensor(part), dtype) for part in parts))
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    found = ops.convert_to_numpy(ops.cast(found, "float32"))
    np.testing.assert_allclose(found, expected(*parts), atol=tolerance)


@pytest.mark.parametrize("which", range(3))
def test_slopes(which):
    parts, upstream = arrays(), np.random.default_rng(1).normal(size=(2, 6, 3, 4)).astype("float32")

    def weighted_sum(part):
        inputs = [part if number == which else ops.convert_to_tensor(p) for number, p in enumerate(parts)]
        return ops.sum(attended(*inputs) * ops.convert_to_tensor(upstream))

    def by_differences(at):
        values = []
        for step in (1e-5, -1e-5):
            moved = [part.astype("float64") for part in parts]
            moved[which][at] += step
            values.append((expected(*moved) * upstream).sum())
        return (values[0] - values[1]) / 2e-5

    found = gradient(weighted_sum, parts[which])
    slopes = [by_differences(at) for at in np.ndindex(*found.shape)]
    np.testing.assert_allclose(found.reshape(-1), slopes, atol=1e-4)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX alone")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 1e-2)])
def test_the_softmax_for_gpus_is_softmax(dtype, tolerance):
    import jax

    scores, upstream = (jax.random.normal(jax.random.key(k), (3, 4, 5, 6)) for k in (0, 1))
    scores = 3 * scores.at[0, 0, 0, :4].set(-1e9)

    def weighted_sum(softmax, dtype):
        return lambda x: (softmax(x.astype(dtype)).astype("float32") * upstream).sum()

    own = jax.value_and_grad(weighted_sum(jax_softmax(), dtype))(scores)
    other = jax.value_and_grad(weighted_sum(jax.nn.softmax, "float32"))(scores)
    for found, wanted in zip(own, other, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=10 * tolerance)
    assert jax_softmax()(scores.astype(dtype)).dtype == dtype
