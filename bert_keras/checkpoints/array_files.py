"""Where arrays lie in files, and how a stretch of a file becomes an array. No claimed size is trusted."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from bert_keras.text.files import parse_json

# How a dtype lies in a file. NumPy has no bfloat16: it is the upper half of a float32.
STORED: Mapping[str, str] = {
    "float64": "<f8",
    "float32": "<f4",
    "float16": "<f2",
    "bfloat16": "<u2",
    "int64": "<i8",
    "int32": "<i4",
    "int16": "<i2",
    "int8": "|i1",
    "uint64": "<u8",
    "uint32": "<u4",
    "uint16": "<u2",
    "uint8": "|u1",
    "bool": "|u1",
}
_SAFETENSORS_DTYPES = {
    "BF16": "bfloat16",
    "BOOL": "bool",
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}
_CHUNK_ITEMS = 1 << 18
_MAX_DIMENSIONS = 32
_NPY_HEADER = re.compile(
    rb"\{'descr': '<f([248])', 'fortran_order': (?:False|True), 'shape': \(([0-9]{1,15})L?,\), \}\s*"
)


@dataclasses.dataclass(frozen=True)
class ArrayInfo:
    """What is known of an array before it is read.

    Args:
        shape: as it is in the file.
        dtype: its name in the file, such as `float32`, `float16`, `bfloat16` or `int64`.
    """

    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class Place:
    """An array in a file, from byte `offset` on."""

    path: Path
    offset: int
    info: ArrayInfo


def result_dtype(dtype: str) -> str:
    """Return the dtype in which arrays of a dtype are given: float32 for all that are floating.

    Example:
        >>> result_dtype("bfloat16"), result_dtype("int64")
        ('float32', 'int64')
    """
    return "float32" if "float" in dtype else dtype


def is_shape(value: Any) -> bool:
    """Whether a value from a JSON file is a list of sizes, as many as NumPy can have and none absurd.

    Example:
        >>> is_shape([2, 3]), is_shape([2, -3]), is_shape([0, 2**62, 2**62]), is_shape("23")
        (True, False, False, False)
    """
    if not isinstance(value, list | tuple) or len(value) > _MAX_DIMENSIONS:
        return False
    sizes_fit = all(type(size) is int and 0 <= size < 1 << 60 for size in value)
    return sizes_fit and math.prod(max(size, 1) for size in value) < 1 << 60


def read_items(place: Place, start: int, count: int, into: np.ndarray | None = None) -> np.ndarray:
    """Read a stretch of an array as if it had one dimension. Memory is that of the result.

    Args:
        place: of the array, whose size was compared with that of the file.
        start: number of the first item.
        count: how many.
        into: an array of this length for the result; by default a new one.

    Returns:
        `(count,)`, in the dtype `result_dtype` says.

    Raises:
        ValueError: the dtype cannot be read, or the file has become shorter.
    """
    dtype = place.info.dtype
    if dtype not in STORED:
        raise ValueError(
            f"{str(place.path)!r}: arrays of dtype {dtype} cannot be read. Convert it to float32."
        )
    stored = np.dtype(STORED[dtype])
    result = np.empty(count, result_dtype(dtype)) if into is None else into
    with open(place.path, "rb") as file:
        file.seek(place.offset + start * stored.itemsize)
        for begin in range(0, count, _CHUNK_ITEMS):
            items = np.fromfile(file, stored, min(_CHUNK_ITEMS, count - begin))
            if len(items) < min(_CHUNK_ITEMS, count - begin):
                raise ValueError(f"{str(place.path)!r} is truncated. Fetch it again.")
            if dtype == "bfloat16":
                items = (items.astype("uint32") << 16).view("float32")
            elif dtype == "bool":
                items = items != 0
            with np.errstate(all="ignore"):  # float64 may overflow, and then becomes infinite
                result[begin : begin + len(items)] = items
    return result


def safetensors_places(path: Path) -> dict[str, Place]:
    """Return where the arrays of a safetensors file are. The library checks the form of the file first.

    Raises:
        ValueError: the file is truncated or damaged in its form, or is of another kind.

    Source: https://github.com/huggingface/safetensors#format
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise ValueError(
                f"{str(path)!r} is no safetensors file, or is truncated: its header claims {length:,} bytes, "
                f"and the file has {size:,} in all. Fetch it again."
            )
        try:
            with safetensors.safe_open(str(path), framework="numpy"):
                pass
        except safetensors.SafetensorError as error:
            raise ValueError(f"{str(path)!r} is no safetensors file, or is damaged: {error}") from error
        header = parse_json(file.read(length), repr(str(path)))
    places = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if not is_shape(entry["shape"]):
            raise ValueError(f"{str(path)!r}: {name} has an impossible shape, {entry['shape']}.")
        dtype = _SAFETENSORS_DTYPES.get(entry["dtype"], entry["dtype"].lower())
        info = ArrayInfo(tuple(entry["shape"]), dtype)
        places[name] = Place(path, 8 + length + entry["data_offsets"][0], info)
    return places


def shard_path(index: Path, file: str) -> Path:
    """Return the path of a shard that an index names, which has to be a file in the same directory.

    A link may lead to another file there, or to the store of the Hugging Face Hub's cache, where all files of
    a model are links into `blobs`.

    Raises:
        ValueError: the name is no plain file name, or the file a link that leads elsewhere.
        FileNotFoundError: there is no such file.
    """
    if not re.fullmatch(r"\w[\w. -]*\.safetensors", file, re.ASCII):
        raise ValueError(
            f"{str(index)!r}: expected plain names of .safetensors files in the same directory, got {file!r}."
        )
    path, directory = index.parent / file, index.parent.resolve()
    if not path.is_file():
        raise FileNotFoundError(f"{str(index)!r} names {file}, but it is missing in {str(directory)!r}.")
    allowed = [directory]
    if directory.parent.name == "snapshots":
        allowed.append(directory.parent.parent / "blobs")
    if path.resolve().parent not in allowed:
        raise ValueError(
            f"{str(index)!r}: {file} is a link to {str(path.resolve())!r}, outside the directory. "
            "Copy the file."
        )
    return path


def npy_place(path: Path) -> Place:
    """Return where the array of a `.npy` file with one dimension of floating numbers is.

    The header is compared with the one form that NumPy writes, instead of being evaluated.

    Raises:
        ValueError: the file is truncated or damaged, or holds something else.

    Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
    """
    with open(path, "rb") as file:
        start = file.read(8)
        num_bytes = 2 if start[6:7] == b"\1" else 4
        length = int.from_bytes(file.read(num_bytes), "little")
        offset = file.tell() + length
        header = _NPY_HEADER.fullmatch(file.read(length) if length < 1 << 16 else b"")
    if start[:6] != b"\x93NUMPY" or start[7:] != b"\0" or not header:
        raise ValueError(
            f"{str(path)!r} is no .npy file with one dimension of floating numbers, or is damaged. "
            "Fetch it again."
        )
    itemsize, count = int(header[1]), int(header[2])
    expected, size = offset + count * itemsize, path.stat().st_size
    if expected != size:
        raise ValueError(
            f"{str(path)!r} is damaged: expected {expected:,} bytes by its header, got {size:,}. "
            "Fetch it again."
        )
    return Place(path, offset, ArrayInfo((count,), f"float{8 * itemsize}"))
