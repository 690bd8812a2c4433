"""What is to be learned: task descriptions. No arrays, no Keras."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from bert_keras.schedules import TaskWeightScheduler, schedule_from_config, schedule_to_config

LM_TASK = "lm"
IS_NEXT_TASK = "is_next"
TASK_KINDS = ("classification", "multi_label", "regression", "span")


def _always_active() -> TaskWeightScheduler:
    return TaskWeightScheduler(active_in_pretrain=True, active_in_finetune=True)


@dataclass(frozen=True)
class TaskMetadata:
    """One task: what is told of whole sentences or of single tokens.

    Args:
        name: key of the task's labels in every batch and of its logits in the model's output. The name `"lm"`
            (masked or next-token language modelling) gets the decoder that is tied to the token embedding.
        is_token_level: True if every token may have a label, False if the sentence has one.
        num_classes: number of logits. Classes are 0 to `num_classes - 1`; for `"lm"` it is the text encoder's
            `vocab_size`; for regression the count of numbers to predict. May be left out where `labels` tell
            it, in regression (1) and for spans (2).
        dropout: share of the features dropped before the last layer of the task's head, from 0 up to 1.
        weight_scheduler: when the task is trained and with what weight; by default always with weight 1.
        kind: `"classification"` (one class, cross entropy), `"multi_label"` (any number of classes, the sum
            over classes of the binary cross entropies), `"regression"` (numbers, mean squared error) or
            `"span"` (the first and the last token of an answer, cross entropy over the tokens of the
            sequence, the mean of both; the first token stands for "no answer"; a sentence-level task, as an
            example has one answer).
        read_from: what a sentence-level task is read from: `"token"`, the hidden state at the position that
            the label names (in prediction the first, of a causal encoder the last), through the pooler that
            all such tasks share; or `"mean"` or `"max"`, over all tokens of the sequence. By default
            `"token"`.
        labels: names of the classes in the order of their numbers. They are kept with saved weights, readers
            number labels by them, and predictions come back as names.
        class_weights: one factor for each class, on the losses of the examples of that class (in a
            multi-label task: on the part of the loss that comes from the class being there, as `pos_weight`
            in torch). The mean is over labels, not over factors.
        label_smoothing: share of the probability that is spread evenly over all classes (multi-label: moved
            towards one half), from 0 up to 1.

    Raises:
        ValueError: if a value is out of its range, or does not go with the others.

    Example:

    ```python
    TaskMetadata("sentiment", is_token_level=False, num_classes=2, dropout=0.1,
                 weight_scheduler=TaskWeightScheduler(active_in_pretrain=False, active_in_finetune=True))
    TaskMetadata("topics", False, kind="multi_label", labels=("arts", "sport"), read_from="mean")
    ```

    Sources: label smoothing: Szegedy et al. 2016; spans: Devlin et al. 2018, section 4.2 and 4.3.
    """

    name: str
    is_token_level: bool
    num_classes: int = 0
    dropout: float = 0.0
    weight_scheduler: TaskWeightScheduler = field(default_factory=_always_active)
    kind: str = "classification"
    read_from: str = "token"
    labels: tuple[str, ...] | None = None
    class_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or "/" in self.name:
            raise ValueError(
                f"`name` of a task must be a non-empty string without '/'. Received: name={self.name!r}"
            )
        if self.kind not in TASK_KINDS:
            self._refuse("kind", f"must be one of {list(TASK_KINDS)}")
        if self.labels is not None:
            object.__setattr__(self, "labels", self._checked_labels())
        self._set_num_classes()
        if not 0.0 <= self.dropout < 1.0:
            self._refuse("dropout", "must be at least 0 and below 1")
        if not isinstance(self.weight_scheduler, TaskWeightScheduler):
            self._refuse("weight_scheduler", "must be a TaskWeightScheduler")
        if self.name == LM_TASK and not (self.is_token_level and self.kind == "classification"):
            raise ValueError(
                "The task named 'lm' is language modelling and must have `is_token_level=True` and "
                f"kind='classification'. Received: {self!r}"
            )
        if self.kind == "span" and self.is_token_level:
            self._refuse("is_token_level", "must be False for a span, as an example has one answer")
        if self.read_from not in ("token", "mean", "max"):
            self._refuse("read_from", "must be 'token', 'mean' or 'max'")
        if self.read_from != "token" and (self.is_token_level or self.kind == "span"):
            self._refuse("read_from", "is for tasks with one label for a sentence; others must leave it out")
        self._check_loss_options()

    def _set_num_classes(self) -> None:
        told = len(self.labels) if self.labels is not None else {"regression": 1, "span": 2}.get(self.kind, 0)
        if isinstance(self.num_classes, bool) or int(self.num_classes) != self.num_classes:
            self._refuse("num_classes", "must be a whole number")
        if self.num_classes == 0 and told:
            object.__setattr__(self, "num_classes", told)
        if self.num_classes < 1:
            self._refuse("num_classes", "must be a whole number of at least 1, or `labels` must tell it")
        if self.labels is not None and self.num_classes != told:
            self._refuse("num_classes", f"must be the number of `labels`, {told}")
        if self.kind == "span" and self.num_classes != 2:
            self._refuse("num_classes", "must be 2 for a span: its start and its end")

    def _checked_labels(self) -> tuple[str, ...]:
        labels = tuple(self.labels or ())
        if self.kind == "span":
            self._refuse("labels", "must be left out for a span")
        if not labels or isinstance(self.labels, str) or not all(isinstance(label, str) for label in labels):
            self._refuse("labels", "must be a sequence of names, one for each class")
        if len({*labels}) != len(labels):
            self._refuse("labels", "must differ from one another")
        return labels

    def _check_loss_options(self) -> None:
        is_by_class = self.kind in ("classification", "multi_label")
        if self.class_weights is not None:
            weights = tuple(float(weight) for weight in self.class_weights)
            object.__setattr__(self, "class_weights", weights)
            if not is_by_class or len(weights) != self.num_classes:
                self._refuse("class_weights", "must be one number for each class of a task that has classes")
            if not all(0.0 <= weight < float("inf") for weight in weights):
                self._refuse("class_weights", "must be finite and at least 0")
        if not 0.0 <= self.label_smoothing < 1.0 or (self.label_smoothing and not is_by_class):
            self._refuse("label_smoothing", "must be at least 0 and below 1, and 0 in a task without classes")

    def _refuse(self, field_name: str, problem: str) -> NoReturn:
        shown = repr(getattr(self, field_name))
        shown = shown if len(shown) <= 200 else f"{shown[:200]}..."
        raise ValueError(f"`{field_name}` of task '{self.name}' {problem}. Received: {field_name}={shown}")

    @property
    def has_classes(self) -> bool:
        """Whether labels are classes, one or many, rather than numbers or spans."""
        return self.kind in ("classification", "multi_label")

    def get_config(self) -> dict[str, Any]:
        """Return a description of the task that JSON can hold."""
        return {
            "name": self.name,
            "is_token_level": bool(self.is_token_level),
            "num_classes": int(self.num_classes),
            "dropout": float(self.dropout),
            "weight_scheduler": schedule_to_config(self.weight_scheduler),
            "kind": self.kind,
            "read_from": self.read_from,
            "labels": None if self.labels is None else list(self.labels),
            "class_weights": None if self.class_weights is None else list(self.class_weights),
            "label_smoothing": float(self.label_smoothing),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> TaskMetadata:
        """Rebuild a task from `get_config`. A schedule of your own class comes back as its plain base."""
        config = dict(config)
        return cls(weight_scheduler=schedule_from_config(config.pop("weight_scheduler")), **config)


def check_tasks(tasks: Iterable[TaskMetadata]) -> list[TaskMetadata]:
    """Return the tasks as a list.

    Raises:
        ValueError: if there is none, one is no `TaskMetadata`, or two share a name.
    """
    tasks = [tasks] if isinstance(tasks, TaskMetadata) else list(tasks)
    for task in tasks:
        if not isinstance(task, TaskMetadata):
            raise ValueError(f"`tasks` must hold TaskMetadata objects. Received: {task!r}")
    names = [task.name for task in tasks]
    if not names:
        raise ValueError("`tasks` is empty: give at least one TaskMetadata.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"Task names must differ. Received more than once: {twice} in {names}")
    return tasks
