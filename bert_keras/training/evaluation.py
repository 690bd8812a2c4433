"""`evaluate_model`: how good a model is at its tasks."""

from __future__ import annotations

from typing import Any

from bert_keras.training.checks import encoder_facts, labelled_tasks
from bert_keras.training.feed import TaskFeed, feed_length
from bert_keras.training.model import MultiTaskModel


def evaluate_model(
    model: MultiTaskModel,
    generator: Any,
    *,
    steps: int | None = None,
    verbose: int | str = 0,
) -> dict[str, float]:
    """Measure a model on a generator: loss and accuracy of every task that its first batch has labels for.

    Args:
        model: the model.
        generator: sized and indexable.
        steps: number of batches; by default all.
        verbose: as in Keras' `evaluate`.

    Returns:
        `loss`, `<task>_loss` in nats, `<task>_accuracy`, and `lm_perplexity`; means over all labelled
        positions. `loss` is the sum over tasks.

    Raises:
        ValueError: if a batch does not fit the model, or the first one labels none of its tasks.

    Example:

    ```python
    evaluate_model(model, held_out)["lm_loss"]
    ```
    """
    length = feed_length(generator, steps, "steps")
    feed = TaskFeed(generator, [], encoder_facts(model.encoder), lambda task, step: 1.0, length, "generator")
    first = feed.batch(0)
    feed.tasks = tasks = labelled_tasks(first, model.tasks)
    if not tasks:
        raise ValueError(
            f"`generator` labels none of the model's tasks {[task.name for task in model.tasks]}. It labels: "
            f"{sorted([*first.token_classification, *first.sentence_classification])}"
        )
    if not getattr(model, "compiled", False):
        model.compile(optimizer="sgd")
    with model.only_training(tasks):
        logs = model.evaluate(feed.as_keras_data(), verbose=verbose, return_dict=True)
    weights = {f"{task.name}_weight" for task in tasks}
    return {name: float(value) for name, value in logs.items() if name not in weights}
