"""How a corpus lies on disk: three `.npy` arrays, and a JSON file that says what must be in them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

FORMAT_VERSION = 1
META_NAME = "meta.json"
ARRAY_NAMES = ("tokens", "sentence_offsets", "document_offsets")


class ArrayWriter:
    """Writes a one-dimensional `.npy` file piece by piece, its length unknown until the end.

    Args:
        path: the file, new.
        dtype: of the array.
    """

    def __init__(self, path: Path, dtype: str) -> None:
        self.length = 0
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._file: BinaryIO = open(path, "xb")
        self._write_header()
        self._header_bytes = self._file.tell()

    def append(self, values: np.ndarray) -> None:
        """Add values at the end."""
        self._file.write(np.ascontiguousarray(values, dtype=self._dtype).data)
        self.length += len(values)

    def finish(self) -> dict[str, Any]:
        """Complete the file, flush it to the disk, and return what to expect of it."""
        num_bytes = self._file.tell()
        self._file.seek(0)
        self._write_header()
        if self._file.tell() != self._header_bytes:
            raise RuntimeError(
                f"NumPy {np.__version__} does not leave room for the length in the header of a .npy file."
            )
        sync(self._file)
        return {"dtype": self._dtype.str, "length": self.length, "num_bytes": num_bytes}

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write_header(self) -> None:
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self.length,)}
        np.lib.format.write_array_header_1_0(self._file, header)


def write_meta(directory: Path, meta: dict[str, Any]) -> None:
    """Write the JSON file and flush it to the disk."""
    with open(directory / META_NAME, "xb") as file:
        file.write(json.dumps(meta, indent=1).encode())
        sync(file)


def sync(file: BinaryIO) -> None:
    """Flush what was written to the disk."""
    file.flush()
    os.fsync(file.fileno())


def open_arrays(directory: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return what the JSON file says, and the arrays by name, memory-mapped and read-only.

    Raises:
        FileNotFoundError: if there is no prepared corpus.
        ValueError: if it is damaged, or of another format.
    """
    path = directory / META_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"`directory`: {str(directory)!r} holds no prepared corpus (no {META_NAME}). Corpus.prepare "
            "makes one from text."
        )
    meta = _read_meta(path)
    arrays = {name: _open_array(directory, name, meta["arrays"].get(name)) for name in ARRAY_NAMES}
    num_inner = arrays["tokens"].size
    for name in ("sentence_offsets", "document_offsets"):
        offsets = arrays[name]
        if offsets.size < 2 or offsets[0] != 0 or offsets[-1] != num_inner:
            raise _damaged(directory, f"{name}.npy ends at {offsets[-1:].tolist()}, expected [{num_inner}]")
        num_inner = offsets.size - 1
    return meta, arrays


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(path.parent, f"{META_NAME} is not JSON: {error}") from error
    if not isinstance(meta, dict) or not isinstance(meta.get("arrays"), dict):
        raise _damaged(path.parent, f"{META_NAME} does not describe a corpus")
    if meta.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"The corpus in {str(path.parent)!r} has format {meta.get('format_version')!r}, expected "
            f"{FORMAT_VERSION}. Prepare it again with Corpus.prepare."
        )
    missing = [name for name in ("vocab_size", "fingerprint") if name not in meta]
    if missing:
        raise _damaged(path.parent, f"{META_NAME} lacks {missing}")
    return meta


def _open_array(directory: Path, name: str, expected: Any) -> np.ndarray:
    path = directory / f"{name}.npy"
    if not isinstance(expected, dict) or not path.is_file():
        raise _damaged(directory, f"{name}.npy is missing")
    num_bytes = path.stat().st_size
    if num_bytes != expected.get("num_bytes"):
        raise _damaged(directory, f"{name}.npy has {num_bytes:,} bytes, expected {expected.get('num_bytes')}")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise _damaged(directory, f"{name}.npy cannot be read: {error}") from error
    if array.shape != (expected.get("length"),) or array.dtype.str != expected.get("dtype"):
        raise _damaged(directory, f"{name}.npy holds {array.dtype} {array.shape}, expected {expected}")
    # A plain view is still memory-mapped, and quicker to index than np.memmap.
    return array.view(np.ndarray)


def _damaged(directory: Path, what: str) -> ValueError:
    return ValueError(
        f"The corpus in {str(directory)!r} is damaged: {what}. Delete the directory, or prepare the text "
        "again with Corpus.prepare, which replaces it."
    )
