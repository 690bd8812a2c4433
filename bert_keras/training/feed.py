"""From SentenceBatch to the arrays that a training step takes."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from bert_keras.data import SentenceBatch
from bert_keras.encoders.inputs import ENCODER_INPUTS
from bert_keras.tasks import TaskMetadata
from bert_keras.training.checks import EncoderFacts, check_batch
from bert_keras.training.prefetch import Prefetcher

Arrays = tuple[dict[str, Any], dict[str, Any]]

# Up to this many classes logits are so cheap that fewer shapes are worth more than fewer rows.
_FEW_CLASSES = 1000


def encoder_arrays(batch: SentenceBatch) -> dict[str, np.ndarray]:
    """Return what an encoder reads of a batch: four int32 arrays `(batch, length)` by name.

    Example:

    ```python
    logits = model.predict(encoder_arrays(batch))
    ```
    """
    rows, length = batch.tokens.shape
    positions, sequences = batch.position_ids, batch.sequence_ids
    if positions is None:
        positions = np.broadcast_to(np.arange(length, dtype="int32"), (rows, length))
    arrays = (batch.tokens, batch.segments, positions, batch.padding_mask if sequences is None else sequences)
    return {
        name: np.ascontiguousarray(array, dtype="int32")
        for name, array in zip(ENCODER_INPUTS, arrays, strict=True)
    }


def training_arrays(batch: SentenceBatch, tasks: Sequence[TaskMetadata], weights: Sequence[float]) -> Arrays:
    """Return inputs and labels of one training step.

    All labelled positions of the batch are laid end to end, padded to one of few sizes, and folded to
    `(batch, k)`: every array has the batch as its first dimension, as Keras wants, while entry j is about the
    j-th labelled position anywhere in the batch.

    Args:
        batch: the batch.
        tasks: the active tasks, all labelled in the batch.
        weights: their weights in this step.

    Returns:
        `x`: the encoder's arrays, and `positions[task]`, int32 `(batch, k)`: row times length plus column.
        `y`: `targets[task]`, int32 or in a regression float32, `(batch, k)`, with one more axis for sets of
        classes, vectors of numbers and spans; `labelled[task]`, float32 `(batch, k)`, 1 where there is a
        label, 0 in the filling; and `task_weights[task]`, float32 `(batch,)`, all equal.
    """
    rows, length = batch.tokens.shape
    positions, targets, labelled, task_weights = {}, {}, {}, {}
    sentence_columns = 1
    if batch.sequence_ids is not None:
        # By the number of sequences, so that all tasks change their shapes together.
        num_sequences = int(np.max(batch.sequence_ids, axis=1).sum())
        sentence_columns = _rounded_up(-(-num_sequences // rows), 1)
    for task, weight in zip(tasks, weights, strict=True):
        if task.is_token_level:
            target, mask = batch.token_classification[task.name]
            target, places = np.asarray(target), np.flatnonzero(mask)
            values = target.reshape(-1, *target.shape[2:])[places]
            columns = _rounded_up(-(-len(places) // rows), task.num_classes)
        else:
            places, values = sentence_labels(batch, task)
            columns = sentence_columns
        dtype = "float32" if task.kind == "regression" else "int32"
        positions[task.name] = _folded(places, rows, columns, "int32")
        targets[task.name] = _folded(values, rows, columns, dtype)
        labelled[task.name] = _folded(np.ones(len(places)), rows, columns, "float32")
        task_weights[task.name] = np.full((rows,), weight, "float32")
    x = {**encoder_arrays(batch), "positions": positions}
    return x, {"targets": targets, "labelled": labelled, "task_weights": task_weights}


def sentence_labels(batch: SentenceBatch, task: TaskMetadata) -> tuple[np.ndarray, np.ndarray]:
    """Return the places that the labels of a task are read from (row times length plus column), and the
    labels; spans as columns."""
    length = batch.tokens.shape[1]
    target, index = (np.asarray(array) for array in batch.sentence_classification[task.name])
    if not batch.is_packed:
        rows = np.flatnonzero(index >= 0)
        return rows * length + index[rows], target[rows]
    rows, sequences = np.nonzero(index >= 0)
    begins = batch.sequence_starts(index.shape[1])[rows, sequences]
    values = target[rows, sequences]
    if task.kind == "span":
        values = values + begins[:, None]
    return rows * length + begins + index[rows, sequences], values


def feed_length(generator: Any, steps: int | None, argument: str) -> int:
    """Return how many batches to take: `steps`, or by default all that the generator says it has.

    Raises:
        ValueError: if neither tells.
    """
    if steps is None:
        if not hasattr(generator, "__len__"):
            raise ValueError(
                f"`{argument}` must be given, as the generator has no length. Received: {generator!r}"
            )
        steps = len(generator)
    if steps < 1:
        raise ValueError(f"`{argument}` must be at least 1. Received: {steps}")
    return int(steps)


class TaskFeed(keras.utils.PyDataset):
    """Batches of a generator with the tasks' labels and their weights, for `fit` and `evaluate`.

    Batch i is prepared from `generator[i]` under the weights of step i. Within the context of `running`, from
    `start` on, batches are prepared in the background.

    Args:
        generator: sized and indexable, or any iterable of `SentenceBatch`.
        tasks: the active tasks.
        facts: of the encoder, for checks.
        weight_of: from task and step to the weight of its loss.
        num_batches: length of the feed; None for endless.
        name: what to call the generator in messages.
        workers: threads that prepare batches; 0 to prepare each when it is asked for. A generator that is
            only an iterable is read by one.

    Attributes:
        first_step: step of the first batch.
        end: the step after the last that will be trained, or None.
    """

    def __init__(
        self,
        generator: Any,
        tasks: Sequence[TaskMetadata],
        facts: EncoderFacts,
        weight_of: Callable[[TaskMetadata, int], float],
        num_batches: int | None,
        name: str,
        workers: int = 1,
    ) -> None:
        super().__init__(workers=1, use_multiprocessing=False)  # Keras' own would begin before `first_step`
        is_indexed = hasattr(generator, "__getitem__")
        self.source = generator if is_indexed else _InOrder(generator, name)
        self.num_threads = workers if is_indexed else min(workers, 1)
        self.tasks, self.facts, self.weight_of, self.name = list(tasks), facts, weight_of, name
        self.first_step, self.end = 0, num_batches
        self._num_batches = num_batches
        self._prefetcher: Prefetcher | None = None
        self._errors = _FirstError()

    @property
    def num_batches(self) -> int | None:
        return self._num_batches

    def batch(self, index: int) -> SentenceBatch:
        """Return a batch of the generator, checked."""
        batch = self._from_source(index)
        check_batch(batch, self.tasks, self.facts, f"Batch {index} of `{self.name}`")
        return batch

    def _from_source(self, index: int) -> Any:
        try:
            return self.source[index]
        except IndexError:  # a list, say, which begins again
            if not hasattr(self.source, "__len__") or not 0 < len(self.source) <= index:
                raise
            return self.source[index % len(self.source)]

    def start(self) -> None:
        """Begin to prepare batches in the background, from whichever is asked for next."""
        self._stop()
        if self.num_threads:
            self._prefetcher = Prefetcher(self._prepared, self.num_threads, self.end)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Stop at the end of this context, however it is left. What a backend makes of an exception in the
        preparation of a batch becomes the exception itself again."""
        self._errors = _FirstError()
        try:
            with self._errors.unwrapped():
                yield
        finally:
            self._stop()

    def _stop(self) -> None:
        prefetcher, self._prefetcher = self._prefetcher, None
        if prefetcher is not None:
            prefetcher.close()

    def __getitem__(self, index: int) -> Arrays:
        prefetcher, step = self._prefetcher, self.first_step + index
        with self._errors:
            return self._prepared(step) if prefetcher is None else prefetcher.get(step)

    def _prepared(self, step: int) -> Arrays:
        weights = []
        for task in self.tasks:
            try:
                given = self.weight_of(task, step)
            except Exception as error:
                error.add_note(f"The schedule of task '{task.name}' was asked for its weight at step {step}.")
                raise
            try:
                weight = float(given)
            except (TypeError, ValueError):
                weight = float("nan")
            if not 0.0 <= weight < float("inf"):
                raise ValueError(
                    f"The schedule of task '{task.name}' must give a finite weight of at least 0. "
                    f"Received: {given!r} at step {step}"
                )
            weights.append(weight)
        return training_arrays(self.batch(step), self.tasks, weights)

    def as_keras_data(self) -> Any:
        """Return what to hand to Keras.

        That is this object, but on TensorFlow a `tf.data.Dataset` with open dimensions: Keras would fix every
        dimension in which the first two batches agree.
        """
        if keras.backend.backend() != "tensorflow":
            return self
        import tensorflow as tf

        def opened(array: np.ndarray) -> Any:
            return tf.TensorSpec((None,) * array.ndim, array.dtype)

        def batches() -> Iterator[Arrays]:
            indices = itertools.count() if self._num_batches is None else range(self._num_batches)
            return (self[index] for index in indices)

        signature = tf.nest.map_structure(opened, self[0])
        dataset = tf.data.Dataset.from_generator(batches, output_signature=signature).prefetch(2)
        if self._num_batches is not None:
            dataset = dataset.apply(tf.data.experimental.assert_cardinality(self._num_batches))
        return dataset


class _FirstError:
    """Remembers the first exception that leaves its context."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self.error is None:
            self.error = error

    @contextlib.contextmanager
    def unwrapped(self) -> Iterator[None]:
        """Raise that exception in place of an error of TensorFlow, which only has its text."""
        outer = _FirstError()
        try:
            with outer:
                yield
        finally:
            found = outer.error
            if self.error is not None and type(found).__module__.startswith("tensorflow"):
                raise self.error from found


class _InOrder:
    """Indexing over an iterable that is read in order; the last batches stay at hand for those who ask
    again."""

    def __init__(self, batches: Iterable[SentenceBatch], name: str) -> None:
        self._batches, self._name = batches, name
        self._iterator = iter(batches)
        self._read: dict[int, SentenceBatch] = {}
        self._next = 0
        self._in_round = 0

    def __getitem__(self, index: int) -> SentenceBatch:
        while self._next <= index:
            self._read[self._next] = self._advance()
            self._next += 1
            self._read.pop(self._next - 4, None)
        if index not in self._read:
            raise ValueError(
                f"`{self._name}` is read in order, and batch {index} has passed (next: {self._next}). "
                "Give an object with __len__ and __getitem__ if batches are needed again, as validation and "
                "resuming do."
            )
        return self._read[index]

    def _advance(self) -> SentenceBatch:
        try:
            batch = next(self._iterator)
        except StopIteration:
            again = iter(self._batches)
            if again is self._iterator or self._in_round == 0:
                raise ValueError(
                    f"`{self._name}` ended after {self._next} batches, and more steps were asked for. "
                    "Give fewer steps, or an object that can be iterated again."
                ) from None
            self._iterator, self._in_round = again, 0
            batch = next(self._iterator)
        self._in_round += 1
        return batch


def _folded(values: np.ndarray, rows: int, columns: int, dtype: str) -> np.ndarray:
    """Return `(n, ...)` as `(rows, columns, ...)`, filled up with zeros."""
    filled = np.zeros((rows * columns, *values.shape[1:]), dtype)
    filled[: len(values)] = values
    return filled.reshape(rows, columns, *values.shape[1:])


def _rounded_up(columns: int, num_classes: int) -> int:
    """Round up to one of few sizes: to a power of two, or to quarters between them where many classes make
    rows dear."""
    if columns <= 1:
        return 1
    quantum = 1 << (
        (columns - 1).bit_length() if num_classes <= _FEW_CLASSES else max(0, columns.bit_length() - 3)
    )
    return -(-columns // quantum) * quantum
