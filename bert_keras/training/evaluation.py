"""`evaluate_model`: how good a model is at its tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from bert_keras.tasks import IS_NEXT_TASK, LM_TASK, TaskMetadata
from bert_keras.training.checks import check_packing, encoder_facts, labelled_tasks
from bert_keras.training.feed import TaskFeed, feed_length
from bert_keras.training.model import MultiTaskModel
from bert_keras.training.scores import (
    are_entity_tags,
    entity_scores,
    macro_f1,
    pearson,
    position_f1,
    set_f1,
    spearman,
)


def evaluate_model(
    model: MultiTaskModel,
    generator: Any,
    *,
    steps: int | None = None,
    verbose: int | str = 0,
) -> dict[str, float]:
    """Measure a model on a generator: every task that its first batch has labels for.

    Args:
        model: the model.
        generator: sized and indexable.
        steps: number of batches; by default all.
        verbose: as in Keras' `evaluate`.

    Returns:
        `loss` (the sum over tasks) and for each task, over all of its labels and them alone:

        - `<task>_loss`, in nats, or squared differences in a regression;
        - classification: `<task>_accuracy` and, but for `lm` and `is_next`, `<task>_macro_f1` (over the
          classes that occur); where the task's `labels` are tags of entities (O, B-..., I-...), also
          `<task>_entity_precision`, `_entity_recall` and `_entity_f1` as in CoNLL and `seqeval`;
        - multi-label: `<task>_micro_f1` and `<task>_macro_f1` (over all classes), for classes of probability
          0.5 and more;
        - regression: `<task>_mae`, and for a single number `<task>_pearson` and `<task>_spearman`;
        - span: `<task>_exact_match` (both ends right) and `<task>_f1` (of its tokens);
        - `lm_perplexity`.

    Raises:
        ValueError: if a batch does not fit the model, or the first one labels none of its tasks, or it is
            packed and the encoder does not keep sequences apart.

    Example:

    ```python
    evaluate_model(model, held_out)["lm_loss"]
    ```
    """
    length = feed_length(generator, steps, "steps")
    feed = TaskFeed(generator, [], encoder_facts(model.encoder), lambda task, step: 1.0, length, "generator")
    first = feed.batch(0)
    check_packing(first, model.encoder)
    feed.tasks = tasks = labelled_tasks(first, model.tasks)
    if not tasks:
        raise ValueError(
            f"`generator` labels none of the model's tasks {[task.name for task in model.tasks]}. It labels: "
            f"{sorted([*first.token_classification, *first.sentence_classification])}"
        )
    if not getattr(model, "compiled", False):
        model.compile(optimizer="sgd")
    with model.only_training(tasks), feed.running():
        data = feed.as_keras_data()
        feed.start()
        logs = model.evaluate(data, verbose=verbose, return_dict=True)
        scores = score_predictions(model, feed, length)
    weights = {f"{task.name}_weight" for task in tasks}
    return {name: float(value) for name, value in logs.items() if name not in weights} | scores


class ValidationScores(keras.callbacks.Callback):
    """Adds to the logs of each epoch what can only be measured over all predictions together.

    Args:
        feed: of the validation data.
        num_batches: its length.
    """

    def __init__(self, feed: TaskFeed, num_batches: int) -> None:
        super().__init__()
        self.feed, self.num_batches = feed, num_batches

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        scores = score_predictions(self.model, self.feed, self.num_batches)
        if logs is not None:
            logs.update({f"val_{name}": score for name, score in scores.items()})


def score_predictions(model: MultiTaskModel, feed: TaskFeed, num_batches: int) -> dict[str, float]:
    """Return the scores of a feed's tasks that are no means over labels."""
    tasks = [task for task in feed.tasks if task.name not in (LM_TASK, IS_NEXT_TASK)]
    collected = {task.name: _Collected(task) for task in tasks}
    if not tasks:
        return {}
    for index in range(num_batches):
        x, y = feed[index]
        x = {**x, "positions": {task.name: x["positions"][task.name] for task in tasks}}
        logits = model.predict_on_batch(x)
        # Each sequence of the batch by a number of its own: in `sequence_ids` they begin anew in every row.
        ids = x["sequence_ids"]
        sequences = (ids + (ids.max() + 1) * np.arange(len(ids))[:, None]).reshape(-1)
        for task in tasks:
            is_labelled = y["labelled"][task.name].reshape(-1) > 0
            targets = y["targets"][task.name]
            collected[task.name].add(
                np.asarray(logits[task.name])[is_labelled].astype("float32"),
                targets.reshape(-1, *targets.shape[2:])[is_labelled],
                sequences[x["positions"][task.name].reshape(-1)[is_labelled]],
            )
    return {
        f"{task.name}_{name}": score
        for task in tasks
        for name, score in collected[task.name].scores().items()
    }


class _Collected:
    """Targets and predictions of one task, in the order of the labels."""

    def __init__(self, task: TaskMetadata) -> None:
        self.task = task
        self.true: list[Any] = []
        self.said: list[Any] = []
        self.sentences: list[np.ndarray] = []

    def add(self, logits: np.ndarray, targets: np.ndarray, sequences: np.ndarray) -> None:
        """Add a batch: logits and targets of n labels, and the number of the sequence that each is in."""
        if self.task.kind == "multi_label":
            self.true += [classes[classes >= 0] for classes in targets]
            self.said += [np.flatnonzero(row >= 0) for row in logits]
            return
        if self.task.kind == "classification":
            logits = logits.argmax(-1)
        elif self.task.kind == "span":
            logits = logits.argmax(1)
        self.true.append(targets)
        self.said.append(logits)
        self.sentences.append(np.flatnonzero(np.diff(sequences)) + 1)

    def scores(self) -> dict[str, float]:
        kind = self.task.kind
        if kind == "multi_label":
            micro, macro = set_f1(self.true, self.said, self.task.num_classes)
            return {"micro_f1": micro, "macro_f1": macro}
        true, said = np.concatenate(self.true), np.concatenate(self.said)
        if kind == "span":
            return {"f1": position_f1(true, said)}
        if kind == "regression":
            if self.task.num_classes > 1:
                return {}
            said = said.reshape(-1)
            true = true.reshape(-1)
            return {"pearson": pearson(true, said), "spearman": spearman(true, said)}
        scores = {"macro_f1": macro_f1(true, said)}
        if self.task.is_token_level and are_entity_tags(self.task.labels):
            both = entity_scores(self._tags(self.true), self._tags(self.said))
            names = ("entity_precision", "entity_recall", "entity_f1")
            scores |= dict(zip(names, both, strict=True))
        return scores

    def _tags(self, batches: Sequence[np.ndarray]) -> list[list[str]]:
        names = self.task.labels or ()
        return [
            [names[number] for number in sentence]
            for batch, ends in zip(batches, self.sentences, strict=True)
            for sentence in np.split(batch, ends)
            if len(sentence)
        ]
