"""Adam's update in one pass, where a backend has a kernel for it."""

from __future__ import annotations

from typing import Any

import keras


def apply_adam(
    variable: Any,
    momentum: Any,
    velocity: Any,
    gradient: Any,
    *,
    learning_rate: Any,
    beta_1: float,
    beta_2: float,
    epsilon: Any,
    step: Any,
) -> bool:
    """Update a variable and its moments by TensorFlow's own kernel, if there is one for them.

    Keras spells the update out in some dozen operations, each of which goes through memory once (docs/log.md,
    Where a step's time goes).

    Args:
        variable, momentum, velocity: Keras variables of one shape, float32.
        gradient: of that shape.
        learning_rate: scalar.
        beta_1, beta_2: decay of the moments.
        epsilon: scalar, added to the root of `velocity` before its bias is corrected ("epsilon hat" in
            Kingma and Ba 2014, section 2).
        step: scalar: number of the update, from 1.

    Returns:
        Whether it was done; if not, nothing has changed.
    """
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    handles = [getattr(getattr(v, "value", v), "handle", None) for v in (variable, momentum, velocity)]
    is_rows = isinstance(gradient, tf.IndexedSlices)
    if is_rows or None in handles or variable.dtype != "float32" or tf.distribute.has_strategy():
        return False

    def scalar(number: Any) -> Any:
        return tf.cast(number, "float32")

    tf.raw_ops.ResourceApplyAdam(
        var=handles[0],
        m=handles[1],
        v=handles[2],
        beta1_power=tf.pow(beta_1, scalar(step)),
        beta2_power=tf.pow(beta_2, scalar(step)),
        lr=scalar(learning_rate),
        beta1=scalar(beta_1),
        beta2=scalar(beta_2),
        epsilon=scalar(epsilon),
        grad=tf.cast(gradient, "float32"),
    )
    return True
