"""What a trained model makes of texts: confusion of classes, and a map of sentence vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bert_keras.plots.figures import CYCLE, MARKERS, ink_on, new_figure, shown_token


def confusion_matrix(
    true: Sequence[Any], predicted: Sequence[Any], *, labels: Sequence[Any] | None = None, title: str = ""
) -> Any:
    """Draw how often each class was taken for each other one.

    Args:
        true, predicted: names or numbers of classes, one for each example.
        labels: all classes in the order in which they are shown; by default those that occur, sorted.
        title: above the picture.

    Returns:
        A Matplotlib figure: rows are the true classes, with their sizes; each field has the share of the row,
        by which it is coloured, and the count.

    Raises:
        ValueError: if the two differ in length, are empty, or have a class that `labels` lacks.
        ImportError: naming the extra to install, if Matplotlib is missing.

    Example:

    ```python
    confusion_matrix(["bad", "good", "good"], ["bad", "bad", "good"])
    ```
    """
    if len(true) != len(predicted) or len(true) == 0:
        raise ValueError(
            "`true` and `predicted` must be of one length, at least 1. "
            f"Received lengths {len(true)} and {len(predicted)}"
        )
    names = list(sorted({*true, *predicted}) if labels is None else labels)
    number = {name: place for place, name in enumerate(names)}
    if unknown := sorted({*true, *predicted} - {*names}, key=str):
        raise ValueError(f"`labels` lacks classes that occur: {unknown[:5]}. Received: labels={names}")
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, ([number[name] for name in true], [number[name] for name in predicted]), 1)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = 1.8 + 0.62 * len(names)
    figure = new_figure(size + 1.2, size)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="cividis_r", vmin=0.0, vmax=1.0)
    for row in range(len(names)):
        for column in range(len(names)):
            if counts[row, column]:
                text = f"{shares[row, column]:.0%}\n{counts[row, column]:,}"
                axes.text(
                    column,
                    row,
                    text,
                    ha="center",
                    va="center",
                    fontsize=8,
                    color=ink_on(float(shares[row, column])),
                )
    shown = [str(name) for name in names]
    turned = max(len(name) for name in shown) > 6
    axes.set_xticks(
        range(len(names)), shown, rotation=45 if turned else 0, ha="right" if turned else "center"
    )
    axes.set_yticks(
        range(len(names)), [f"{name} ({total:,})" for name, total in zip(shown, counts.sum(1), strict=True)]
    )
    accuracy = np.trace(counts) / counts.sum()
    axes.set(xlabel="predicted", ylabel="true", title=title or f"accuracy {accuracy:.1%}")
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    return figure


def principal_components(vectors: Any, count: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Project vectors to the directions in which they differ most.

    Args:
        vectors: `(n, width)`, n at least 2.
        count: number of directions.

    Returns:
        Coordinates, float64 `(n, count)`, and the share of the variance in each direction, `(count,)`. Each
        direction's sign is such that its largest coordinate is positive.

    Raises:
        ValueError: if there are fewer than two vectors, or fewer directions than asked for.

    Example:

    ```python
    places, shares = principal_components(np.stack(list(embed(model, text_encoder, texts))))
    ```
    """
    vectors = np.asarray(vectors, "float64")
    if vectors.ndim != 2 or len(vectors) < 2 or not 1 <= count <= min(vectors.shape):
        raise ValueError(
            f"`vectors` must be (n, width), both at least {max(2, count)}. Received shape {vectors.shape}, "
            f"count={count}"
        )
    centred = vectors - vectors.mean(0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    places = left[:, :count] * sizes[:count]
    places *= np.where(places[np.abs(places).argmax(0), np.arange(count)] < 0, -1.0, 1.0)
    return places, sizes[:count] ** 2 / max(float((sizes**2).sum()), 1e-300)


def embedding_map(
    vectors: Any,
    *,
    texts: Sequence[str] | None = None,
    groups: Sequence[Any] | None = None,
    title: str = "",
) -> Any:
    """Draw sentence vectors on the plane in which they differ most (principal components).

    Args:
        vectors: `(n, width)`, as `embed` gives.
        texts: listed beside the map, with the numbers that their points have; cut to 52 characters.
        groups: a class for each point, which decides its colour and its mark.
        title: above the picture.

    Returns:
        A Matplotlib figure. The axes tell what share of the variance they hold: with little the map says
        little.

    Raises:
        ValueError: if the lengths differ or there are fewer than two vectors.
        ImportError: naming the extra to install, if Matplotlib is missing.

    Example:

    ```python
    embedding_map(np.stack(list(embed(model, text_encoder, texts))), texts=texts)
    ```
    """
    places, shares = principal_components(vectors)
    for name, given in (("texts", texts), ("groups", groups)):
        if given is not None and len(given) != len(places):
            raise ValueError(
                f"`{name}` must have one entry for each of {len(places)} vectors. Received: {len(given)}"
            )
    count = 0 if texts is None else len(texts)
    figure = new_figure(6.5 if texts is None else 11.0, max(4.8, 0.2 * count + 0.6))
    axes = figure.subplots()
    groups = [""] * len(places) if groups is None else list(groups)
    for number, group in enumerate(dict.fromkeys(groups)):
        own = places[[each == group for each in groups]]
        style = {"color": CYCLE[number % len(CYCLE)], "marker": MARKERS[number % len(MARKERS)]}
        axes.scatter(
            own[:, 0], own[:, 1], s=40, edgecolor="white", linewidth=0.6, label=str(group), alpha=0.9, **style
        )
    if texts is not None:
        _number(axes, places, texts)
    if any(group != "" for group in groups):
        # a fixed place: matplotlib's search for the best one takes long among many points
        axes.legend(fontsize=9, loc="upper right")
    axes.set(
        xlabel=f"first component ({shares[0]:.0%} of the variance)",
        ylabel=f"second component ({shares[1]:.0%})",
        title=title,
    )
    axes.margins(0.08)
    axes.grid(alpha=0.3)
    return figure


def _number(axes: Any, places: np.ndarray, texts: Sequence[str]) -> None:
    """Write numbers beside the points, and the texts with their numbers in a list, where all can be read."""
    for number, (x, y) in enumerate(places, 1):
        axes.annotate(str(number), (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
    lines = [
        f"{number:>3}  {text if len(text) <= 52 else text[:51] + '…'}" for number, text in enumerate(texts, 1)
    ]
    axes.text(
        1.02,
        1.0,
        "\n".join(shown_token(line) for line in lines),
        transform=axes.transAxes,
        va="top",
        fontsize=8.5,
        linespacing=1.45,
    )
