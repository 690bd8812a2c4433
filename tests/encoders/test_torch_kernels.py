"""torch's kernels without Keras: the numbers of Keras' operations, and seeds that go on as Keras' do."""

import keras
import numpy as np
import pytest
from keras import ops

from bert_keras.encoders.attention import AttentionDropout, attend
from bert_keras.encoders.dense import Dense
from bert_keras.encoders.dropout import DrawnSeed, draw, number_of
from bert_keras.encoders.layers import within
from bert_keras.encoders.norms import LayerNorm, RMSNorm

pytestmark = pytest.mark.skipif(keras.backend.backend() != "torch", reason="torch alone")


def array(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def numbers(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def test_the_host_counts_seeds_as_keras_does():
    ours, keras_own = keras.random.SeedGenerator(2**31 - 2), keras.random.SeedGenerator(2**31 - 2)
    for _ in range(3):
        assert number_of(ours) == int(keras_own.next().sum())
        np.testing.assert_array_equal(numbers(ours.state.value), numbers(keras_own.state.value))
    for generator in (ours, keras_own):  # as loading does
        generator.state.assign([7, 100])
    assert number_of(ours) == int(keras_own.next().sum()) == 107
    assert number_of(ours) == int(keras_own.next().sum())
    ours.next()  # somebody else asks
    keras_own.next()
    assert number_of(ours) == int(keras_own.next().sum())


def test_seeds_within_a_stateless_scope_leave_the_state_alone():
    generator = keras.random.SeedGenerator(3)
    number_of(generator)
    before = numbers(generator.state.value)
    with keras.StatelessScope() as scope:
        assert [number_of(generator), number_of(generator)] == [4, 5]
        assert numbers(scope.get_current_value(generator.state)).tolist() == [3, 3]
    np.testing.assert_array_equal(numbers(generator.state.value), before)
    assert number_of(generator) == 4


def test_a_drawn_seed_stays():
    drawn = draw(keras.random.SeedGenerator(5))
    assert isinstance(drawn, DrawnSeed) and number_of(drawn) == number_of(drawn) == 5


def test_a_generator_that_draws_in_its_own_way_is_asked():
    class Sevens(keras.random.SeedGenerator):
        def next(self, ordered=True):
            return ops.convert_to_tensor([3, 4])

    assert number_of(Sevens(1)) == 7


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_dense_layers_are_keras_dense_layers(dtype):
    features = ops.cast(array(3, 5, 8), "float32" if dtype == "float32" else "bfloat16")
    for arguments in ({}, {"use_bias": False}, {"activation": "tanh"}):
        theirs, ours = (
            kind(6, bias_initializer="random_normal", dtype=dtype, **arguments)
            for kind in (keras.layers.Dense, Dense)
        )
        for layer in (theirs, ours):
            layer.build((None, None, 8))
        ours.set_weights(theirs.get_weights())
        expected = theirs(features)
        assert ours(features).dtype == expected.dtype
        tolerance = 1e-5 if dtype == "float32" else 2e-2
        np.testing.assert_allclose(numbers(ours(features)), numbers(expected), atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_norms_are_what_they_say(dtype):
    x = array(4, 3, 16) * 3 + 1
    features = ops.cast(x, "float32" if dtype == "float32" else "bfloat16")
    x = numbers(features)
    layer, rms = LayerNorm(epsilon=1e-5, dtype=dtype), RMSNorm(1e-5, dtype=dtype)
    for norm in (layer, rms):
        norm.build((None, None, 16))
        norm.gamma.assign(array(16, seed=1))
    layer.beta.assign(array(16, seed=2))
    centred = x - x.mean(-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * array(16, seed=1) + array(
        16, seed=2
    )
    tolerance = {"atol": 2e-6, "rtol": 1e-5} if dtype == "float32" else {"atol": 2e-2, "rtol": 1e-2}
    np.testing.assert_allclose(numbers(layer(features)), expected, **tolerance)
    expected = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * array(16, seed=1)
    np.testing.assert_allclose(numbers(rms(features)), expected, **tolerance)
    assert layer(features).dtype == rms(features).dtype == features.dtype


def test_attention_drops_probabilities_and_makes_up_for_it():
    """Every value is 1, so that a row gives the sum of the probabilities that stay: 1 on average."""
    query, key = (ops.convert_to_tensor(array(2, 64, 4, 8, seed=seed)) for seed in (0, 1))
    value = ops.ones((2, 64, 4, 8))
    visible = ops.ones((2, 1, 64, 64), dtype="bool")
    seed = keras.random.SeedGenerator(1)
    found = [numbers(attend(query, key, value, visible, AttentionDropout(0.25, seed))) for _ in range(2)]
    sums = found[0][..., 0]
    assert abs(sums.mean() - 1) < 0.02 and sums.std() > 0.03
    assert (found[0] != found[1]).mean() > 0.9
    again = attend(query, key, value, visible, AttentionDropout(0.25, keras.random.SeedGenerator(1)))
    np.testing.assert_array_equal(numbers(again), found[0])
    np.testing.assert_allclose(numbers(attend(query, key, value, visible)), 1.0, atol=1e-5)


def test_hooks_on_layers_within_are_called():
    layer = Dense(3)
    layer.build((None, 4))
    called = []
    layer.register_forward_hook(lambda *given: called.append(1))
    within(layer, ops.ones((2, 4)))
    assert called == [1]
