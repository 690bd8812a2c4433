"""What is to be learned, and when: task descriptions and the weights of their losses. No arrays, no Keras."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

LM_TASK = "lm"
IS_NEXT_TASK = "is_next"


class TaskWeightScheduler:
    """The weight of one task's loss at every step of training.

    Subclass it and override `get` for a schedule of your own. `get` is called in plain Python once for each
    batch while the batch is prepared, a few steps before it is trained on, so it should depend on its
    arguments alone; its value takes effect in exactly that step on every backend.

    Args:
        active_in_pretrain: whether the task is trained during pretraining. An active task needs labels in the
            batches.
        active_in_finetune: whether the task is trained during fine-tuning.
        pretrain_value: weight of the task's loss during pretraining, if active there.
        finetune_value: weight of the task's loss during fine-tuning, if active there.

    Raises:
        ValueError: if a weight is negative or not finite.

    Example:

    ```python
    class FadeOut(TaskWeightScheduler):
        def get(self, is_pretrain, step):
            return max(0.0, 1.0 - step / 1000)

    lm_schedule = FadeOut(active_in_pretrain=True, active_in_finetune=True)
    lm_schedule.get(is_pretrain=True, step=250)  # 0.75
    ```
    """

    def __init__(
        self,
        active_in_pretrain: bool,
        active_in_finetune: bool,
        pretrain_value: float = 1.0,
        finetune_value: float = 1.0,
    ) -> None:
        self.active_in_pretrain = bool(active_in_pretrain)
        self.active_in_finetune = bool(active_in_finetune)
        self.pretrain_value = _checked_weight("pretrain_value", pretrain_value)
        self.finetune_value = _checked_weight("finetune_value", finetune_value)

    def get(self, is_pretrain: bool, step: int) -> float:
        """Return the weight of the task's loss.

        Args:
            is_pretrain: True during pretraining, False during fine-tuning.
            step: number of batches trained before this one in the same phase, from 0, counted over all
                epochs.
        """
        if is_pretrain:
            return self.pretrain_value if self.active_in_pretrain else 0.0
        return self.finetune_value if self.active_in_finetune else 0.0

    def is_active(self, is_pretrain: bool) -> bool:
        """Return whether the task is trained in the phase."""
        return self.active_in_pretrain if is_pretrain else self.active_in_finetune

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, as they are written beside saved weights."""
        return {
            "active_in_pretrain": self.active_in_pretrain,
            "active_in_finetune": self.active_in_finetune,
            "pretrain_value": self.pretrain_value,
            "finetune_value": self.finetune_value,
        }

    def __repr__(self) -> str:
        arguments = ", ".join(
            f"{name}={value!r}" for name, value in TaskWeightScheduler.get_config(self).items()
        )
        return f"{type(self).__name__}({arguments})"


def _always_active() -> TaskWeightScheduler:
    return TaskWeightScheduler(active_in_pretrain=True, active_in_finetune=True)


@dataclass(frozen=True)
class TaskMetadata:
    """One task: a classification of whole sentences or of single tokens.

    Args:
        name: key of the task's labels in every batch and of its logits in the model's output. The name `"lm"`
            (masked or next-token language modelling) gets the decoder that is tied to the token embedding.
        is_token_level: True if every token may have a class, False if the sentence has one.
        num_classes: number of classes; labels are 0 to `num_classes - 1`. For `"lm"` the text encoder's
            `vocab_size`.
        dropout: share of the features dropped before the last layer of the task's head, from 0 up to 1.
        weight_scheduler: when the task is trained and with what weight; by default always with weight 1.

    Raises:
        ValueError: if a value is out of its range.

    Example:

    ```python
    TaskMetadata("sentiment", is_token_level=False, num_classes=2, dropout=0.1,
                 weight_scheduler=TaskWeightScheduler(active_in_pretrain=False, active_in_finetune=True))
    ```
    """

    name: str
    is_token_level: bool
    num_classes: int
    dropout: float = 0.0
    weight_scheduler: TaskWeightScheduler = field(default_factory=_always_active)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or "/" in self.name:
            raise ValueError(
                f"`name` of a task must be a non-empty string without '/'. Received: name={self.name!r}"
            )
        if (
            isinstance(self.num_classes, bool)
            or int(self.num_classes) != self.num_classes
            or self.num_classes < 1
        ):
            raise ValueError(
                f"`num_classes` of task '{self.name}' must be a whole number of at least 1. "
                f"Received: num_classes={self.num_classes!r}"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(
                f"`dropout` of task '{self.name}' must be at least 0 and below 1. Received: "
                f"dropout={self.dropout!r}"
            )
        if not isinstance(self.weight_scheduler, TaskWeightScheduler):
            raise ValueError(
                f"`weight_scheduler` of task '{self.name}' must be a TaskWeightScheduler. "
                f"Received: {self.weight_scheduler!r}"
            )
        if self.name == LM_TASK and not self.is_token_level:
            raise ValueError("The task named 'lm' is language modelling and must have `is_token_level=True`.")

    def get_config(self) -> dict[str, Any]:
        """Return a description of the task that JSON can hold."""
        return {
            "name": self.name,
            "is_token_level": bool(self.is_token_level),
            "num_classes": int(self.num_classes),
            "dropout": float(self.dropout),
            "weight_scheduler": TaskWeightScheduler.get_config(self.weight_scheduler),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> TaskMetadata:
        """Rebuild a task from `get_config`. A schedule of a subclass comes back as its plain base."""
        config = dict(config)
        return cls(weight_scheduler=TaskWeightScheduler(**config.pop("weight_scheduler")), **config)


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


def _checked_weight(name: str, value: float) -> float:
    value = float(value)
    if not 0.0 <= value < float("inf"):
        raise ValueError(f"`{name}` must be a finite number of at least 0. Received: {name}={value}")
    return value
