"""Does pretraining help? The same encoder on the same labels, from pretrained weights and from scratch."""

from __future__ import annotations

import json
import statistics
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bert_keras.data import Sentence, labelled_generator
from bert_keras.plots import score_against_labels
from bert_keras.tasks import TaskMetadata, check_tasks
from bert_keras.text.files import write_atomic
from bert_keras.training.evaluation import evaluate_model
from bert_keras.training.loading import load_model
from bert_keras.training.model import MultiTaskModel
from bert_keras.training.optimizers import create_optimizer
from bert_keras.training.phase import finetune_again
from bert_keras.training.saving import check_variables
from bert_keras.training.train import model_for, train_model

SIDES = ("pretrained", "scratch")
DEFAULT_METRICS = {
    "classification": "accuracy",
    "multi_label": "micro_f1",
    "regression": "pearson",
    "span": "f1",
}
# 97.5 % quantiles of Student's t, by degrees of freedom from 1 to 30.
_T = (
    *(
        12.706,
        4.303,
        3.182,
        2.776,
        2.571,
        2.447,
        2.365,
        2.306,
        2.262,
        2.228,
        2.201,
        2.179,
        2.160,
        2.145,
        2.131,
    ),
    *(
        2.120,
        2.110,
        2.101,
        2.093,
        2.086,
        2.080,
        2.074,
        2.069,
        2.064,
        2.060,
        2.056,
        2.052,
        2.048,
        2.045,
        2.042,
    ),
)


@dataclass(frozen=True)
class ComparisonRow:
    """One side at one number of labelled examples.

    Attributes:
        metric: what was measured, as `evaluate_model` names it.
        examples: labelled examples that were trained on.
        side: `"pretrained"` or `"scratch"`.
        learning_rate: the one that did best on the validation data, by the mean over seeds.
        scores: for each seed, at that rate.
        mean, interval: their mean, and half the width of its 95 % confidence interval (Student's t); None
            for one seed.
    """

    metric: str
    examples: int
    side: str
    learning_rate: float
    scores: tuple[float, ...]
    mean: float
    interval: float | None


@dataclass(frozen=True)
class Comparison:
    """What `compare_pretraining` returns.

    Attributes:
        rows: by metric, number of examples and side.
        measured_on: `"test"`, or `"validation"` where no test data were given (there rates were chosen too).
        runs: every run: side, examples, learning rate, seed, and the scores on both sets.
    """

    rows: list[ComparisonRow]
    measured_on: str
    runs: list[dict[str, Any]]

    def difference(self, metric: str, examples: int) -> tuple[float, float | None]:
        """Return by how much the pretrained side is better, as the mean over seeds of the difference at equal
        seed (and so equal examples), and half the width of its 95 % confidence interval."""
        both = [
            next(row for row in self.rows if (row.metric, row.examples, row.side) == (metric, examples, side))
            for side in SIDES
        ]
        return _mean_and_interval([a - b for a, b in zip(both[0].scores, both[1].scores, strict=True)])

    def to_markdown(self) -> str:
        """Return the table: mean +- half the confidence interval, and the paired difference."""
        lines = [
            f"| {self.measured_on} | examples | pretrained | rate | scratch | rate | difference |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for metric, examples in dict.fromkeys((row.metric, row.examples) for row in self.rows):
            cells = [metric, f"{examples:,}"]
            for side in SIDES:
                row = next(r for r in self.rows if (r.metric, r.examples, r.side) == (metric, examples, side))
                cells += [_shown(row.mean, row.interval), f"{row.learning_rate:g}"]
            cells.append(_shown(*self.difference(metric, examples), signed=True))
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def save(self, path: str | Path) -> None:
        """Write everything as JSON."""
        content = {"measured_on": self.measured_on, "rows": [asdict(r) for r in self.rows], "runs": self.runs}
        write_atomic(path, json.dumps(content, indent=1).encode())

    def plot(self) -> Any:
        """Draw scores against numbers of labelled examples, with their confidence intervals.

        Returns:
            A Matplotlib figure with one panel for each metric.

        Raises:
            ImportError: naming the extra to install, if Matplotlib is missing.
        """
        return score_against_labels(self.rows)


def compare_pretraining(
    pretrained: str | Path | keras.Model | Callable[[int], keras.Model],
    create_encoder: Callable[[int], keras.Model],
    tasks: TaskMetadata | Iterable[TaskMetadata],
    train: Sequence[Sentence],
    validation: Sequence[Sentence],
    test: Sequence[Sentence] | None = None,
    *,
    pad_id: int,
    label_budgets: Sequence[int | None] = (100, 1000, None),
    learning_rates: Sequence[float] = (1e-4, 3e-4, 1e-3),
    seeds: int = 3,
    epochs: int = 10,
    batch_size: int = 32,
    metric: str | None = None,
    optimizer: Callable[[int, float], keras.optimizers.Optimizer] = create_optimizer,
    verbose: int = 1,
) -> Comparison:
    """Train an encoder on labelled examples from pretrained weights and from scratch, and compare.

    Both sides get the same shape, examples, order, steps, seeds and learning rates to choose from. A rate is
    chosen for each side and number of examples by the mean over seeds on `validation`. A pretrained run whose
    rate was chosen among more or larger ones than its baseline's proves nothing: the experiment of 2018 that
    has F1 rise from 0.09 to 0.58 gave the pretrained run a ten times larger one.

    Args:
        pretrained: a file that `save_weights` wrote, an encoder, or a function from seed to encoder with
            pretrained weights.
        create_encoder: from seed to a fresh encoder of that shape. Seeds decide about weights alone: runs
            that differ by the seed share what the backend compiled.
        tasks: what is learned; several tasks are learned together.
        train, validation, test: labelled examples. Without `test` the scores are those on `validation`.
        pad_id: of the text encoder.
        label_budgets: numbers of training examples to try; None for all. Smaller sets are parts of larger.
        learning_rates: peaks that are tried for each side and number of examples.
        seeds: number of seeds, from 0; each decides encoder, heads, which examples, and their order.
        epochs: times that each example is seen.
        batch_size: rows of a batch.
        metric: as `evaluate_model` names it after the task's name; by default accuracy, micro F1
            (multi-label), Pearson's correlation (regression) or F1 (spans).
        optimizer: from number of steps and learning rate to an optimizer.
        verbose: 1 prints a line for every run; 0 nothing.

    Returns:
        A `Comparison`: a table, a picture, and all runs.

    Raises:
        ValueError: if an argument is out of its range, or pretrained weights do not fit the encoder.

    Example:

    ```python
    report = compare_pretraining("weights/pretrained", lambda seed: create_text_cnn(8000, seed=seed),
                                 sentiment, train, validation, pad_id=text_encoder.pad_id)
    print(report.to_markdown())
    report.plot().savefig("pretraining.png")
    ```

    Source of the 2018 experiment: https://github.com/brightmart/bert_language_understanding.
    """
    tasks = check_tasks([tasks] if isinstance(tasks, TaskMetadata) else tasks)
    for name, value in (("seeds", seeds), ("epochs", epochs), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1. Received: {name}={value}")
    if not learning_rates or not label_budgets or not train or not validation:
        raise ValueError(
            "`learning_rates`, `label_budgets`, `train` and `validation` must not be empty. Received lengths "
            f"{len(learning_rates)}, {len(label_budgets)}, {len(train)}, {len(validation)}"
        )
    sizes = sorted({len(train) if budget is None else min(budget, len(train)) for budget in label_budgets})
    if sizes[0] < 1:
        raise ValueError(f"`label_budgets` must be at least 1 or None. Received: {list(label_budgets)}")
    names = [f"{task.name}_{metric or DEFAULT_METRICS[task.kind]}" for task in tasks]
    start = _starts(pretrained, create_encoder)
    splits = {"validation": validation} if test is None else {"validation": validation, "test": test}

    trained = _Trained(tasks, epochs, optimizer)

    def run(side: str, size: int, rate: float, seed: int) -> dict[str, Any]:
        order = np.random.default_rng(seed).permutation(len(train))
        sentences = [train[i] for i in order[:size]]
        generator = labelled_generator(sentences, pad_id=pad_id, batch_size=min(batch_size, size), seed=seed)
        model = trained.of((side, size, rate), start(side, seed), generator, seed)
        found: dict[str, Any] = {"side": side, "examples": size, "learning_rate": rate, "seed": seed}
        for split, held_out in splits.items():
            generator = labelled_generator(
                held_out, pad_id=pad_id, batch_size=batch_size, shuffle=False, wrap=False
            )
            measured = evaluate_model(model, generator)
            if missing := [name for name in names if name not in measured]:
                raise ValueError(f"There is no metric {missing[0]!r}. There are: {sorted(measured)}")
            found[split] = {name: measured[name] for name in names}
        if verbose:
            print(found, flush=True)
        return found

    runs = [
        run(side, size, rate, seed)
        for size in sizes
        for rate in learning_rates
        for seed in range(seeds)
        for side in SIDES
    ]
    measured_on = "validation" if test is None else "test"
    rows = [
        _row(runs, name, size, side, learning_rates, measured_on)
        for name in names
        for size in sizes
        for side in SIDES
    ]
    _warn_of_edges(rows, learning_rates)
    return Comparison(rows, measured_on, runs)


class _Trained:
    """Fine-tunes encoders, those of one seed after another with what was compiled for the first.

    With few labels, most of the time would go into tracing and compiling.
    """

    def __init__(
        self,
        tasks: list[TaskMetadata],
        epochs: int,
        optimizer: Callable[[int, float], keras.optimizers.Optimizer],
    ) -> None:
        self.tasks, self.epochs, self.optimizer = tasks, epochs, optimizer
        self._models: dict[str, tuple[Any, MultiTaskModel]] = {}

    def of(
        self, key: tuple[str, int, float], encoder: keras.Model, generator: Any, seed: int
    ) -> MultiTaskModel:
        """Return a fine-tuned model; it is good until the next call.

        Args:
            key: side, number of examples and learning rate. For each side the last model is kept.
            encoder: what to begin with.
            generator: batches.
            seed: of the heads.
        """
        side, _, rate = key
        last_key, model = self._models.get(side, (None, None))
        if model is not None and last_key == key:
            fresh = model_for(encoder, self.tasks, seed)
            if _shapes(fresh) == _shapes(model):
                optimizer = keras.optimizers.get(self.optimizer(len(generator) * self.epochs, rate))
                finetune_again(model, fresh, generator, self.epochs, optimizer)
                return model
        model = train_model(
            encoder,
            self.tasks,
            finetune_generator=generator,
            finetune_epochs=self.epochs,
            finetune_optimizer=lambda steps: self.optimizer(steps, rate),
            seed=seed,
            verbose=0,
        )
        self._models[side] = key, model
        return model


def _shapes(model: MultiTaskModel) -> list[tuple[tuple[int, ...], bool]]:
    return [(tuple(variable.shape), variable.trainable) for variable in model.weights]


def _starts(
    pretrained: Any, create_encoder: Callable[[int], keras.Model]
) -> Callable[[str, int], keras.Model]:
    """Return a function from side and seed to an encoder."""
    if callable(pretrained) and not isinstance(pretrained, keras.Model):
        return lambda side, seed: pretrained(seed) if side == "pretrained" else create_encoder(seed)
    if not isinstance(pretrained, keras.Model):
        pretrained = load_model(pretrained, create_encoder(0)).encoder
    pretrained = getattr(pretrained, "encoder", pretrained)
    saved = [(variable.path, tuple(variable.shape)) for variable in pretrained.weights]
    values = [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in pretrained.weights]

    def start(side: str, seed: int) -> keras.Model:
        encoder = create_encoder(seed)
        if side == "pretrained":
            check_variables(saved, encoder.weights, "`pretrained` does not fit `create_encoder`")
            encoder.set_weights(values)
        return encoder

    return start


def _row(
    runs: Sequence[dict[str, Any]],
    name: str,
    size: int,
    side: str,
    learning_rates: Sequence[float],
    measured_on: str,
) -> ComparisonRow:
    own = [run for run in runs if (run["examples"], run["side"]) == (size, side)]

    def scores(rate: float, split: str) -> list[float]:
        return [run[split][name] for run in own if run["learning_rate"] == rate]

    best = max(learning_rates, key=lambda rate: np.nan_to_num(np.mean(scores(rate, "validation")), nan=-1.0))
    mean, interval = _mean_and_interval(scores(best, measured_on))
    return ComparisonRow(name, size, side, best, tuple(scores(best, measured_on)), mean, interval)


def _warn_of_edges(rows: Sequence[ComparisonRow], learning_rates: Sequence[float]) -> None:
    """Warn where one side alone would have liked rates beyond those that were tried."""
    if len(learning_rates) < 2:
        return
    for one, other in zip(rows[::2], rows[1::2], strict=True):
        at_edge = [row.learning_rate in (min(learning_rates), max(learning_rates)) for row in (one, other)]
        if at_edge[0] != at_edge[1]:
            row = one if at_edge[0] else other
            warnings.warn(
                f"With {row.examples} examples the best rate of the {row.side} side, {row.learning_rate:g}, "
                "is at the edge of those tried, and the other side's is not: try more for a fair comparison.",
                stacklevel=3,
            )


def _mean_and_interval(scores: Sequence[float]) -> tuple[float, float | None]:
    mean = statistics.fmean(scores)
    if len(scores) < 2:
        return mean, None
    quantile = _T[len(scores) - 2] if len(scores) <= len(_T) + 1 else 1.96
    return mean, quantile * statistics.stdev(scores) / len(scores) ** 0.5


def _shown(mean: float, interval: float | None, signed: bool = False) -> str:
    shown = f"{mean:+.3f}" if signed else f"{mean:.3f}"
    return shown if interval is None else f"{shown} ± {interval:.3f}"
