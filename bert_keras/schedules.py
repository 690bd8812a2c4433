"""When a task is learned, and with what weight. No arrays, no Keras."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from typing import Any


class TaskWeightScheduler:
    """The weight of one task's loss at every step of training: here the same at every step of a phase.

    `LinearSchedule`, `CosineSchedule` and `SwitchSchedule` change it; subclass it and override `get` for a
    schedule of your own. `get` is called in plain Python once for each batch while the batch is prepared, a
    few steps before it is trained on, so it should depend on its arguments alone; its value takes effect in
    exactly that step on every backend.

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
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
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


def _checked_weight(name: str, value: float) -> float:
    value = float(value)
    if not 0.0 <= value < float("inf"):
        raise ValueError(f"`{name}` must be a finite number of at least 0. Received: {name}={value}")
    return value


def _checked_step(name: str, value: int, least: int) -> int:
    if isinstance(value, bool) or int(value) != value or value < least:
        raise ValueError(f"`{name}` must be whole numbers of at least {least}. Received: {name}={value!r}")
    return int(value)
