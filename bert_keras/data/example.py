"""A labelled text as people write it, and what is done with those that are faulty."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

OnError = Literal["raise", "skip"]


@dataclass
class Example:
    """A text with the labels that people gave it, as they wrote them.

    Attributes:
        text: the text; empty where there are `words`.
        second_text: the second one of a pair. For a span: `text` is the question, this the context.
        words: the text as words, or None.
        labels: by task name: the name of a class; several names (multi-label); a number, or what reads as one
            (regression); for a token-level task one of these, or None, for each word; for a span a list of
            right answers, each its first character and its text (empty: there is none).
        where: where it comes from, for messages: file and line.

    Example:

    ```python
    Example("A fine film.", labels={"sentiment": "good", "topics": ["arts"], "stars": 4.5})
    Example(words=["She", "laughed"], labels={"pos": ["PRON", None]})
    ```
    """

    text: str = ""
    second_text: str | None = None
    words: list[str] | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)
    where: str = "an example"


class Faults:
    """Counts what is skipped, or raises at once.

    Args:
        on_error: `"raise"` or `"skip"`.
    """

    def __init__(self, on_error: OnError) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"`on_error` must be 'raise' or 'skip'. Received: on_error={on_error!r}")
        self.on_error, self.count, self.first = on_error, 0, list[str]()

    def add(self, message: str) -> None:
        """Take note of a fault.

        Raises:
            ValueError: unless faults are skipped.
        """
        if self.on_error == "raise":
            raise ValueError(f"{message} Mend it, or leave such examples out with on_error='skip'.")
        self.count += 1
        self.first = [*self.first, message][:3]

    def warn(self) -> None:
        """Say what was skipped, if anything was."""
        if self.count:
            warnings.warn(
                f"{self.count} examples were left out. The first: " + " ".join(self.first), stacklevel=3
            )


def describe(value: Any) -> str:
    """Return a value as messages show it."""
    return json.dumps(value, ensure_ascii=False, default=repr)[:80]
