"""Curves of a training, with the weight that each task had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bert_keras.plots.figures import BLUE, CYCLE, GREY, PALE, VERMILION, new_figure

_NOT_MEASURES = ("loss", "weight", "perplexity")


def training_curves(history: Any) -> Any:
    """Draw what was measured in each epoch, a row of panels for each task: its loss with the weight in force
    behind it, and its other measures.

    Args:
        history: `model.training_history`, a Keras `History`, its `history` dictionary, or a mapping from
            name of a phase to one of the latter two. Tasks are found by `<task>_loss`; `<task>_weight`,
            where it is there, is the weight in the last step of the epoch.

    Returns:
        A Matplotlib figure. Epochs are counted over the phases; dashed lines with open marks are validation.

    Raises:
        ValueError: if there is no finished epoch or no task in it.
        ImportError: naming the extra to install, if Matplotlib is missing.

    Example:

    ```python
    training_curves(model.training_history).savefig("training.png")
    ```
    """
    phases = _phases(history)
    tasks = _tasks(phases)
    if not tasks:
        raise ValueError(
            "`history` has no finished epoch with the loss of a task (`<task>_loss`). "
            f"It has: {sorted({name for logs in phases.values() for name in logs})}"
        )
    has_measures = any(_measures(phases, task) for task in tasks)
    columns = 2 if has_measures else 1
    figure = new_figure(4.4 * columns, 2.5 * len(tasks) + 0.4)
    panels = figure.subplots(len(tasks), columns, squeeze=False, sharex=True)
    for row, task in zip(panels, tasks, strict=True):
        _draw_loss(row[0], phases, task)
        if has_measures:
            _draw_measures(row[1], phases, task)
        for axes in row:
            _mark_phases(axes, phases)
    for axes in panels[-1]:
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _phases(history: Any) -> dict[str, Mapping[str, Sequence[float]]]:
    history = _logs(history)
    if not isinstance(history, Mapping):
        raise ValueError(
            "`history` must be `model.training_history` or a Keras History. "
            f"Received: {type(history).__name__}"
        )
    if all(isinstance(value, Sequence) for value in history.values()):
        return {"": history}
    return {name: _logs(logs) for name, logs in history.items()}


def _logs(history: Any) -> Any:
    """Return the dictionary of a Keras `History`."""
    return getattr(history, "history", history)


def _tasks(phases: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    names = [name for logs in phases.values() for name, values in logs.items() if values]
    found = [name.removesuffix("_loss") for name in names if name.endswith("_loss")]
    return list(dict.fromkeys(name for name in found if not name.startswith("val_") and name != "val"))


def _measures(phases: Mapping[str, Mapping[str, Sequence[float]]], task: str) -> list[str]:
    names = [name.removeprefix("val_") for logs in phases.values() for name in logs]
    others = [other for other in _tasks(phases) if other != task and other.startswith(f"{task}_")]
    own = [name for name in names if name.startswith(f"{task}_")]
    own = [name for name in own if not any(name.startswith(f"{other}_") for other in others)]
    return list(dict.fromkeys(n for n in own if n.removeprefix(f"{task}_") not in _NOT_MEASURES))


def _series(
    phases: Mapping[str, Mapping[str, Sequence[float]]], name: str
) -> list[tuple[list[int], list[float]]]:
    """Return epochs and values of each phase that has them."""
    series, start = [], 1
    for logs in phases.values():
        if name in logs:
            series.append((list(range(start, start + len(logs[name]))), [float(v) for v in logs[name]]))
        start += _num_epochs(logs)
    return series


def _num_epochs(logs: Mapping[str, Sequence[float]]) -> int:
    return max((len(values) for values in logs.values()), default=0)


def _draw(axes: Any, phases: Any, name: str, colour: str, label: str) -> None:
    """Draw training solid with full marks and validation dashed with open ones."""
    styles = {
        name: {"linestyle": "-", "marker": "o", "label": f"{label}training"},
        f"val_{name}": {
            "linestyle": "--",
            "marker": "s",
            "markerfacecolor": "white",
            "label": f"{label}validation",
        },
    }
    for key, style in styles.items():
        for number, (epochs, values) in enumerate(_series(phases, key)):
            shown = {**style, "label": style["label"] if number == 0 else None}
            axes.plot(epochs, values, color=colour, markersize=4, linewidth=1.6, **shown)


def _draw_loss(axes: Any, phases: Any, task: str) -> None:
    weights = _series(phases, f"{task}_weight")
    top = max((value for _, values in weights for value in values), default=0.0)
    if top > 0:
        behind = axes.twinx()
        for number, (epochs, values) in enumerate(weights):
            edges = [epoch - 0.5 for epoch in epochs] + [epochs[-1] + 0.5]
            label = "weight" if number == 0 else None
            behind.stairs(values, edges, fill=True, color=PALE, label=label)
            behind.stairs(values, edges, color=GREY, linewidth=1.0)
        behind.set_ylim(0, 1.25 * top)
        behind.set_ylabel("weight in force", color="#555555")
        behind.tick_params(axis="y", colors="#555555")
        behind.set_zorder(axes.get_zorder() - 1)
        axes.patch.set_visible(False)
    _draw(axes, phases, f"{task}_loss", BLUE, "")
    axes.set(title=f"{task}: loss", ylabel="loss")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="upper right")


def _draw_measures(axes: Any, phases: Any, task: str) -> None:
    names = _measures(phases, task)
    axes.set_title(f"{task}: other measures")
    if not names:
        axes.set_axis_off()
        return
    colours = (VERMILION, *(colour for colour in CYCLE if colour not in (VERMILION, BLUE)))
    for number, name in enumerate(names):
        short = name.removeprefix(f"{task}_").replace("_", " ")
        _draw(axes, phases, name, colours[number % len(colours)], f"{short}, ")
    if len(names) == 1:
        axes.set(title=f"{task}: {short}", ylabel=short)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower right")


def _mark_phases(axes: Any, phases: Any) -> None:
    if len(phases) < 2 or not axes.axison:
        return
    start = 0.5
    for number, (name, logs) in enumerate(phases.items()):
        if number:
            axes.axvline(start, color="black", linewidth=1.0, linestyle=":")
        axes.annotate(
            f" {name}",
            (start, 0.02),
            xycoords=("data", "axes fraction"),
            fontsize="small",
            fontstyle="italic",
            va="bottom",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
        )
        start += _num_epochs(logs)
    axes.set_xlim(0.5, start)
