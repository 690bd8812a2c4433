"""The lines a vocabulary is trained on: all of them, or an even sample that fits into memory."""

import os
import random
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import cast

from bert_keras.text.files import Source, list_files, read_lines

MAX_SENTENCE_CHARACTERS = 1000  # SentencePiece drops sentences of more than 4,192 bytes


def sample_sentences(source: Source, max_sentences: int, max_characters: int, seed: int) -> list[str]:
    """Reads all of `source` and keeps an even sample of it, in order; all of it if it is small enough.

    Long lines are cut into sentences first, at spaces where there are any, and blank lines are dropped.

    Args:
        source: files, as `list_files` takes them, or an iterable of lines. A list of strings is taken for
            lines unless they are paths of existing files.
        max_sentences: keep at most so many sentences,
        max_characters: of at most so many characters in all.
        seed: decides the sample.

    Returns:
        The sentences, at least one.

    Raises:
        ValueError: there is no text, or a limit is not positive.
        FileNotFoundError: a file does not exist.
        TypeError: a line is not a string.
    """
    if max_sentences < 1 or max_characters < 1:
        raise ValueError(
            f"max_sentences and max_characters: expected at least 1, got {max_sentences} and "
            f"{max_characters}."
        )
    generator = random.Random(seed)
    kept: list[tuple[float, str]] = []
    share, size = 1.0, 0
    for sentence in _sentences(_lines(source)):
        key = generator.random()
        if key >= share:
            continue
        kept.append((key, sentence))
        size += len(sentence)
        while len(kept) > max_sentences or (size > max_characters and len(kept) > 1):
            share /= 2
            kept = [item for item in kept if item[0] < share]
            size = sum(len(item[1]) for item in kept)
    if not kept:
        raise ValueError("source: expected text, found nothing but blank lines.")
    return [sentence for _, sentence in kept]


def _lines(source: Source) -> Iterable[str]:
    if isinstance(source, str | os.PathLike):
        return read_lines(source)
    if not isinstance(source, Iterable):
        raise TypeError(f"source: expected files or an iterable of lines, got {source!r}.")
    if isinstance(source, list | tuple):
        return read_lines(source) if _are_paths(source) else source
    items = iter(source)
    first = next(items, None)
    if isinstance(first, os.PathLike):
        return read_lines(list_files(chain([first], items)))
    return cast(Iterable[str], chain([] if first is None else [first], items))


def _are_paths(items: list[str | Path] | tuple[str | Path, ...]) -> bool:
    """A `Path` is a file, and so is a string that names one; one such among lines is a mistake. (A folder is
    none: a line may be "." or "/".)"""
    if any(isinstance(item, os.PathLike) for item in items):
        return True
    found = [isinstance(item, str) and 0 < len(item) < 1024 and _exists(item) for item in items]
    files = [item for item, is_there in zip(items, found, strict=True) if is_there and os.path.isfile(item)]
    if files and not all(found):
        raise FileNotFoundError(
            f"source: {files[0]!r} is a file, but there is no file {items[found.index(False)]!r}."
        )
    return bool(found) and all(found)


def _exists(name: str) -> bool:
    try:
        return os.path.exists(name)
    except ValueError:  # A NUL or a lone surrogate in the name.
        return False


def _sentences(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if not isinstance(line, str):
            raise TypeError(f"source: expected lines of text, got {line!r} ({type(line).__name__}).")
        if len(line) <= MAX_SENTENCE_CHARACTERS:
            if not line.isspace() and line:
                yield line
            continue
        start = 0
        while start < len(line):
            end = start + MAX_SENTENCE_CHARACTERS
            if end < len(line):
                end = line.rfind(" ", start + 1, end) + 1 or end
            if sentence := line[start:end].strip():
                yield sentence
            start = end
