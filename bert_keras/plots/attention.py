"""Where a transformer looks: one head as a map, as lines between tokens, and all heads at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bert_keras.plots.figures import BLUE, CYCLE, new_figure, shown_token


def attention_map(probabilities: Any, tokens: Sequence[str], *, title: str = "") -> Any:
    """Draw one head: a square for each pair of tokens, the brighter the more the row's token looks there.

    Args:
        probabilities: `(length, length)`, rows add up to 1, as `attention_of` gives for a layer and head.
        tokens: `length` labels.
        title: above the picture.

    Returns:
        A Matplotlib figure.

    Raises:
        ValueError: if the shapes do not fit one another.
        ImportError: naming the extra to install, if Matplotlib is missing.

    Example:

    ```python
    seen = attention_of(model, text_encoder, "The cat sat on the mat.")
    attention_map(seen.probabilities[0, 3], seen.tokens, title="layer 0, head 3")
    ```
    """
    values, labels = _checked(probabilities, tokens, 2)
    size = 1.8 + 0.27 * len(labels)
    figure = new_figure(size + 0.7, size)
    axes = figure.subplots()
    image = axes.imshow(values, cmap="cividis", vmin=0.0, vmax=max(float(values.max()), 1e-9))
    places = range(len(labels))
    axes.set_xticks(places, labels, rotation=90, fontsize=9)
    axes.set_yticks(places, labels, fontsize=9)
    axes.set(xlabel="to", ylabel="from", title=title)
    axes.set_xticks(np.arange(len(labels) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(labels) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.4)
    axes.tick_params(which="minor", length=0)
    figure.colorbar(image, ax=axes, shrink=0.8, label="attention")
    return figure


def attention_heads(probabilities: Any, tokens: Sequence[str]) -> Any:
    """Draw all heads of all layers as small maps, one row for each layer.

    Args:
        probabilities: `(layers, heads, length, length)`, as `attention_of` gives.
        tokens: `length` labels; they are shown at the left of each row where there are few.

    Returns:
        A Matplotlib figure. Each map has its own scale, from 0 to its largest value, which its title tells.

    Raises:
        ValueError: if the shapes do not fit one another.
        ImportError: naming the extra to install, if Matplotlib is missing.

    Example:

    ```python
    attention_heads(seen.probabilities, seen.tokens)
    ```
    """
    values, labels = _checked(probabilities, tokens, 4)
    layers, heads = values.shape[:2]
    has_labels = len(labels) <= 24
    size = max(1.5, 0.15 * len(labels)) if has_labels else 1.5
    figure = new_figure(size * heads + 1.3, (size + 0.35) * layers + 0.3)
    panels = figure.subplots(layers, heads, squeeze=False)
    for layer in range(layers):
        for head in range(heads):
            axes, own = panels[layer, head], values[layer, head]
            axes.imshow(own, cmap="cividis", vmin=0.0, vmax=max(float(own.max()), 1e-9))
            axes.set_title(f"{layer}.{head}  up to {own.max():.2f}", fontsize=8)
            axes.set_xticks([])
            axes.set_yticks([])
        if has_labels:
            panels[layer, 0].set_yticks(range(len(labels)), labels, fontsize=7)
        panels[layer, 0].set_ylabel(f"layer {layer}", fontsize=9)
    return figure


def head_view(
    probabilities: Any,
    tokens: Sequence[str],
    *,
    token: int | None = None,
    least: float | None = None,
    title: str = "",
) -> Any:
    """Draw one head, or several in colours, as lines from the tokens that look (left) to those that they look
    at (right); the stronger, the more attention.

    Args:
        probabilities: `(length, length)`, or `(heads, length, length)`.
        tokens: `length` labels.
        token: number of the one token whose attention is drawn; by default all.
        least: weaker attention is left out; by default what is below twice the even share, 2 / length.
        title: above the picture.

    Returns:
        A Matplotlib figure.

    Raises:
        ValueError: if the shapes do not fit one another, or there is no such token.
        ImportError: naming the extra to install, if Matplotlib is missing.

    Example:

    ```python
    head_view(seen.probabilities[1, 0], seen.tokens, token=4)
    ```

    Source of the form: Vig 2019, "A Multiscale Visualization of Attention in the Transformer Model".
    """
    probabilities = np.asarray(probabilities, "float64")
    values, labels = _checked(probabilities[None] if probabilities.ndim == 2 else probabilities, tokens, 3)
    if token is not None and not 0 <= token < len(labels):
        raise ValueError(f"`token` must be from 0 to {len(labels) - 1}. Received: token={token}")
    longest = max(len(label) for label in labels)
    figure = new_figure(2.6 + 0.18 * longest, 0.6 + 0.28 * len(labels))
    axes = figure.subplots()
    colours = (BLUE,) if len(values) == 1 else CYCLE
    drawn = values if token is None else values[:, token : token + 1]
    strongest = max(float(drawn.max()), 1e-9)
    least = 2.0 / len(labels) if least is None else least
    for number, head in enumerate(values):
        for start, end in np.argwhere(head >= least):
            if token in (None, int(start)):
                weight = float(head[start, end]) / strongest
                shift = 0.12 * (number - (len(values) - 1) / 2) / max(1, len(values) - 1)
                axes.plot(
                    [0, 1],
                    [start + shift, end + shift],
                    color=colours[number % len(colours)],
                    alpha=0.1 + 0.9 * weight,
                    linewidth=0.5 + 3.0 * weight,
                    solid_capstyle="round",
                )
        if len(values) > 1:
            axes.plot([], [], color=colours[number % len(colours)], linewidth=3, label=f"head {number}")
    for place, label in enumerate(labels):
        is_chosen = token in (None, place)
        axes.text(
            -0.04,
            place,
            label,
            ha="right",
            va="center",
            fontsize=10,
            fontweight="bold" if is_chosen and token is not None else None,
            color="black" if is_chosen else "#777777",
        )
        axes.text(1.04, place, label, ha="left", va="center", fontsize=10)
    margin = 0.14 * longest
    axes.set(xlim=(-0.1 - margin, 1.1 + margin), ylim=(len(labels) - 0.4, -0.6), title=title)
    axes.set_axis_off()
    note = f"lines from {least:.2f} to {strongest:.2f}"
    if strongest < least:
        note = f"no attention above {least:.2f}; the strongest is {strongest:.2f}"
    if len(values) > 1:
        figure.legend(loc="outside lower center", ncols=min(4, len(values)), frameon=False, title=note)
    else:
        figure.supxlabel(note, fontsize=9)
    return figure


def _checked(probabilities: Any, tokens: Sequence[str], num_axes: int) -> tuple[np.ndarray, list[str]]:
    values = np.asarray(probabilities, "float64")
    length = len(tokens)
    if values.ndim != num_axes or length == 0 or values.shape[-2:] != (length, length):
        form = ("layers", "heads")[4 - num_axes :] if num_axes > 2 else ()
        raise ValueError(
            f"`probabilities` must have the shape ({', '.join([*form, str(length), str(length)])}), with one "
            f"row for each of the {length} tokens. Received shape {values.shape}"
        )
    return values, [shown_token(token) for token in tokens]
