"""What is measured of every task while it is trained, counted over labels only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
from keras import ops

from bert_keras.tasks import LM_TASK, TaskMetadata

# The name of the measure beside the loss, by kind of task.
MEASURES = {
    "classification": "accuracy",
    "multi_label": "micro_f1",
    "regression": "mae",
    "span": "exact_match",
}


class Perplexity(keras.metrics.Mean):
    """Exponential of a mean loss in nats."""

    def result(self) -> Any:
        return ops.exp(super().result())


class Latest(keras.metrics.Metric):
    """The value given last."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        self.value = self.add_variable((), "zeros", name="value")

    def update_state(self, value: Any) -> None:
        self.value.assign(value)

    def result(self) -> Any:
        return self.value + 0.0  # torch would hand out the variable itself


class MicroF1(keras.metrics.Metric):
    """F1 over all pairs of an example and a class: the harmonic mean of precision and recall."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        self.hits = self.add_variable((), "zeros", name="hits")
        self.said = self.add_variable((), "zeros", name="said")
        self.true = self.add_variable((), "zeros", name="true")

    def update_state(self, hits: Any, said: Any, true: Any) -> None:
        """Add counts: of pairs said and true, said, and true."""
        self.hits.assign_add(hits)
        self.said.assign_add(said)
        self.true.assign_add(true)

    def result(self) -> Any:
        return 2.0 * self.hits / ops.maximum(self.said + self.true, 1.0)


class TaskMetrics:
    """The running measures of every task: `<task>_loss`, one of `MEASURES`, `<task>_weight` (the weight in
    force in the last step) and, for `lm`, `lm_perplexity`.

    Args:
        tasks: the tasks.
    """

    def __init__(self, tasks: Iterable[TaskMetadata]) -> None:
        self.tasks = {task.name: task for task in tasks}
        self.losses = {name: keras.metrics.Mean(name=f"{name}_loss") for name in self.tasks}
        self.measures: dict[str, Any] = {}
        for name, task in self.tasks.items():
            make = MicroF1 if task.kind == "multi_label" else keras.metrics.Mean
            self.measures[name] = make(name=f"{name}_{MEASURES[task.kind]}")
        self.perplexity = {name: Perplexity(name="lm_perplexity") for name in self.tasks if name == LM_TASK}
        self.weights = {name: Latest(name=f"{name}_weight") for name in self.tasks}
        self.active_tasks = list(self.tasks)

    def update(self, name: str, logits: Any, targets: Any, losses: Any, labelled: Any, weight: Any) -> Any:
        """Add one batch.

        Args:
            name: of the task.
            logits, targets: as in `label_losses`.
            losses: of each label, `(n,)`.
            labelled: 1.0 where there is a label, else 0.0, `(n,)`.
            weight: of the task in this step.

        Returns:
            The mean loss over the labels.
        """
        count = ops.sum(labelled)
        share = labelled / ops.maximum(count, 1.0)
        mean_loss = ops.sum(losses * share)
        shown = ops.stop_gradient(mean_loss)
        self.losses[name].update_state(shown, sample_weight=count)
        if name in self.perplexity:
            self.perplexity[name].update_state(shown, sample_weight=count)
        self.weights[name].update_state(weight)
        task, measure = self.tasks[name], self.measures[name]
        logits = ops.stop_gradient(logits)
        if task.kind == "multi_label":
            measure.update_state(*_set_counts(logits, targets, labelled))
        else:
            measure.update_state(ops.sum(_measured(task, logits, targets) * share), sample_weight=count)
        return mean_loss

    def all(self) -> list[Any]:
        """Return the metrics of every task."""
        return self._of(self.tasks)

    def active(self) -> list[Any]:
        """Return the metrics of the tasks that are being trained."""
        return self._of(self.active_tasks)

    def _of(self, names: Iterable[str]) -> list[Any]:
        groups = (self.losses, self.measures, self.perplexity, self.weights)
        return [group[name] for name in names for group in groups if name in group]


def _measured(task: TaskMetadata, logits: Any, targets: Any) -> Any:
    """Return the measure of each label, float32 `(n,)`."""
    if task.kind == "regression":
        logits = ops.cast(logits, "float32")
        targets = ops.reshape(ops.cast(targets, "float32"), ops.shape(logits))
        return ops.mean(ops.abs(logits - targets), axis=-1)
    if task.kind == "span":
        best = ops.cast(ops.argmax(logits, axis=1), "int32")  # (n, 2)
        return ops.cast(ops.all(ops.equal(best, ops.cast(targets, "int32")), axis=-1), "float32")
    best = ops.cast(_first_largest(logits), "int32")
    return ops.cast(ops.equal(best, ops.cast(targets, "int32")), "float32")


def _first_largest(logits: Any) -> Any:
    """Return the number of the largest logit of each row; of equal ones, the first.

    Keras' `argmax` tells -0.0 from 0.0 on TensorFlow, in three more passes over the logits of a vocabulary.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.argmax(logits, axis=-1, output_type="int32")
    return ops.argmax(logits, axis=-1)


def _set_counts(logits: Any, targets: Any, labelled: Any) -> tuple[Any, Any, Any]:
    said = ops.cast(ops.greater_equal(logits, 0), "float32")
    applies = ops.cast(ops.greater_equal(targets, 0), "float32") * labelled[:, None]
    hits = ops.sum(ops.take_along_axis(said, ops.maximum(targets, 0), axis=-1) * applies)
    return hits, ops.sum(ops.sum(said, axis=-1) * labelled), ops.sum(applies)
