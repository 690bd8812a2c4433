"""What all functions here share: one text or a stream of them, in batches of like length, in order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from bert_keras.data.rows import Text, check_texts
from bert_keras.text import TextEncoder
from bert_keras.training.checks import EncoderFacts, encoder_facts

Result = TypeVar("Result")
BATCHES_AT_ONCE = 32  # batches whose texts are held in memory and sorted by length


def one_or_many(texts: Text | Iterable[Text], run: Callable[[Iterable[Text]], Iterator[Result]]) -> Any:
    """Return the result of one text (a string or a pair), or an iterator over those of many."""
    is_pair = isinstance(texts, tuple) and len(texts) == 2 and all(isinstance(part, str) for part in texts)
    if isinstance(texts, str) or is_pair:
        return next(run([texts]))  # type: ignore[list-item]
    return run(texts)


def by_length(
    items: Iterable[Any],
    length_of: Callable[[Any], int],
    run: Callable[[list[Any]], Iterable[Result]],
    batch_size: int,
) -> Iterator[Result]:
    """Run batches of like length and give the results in the order of the items, in bounded memory.

    Args:
        items: a stream.
        length_of: of an item.
        run: from at most `batch_size` items to their results.
        batch_size: items of a batch.
    """
    source = iter(items)
    while chunk := list(itertools.islice(source, batch_size * BATCHES_AT_ONCE)):
        order = sorted(range(len(chunk)), key=lambda number: -length_of(chunk[number]))
        results: dict[int, Result] = {}
        for start in range(0, len(order), batch_size):
            some = order[start : start + batch_size]
            results.update(zip(some, run([chunk[number] for number in some]), strict=True))
        for number in range(len(chunk)):
            yield results.pop(number)


def in_chunks(texts: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Cut a stream of texts into lists.

    Raises:
        TypeError: if something is no text.
    """
    source = iter(texts)
    while chunk := list(itertools.islice(source, size)):
        check_texts(chunk)
        yield chunk


def checked_facts(
    encoder: Any, text_encoder: TextEncoder, batch_size: int, max_len: int | None
) -> tuple[EncoderFacts, int]:
    """Return what is known of the encoder, and the tokens of a row: `max_len`, or the encoder's, at most 512.

    Raises:
        ValueError: if an argument is out of its range, or the text encoder has more ids than the encoder.
    """
    facts = encoder_facts(encoder)
    most = facts.max_len or 1 << 30
    chosen = min(most, 512) if max_len is None else max_len
    if not 3 <= chosen <= most:
        raise ValueError(f"`max_len` must be from 3 to the encoder's {facts.max_len}. Received: {max_len}")
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1. Received: batch_size={batch_size}")
    if facts.vocab_size is not None and text_encoder.vocab_size > facts.vocab_size:
        raise ValueError(
            f"`text_encoder` has {text_encoder.vocab_size} ids, but the encoder {facts.vocab_size}: they do "
            "not belong together."
        )
    return facts, chosen
