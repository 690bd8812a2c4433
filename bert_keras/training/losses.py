"""The loss of each kind of task, one number for every label."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from bert_keras.tasks import TaskMetadata

OUT_OF_REACH = -1e9  # a logit that no softmax sees


def label_losses(task: TaskMetadata, logits: Any, targets: Any) -> Any:
    """Return the loss of each label.

    Args:
        task: what the labels are.
        logits: float, `(n, num_classes)`; of a span `(n, length, 2)`.
        targets: int32 `(n,)` classes, `(n, k)` classes with -1 after the last, or `(n, 2)` first and last
            positions; float32 `(n,)` or `(n, num_classes)` numbers.

    Returns:
        float32, `(n,)`: nats, or squared differences.
    """
    logits = ops.cast(logits, "float32")
    if task.kind == "classification":
        return _cross_entropy(task, logits, targets)
    if task.kind == "multi_label":
        return _binary_cross_entropies(task, logits, targets)
    if task.kind == "regression":
        targets = ops.reshape(ops.cast(targets, "float32"), ops.shape(logits))
        return ops.mean(ops.square(logits - targets), axis=-1)
    by_end = ops.transpose(logits, (0, 2, 1))  # (n, 2, length)
    losses = ops.sparse_categorical_crossentropy(ops.maximum(targets, 0), by_end, from_logits=True)
    return ops.mean(losses, axis=-1)


def _cross_entropy(task: TaskMetadata, logits: Any, targets: Any) -> Any:
    if keras.backend.backend() == "tensorflow":
        losses = _tensorflow_cross_entropy(logits, targets)
    else:
        losses = ops.sparse_categorical_crossentropy(targets, logits, from_logits=True)
    if task.label_smoothing:
        even = ops.logsumexp(logits, axis=-1) - ops.mean(logits, axis=-1)
        losses = (1.0 - task.label_smoothing) * losses + task.label_smoothing * even
    if task.class_weights is not None:
        losses = losses * ops.take(ops.convert_to_tensor(task.class_weights, dtype="float32"), targets)
    return losses


def _tensorflow_cross_entropy(logits: Any, targets: Any) -> Any:
    """`sparse_categorical_crossentropy` of float32 logits `(n, num_classes)`, in fewer passes over them than
    TensorFlow's own operation makes (docs/log.md, Where a step's time goes)."""
    import tensorflow as tf

    targets = tf.cast(targets, "int32")

    @tf.custom_gradient
    def losses(logits: Any) -> tuple[Any, Any]:
        top = tf.reduce_max(logits, axis=-1, keepdims=True)
        powers = tf.exp(logits - top)
        total = tf.reduce_sum(powers, axis=-1, keepdims=True)

        def gradient(upstream: Any) -> Any:
            scaled = powers * (upstream[:, None] / total)
            rows = tf.range(tf.shape(targets)[0])
            return tf.tensor_scatter_nd_sub(scaled, tf.stack([rows, targets], axis=1), upstream)

        at_target = tf.gather(logits, targets, axis=1, batch_dims=1)
        return tf.squeeze(top + tf.math.log(total), axis=-1) - at_target, gradient

    return losses(logits)


def _binary_cross_entropies(task: TaskMetadata, logits: Any, targets: Any) -> Any:
    """Sum over the classes; written as if no class applied, then corrected for those that do, so that no
    array of 0s and 1s as wide as the classes is needed."""
    absent, half = ops.softplus(logits), task.label_smoothing / 2
    if not half and task.class_weights is None:
        correction = -logits  # softplus(-z) - softplus(z)
        losses = ops.sum(absent, axis=-1)
    else:
        present = ops.softplus(-logits)
        if task.class_weights is not None:
            present = present * ops.convert_to_tensor(task.class_weights, dtype="float32")
        correction = (1.0 - 2 * half) * (present - absent)
        losses = ops.sum(half * present + (1.0 - half) * absent, axis=-1)
    applies = ops.cast(ops.greater_equal(targets, 0), "float32")
    chosen = ops.take_along_axis(correction, ops.maximum(targets, 0), axis=-1)
    return losses + ops.sum(applies * chosen, axis=-1)
