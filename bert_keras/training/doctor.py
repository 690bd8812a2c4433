"""The doctor: names in plain words what goes wrong in a run, while it runs or afterwards."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from bert_keras.data import SentenceBatch
from bert_keras.training import budget
from bert_keras.training.checks import encoder_facts
from bert_keras.training.feed import TaskFeed
from bert_keras.training.nonfinite import break_point, nonfinite_weights
from bert_keras.training.recipes import is_from_scratch
from bert_keras.training.symptoms import (
    Finding,
    LabelCounts,
    fresh_in_finetuning,
    idle_schedules,
    learning_rate_problems,
    not_a_number,
    slow_feed,
    standing_at,
)
from bert_keras.training.watched_source import watched

_COUNTED = 64  # batches
_WINDOW = 10  # steps over which losses are averaged
_WATCH = 5  # windows from one look at the weights to the next


class Doctor(keras.callbacks.Callback):
    """Watches a run, and says what goes wrong as soon as it is sure.

    Give one to `train_model` among the callbacks of a phase. It counts the first 64 batches, times the making
    of batches (where that happens in this process), follows the losses, and every 50 steps compares the
    weights before and after a step; a copy of the weights is kept for that in the host's memory. With it,
    every step waits for its loss.

    It knows: a task that stands at its unigram loss, and since when; a learning rate too high or too low;
    most ids never seen; labels on padding; a task without labels; a schedule that never let a task count;
    weights or an optimizer that were never restored; the first layer with a NaN; a feed slower than the
    device.

    Args:
        patience: steps that a loss may stand at the unigram loss.
        verbose: whether findings are printed when they are made.

    Attributes:
        findings: what was found, in order, each once.

    Example:

    ```python
    doctor = Doctor()
    model = train_model(encoder, tasks, generator, pretrain_callbacks=[doctor])
    for finding in doctor.findings:
        print(finding.symptom, finding.evidence, finding.advice)
    ```
    """

    def __init__(self, patience: int = 200, verbose: int = 1) -> None:
        super().__init__()
        self.patience, self.verbose = patience, verbose
        self.findings: list[Finding] = []
        self._source: Any = None

    def watch(self, feed: TaskFeed, is_pretrain: bool, num_steps: int | None) -> None:
        """Look at a phase from its feed on; `train_model` calls this.

        Args:
            feed: of the phase.
            is_pretrain: which phase.
            num_steps: its length, if known.
        """
        self._feed, self._is_pretrain, self._num_steps = feed, is_pretrain, num_steps
        self._source = feed.source = watched(feed.source)
        self._counts = LabelCounts(feed.tasks, feed.facts.vocab_size)

    def on_train_begin(self, logs: Any = None) -> None:
        if self._source is None:
            raise ValueError(
                "A Doctor watches the phases of `train_model`: give it in `pretrain_callbacks` or "
                "`finetune_callbacks`. For other models use `diagnose`."
            )
        self._step = self._since_window = 0
        self._sums: dict[str, tuple[float, int]] = {}
        self._steps: list[int] = []
        self._losses: dict[str, list[float]] = {}
        self._updates: list[float] = []
        self._gradients: list[float] = []
        self._before: list[np.ndarray] | None = None
        self._last_good: list[np.ndarray] | None = None
        self._seconds, self._began = 0.0, 0.0
        self._is_broken = self._has_begun = False

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._first_look()
        self._began = self._began or budget.now()

    def _first_look(self) -> None:
        """After other callbacks had their say, which may restore weights."""
        encoder = self.model.encoder
        if not self._is_pretrain and is_from_scratch(encoder):
            self._report(fresh_in_finetuning(encoder))
        if self._num_steps is not None:
            self._report(idle_schedules(self._feed.tasks, self._is_pretrain, self._num_steps))
        epoch = getattr(self.model, "_initial_epoch", None) or 0
        if epoch and not int(keras.ops.convert_to_numpy(self.model.optimizer._iterations.value)):
            self._report(
                [
                    Finding(
                        "The optimizer's state was never restored",
                        f"training goes on with epoch {epoch + 1}, but the optimizer stands at step 0.",
                        "Train with the optimizer, or the recipe, that the backup was made with.",
                    )
                ]
            )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._batch, self._sums, self._began = 0, {}, 0.0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        steps, self._batch = batch + 1 - self._batch, batch + 1
        self._step += steps
        self._since_window += steps
        now = budget.now()
        self._seconds, self._began = self._seconds + now - self._began, now
        if self._step == steps:  # compiling is no sign of a quick or slow device
            self._seconds = 0.0
            self._source.restart()
        self._count()
        losses = {name: float(value) for name, value in (logs or {}).items() if name.endswith("loss")}
        if not all(math.isfinite(value) for value in losses.values()):
            self._find_break(losses)
        if self._before is not None:
            self._compare()
        if self._since_window >= _WINDOW:
            self._close_window(losses)

    def _count(self) -> None:
        for batch in self._source.uncounted():
            if self._counts.batches < _COUNTED:
                self._counts.add(batch)

    def _close_window(self, losses: Mapping[str, float]) -> None:
        """Turn the means since the epoch's beginning into means since the last window."""
        for name, value in losses.items():
            before, batches = self._sums.get(name, (0.0, 0))
            self._sums[name] = (value * self._batch, self._batch)
            mean = (value * self._batch - before) / max(1, self._batch - batches)
            self._losses.setdefault(name, []).append(mean)
        self._steps.append(self._step)
        self._since_window = 0
        if len(self._steps) % _WATCH == 1 and not self._is_broken:
            self._before = [keras.ops.convert_to_numpy(v).copy() for v in self.model.weights]
        self._report(self._findings(is_over=False))

    def _compare(self) -> None:
        """Measure the last step against the weights before it."""
        ratios = []
        for variable, before in zip(self.model.weights, self._before or [], strict=True):
            size = np.linalg.norm(before.astype("float32"))
            if variable.trainable and len(before.shape) == 2 and size > 0:
                change = keras.ops.convert_to_numpy(variable).astype("float32") - before
                ratios.append(float(np.linalg.norm(change) / size))
        if ratios and np.isfinite(ratios).all():
            self._updates.append(max(ratios))
        squares = [
            float(np.square(keras.ops.convert_to_numpy(v).astype("float32")).sum())
            for v in self.model.optimizer.variables
            if "momentum" in v.path
        ]
        if squares:
            self._gradients.append(math.sqrt(sum(squares)))
        self._last_good, self._before = self._before, None

    def _findings(self, is_over: bool) -> list[Finding]:
        found, times_unigram = [], 0.0
        if self._counts.batches >= min(_COUNTED, self._step):
            found += self._counts.findings()
        for task in self._feed.tasks:
            losses = self._losses.get(f"{task.name}_loss", [])
            unigram = self._counts.unigram_loss(task.name)
            steps = self._steps[-len(losses) :] if losses else []
            found += standing_at(task.name, steps, losses, unigram, self.patience)
            if unigram and losses:
                times_unigram = max(times_unigram, losses[-1] / unigram)
        if is_over or len(self._steps) % _WATCH == 0:
            losses = self._losses.get("loss", [])
            found += learning_rate_problems(losses, self._updates, self._gradients, times_unigram)
            making, batches = self._source.making()
            found += slow_feed(making, self._seconds, batches, self._source.is_in_line)
        return found

    def on_train_end(self, logs: Any = None) -> None:
        self._report(self._findings(is_over=True))
        self._report(idle_schedules(self._feed.tasks, self._is_pretrain, self._num_steps or self._step))
        self._before = self._last_good = None
        self._feed.source, self._source = self._source.source, None

    def _report(self, findings: Iterable[Finding]) -> None:
        known = {finding.symptom for finding in self.findings}
        for finding in findings:
            if finding.symptom not in known:
                self.findings.append(finding)
                known.add(finding.symptom)
                if self.verbose:
                    print(f"\nDoctor: {finding}", flush=True)

    def _find_break(self, losses: Mapping[str, float]) -> None:
        """Look, once, for the layer where numbers stopped."""
        if self._is_broken:
            return
        self._is_broken = True
        batch = self._source.kept(self._feed.first_step + self._step - 1)
        earlier = self._before if self._before is not None else self._last_good
        where = break_point(self.model, self._feed.tasks, batch, earlier)
        self._report([not_a_number(losses, self._step, where)])


def diagnose(
    model: Any, batches: Iterable[SentenceBatch] = (), phase: str = "pretrain", patience: int = 200
) -> list[Finding]:
    """Name what went wrong in a finished run, as far as the model, its history and batches tell.

    A `Doctor` in the run itself sees more: single steps, updates and the feed.

    Args:
        model: what `train_model` or `load_model` returned.
        batches: some of the phase's, a few dozen.
        phase: `"pretrain"` or `"finetune"`.
        patience: steps that a loss may stand at the unigram loss.

    Returns:
        A list of `Finding`; empty if all is well.

    Raises:
        ValueError: for another phase, or one in which no task is active.

    Example:

    ```python
    for finding in diagnose(model, [generator[i] for i in range(50)]):
        print(finding)
    ```
    """
    if phase not in ("pretrain", "finetune"):
        raise ValueError(f"`phase` must be 'pretrain' or 'finetune'. Received: phase={phase!r}")
    is_pretrain = phase == "pretrain"
    tasks = [task for task in model.tasks if task.weight_scheduler.is_active(is_pretrain)]
    if not tasks:
        raise ValueError(f"No task is active in the phase {phase!r}: {model.tasks}")
    counts = LabelCounts(tasks, encoder_facts(model.encoder).vocab_size)
    for batch in batches:
        counts.add(batch)
    found = counts.findings()
    history = getattr(model, "training_history", {}).get(phase)
    if history is not None:
        found += _of_history(history, counts, patience, is_pretrain)
    bad, number = nonfinite_weights(model)
    if bad:
        found.append(
            Finding(
                "Weights are not finite",
                f"{len(bad)} of {number}; the first is {bad[0]}.",
                "Train again from an earlier backup, with a Doctor among the callbacks.",
            )
        )
    return found


def _of_history(
    history: keras.callbacks.History, counts: LabelCounts, patience: int, is_pretrain: bool
) -> list[Finding]:
    """Judge the means of epochs. The first epochs' may lag behind, the last are what matters."""
    steps = int(history.params.get("steps") or 1)
    epochs = [(epoch + 1) * steps for epoch in history.epoch]
    found: list[Finding] = []
    for task in counts.tasks:
        losses = history.history.get(f"{task.name}_loss", [])
        found += standing_at(task.name, epochs, losses, counts.unigram_loss(task.name), patience)
    total = history.history.get("loss", [])
    for epoch, loss in zip(epochs, total, strict=True):
        if not math.isfinite(loss):
            found.append(not_a_number({"loss": loss}, epoch, "Steps are those at the end of the epoch."))
            break
    return found + idle_schedules(counts.tasks, is_pretrain, epochs[-1] if epochs else 1)
