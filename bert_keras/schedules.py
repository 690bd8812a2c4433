"""When a task is learned, and with what weight. No arrays, no Keras."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

Weight: TypeAlias = float | Callable[[int], float]


class TaskWeightScheduler:
    """The weight of one task's loss at every step of training: in each phase a number, or any function of
    the step.

    `LinearSchedule`, `CosineSchedule` and `SwitchSchedule` are ready-made; or subclass it and override `get`.
    `get`, and a function, is called in plain Python once for each batch while the batch is prepared, a few
    steps before it is trained on, so it should depend on its arguments alone; its value takes effect in
    exactly that step on every backend.

    Args:
        active_in_pretrain: whether the task is trained during pretraining. An active task needs labels in the
            batches.
        active_in_finetune: whether the task is trained during fine-tuning.
        pretrain_value: weight of the task's loss during pretraining, if active there: a number of at least 0,
            or a function that gives one for a step, which is counted from 0 over all epochs of the phase (so
            Keras' learning rate schedules will do, too). JSON has no functions: beside saved weights 1 stands
            for one, and `load_model(path, tasks=...)` takes tasks that have it again.
        finetune_value: the same during fine-tuning.

    Raises:
        ValueError: if a number is negative or not finite.
        TypeError: if a weight is neither a number nor a function.

    Example:

    ```python
    warm = TaskWeightScheduler(True, False, pretrain_value=lambda step: min(1.0, step / 100))
    warm.get(is_pretrain=True, step=25)  # 0.25


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
        pretrain_value: Weight = 1.0,
        finetune_value: Weight = 1.0,
    ) -> None:
        self.active_in_pretrain = bool(active_in_pretrain)
        self.active_in_finetune = bool(active_in_finetune)
        self.pretrain_value = _number_or_function("pretrain_value", pretrain_value)
        self.finetune_value = _number_or_function("finetune_value", finetune_value)

    def get(self, is_pretrain: bool, step: int) -> float:
        """Return the weight of the task's loss.

        Args:
            is_pretrain: True during pretraining, False during fine-tuning.
            step: number of batches trained before this one in the same phase, from 0, counted over all
                epochs.

        Raises:
            TypeError: if a function gives no number.
        """
        if not self.is_active(is_pretrain):
            return 0.0
        value = self.pretrain_value if is_pretrain else self.finetune_value
        if not callable(value):
            return value
        weight = value(step)
        try:
            return float(weight)
        except (TypeError, ValueError):
            raise TypeError(
                f"The function of a task's weight must give a number. Received: {weight!r} at step {step}"
            ) from None

    def is_active(self, is_pretrain: bool) -> bool:
        """Return whether the task is trained in the phase."""
        return self.active_in_pretrain if is_pretrain else self.active_in_finetune

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, as they are written beside saved weights."""
        return {
            "active_in_pretrain": self.active_in_pretrain,
            "active_in_finetune": self.active_in_finetune,
            "pretrain_value": 1.0 if callable(self.pretrain_value) else self.pretrain_value,
            "finetune_value": 1.0 if callable(self.finetune_value) else self.finetune_value,
        }

    def __repr__(self) -> str:
        arguments = ", ".join(
            f"{name}={getattr(self, name, value)!r}" for name, value in self.get_config().items()
        )
        return f"{type(self).__name__}({arguments})"


class _Ramp(TaskWeightScheduler):
    """From one weight to another over some steps, and constant before and after."""

    def __init__(
        self,
        start_value: float,
        end_value: float,
        num_steps: int,
        *,
        start_step: int = 0,
        active_in_pretrain: bool = True,
        active_in_finetune: bool = True,
    ) -> None:
        super().__init__(active_in_pretrain, active_in_finetune)
        self.start_value = _checked_weight("start_value", start_value)
        self.end_value = _checked_weight("end_value", end_value)
        self.num_steps = _checked_step("num_steps", num_steps, 1)
        self.start_step = _checked_step("start_step", start_step, 0)

    def get(self, is_pretrain: bool, step: int) -> float:
        if not self.is_active(is_pretrain):
            return 0.0
        done = min(1.0, max(0.0, (step - self.start_step) / self.num_steps))
        return self.start_value + (self.end_value - self.start_value) * self._share(done)

    def _share(self, done: float) -> float:
        """How much of the way is gone after a share of the steps."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {
            "start_value": self.start_value,
            "end_value": self.end_value,
            "num_steps": self.num_steps,
            "start_step": self.start_step,
            "active_in_pretrain": self.active_in_pretrain,
            "active_in_finetune": self.active_in_finetune,
        }


class LinearSchedule(_Ramp):
    """A weight that goes evenly from one value to another.

    Args:
        start_value: the weight up to `start_step`.
        end_value: the weight from `start_step + num_steps` on.
        num_steps: steps on the way.
        start_step: first step of the way, counted in each phase from 0.
        active_in_pretrain, active_in_finetune: in which phases the task is trained.

    Raises:
        ValueError: if a weight is negative or not finite, or a step is no whole number or too small.

    Example:

    ```python
    fade_out = LinearSchedule(1.0, 0.0, num_steps=1000)
    fade_out.get(is_pretrain=True, step=250)  # 0.75
    ```
    """

    def _share(self, done: float) -> float:
        return done


class CosineSchedule(_Ramp):
    """A weight that goes from one value to another along half a cosine: slowly at both ends.

    Arguments and errors are those of `LinearSchedule`.

    Example:

    ```python
    CosineSchedule(0.0, 2.0, num_steps=100).get(is_pretrain=True, step=50)  # 1.0
    ```
    """

    def _share(self, done: float) -> float:
        return 0.5 - 0.5 * math.cos(math.pi * done)


class SwitchSchedule(TaskWeightScheduler):
    """A weight that changes at once at given steps.

    Args:
        values: the weights, one more than steps.
        steps: the first step with `values[1]`, that with `values[2]`, and so on, rising; one step may be
            given alone.
        active_in_pretrain, active_in_finetune: in which phases the task is trained.

    Raises:
        ValueError: if the numbers do not fit together.

    Example:

    ```python
    later = SwitchSchedule([0.0, 1.0], steps=500)
    later.get(is_pretrain=False, step=499), later.get(is_pretrain=False, step=500)  # (0.0, 1.0)
    ```
    """

    def __init__(
        self,
        values: Sequence[float],
        steps: int | Sequence[int],
        *,
        active_in_pretrain: bool = True,
        active_in_finetune: bool = True,
    ) -> None:
        super().__init__(active_in_pretrain, active_in_finetune)
        given = [steps] if isinstance(steps, int) else list(steps)
        self.values = [_checked_weight("values", value) for value in values]
        self.steps = [_checked_step("steps", step, 1) for step in given]
        if len(self.values) != len(self.steps) + 1 or sorted({*self.steps}) != self.steps:
            raise ValueError(
                "`values` must be one more than `steps`, and `steps` must rise. "
                f"Received: values={self.values}, steps={self.steps}"
            )

    def get(self, is_pretrain: bool, step: int) -> float:
        return self.values[bisect.bisect(self.steps, step)] if self.is_active(is_pretrain) else 0.0

    def get_config(self) -> dict[str, Any]:
        return {
            "values": self.values,
            "steps": self.steps,
            "active_in_pretrain": self.active_in_pretrain,
            "active_in_finetune": self.active_in_finetune,
        }


_CLASSES = {
    cls.__name__: cls for cls in (TaskWeightScheduler, LinearSchedule, CosineSchedule, SwitchSchedule)
}


def schedule_to_config(schedule: TaskWeightScheduler) -> dict[str, Any]:
    """Return a schedule as JSON can hold it; of a class of your own what its plain base knows."""
    cls = type(schedule) if _CLASSES.get(type(schedule).__name__) is type(schedule) else TaskWeightScheduler
    return {"class_name": cls.__name__, "config": cls.get_config(schedule)}


def schedule_from_config(config: Mapping[str, Any]) -> TaskWeightScheduler:
    """Rebuild what `schedule_to_config` wrote, or the bare arguments of the base, as versions before 0.2
    did.

    Raises:
        ValueError: if it is a class that this version does not know.
    """
    if "class_name" not in config:
        return TaskWeightScheduler(**config)
    if config["class_name"] not in _CLASSES:
        raise ValueError(
            f"The schedule {config['class_name']!r} is unknown. This version knows {sorted(_CLASSES)}."
        )
    return _CLASSES[config["class_name"]](**config["config"])


def _number_or_function(name: str, value: Weight) -> Weight:
    if callable(value):
        return value
    if isinstance(value, TaskWeightScheduler):
        raise TypeError(
            f"`{name}` must be a number or a function of the step. A {type(value).__name__} is a whole "
            "schedule: give it in place of this one, with `active_in_pretrain` and `active_in_finetune`, or "
            f"give {name}=lambda step: schedule.get(is_pretrain, step)."
        )
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(
            f"`{name}` must be a number or a function of the step. Received: {name}={value!r}"
        ) from None
    return _checked_weight(name, number)


def _checked_weight(name: str, value: float) -> float:
    value = float(value)
    if not 0.0 <= value < float("inf"):
        raise ValueError(f"`{name}` must be a finite number of at least 0. Received: {name}={value}")
    return value


def _checked_step(name: str, value: int, least: int) -> int:
    if isinstance(value, bool) or int(value) != value or value < least:
        raise ValueError(f"`{name}` must be whole numbers of at least {least}. Received: {name}={value!r}")
    return int(value)
