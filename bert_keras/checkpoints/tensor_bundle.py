"""What a TensorFlow checkpoint says of itself, checked before TensorFlow sees it.

TensorFlow verifies checksums, but ends the whole process when a file whose checksums are right claims an
impossible shape. So its index is read here first, by the letter and with bounds for everything. The index is
a table of sorted keys in blocks (as in LevelDB), with a message of protocol buffers for each array.

Source: https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/protobuf/tensor_bundle.proto and
`tensorflow/core/lib/io/table_format.txt`
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bert_keras.checkpoints.array_files import STORED, ArrayInfo, is_shape

_DTYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    7: "string",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    17: "uint16",
    19: "float16",
    22: "uint32",
    23: "uint64",
}
_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER_BYTES = 48
_BLOCK_TRAILER_BYTES = 5  # how it is compressed, and a checksum
_MAX_INDEX_BYTES = 1 << 22
_MAX_NAME_BYTES = 512
_WIDTHS = {1: 8, 5: 4}  # of numbers of fixed size, by wire type

Field = int | bytes


def find_prefix(path: Path) -> Path:
    """Return what the names of a checkpoint's files begin with.

    Args:
        path: that, or the index itself, or a directory with one checkpoint.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: the directory holds several.
    """
    if not path.is_dir():
        prefix = path.with_suffix("") if path.suffix == ".index" else path
        if not _index_path(prefix).is_file():
            raise FileNotFoundError(f"prefix_or_directory: there is no file {str(_index_path(prefix))!r}.")
        return prefix
    found = sorted(file for file in path.iterdir() if file.suffix == ".index" and file.is_file())
    if not found:
        raise FileNotFoundError(
            f"prefix_or_directory: expected a file such as bert_model.ckpt.index in {str(path)!r}, "
            "found none."
        )
    if len(found) > 1:
        raise ValueError(
            f"prefix_or_directory: {str(path)!r} holds {len(found)} checkpoints. Pass the prefix of one, "
            f"such as {str(found[0].with_suffix(''))!r}."
        )
    return found[0].with_suffix("")


def bundle_arrays(prefix: Path) -> dict[str, ArrayInfo]:
    """Return the arrays of a checkpoint by name, all of which lie within its files.

    Args:
        prefix: what the names of its files begin with.

    Raises:
        FileNotFoundError: a file of data is missing.
        ValueError: the index is damaged, claims what is not there, or uses what no published model uses
            (compression, arrays cut into slices).
    """
    index = _index_path(prefix)
    if index.stat().st_size > _MAX_INDEX_BYTES:
        raise ValueError(f"{str(index)!r} has {index.stat().st_size:,} bytes, too many for an index.")
    try:
        entries = _entries(index.read_bytes())
        key, header = next(entries, (b"", b""))
        fields = _fields(header, {1: int, 2: int, 3: bytes}) if not key else {}
        sizes = _data_sizes(prefix, _integer(fields, 1))
        return {key.decode(): _array_info(key, entry, sizes) for key, entry in entries}
    except ValueError as error:
        raise ValueError(f"{str(index)!r} is damaged, or of an unknown form: {error}.") from error


def _index_path(prefix: Path) -> Path:
    return prefix.with_name(f"{prefix.name}.index")


def _data_sizes(prefix: Path, num_files: int) -> list[int]:
    if not 1 <= num_files <= 10_000:
        raise ValueError(f"it claims {num_files} files of data")
    paths = [
        prefix.with_name(f"{prefix.name}.data-{number:05d}-of-{num_files:05d}") for number in range(num_files)
    ]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"The checkpoint {str(prefix)!r} lacks its file {path.name}.")
    return [path.stat().st_size for path in paths]


def _array_info(key: bytes, entry: bytes, sizes: list[int]) -> ArrayInfo:
    fields = _fields(entry, {1: int, 2: bytes, 3: int, 4: int, 5: int, 6: int})
    name, dtype = key.decode(), _DTYPES.get(_integer(fields, 1))
    if dtype is None:
        raise ValueError(f"{name} has the unknown dtype {_integer(fields, 1)}")
    shape = _shape(fields.get(2, b""))
    if not is_shape(shape):
        raise ValueError(f"{name} has an impossible shape")
    file, offset, size = (_integer(fields, number) for number in (3, 4, 5))
    if file >= len(sizes) or offset + size > sizes[file]:
        raise ValueError(f"{name} lies beyond the end of the data: {size:,} bytes from byte {offset:,} on")
    expected = math.prod(shape) * (np.dtype(STORED[dtype]).itemsize if dtype in STORED else 1)
    if size < expected or (dtype in STORED and size != expected):
        raise ValueError(f"{name} {shape} should have {expected:,} bytes, but has {size:,}")
    return ArrayInfo(shape, dtype)


def _shape(message: Field) -> tuple[int, ...]:
    shape = []
    for number, dimension in _messages(message if isinstance(message, bytes) else b""):
        if number != 2 or not isinstance(dimension, bytes):
            raise ValueError("a shape is not readable")
        shape.append(_integer(_fields(dimension, {1: int, 2: bytes}), 1))
    return tuple(shape)


def _entries(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of the whole table, in order."""
    if len(content) < _FOOTER_BYTES or content[-8:] != _MAGIC:
        raise ValueError("it does not end as an index does, it may be truncated")
    footer = content[-_FOOTER_BYTES:]
    position = 0
    for _ in range(2):  # The first handle is of a block that nobody uses.
        offset, position = _varint(footer, position)
        size, position = _varint(footer, position)
        if offset + size + _BLOCK_TRAILER_BYTES > len(content) - _FOOTER_BYTES:
            raise ValueError("a block lies beyond the end of the file")
    last: bytes | None = None
    for _, handle in _block(content, offset, size):
        begin, position = _varint(handle, 0)
        length, _ = _varint(handle, position)
        for key, value in _block(content, begin, length):
            if last is not None and key <= last:
                raise ValueError("its keys are not in order")
            last = key
            yield key, value


def _block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys, each given by what it shares with the one before, and values."""
    end = offset + size
    if size < 8 or end + _BLOCK_TRAILER_BYTES > len(content) or content[end] != 0:
        raise ValueError("a block lies beyond the end of the file, or is compressed")
    block = content[offset:end]
    num_restarts = int.from_bytes(block[-4:], "little")
    limit = size - 4 - 4 * num_restarts
    if num_restarts < 1 or limit < 0:
        raise ValueError("a block is not readable")
    restarts = set(np.frombuffer(block, "<u4", num_restarts, limit).tolist())
    position, key = 0, b""
    restarts.discard(0)
    while position < limit:
        start = position
        shared, position = _varint(block, position)
        own, position = _varint(block, position)
        length, position = _varint(block, position)
        if shared > len(key) or shared + own > _MAX_NAME_BYTES or position + own + length > limit:
            raise ValueError("a block is not readable")
        if shared == 0:
            restarts.discard(start)
        key = key[:shared] + block[position : position + own]
        position += own
        yield key, block[position : position + length]
        position += length
    if restarts:
        raise ValueError("a block is not readable")


def _fields(message: Field, kinds: dict[int, type]) -> dict[int, Field]:
    """The fields of a message, of which each may occur once, and no others."""
    fields: dict[int, Field] = {}
    for number, value in _messages(message if isinstance(message, bytes) else b""):
        if number in fields or number not in kinds or not isinstance(value, kinds[number]):
            raise ValueError(f"it has an unexpected field, {number}")
        fields[number] = value
    return fields


def _messages(message: bytes) -> Iterator[tuple[int, Field]]:
    """Numbers and values of the fields of a message of protocol buffers."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield tag >> 3, value
            continue
        if kind == 2:
            length, position = _varint(message, position)
        elif kind in _WIDTHS:
            length = _WIDTHS[kind]
        else:
            raise ValueError(f"it has a field of unknown kind {kind}")
        content = message[position : position + length]
        if len(content) < length:
            raise ValueError("a message is truncated")
        position += length
        yield tag >> 3, content if kind == 2 else int.from_bytes(content, "little")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A number in groups of seven bits, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise ValueError("a number is truncated")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 1 << 63:  # Negative, which nothing here may be.
                raise ValueError("a number is out of range")
            return value, position
    raise ValueError("a number is too long")


def _integer(fields: dict[int, Field], number: int) -> int:
    value = fields.get(number, 0)
    return value if isinstance(value, int) else 0
