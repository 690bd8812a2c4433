"""Models called in tests."""

import keras


def called(model, inputs):
    """What a model gives for inputs. On JAX it is compiled as a whole: operation by operation, each would be
    compiled for every shape."""
    if keras.backend.backend() != "jax":
        return model(inputs, training=False)
    import jax

    return jax.jit(lambda arrays: model(arrays, training=False))(inputs)
