"""Which characters of a text its ids stand for, by comparing their pieces with the text.

Tokenizer libraries count in bytes, in characters of a normalised text, or not at all, each in its own way.
This compares what pieces say with what the text says, with case, accents, width and kinds of quotes put
aside, and works for every text encoder.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

Spans = list[tuple[int, int]]

_CHUNK = re.compile(r"\S+")
_PLAIN = str.maketrans(
    {"—": "-", "–": "-", "―": "-", "´": "'", "‘": "'", "’": "'", "“": '"', "”": '"', "`": "'"}
)
_FAR = 40  # characters that a text encoder may have dropped between two pieces


def align(text: str, surfaces: Sequence[str | None]) -> Spans:
    """Return start and end in a text of each piece.

    Args:
        text: the text, or a part of it without white space at its ends.
        surfaces: what each piece says; None for what may be anything (an unknown word).

    Returns:
        For each piece a span. Starts never fall. What pieces leave out (marks, control characters) belongs to
        the piece before.
    """
    keys, origins = _keys(text)
    spots: list[tuple[int, int]] = []  # first and last key of each piece, exclusive
    place, unknown = 0, 0
    for surface in surfaces:
        if surface is None:
            unknown += 1
            continue
        key = _keys(surface)[0]
        found = _find(keys, key, place + (1 if unknown else 0), len(keys) if unknown else place + _FAR)
        if found < 0:
            unknown += 1  # spelled in a way that the text does not show
            continue
        spots += [(place, found)] * unknown
        spots.append((found, found + len(key)))
        place, unknown = found + len(key), 0
    spots += [(place, len(keys))] * unknown
    return [_span(text, origins, *spot) for spot in spots]


def byte_spans(text: str, pieces: Sequence[bytes]) -> Spans:
    """Return start and end in a text of pieces that are its UTF-8, a space before it put aside; pieces that
    share a character have it all."""
    sizes = [len(character.encode()) for character in text]
    origins = [number for number, size in enumerate(sizes) for _ in range(size)]
    encoded, spans, place = text.encode(), [], 0
    for piece in pieces:
        if place == 0 and piece.startswith(b" ") and not encoded.startswith(b" "):
            piece = piece[1:]
        last = min(place + len(piece), len(origins))
        start = origins[place] if place < len(origins) else len(text)
        end = origins[last - 1] + 1 if last > place else start
        written = text[start:end]
        if written.strip():
            start += len(written) - len(written.lstrip())
            end -= len(written) - len(written.rstrip())
        spans.append((start, end))
        place = last
    return spans


def chunk_spans(text: str) -> Spans:
    """Return where the runs of characters other than white space are."""
    return [match.span() for match in _CHUNK.finditer(text)]


def align_parts(text: str, spans: Spans, surfaces: Sequence[Sequence[str | None]]) -> Spans:
    """Return `align` for the pieces of each part of a text, as spans of the whole."""
    return [
        (start + first, start + last)
        for (start, end), some in zip(spans, surfaces, strict=True)
        for first, last in align(text[start:end], some)
    ]


def _find(keys: str, key: str, start: int, end: int) -> int:
    if keys.startswith(key, start):
        return start
    return keys.find(key, start, end + len(key))


def _span(text: str, origins: Sequence[int], first: int, last: int) -> tuple[int, int]:
    """Return the characters that keys come from, with those after them that have no keys."""
    start = origins[first] if first < len(origins) else len(text)
    if first == 0:
        start = 0
    if last <= first:
        return start, start
    end = origins[last] if last < len(origins) else len(text)
    end = max(end, origins[last - 1] + 1)
    while end - 1 > origins[last - 1] and text[end - 1].isspace():
        end -= 1
    return start, end


def _keys(text: str) -> tuple[str, list[int]]:
    """Return a text as it is compared, and for each of its characters which one it comes from."""
    keys: list[str] = []
    origins: list[int] = []
    for number, character in enumerate(text):
        for key in _key(character):
            keys.append(key)
            origins.append(number)
    return "".join(keys), origins


@lru_cache(65536)
def _key(character: str) -> str:
    plain = unicodedata.normalize("NFKD", character.translate(_PLAIN)).casefold()
    plain = unicodedata.normalize("NFKD", plain)
    return "".join(c for c in plain if not c.isspace() and unicodedata.category(c) not in ("Mn", "Cc", "Cf"))
