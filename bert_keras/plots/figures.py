"""What all pictures share: Matplotlib, imported when it is needed, and colours that all can tell apart."""

from __future__ import annotations

from typing import Any

# Okabe and Ito 2008, "Color Universal Design": distinct with every kind of colour vision, and in grey.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
CYCLE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK, YELLOW)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
GREY, PALE = "#7F7F7F", "#E8E8E8"


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure, in inches, that belongs to nobody else: no state of `pyplot` is touched.

    Raises:
        ImportError: naming the extra to install, if Matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('Pictures need the extra: pip install "bert_keras[plots]"') from error
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def ink_on(darkness: float) -> str:
    """Return black or white, whichever can be read on a ground of this darkness, from 0 to 1."""
    return "white" if darkness > 0.55 else "black"


def shown_token(token: str) -> str:
    """Return a piece of a vocabulary as pictures show it: with a visible mark for a space, and no TeX."""
    return token.replace("$", r"\$").replace("\n", "\\n") or "''"
