"""Many texts in moderate portions, and their ids laid end to end."""

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

CHUNK_CHARACTERS = 1 << 19


def text_chunks(texts: Sequence[str], num_characters: int) -> Iterator[Sequence[str]]:
    """Cuts a sequence of texts into runs of about `num_characters` characters, to bound memory."""
    start = size = 0
    for i, length in enumerate(map(len, texts)):
        size += length + 1
        if size >= num_characters:
            yield texts[start : i + 1]
            start, size = i + 1, 0
    if start < len(texts):
        yield texts[start:]


def join_ids(lists: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Lists of ids, laid end to end: ids `(n,)` int32 and lengths `(len(lists),)` int64."""
    lengths = np.fromiter(map(len, lists), np.int64, len(lists))
    return np.fromiter(chain.from_iterable(lists), np.int32, int(lengths.sum())), lengths


def concatenate_flat(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Results of `join_ids`, one after the other."""
    ids = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0, np.int32)
    lengths = np.concatenate([part[1] for part in parts]) if parts else np.zeros(0, np.int64)
    return ids, lengths
