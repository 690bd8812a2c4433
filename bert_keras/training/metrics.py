"""Loss and accuracy of every task, counted over labelled positions only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
from keras import ops

from bert_keras.tasks import LM_TASK, TaskMetadata


def token_losses(logits: Any, targets: Any) -> tuple[Any, Any]:
    """Return cross entropy and correctness of each row.

    Args:
        logits: float, `(n, classes)`.
        targets: int32, `(n,)`.

    Returns:
        Two float32 arrays `(n,)`: the loss in nats, and 1.0 where the target has the largest logit, else 0.0.
    """
    logits = ops.cast(logits, "float32")
    losses = ops.sparse_categorical_crossentropy(targets, logits, from_logits=True)
    correct = ops.equal(ops.cast(ops.argmax(logits, axis=-1), "int32"), ops.cast(targets, "int32"))
    return losses, ops.cast(correct, "float32")


class Perplexity(keras.metrics.Mean):
    """Exponential of a mean loss in nats."""

    def result(self) -> Any:
        return ops.exp(super().result())


class TaskMetrics:
    """The running means of every task: `<task>_loss`, `<task>_accuracy` and, for `lm`, `lm_perplexity`.

    Args:
        tasks: the tasks.
    """

    def __init__(self, tasks: Iterable[TaskMetadata]) -> None:
        self.by_task: dict[str, list[keras.metrics.Mean]] = {}
        for task in tasks:
            trackers = [keras.metrics.Mean(name=f"{task.name}_{kind}") for kind in ("loss", "accuracy")]
            if task.name == LM_TASK:
                trackers.append(Perplexity(name="lm_perplexity"))
            self.by_task[task.name] = trackers
        self.active_tasks = list(self.by_task)

    def update(self, task: str, mean_loss: Any, mean_accuracy: Any, count: Any) -> None:
        """Add one batch: two means over `count` labelled positions."""
        mean_loss = ops.stop_gradient(mean_loss)
        loss, accuracy, *perplexity = self.by_task[task]
        loss.update_state(mean_loss, sample_weight=count)
        accuracy.update_state(ops.stop_gradient(mean_accuracy), sample_weight=count)
        for tracker in perplexity:
            tracker.update_state(mean_loss, sample_weight=count)

    def all(self) -> list[keras.metrics.Mean]:
        """Return the metrics of every task."""
        return [tracker for trackers in self.by_task.values() for tracker in trackers]

    def active(self) -> list[keras.metrics.Mean]:
        """Return the metrics of the tasks that are being trained."""
        return [tracker for name in self.active_tasks for tracker in self.by_task[name]]
