"""Dropout: what share goes, that each draw is its own, and that what stays makes up for it."""

import keras
import numpy as np
import pytest
from gradients import gradient
from keras import ops

from bert_keras.encoders.dropout import Dropout, drop_features


def drawn(features, rate, seed, count=1):
    generator = keras.random.SeedGenerator(seed)
    return [
        ops.convert_to_numpy(
            ops.cast(drop_features(ops.convert_to_tensor(features), rate, generator), "float32")
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_that_goes_and_the_mean_that_stays(rate):
    features = np.ones((40, 50, 101), "float32")
    (dropped,) = drawn(features, rate, 7)
    gone = dropped == 0
    spread = np.sqrt(rate * (1 - rate) / gone.size)
    assert abs(gone.mean() - rate) < 5 * spread
    np.testing.assert_allclose(dropped[~gone], 1 / (1 - rate), rtol=1e-3)
    # Neighbours share a drawn word: none may follow from the other.
    flat = gone.reshape(-1)
    for apart in (1, 2, 3, 4):
        both = (flat[apart:] & flat[:-apart]).mean()
        assert abs(both - rate**2) < 6 * np.sqrt(rate**2 / flat.size)


def test_draws_differ_and_a_seed_gives_them_again():
    features = np.ones((6, 35), "float32")
    first, second = drawn(features, 0.5, 3, 2)
    assert (first != second).mean() > 0.3
    again = drawn(features, 0.5, 3, 2)
    np.testing.assert_array_equal([first, second], again)
    assert (first != drawn(features, 0.5, 4)[0]).mean() > 0.3


@pytest.mark.parametrize("shape", [(1,), (3,), (5, 7), (2, 3, 5)])  # counts that no word of bits divides
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_any_shape_and_dtype(shape, dtype):
    features = ops.ones(shape, dtype)
    dropped = drop_features(features, 0.25, keras.random.SeedGenerator(1))
    assert tuple(dropped.shape) == shape and keras.backend.standardize_dtype(dropped.dtype) == dtype
    values = set(ops.convert_to_numpy(ops.cast(dropped, "float32")).reshape(-1).tolist())
    assert values <= {0.0, float(ops.cast(ops.cast(4 / 3, dtype), "float32"))}


def test_what_is_not_finite_is_dropped_too():
    features = np.full((50, 40), np.inf, "float32")
    (dropped,) = drawn(features, 0.5, 5)
    assert set(np.unique(dropped)) == {0.0, np.inf}


def test_the_layer_drops_in_training_alone():
    layer = Dropout(0.5, seed=1)
    features = ops.ones((20, 20))
    for kept in (layer(features), Dropout(0.0, seed=1)(features, training=True)):
        np.testing.assert_array_equal(ops.convert_to_numpy(kept), np.ones((20, 20)))
    assert (ops.convert_to_numpy(layer(features, training=True)) == 0).any()
    open_shape = layer(keras.KerasTensor((None, None, 8)), training=True)
    assert open_shape.shape == (None, None, 8)


def test_slopes_are_those_of_what_stays():
    features = np.full((30, 40), 2.0, "float32")
    (kept,) = drawn(features, 0.25, 6)
    upstream = np.random.default_rng(0).normal(size=features.shape).astype("float32")

    def weighted_sum(array):
        found = drop_features(array, 0.25, keras.random.SeedGenerator(6))
        return ops.sum(found * ops.convert_to_tensor(upstream))

    expected = np.where(kept == 0, 0.0, upstream * 4 / 3)
    np.testing.assert_allclose(gradient(weighted_sum, features), expected, rtol=1e-4)
