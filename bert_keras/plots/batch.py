"""A batch as the model gets it, in colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bert_keras.data import SentenceBatch, TaskDataBatch
from bert_keras.plots.figures import GREY, VERMILION, new_figure, shown_token
from bert_keras.tasks import LM_TASK
from bert_keras.text import TextEncoder

# Pale, but of different brightness too: for print in grey.
_SPECIAL, _FIRST, _SECOND, _MASKED = "#C9C9C9", "#DCEBF7", "#FBE3B3", "#F3A683"
_LINE_HEIGHT = 0.46


class _Cell(NamedTuple):
    text: str
    below: str
    colour: str
    is_predicted: bool


def batch_in_colour(
    batch: SentenceBatch,
    text_encoder: TextEncoder,
    *,
    rows: int | Sequence[int] = 3,
    tokens_per_line: int = 14,
) -> Any:
    """Draw rows of a batch: a box for each token, coloured by what it is; what is to be predicted has a frame
    and its label below.

    Args:
        batch: of any generator.
        text_encoder: the one that made the ids.
        rows: how many, from the first, or which.
        tokens_per_line: longer rows go on in further lines.

    Returns:
        A Matplotlib figure. Above each row are its labels of sentence-level tasks, as `is_next = 1`, of a
        packed row those of its sequences in order. Padding is not drawn; its amount is told.

    Raises:
        ValueError: if there is no such row.
        ImportError: naming the extra to install, if Matplotlib is missing.

    Example:

    ```python
    batch_in_colour(lm_generator(text_encoder, "corpus.txt")[0], text_encoder, rows=2)
    ```
    """
    from_batch = len(batch.tokens)
    chosen = list(range(min(rows, from_batch))) if isinstance(rows, int) else list(rows)
    if not chosen or not all(0 <= row < from_batch for row in chosen) or tokens_per_line < 1:
        raise ValueError(
            f"`rows` must be at least 1, or numbers from 0 to {from_batch - 1}, and `tokens_per_line` at "
            f"least 1. Received: rows={rows}, tokens_per_line={tokens_per_line}"
        )
    lines: list[tuple[str, list[_Cell]]] = []
    for row in chosen:
        cells = _cells(batch, row, text_encoder)
        parts = [cells[i : i + tokens_per_line] for i in range(0, len(cells), tokens_per_line)] or [[]]
        lines += [(_heading(batch, row), parts[0]), *(("", part) for part in parts[1:])]
    headings = sum(bool(heading) for heading, _ in lines)
    height = 0.5 + _LINE_HEIGHT * len(lines) + 0.3 * headings
    figure = new_figure(11.0, height)
    axes = figure.subplots()
    _draw_lines(axes, lines, tokens_per_line)
    _draw_key(axes)
    return figure


def _cells(batch: SentenceBatch, row: int, text_encoder: TextEncoder) -> list[_Cell]:
    lm = batch.token_classification.get(LM_TASK)
    others = {n: d for n, d in batch.token_classification.items() if n != LM_TASK}
    cells = []
    for column in np.flatnonzero(batch.padding_mask[row]):
        token = int(batch.tokens[row, column])
        colour = _SECOND if batch.segments[row, column] else _FIRST
        if token == text_encoder.msk_id:
            colour = _MASKED
        elif token in text_encoder.special_ids:
            colour = _SPECIAL
        below = [
            str(data.target[row, column]) for data in others.values() if bool(data.target_mask[row, column])
        ]
        is_predicted = lm is not None and bool(lm.target_mask[row, column])
        if lm is not None and is_predicted:
            below.insert(0, text_encoder.id_to_token(int(lm.target[row, column])))
        cells.append(
            _Cell(
                shown_token(text_encoder.id_to_token(token)),
                shown_token(", ".join(below)) if below else "",
                colour,
                is_predicted,
            )
        )
    return cells


def _heading(batch: SentenceBatch, row: int) -> str:
    labels = []
    for name, data in batch.sentence_classification.items():
        shown = _shown(data, row, batch.is_packed)
        labels.append(f"{name}: -" if shown == "-" else f"{name} = {shown}")
    padding = int(batch.padding_mask.shape[1] - np.count_nonzero(batch.padding_mask[row]))
    return f"row {row}   " + "   ".join([*labels, f"{padding} of padding"])


def _shown(data: TaskDataBatch, row: int, is_packed: bool) -> str:
    """Return the label of a row, or those of its sequences in order, "-" where there is none."""
    target, place = (np.asarray(array)[row] for array in data)
    if not is_packed:
        target, place = target[None], place[None]
    return ", ".join(str(each.tolist()) if at >= 0 else "-" for each, at in zip(target, place, strict=True))


def _draw_lines(axes: Any, lines: list[tuple[str, list[_Cell]]], per_line: int) -> None:
    from matplotlib.patches import Rectangle

    y = 0.0
    for heading, cells in lines:
        if heading:
            y += 0.3
            axes.text(0, y - 0.06, heading, fontsize=9, fontweight="bold", va="bottom")
        for place, cell in enumerate(cells):
            edge, width = (VERMILION, 1.6) if cell.is_predicted else ("white", 1.0)
            axes.add_patch(
                Rectangle(
                    (place + 0.03, y), 0.94, 0.24, facecolor=cell.colour, edgecolor=edge, linewidth=width
                )
            )
            axes.text(place + 0.5, y + 0.12, *_fitted(cell.text), ha="center", va="center")
            if cell.below:
                text, style = _fitted(cell.below)
                axes.text(
                    place + 0.5,
                    y + 0.25,
                    text,
                    {**style, "color": VERMILION if cell.is_predicted else "#333333"},
                    ha="center",
                    va="top",
                )
        y += _LINE_HEIGHT
    axes.set(xlim=(0, per_line), ylim=(y + 0.25, -0.05))
    axes.set_axis_off()


def _fitted(text: str) -> tuple[str, dict[str, Any]]:
    """Return a text, cut if need be, and the size of letters in which it fits its box."""
    text = text if len(text) <= 12 else f"{text[:11]}…"
    return text, {"fontsize": 9 if len(text) <= 8 else 7.2}


def _draw_key(axes: Any) -> None:
    from matplotlib.patches import Patch

    key = [
        Patch(facecolor=_SPECIAL, edgecolor=GREY, label="special token"),
        Patch(facecolor=_FIRST, edgecolor=GREY, label="segment A"),
        Patch(facecolor=_SECOND, edgecolor=GREY, label="segment B"),
        Patch(facecolor=_MASKED, edgecolor=GREY, label="mask"),
        Patch(facecolor="white", edgecolor=VERMILION, linewidth=1.6, label="to be predicted (below: what)"),
    ]
    axes.legend(
        handles=key, loc="lower center", ncols=5, frameon=False, fontsize=9, bbox_to_anchor=(0.5, -0.02)
    )
