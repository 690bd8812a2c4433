"""What all functions here share: one text, or a stream of them in pieces."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from bert_keras.data.rows import Text, check_texts

Result = TypeVar("Result")


def one_or_many(texts: Text | Iterable[Text], run: Callable[[Iterable[Text]], Iterator[Result]]) -> Any:
    """Return the result of one text (a string or a pair), or an iterator over those of many."""
    is_pair = isinstance(texts, tuple) and len(texts) == 2 and all(isinstance(part, str) for part in texts)
    if isinstance(texts, str) or is_pair:
        return next(run([texts]))  # type: ignore[list-item]
    return run(texts)


def in_chunks(texts: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Cut a stream of texts into lists.

    Raises:
        TypeError: if something is no text.
    """
    source = iter(texts)
    while chunk := list(itertools.islice(source, size)):
        check_texts(chunk)
        yield chunk
