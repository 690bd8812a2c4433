"""Score against the number of labelled examples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

from bert_keras.plots.figures import BLUE, CYCLE, MARKERS, VERMILION, new_figure

_LINES = ("-", "--", "-.", ":")


class ScoreRow(Protocol):
    """What is drawn of one side at one number of labelled examples, as `compare_pretraining` returns it."""

    @property
    def metric(self) -> str: ...
    @property
    def examples(self) -> int: ...
    @property
    def side(self) -> str: ...
    @property
    def mean(self) -> float: ...
    @property
    def interval(self) -> float | None: ...


def score_against_labels(rows: Iterable[ScoreRow]) -> Any:
    """Draw scores against numbers of labelled examples, with their confidence intervals.

    Args:
        rows: the rows of a `Comparison`, or objects with `metric`, `examples`, `side`, `mean` and `interval`.

    Returns:
        A Matplotlib figure with one panel for each metric and one line for each side.

    Raises:
        ValueError: if there are no rows.
        ImportError: naming the extra to install, if Matplotlib is missing.

    Example:

    ```python
    score_against_labels(report.rows).savefig("pretraining.png")  # what compare_pretraining returned
    ```
    """
    rows = sorted(rows, key=lambda row: row.examples)
    if not rows:
        raise ValueError("`rows` is empty: there is nothing to draw.")
    metrics = list(dict.fromkeys(row.metric for row in rows))
    sides = sorted({row.side for row in rows}, key=lambda side: (side != "pretrained", side))
    colours = (BLUE, VERMILION, *(colour for colour in CYCLE if colour not in (BLUE, VERMILION)))
    figure = new_figure(4.5 * len(metrics), 3.5)
    for axes, metric in zip(np.ravel(figure.subplots(1, len(metrics))), metrics, strict=True):
        for number, side in enumerate(sides):
            own = [row for row in rows if (row.metric, row.side) == (metric, side)]
            axes.errorbar(
                [row.examples for row in own],
                [row.mean for row in own],
                [row.interval or 0.0 for row in own],
                color=colours[number % len(colours)],
                marker=MARKERS[number % len(MARKERS)],
                linestyle=_LINES[number % len(_LINES)],
                capsize=3,
                label=side,
            )
        sizes = sorted({row.examples for row in rows})
        axes.set(xscale="log", xlabel="labelled examples", ylabel=metric.replace("_", " "))
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
    return figure
