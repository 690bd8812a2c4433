"""Text to a corpus on disk: read, tokenise, write, in bounded memory, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from bert_keras.data.corpus_format import ARRAY_NAMES, FORMAT_VERSION, ArrayWriter, open_arrays, write_meta
from bert_keras.data.splitting import split_sentences
from bert_keras.text import TextEncoder, list_files, read_line_batches

Splitter = Callable[[str], Iterable[str]]
Item = TypeVar("Item")

_READ_BYTES = 1 << 21
_MAX_LINE_BYTES = 1 << 22
_PIECE_CHARACTERS = 1 << 16
_STALE_SECONDS = 24 * 3600.0
_REPORT_SECONDS = 5.0


class TextBatch(NamedTuple):
    """Some sentences in reading order.

    Attributes:
        pieces: the text of the sentences; one that is very long is in several pieces.
        continued: indices of the pieces that continue the one before.
        document_ends: for each end of a document, how many pieces come before it in this batch.
        num_bytes: roughly how much was read for it.
    """

    pieces: list[str]
    continued: list[int]
    document_ends: list[int]
    num_bytes: int


def build(
    text_encoder: TextEncoder,
    source: str | Path | Iterable[str | Path],
    cache_dir: str | Path | None,
    one_document_per_line: bool,
    sentence_splitter: Splitter | None,
    verbose: bool,
) -> Path:
    """Return the directory of a prepared corpus, made now unless it is there; see `Corpus.prepare`."""
    if sentence_splitter is not None and not one_document_per_line:
        raise ValueError(
            "`sentence_splitter` cuts lines that hold whole documents: pass one_document_per_line=True "
            "with it, or leave it out."
        )
    files = list_files(source)
    splitter = (sentence_splitter or split_sentences) if one_document_per_line else None
    meta: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "text_sha256": hash_files(files)
        if sentence_splitter is None
        else hash_sentences(files, sentence_splitter),
        "layout": "lines" if splitter is None else "documents" if sentence_splitter is None else "custom",
        "fingerprint": text_encoder.fingerprint,
    }
    key = hashlib.sha256(json.dumps(list(meta.values())).encode()).hexdigest()[:32]
    cache = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    directory = cache / key
    if is_whole(directory):
        return directory
    cache.mkdir(parents=True, exist_ok=True)
    remove_stale(cache)
    temporary = cache / f".{key}.{secrets.token_hex(8)}"
    temporary.mkdir()
    try:
        progress = Progress(sum(path.stat().st_size for path in files)) if verbose else None
        meta["vocab_size"] = text_encoder.vocab_size
        meta["special_ids"] = sorted(text_encoder.special_ids)
        meta["arrays"] = _write_arrays(temporary, text_encoder, files, splitter, progress)
        write_meta(temporary, meta)
        publish(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return directory


def default_cache_dir() -> Path:
    """Return where prepared corpora are kept if nothing else is asked for."""
    if named := os.environ.get("BERT_KERAS_CACHE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "bert_keras" / "corpora"


def is_whole(directory: Path) -> bool:
    """Return whether a directory holds a prepared corpus that is not damaged."""
    try:
        open_arrays(directory)
    except (FileNotFoundError, ValueError):
        return False
    return True


def publish(temporary: Path, directory: Path) -> None:
    """Give a finished directory its name. What another process put there first stays, if it is whole."""
    for _ in range(10):
        try:
            os.rename(temporary, directory)
            return
        except OSError:
            if is_whole(directory):
                return
            if not directory.exists():
                raise
        # Renamed before it is deleted, so that nobody meets it half deleted.
        aside = directory.with_name(f".{directory.name}.{secrets.token_hex(8)}")
        os.rename(directory, aside)
        shutil.rmtree(aside, ignore_errors=True)
    raise OSError(f"Could not put a corpus into {str(directory)!r}: something else keeps appearing there.")


def remove_stale(cache: Path) -> None:
    """Delete what preparations that were killed left behind a day or more ago."""
    for path in cache.glob(".*.*"):
        try:
            newest = max((entry.stat().st_mtime for entry in path.iterdir()), default=path.stat().st_mtime)
        except OSError:
            continue
        if time.time() - newest > _STALE_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def read_batches(files: Iterable[Path], splitter: Splitter | None) -> Iterator[TextBatch]:
    """Yield the sentences of some files.

    Args:
        files: text files.
        splitter: cuts lines, which are documents, into sentences; None if lines are sentences, and blank
            lines end documents.
    """
    for path in files:
        for lines in read_line_batches(path, _READ_BYTES, max_line_bytes=_MAX_LINE_BYTES):
            sentences: list[str] = []
            document_ends: list[int] = []
            if splitter is None:
                for line in lines:
                    if line and not line.isspace():
                        sentences.append(line)
                    elif not document_ends or document_ends[-1] != len(sentences):
                        document_ends.append(len(sentences))
            else:
                for line in lines:
                    sentences.extend(splitter(line))
                    document_ends.append(len(sentences))
            yield _in_pieces(sentences, document_ends)
        yield TextBatch([], [], [0], 0)


def _in_pieces(sentences: list[str], document_ends: list[int]) -> TextBatch:
    """Cut very long sentences at spaces: tokenizers need memory in proportion to the longest text."""
    num_bytes = sum(map(len, sentences)) + len(sentences)
    if max(map(len, sentences), default=0) <= _PIECE_CHARACTERS:
        return TextBatch(sentences, [], document_ends, num_bytes)
    pieces: list[str] = []
    continued: list[int] = []
    num_pieces = [0]
    for sentence in sentences:
        start = 0
        while len(sentence) - start > _PIECE_CHARACTERS:
            end = sentence.rfind(" ", start + 1, start + _PIECE_CHARACTERS)
            end = end if end >= 0 else start + _PIECE_CHARACTERS
            pieces.append(sentence[start:end])
            continued.append(len(pieces))
            start = end
        pieces.append(sentence[start:])
        num_pieces.append(len(pieces))
    return TextBatch(pieces, continued, [num_pieces[end] for end in document_ends], num_bytes)


def hash_files(files: Iterable[Path]) -> str:
    """Return a hash of what the files hold, in their order, whatever they are called."""
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def hash_sentences(files: Iterable[Path], splitter: Splitter) -> str:
    """Return a hash of the sentences that a user's function makes: nothing else identifies it."""
    digest = hashlib.sha256()
    for batch in ahead(read_batches(files, splitter)):
        digest.update(json.dumps([batch.pieces, batch.continued, batch.document_ends]).encode())
    return digest.hexdigest()


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the same items, always making the next one in another thread meanwhile."""
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(next, items, None)
        while (item := future.result()) is not None:
            future = executor.submit(next, items, None)
            yield item


class Progress:
    """Tells on standard error, every few seconds, how much was read."""

    def __init__(self, num_bytes: int) -> None:
        self._total, self._done, self._start = num_bytes, 0, time.monotonic()
        self._next = self._start + _REPORT_SECONDS

    def add(self, num_bytes: int, num_tokens: int) -> None:
        """Count what was read, and the tokens so far."""
        self._done += num_bytes
        if (now := time.monotonic()) >= self._next:
            self._next = now + _REPORT_SECONDS
            seconds = now - self._start
            print(
                f"Preparing the corpus: {self._done / 1e6:,.0f} MB of text read, {num_tokens:,} tokens, "
                f"{seconds:.0f} s (the files have {self._total / 1e6:,.0f} MB)",
                file=sys.stderr,
            )


def _write_arrays(
    directory: Path,
    text_encoder: TextEncoder,
    files: list[Path],
    splitter: Splitter | None,
    progress: Progress | None,
) -> dict[str, dict[str, Any]]:
    dtypes = ("uint16" if text_encoder.vocab_size <= 1 << 16 else "int32", "int64", "int64")
    writers = [
        ArrayWriter(directory / f"{name}.npy", dtype) for name, dtype in zip(ARRAY_NAMES, dtypes, strict=True)
    ]
    tokens, sentence_offsets, document_offsets = writers
    try:
        sentence_offsets.append(np.zeros(1, np.int64))
        document_offsets.append(np.zeros(1, np.int64))
        last_end = 0
        for batch in ahead(read_batches(files, splitter)):
            ids, ends, num_sentences = _encode(text_encoder, batch)
            document_ends = np.unique(num_sentences + sentence_offsets.length - 1)
            document_ends = document_ends[document_ends > last_end]
            last_end = int(document_ends[-1]) if document_ends.size else last_end
            document_offsets.append(document_ends)
            sentence_offsets.append(ends + tokens.length)
            tokens.append(ids)
            if progress is not None:
                progress.add(batch.num_bytes, tokens.length)
        if not tokens.length:
            names = ", ".join(repr(str(path)) for path in files[:3]) + (" ..." if len(files) > 3 else "")
            raise ValueError(
                f"`source` holds no text: {len(files)} file(s) came to no tokens at all: {names}"
            )
        return {name: writer.finish() for name, writer in zip(ARRAY_NAMES, writers, strict=True)}
    finally:
        for writer in writers:
            writer.close()


def _encode(text_encoder: TextEncoder, batch: TextBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ids, where in them sentences end, and for each end of a document how many sentences it follows.

    Sentences without ids are left out.
    """
    if not batch.pieces:
        return np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(len(batch.document_ends), np.int64)
    ids, sizes = text_encoder.encode_flat(batch.pieces)
    starts = np.delete(np.arange(len(batch.pieces)), batch.continued)
    is_kept = np.add.reduceat(sizes, starts) > 0
    ends = np.unique(np.cumsum(sizes)[np.append(starts[1:], len(batch.pieces)) - 1])
    num_kept = np.append(0, np.cumsum(is_kept))
    return ids, ends[ends > 0], num_kept[np.searchsorted(starts, batch.document_ends)]
