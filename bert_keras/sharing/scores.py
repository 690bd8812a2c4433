"""Scores as people give them, and as the card and the Hugging Face Hub show them."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from bert_keras.sharing.record import plain_number
from bert_keras.tasks import TaskMetadata

UNNAMED_DATA = "held-out data"

# What the Hub calls our measures; the others have the same name there.
_HUB_METRICS = {
    "macro_f1": "f1",
    "micro_f1": "f1",
    "entity_f1": "f1",
    "entity_precision": "precision",
    "entity_recall": "recall",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
}


class Score(NamedTuple):
    """One number.

    Attributes:
        data: what it was measured on.
        task: the task's name, or "" where it is of all or of none.
        measure: what was measured, without the task's name.
        value: the number, or None where it is not finite.
    """

    data: str
    task: str
    measure: str
    value: float | None


def given_scores(scores: Mapping[str, Any] | None, tasks: Sequence[TaskMetadata]) -> list[Score]:
    """Return the scores that a user gave.

    Args:
        scores: numbers by name, as `evaluate_model` returns them, or such mappings by the name of the data.
        tasks: of the model.

    Raises:
        ValueError: if it is neither.
    """
    if not scores:
        return []
    if all(_is_number(value) for value in scores.values()):
        scores = {UNNAMED_DATA: scores}
    found = []
    for data, measured in scores.items():
        if not isinstance(measured, Mapping) or not all(map(_is_number, measured.values())):
            raise ValueError(
                "`scores` must be numbers by name, as `evaluate_model` returns them, or such mappings by the "
                f"name of the data. Received for {data!r}: {measured!r:.200}"
            )
        found += [Score(str(data), *_split(name, tasks), plain_number(v)) for name, v in measured.items()]
    return found


def last_validation(phases: Mapping[str, Mapping[str, Any]], tasks: Sequence[TaskMetadata]) -> list[Score]:
    """Return what validation gave after the last epoch of each phase, without the weights of tasks."""
    return [
        Score(f"validation of phase {phase}", *_split(name.removeprefix("val_"), tasks), values[-1])
        for phase, record in phases.items()
        for name, values in record["history"].items()
        if name.startswith("val_") and not _is_weight(name, tasks) and values
    ]


def model_index(
    name: str, scores: Sequence[Score], datasets: Sequence[str], task_types: Mapping[str, str], other: str
) -> list[dict[str, Any]]:
    """Return the scores in the form in which the Hub reads them.

    Args:
        name: of the model.
        scores: what was measured.
        datasets: names of data sets on the Hub; where there is only one, the scores are taken to be on it.
        task_types: what the Hub calls each task.
        other: what it calls what belongs to no task.

    Source: https://huggingface.co/docs/hub/model-cards#evaluation-results
    """
    results: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for score in scores:
        if score.value is not None:
            metric = {
                "type": _HUB_METRICS.get(score.measure, score.measure),
                "value": score.value,
                "name": f"{score.task} {score.measure}".strip(),
            }
            results.setdefault((score.data, score.task), []).append(metric)
    listed = [
        {
            "task": {"type": task_types.get(task, other), "name": task or "all tasks"},
            "dataset": {"type": datasets[0] if len(datasets) == 1 else data, "name": data},
            "metrics": metrics,
        }
        for (data, task), metrics in results.items()
    ]
    return [{"name": name, "results": listed}] if listed else []


def _split(name: str, tasks: Iterable[TaskMetadata]) -> tuple[str, str]:
    """Return task and measure of a name such as `sentiment_macro_f1`."""
    fitting = [task.name for task in tasks if name.startswith(f"{task.name}_")]
    task = max(fitting, key=len, default="")
    return (task, name[len(task) + 1 :]) if task else ("", name)


def _is_weight(name: str, tasks: Iterable[TaskMetadata]) -> bool:
    return name.removeprefix("val_") in {f"{task.name}_weight" for task in tasks}


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
