"""What commonly goes wrong in training, each told from plain arrays and numbers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import keras
import numpy as np

from bert_keras.data import SentenceBatch, TaskDataBatch
from bert_keras.tasks import TaskMetadata
from bert_keras.training.feed import sentence_labels

# Nats, and share of the unigram loss, within which a loss stands there.
_NEAR, _NEAR_SHARE = 0.05, 0.02
_TIMES_UNIGRAM = 3.0  # a loss beyond so many unigram losses is none of learning


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that goes wrong.

    Attributes:
        symptom: what it is, in a few plain words.
        evidence: what was seen, with numbers.
        advice: what to look at, or do.

    Example:

    ```python
    for finding in diagnose(model, batches):
        print(finding)
    ```
    """

    symptom: str
    evidence: str
    advice: str

    def __str__(self) -> str:
        return f"{self.symptom}\n  seen:   {self.evidence}\n  advice: {self.advice}"


class LabelCounts:
    """What is counted over batches: ids, labels and where they are.

    Args:
        tasks: the tasks.
        vocab_size: rows of the encoder's token embedding, or None.
    """

    def __init__(self, tasks: Iterable[TaskMetadata], vocab_size: int | None) -> None:
        self.tasks, self.vocab_size = list(tasks), vocab_size
        self.batches = self.tokens = 0
        self.ids = np.zeros(0, np.int64)
        self.least_id = 0
        self.labels = {task.name: 0 for task in self.tasks}
        self.on_padding = {task.name: 0 for task in self.tasks}
        # By halves of the batches, so that the frequencies of one are tried on the other.
        self._classes = {
            task.name: np.zeros((2, task.num_classes), np.int64)
            for task in self.tasks
            if task.kind == "classification"
        }

    def add(self, batch: SentenceBatch) -> None:
        """Count a batch."""
        real = np.asarray(batch.padding_mask, bool)
        ids = np.asarray(batch.tokens)[real].astype(np.int64)
        if ids.size:
            self.least_id = min(self.least_id, int(ids.min()))
            counts = np.bincount(np.maximum(ids, 0), minlength=self.ids.size)
            counts[: self.ids.size] += self.ids
            self.ids = counts
        self.tokens += ids.size
        for task in self.tasks:
            data = batch.token_classification if task.is_token_level else batch.sentence_classification
            if task.name in data:
                self._add_labels(task, data[task.name], batch, real)
        self.batches += 1

    def _add_labels(
        self, task: TaskMetadata, data: TaskDataBatch, batch: SentenceBatch, real: np.ndarray
    ) -> None:
        if task.is_token_level:
            target, labelled = np.asarray(data.target), np.asarray(data.target_mask, bool)
            values, places = target[labelled], np.flatnonzero(labelled)
        else:
            places, values = sentence_labels(batch, task)
        on_padding = ~real.reshape(-1)[np.minimum(places, real.size - 1)]
        self.labels[task.name] += places.size
        self.on_padding[task.name] += int(on_padding.sum())
        if task.name in self._classes:
            classes = values[(values >= 0) & (values < task.num_classes)]
            self._classes[task.name][self.batches % 2] += np.bincount(classes, minlength=task.num_classes)

    def unigram_loss(self, task: str) -> float | None:
        """Return the loss in nats of a model that knows how often each class occurs and nothing else.

        The frequencies of half of the batches are tried on the other half, and the other way round. None
        where there are too few labels to tell.
        """
        counts = self._classes.get(task)
        if counts is None or min(counts.sum(1)) < 20:
            return None
        smooth = counts + counts.sum(0, keepdims=True).astype(bool) * 0.5
        likely = smooth / smooth.sum(1, keepdims=True)
        nats = -np.log(likely, where=likely > 0, out=np.zeros_like(likely))
        return float((counts[::-1] * nats).sum() / counts.sum())

    def findings(self) -> list[Finding]:
        """Return what the counts tell."""
        return [*_about_ids(self), *_about_labels(self)]


def _about_ids(counts: LabelCounts) -> list[Finding]:
    found: list[Finding] = []
    size = counts.vocab_size
    if size is None or not counts.tokens:
        return found
    highest, outside = counts.ids.size - 1, int(counts.ids[size:].sum())
    if outside or counts.least_id < 0:
        found.append(
            Finding(
                "Token ids are out of range",
                f"ids from {counts.least_id} to {highest} in {counts.batches} batches; the encoder has the "
                f"rows 0 to {size - 1}.",
                "Build the encoder with vocab_size=text_encoder.vocab_size, of the same text encoder that "
                "made the corpus.",
            )
        )
    unseen = size - int(np.count_nonzero(counts.ids[:size]))
    if counts.tokens >= 20 * size and unseen > size / 2:
        found.append(
            Finding(
                "Most token ids are never seen",
                f"{unseen:,} of {size:,} ids do not occur in {counts.tokens:,} tokens; the highest that does "
                f"is {min(highest, size - 1):,}.",
                "Is the corpus encoded with this vocabulary, and in its language? A smaller vocabulary "
                "learns quicker on such text.",
            )
        )
    return found


def _about_labels(counts: LabelCounts) -> list[Finding]:
    found = []
    for name, number in counts.labels.items():
        if counts.batches and not number:
            found.append(
                Finding(
                    f"The task '{name}' has no labels",
                    f"0 labelled positions in {counts.batches} batches.",
                    "Give the batches labels under this name, or make the task inactive in this phase.",
                )
            )
        if counts.on_padding[name]:
            found.append(
                Finding(
                    f"Labels of the task '{name}' fall on padding",
                    f"{counts.on_padding[name]:,} of {number:,} labelled positions are where `padding_mask` "
                    "is False.",
                    "Combine the target mask with the padding mask where the batches are made.",
                )
            )
    return found


def idle_schedules(tasks: Iterable[TaskMetadata], is_pretrain: bool, num_steps: int) -> list[Finding]:
    """Find active tasks whose weight is 0 in every step of a phase."""
    found = []
    steps = sorted({int(step) for step in np.linspace(0, max(0, num_steps - 1), 200)})
    for task in tasks:
        if task.weight_scheduler.is_active(is_pretrain) and not any(
            task.weight_scheduler.get(is_pretrain, step) for step in steps
        ):
            found.append(
                Finding(
                    f"The schedule never let the task '{task.name}' count",
                    f"its weight is 0 in all of the {num_steps:,} steps, for instance at "
                    f"{steps[0]}, {steps[len(steps) // 2]} and {steps[-1]}.",
                    "Steps count batches of the phase over all epochs, from 0. Set the schedule to the "
                    "length of the training, or make the task inactive in this phase.",
                )
            )
    return found


def standing_at(
    task: str, steps: Sequence[int], losses: Sequence[float], unigram: float | None, patience: int
) -> list[Finding]:
    """Find a task that has stood at its unigram loss for at least `patience` steps, up to the last.

    Args:
        task: its name.
        steps: at which the losses were measured, in order.
        losses: means since the step before.
        unigram: the loss of a model that knows the frequencies of the classes only; None if unknown.
        patience: steps.
    """
    if unigram is None or not losses:
        return []
    near = max(_NEAR, _NEAR_SHARE * unigram)
    since = None
    for step, loss in zip(reversed(steps), reversed(losses), strict=True):
        if not abs(loss - unigram) <= near:
            break
        since = step
    if since is None or steps[-1] - since < patience:
        return []
    return [
        Finding(
            f"The task '{task}' stands at its unigram loss",
            f"since step {since:,} (for {steps[-1] - since:,} steps) the loss is {losses[-1]:.3f}; knowing "
            f"nothing but how often each class occurs gives {unigram:.3f}.",
            "The encoder does not use its input yet. Pre-norm, rotary positions and recipe='modern' leave "
            "this plateau soonest; else look at the learning rate, and whether inputs and labels belong "
            "together.",
        )
    ]


def learning_rate_problems(
    losses: Sequence[float],
    updates: Sequence[float],
    gradients: Sequence[float],
    times_unigram: float = 0.0,
) -> list[Finding]:
    """Find a learning rate that is too high or too low.

    Args:
        losses: over the training, in order.
        updates: size of steps relative to the size of the weights, from time to time.
        gradients: size of the mean gradient at those times, where the optimizer keeps it.
        times_unigram: the last loss of a task as a multiple of its unigram loss, where that is known.
    """
    finite = [loss for loss in losses if math.isfinite(loss)]
    if len(finite) < 4 or not updates:
        return []
    first, best, last = finite[0], min(finite), float(np.mean(finite[-2:]))
    largest = max(updates)
    gradient = f"; gradients of size {gradients[0]:.2g} to {gradients[-1]:.2g}" if gradients else ""
    step = f"single steps changed weights by up to {100 * largest:.2g} % of their size{gradient}."
    is_beyond = times_unigram > _TIMES_UNIGRAM
    is_worse = last > best + max(0.5, 0.1 * best) or is_beyond
    if largest > 0.02 and is_worse or (largest > 0.5 and last > 0.95 * first):
        beside = f", {times_unigram:.1f} times the unigram loss" if is_beyond else ""
        return [
            Finding(
                "The learning rate is too high",
                f"the loss began at {first:.3f}, had its best at {best:.3f}, and is {last:.3f}{beside}; "
                f"{step}",
                "Lower the learning rate (a third is a good next try), lengthen the warm-up, or clip the "
                "gradients' norm.",
            )
        ]
    if largest < 1e-4 and last > 0.95 * first:
        return [
            Finding(
                "The learning rate is too low",
                f"the loss began at {first:.3f} and is {last:.3f}; {step}",
                "Raise the learning rate (ten times is a good next try); look at the warm-up and at what is "
                "frozen.",
            )
        ]
    return []


def fresh_in_finetuning(encoder: keras.Model) -> list[Finding]:
    """Find an encoder whose every vector is as on the first day: biases 0, scales 1."""
    vectors = [v for v in encoder.trainable_variables if len(v.shape) == 1]
    arrays = [keras.ops.convert_to_numpy(v) for v in vectors]
    if not arrays or not all((array == array[0]).all() and array[0] in (0.0, 1.0) for array in arrays):
        return []
    return [
        Finding(
            "The encoder's weights were never restored",
            f"fine-tuning starts with fresh weights: all {len(arrays)} of its biases and scales are exactly "
            "0 or 1.",
            "Start from `load_model(...).encoder`, `load_huggingface` or another loader, or pretrain first. "
            "Building an encoder of the same shape loads nothing.",
        )
    ]


def slow_feed(making: float, total: float, batches: int, is_in_line: bool) -> list[Finding]:
    """Find a feed that takes nearly all of the time, or most of it where the device waits meanwhile.

    Args:
        making: seconds in which batches were made.
        total: seconds of the training steps meanwhile.
        batches: how many.
        is_in_line: whether the device waits while a batch is made.
    """
    if batches < 5 or making < (0.5 if is_in_line else 0.8) * total:
        return []
    return [
        Finding(
            "The feed is slower than the device",
            f"making a batch took {1000 * making / batches:.1f} ms, a training step with the wait for it "
            f"{1000 * total / batches:.1f} ms: the feed was busy {100 * min(1.0, making / total):.0f} % of "
            "the time.",
            "Tokenise once (`Corpus.prepare`), make batches in several workers, or keep prepared batches on "
            "disk.",
        )
    ]


def not_a_number(losses: Mapping[str, float], step: int, where: str) -> Finding:
    """Return the finding of a loss that is no number."""
    bad = ", ".join(f"{name}={value}" for name, value in losses.items() if not math.isfinite(value))
    return Finding(
        "The loss is not a number",
        f"first in step {step:,}: {bad}. {where}",
        "Lower the learning rate or clip the gradients' norm; in float16 prefer bfloat16. If a layer of your "
        "own is named, look there for a division, logarithm or root at its edge.",
    )
