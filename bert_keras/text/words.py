"""Raw text to words, for what is labelled word by word."""

from __future__ import annotations

import functools
from typing import Any


def split_words(text: str) -> list[tuple[int, int]]:
    """Return where the words of a text are.

    Words end where Unicode's rules for word boundaries have them end (UAX #29): "don't" and "3.14" are one
    word, a punctuation mark is one of its own, emoji and letters keep what is combined with them. White space
    belongs to no word. What is spelled otherwise in your training data ("do n't") needs a splitter of your
    own.

    Args:
        text: any text.

    Returns:
        Start and end of every word, `text[start:end]`, in order.

    Example:
        >>> [text[start:end] for text in ["Don't panic!"] for start, end in split_words(text)]
        ["Don't", 'panic', '!']

    Source: https://www.unicode.org/reports/tr29/, as the `regex` library has it.
    """
    spans: list[tuple[int, int]] = []
    start = 0
    for match in _boundary().finditer(text):
        end = match.start()
        if end > start and not text[start:end].isspace():
            spans.append((start, end))
        start = max(start, end)
    return spans


@functools.cache
def _boundary() -> Any:
    import regex

    return regex.compile(r"(?w)\b|$")
