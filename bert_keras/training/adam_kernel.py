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
        variable, momentum, velocity: variables of one shape.
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

    # The variable comes as TensorFlow's own, the moments as Keras'.
    own = [v.value if isinstance(v, keras.Variable) else v for v in (variable, momentum, velocity)]
    is_plain = all(hasattr(v, "handle") and v.dtype == tf.float32 for v in own)
    if not is_plain or isinstance(gradient, tf.IndexedSlices) or tf.distribute.has_strategy():
        return False

    def scalar(number: Any) -> Any:
        return tf.cast(number, "float32")

    tf.raw_ops.ResourceApplyAdam(
        var=own[0].handle,
        m=own[1].handle,
        v=own[2].handle,
        beta1_power=tf.pow(beta_1, scalar(step)),
        beta2_power=tf.pow(beta_2, scalar(step)),
        lr=scalar(learning_rate),
        beta1=scalar(beta_1),
        beta2=scalar(beta_2),
        epsilon=scalar(epsilon),
        grad=tf.cast(gradient, "float32"),
    )
    return True
