"""Training for a given time: the learning rate follows the share of the time that is used."""

from __future__ import annotations

import datetime
import re
import statistics
import time
from collections import deque
from typing import Any

import keras

from bert_keras.training.optimizers import ProgressDecay

# More epochs than any budget has.
OPEN_END = 1_000_000

_UNITS = {"s": 1.0, "sec": 1.0, "second": 1.0, "min": 60.0, "minute": 60.0, "h": 3600.0, "hour": 3600.0}
_PLAN_EVERY = 0.005  # of the budget
_STEPS_MEASURED = 20


def budget_seconds(budget: Any, argument: str = "budget") -> float:
    """Return a time budget in seconds.

    Args:
        budget: seconds as a number, a `datetime.timedelta`, or words like `"90 s"`, `"30 min"`, `"1.5 h"`,
            `"1 h 30 min"`.
        argument: its name, for messages.

    Raises:
        ValueError: if it is none of these, or not above 0.

    Example:

    ```python
    budget_seconds("1 h 30 min")  # 5400.0
    ```
    """
    seconds = None
    if isinstance(budget, datetime.timedelta):
        seconds = budget.total_seconds()
    elif isinstance(budget, (int, float)) and not isinstance(budget, bool):
        seconds = float(budget)
    elif isinstance(budget, str):
        parts = re.findall(r"([\d.]+)\s*([a-z]+?)s?(?![a-z])", budget.lower())
        rest = re.sub(r"[\d.]+\s*[a-z]+", "", budget.lower()).strip(" ,")
        fits = parts and not rest and all(unit in _UNITS and _is_number(number) for number, unit in parts)
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts) if fits else None
    if seconds is None or not 0.0 < seconds < float("inf"):
        raise ValueError(
            f"`{argument}` must be a time above 0: seconds, a timedelta, or words like '30 min' or '1 h 30 "
            f"min'. Received: {argument}={budget!r}"
        )
    return seconds


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", text) is not None


def now() -> float:
    """Return the seconds of a clock that only goes forward."""
    return time.perf_counter()


class TimeBudget(keras.callbacks.Callback):
    """Tells the schedule which share of the budget is used, and stops when it is.

    Counted is the time from the end of one training step to the end of the next, waiting for batches
    included. Not counted are the first step after each start, which compiles, and what is between epochs:
    validation, backups, callbacks. Later compilations, as JAX has them for each new shape, are counted.

    How far it is goes into the schedule's clock, a variable of the optimizer, and so into checkpoints: a
    resumed run has what is left of the budget. Between plans, the clock goes on by the median time of the
    last steps.

    Args:
        seconds: the budget.
        schedule: the optimizer's.

    Attributes:
        used: share of the budget that is behind.
    """

    def __init__(self, seconds: float, schedule: ProgressDecay) -> None:
        super().__init__()
        if schedule.clock is None:
            raise ValueError("`schedule` must have a clock: build it with num_steps=None.")
        self.seconds, self.clock, self.used = seconds, schedule.clock, 0.0
        self._times: deque[float] = deque(maxlen=_STEPS_MEASURED)
        self._is_placed = self._is_warm = False
        self._last: float | None = None
        self._known = (0.0, 0.0, 0.0)  # what the clock was set to last

    def progress_at(self, step: int) -> float:
        """Return the share of the budget that will be behind at a step, by what is known now."""
        used, per_step, at = self._known
        return min(1.0, max(0.0, used + per_step * (step - at)))

    def on_train_begin(self, logs: Any = None) -> None:
        self._is_placed = self._is_warm = False
        self._times.clear()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._last, self._batch = None, 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if not self._is_placed:  # not before: a callback may have restored the optimizer
            step = self._iterations()
            used, self._per_step, at = (float(x) for x in keras.ops.convert_to_numpy(self.clock.value))
            self.used = self._planned = used + self._per_step * (step - at)
            self._known = (used, self._per_step, at)
            self._is_placed = True
        if self._last is None:
            self._last = now()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        steps, self._batch = batch + 1 - self._batch, batch + 1
        elapsed, self._last = now() - (self._last or 0.0), now()
        if not self._is_warm:
            self._is_warm = True
            return
        self.used += elapsed / self.seconds
        self._times.append(elapsed / steps)
        self._per_step = statistics.median(self._times) / self.seconds
        is_early = len(self._times) < _STEPS_MEASURED
        if is_early or self.used - self._planned >= _PLAN_EVERY or self.used + self._per_step >= 1.0:
            self._plan()
        if self.used + self._per_step * steps / 2 >= 1.0:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._plan()
        if logs is not None:
            logs["budget_used"] = self.used

    def _plan(self) -> None:
        self._known = (self.used, self._per_step, float(self._iterations()))
        self.clock.assign(self._known)
        self._planned = self.used

    def _iterations(self) -> int:
        """Return the steps of the optimizer. On JAX, asking for `self.model` also lets the next step see what
        is assigned."""
        optimizer = self.model.optimizer
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        return int(keras.ops.convert_to_numpy(optimizer._iterations.value))
