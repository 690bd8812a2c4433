import keras
import numpy as np
import pytest

from bert_keras import create_optimizer, create_transformer
from bert_keras.training import AdamW, WarmupDecay


def rates(schedule, steps):
    return [float(keras.ops.convert_to_numpy(schedule(step))) for step in steps]


def test_the_learning_rate_by_hand():
    linear = WarmupDecay(2.0, num_steps=20, warmup_steps=4)
    assert rates(linear, [0, 1, 3, 4, 12, 20, 30]) == pytest.approx([0.5, 1.0, 2.0, 2.0, 1.0, 0.0, 0.0])
    cosine = WarmupDecay(2.0, 20, 4, "cosine")
    assert rates(cosine, [3, 4, 8, 12, 20]) == pytest.approx([2.0, 2.0, 1.0 + 0.5**0.5, 1.0, 0.0], abs=1e-6)
    constant = WarmupDecay(2.0, 20, 0, "constant")
    assert rates(constant, [0, 19, 100]) == [2.0, 2.0, 2.0]
    again = WarmupDecay.from_config(cosine.get_config())
    assert rates(again, [8]) == rates(cosine, [8])


def test_biases_and_norms_are_not_decayed():
    encoder = create_transformer(53, 12, 16, 1, 3, 20, seed=5)
    for variable in encoder.weights:
        variable.assign(np.full(variable.shape, 0.5, "float32"))
    optimizer = create_optimizer(10, 0.1, warmup=0.0, decay="constant", weight_decay=0.5)
    zeros = [keras.ops.zeros(v.shape) for v in encoder.trainable_variables]
    optimizer.apply(zeros, encoder.trainable_variables)
    decayed = {v.path for v in encoder.weights if keras.ops.convert_to_numpy(v).max() < 0.5}
    kept = {v.path for v in encoder.weights} - decayed
    assert decayed == {v.path for v in encoder.weights if v.path.endswith(("kernel", "embeddings"))}
    assert kept and all(path.endswith(("bias", "gamma", "beta")) for path in kept)
    kernel = next(v for v in encoder.weights if v.path.endswith("qkv/kernel"))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(kernel), 0.5 - 0.1 * 0.5 * 0.5, rtol=1e-5)


def test_the_whole_gradient_is_clipped():
    def step(scale, clip_norm):
        variable = keras.Variable(np.zeros(2, "float32"))
        optimizer = create_optimizer(10, 0.1, warmup=0.0, weight_decay=0.0, clip_norm=clip_norm, epsilon=1.0)
        optimizer.apply([keras.ops.convert_to_tensor(np.float32([3.0, 4.0]) * scale)], [variable])
        return keras.ops.convert_to_numpy(variable)

    clipped = np.float32([0.6, 0.8])  # norm 5 becomes norm 1
    # Keras adds epsilon to the root of the second moment before its bias correction (Kingma and Ba 2014, end
    # of section 2); with epsilon 1 Adam is not blind to the scale of the gradient, as it usually is.
    root = np.sqrt(1 - 0.999)
    np.testing.assert_allclose(step(1.0, 1.0), -0.1 * root * clipped / (root * clipped + 1), rtol=1e-4)
    np.testing.assert_allclose(step(100.0, 1.0), step(1.0, 1.0), rtol=1e-5)
    assert np.abs(step(100.0, None)).min() > np.abs(step(1.0, None)).max()


@pytest.mark.parametrize("size", [0.0, 0.01, 3.0, np.inf])
def test_clipping_is_keras_clipping(size):
    """Norms below the largest, above it, zero, and one that is not finite: then nothing is a number."""
    rng = np.random.default_rng(0)
    arrays = [size * rng.random((3, 4)).astype("float32"), np.ones(5, "float32") * min(size, 1e30)]
    found, wanted = (
        optimizer._clip_gradients([keras.ops.convert_to_tensor(array) for array in arrays])
        for optimizer in (AdamW(global_clipnorm=0.5), keras.optimizers.AdamW(global_clipnorm=0.5))
    )
    for own, other in zip(found, wanted, strict=True):
        own, other = keras.ops.convert_to_numpy(own), keras.ops.convert_to_numpy(other)
        np.testing.assert_allclose(own, other, rtol=1e-6)
        assert np.isnan(own).all() == np.isinf(size)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"warmup": 1.5}, "warmup=1.5"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"accumulation_steps": 0}, "accumulation_steps"),
        ({"decay": "steep"}, "decay='steep'"),
        ({"num_steps": 0}, "num_steps=0"),
    ],
)
def test_arguments_out_of_range(arguments, problem):
    with pytest.raises(ValueError, match=problem):
        create_optimizer(**{"num_steps": 10, **arguments})
