"""Text files in, lines out: strictly UTF-8, in bounded memory; JSON files; and atomic writing."""

import contextlib
import gzip
import json
import os
import secrets
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

Source = str | Path | Iterable[str | Path]

_GZIP_MAGIC = b"\x1f\x8b"
_BOM = "\ufeff"
_MAX_JSON_BYTES = 1 << 27


def list_files(source: Source) -> list[Path]:
    """The files that `source` names, in an order that is the same on every machine.

    Args:
        source: a file, a directory, or an iterable of both. A directory stands for all files below it, sorted
            by path; names that begin with a dot are skipped. Given files keep the order they were given in.

    Returns:
        At least one path.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: a directory holds no files, or `source` names none.
        TypeError: `source` is neither a path nor an iterable of paths.

    Example:
        >>> from pathlib import Path
        >>> Path("a.txt").write_text("one\\n")
        4
        >>> list_files("a.txt")
        [PosixPath('a.txt')]
    """
    if isinstance(source, str | os.PathLike):
        return _expand(source)
    if not isinstance(source, Iterable):
        raise TypeError(f"source: expected a path or an iterable of paths, got {source!r}.")
    files = [file for item in source for file in _expand(item)]
    if not files:
        raise ValueError("source: expected at least one file or directory, got an empty iterable.")
    return files


def _expand(item: str | os.PathLike[str]) -> list[Path]:
    if not isinstance(item, str | os.PathLike):
        raise TypeError(f"source: expected a path, got {item!r} ({type(item).__name__}).")
    path = Path(item)
    if path.is_dir():
        files = sorted(_walk(path), key=lambda file: file.relative_to(path).parts)
        if not files:
            raise ValueError(f"source: the directory {str(path)!r} holds no files (hidden ones are skipped).")
        return files
    if not path.exists():
        raise FileNotFoundError(f"source: no file or directory {str(path)!r}.")
    return [path]


def _walk(directory: Path) -> Iterator[Path]:
    for parent, directories, names in os.walk(directory):
        directories[:] = [name for name in directories if not name.startswith(".")]
        for name in names:
            path = Path(parent, name)
            if not name.startswith(".") and path.is_file():
                yield path


def read_line_batches(
    path: str | Path, num_bytes: int = 1 << 22, *, max_line_bytes: int = 1 << 24
) -> Iterator[list[str]]:
    """Yields the lines of one UTF-8 file in lists of roughly `num_bytes` bytes of text.

    A line ends at a line feed and at nothing else; one carriage return before it is dropped, and so is a
    byte-order mark at the start of the file. Files that begin with gzip's magic number are decompressed,
    whatever their name.

    Args:
        path: the file.
        num_bytes: how much text to read at a time. Memory use is a small multiple of it.
        max_line_bytes: a longer line is cut (at a space where there is one) and comes as several, so that
            memory stays bounded whatever the file holds.

    Yields:
        Lists of lines without their line ends. An empty file yields nothing.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not UTF-8 text (the message names the byte and the line), holds a NUL byte, or
            is a truncated or corrupt gzip file.

    Example:
        >>> from pathlib import Path
        >>> Path("a.txt").write_bytes(b"one\\r\\ntwo\\r\\n")
        10
        >>> list(read_line_batches("a.txt"))
        [['one', 'two']]
    """
    if num_bytes < 1 or max_line_bytes < 4:
        raise ValueError(
            f"num_bytes and max_line_bytes: expected at least 1 and 4, got {num_bytes} and {max_line_bytes}."
        )
    path = Path(path)
    if not path.is_file() and not path.exists():
        raise FileNotFoundError(f"path: no file {str(path)!r}.")
    offset = num_lines = 0
    for block in _blocks(path, num_bytes, max_line_bytes):
        text = _decode(block, path, offset, num_lines)
        if offset == 0 and text.startswith(_BOM):
            text = text[len(_BOM) :]
        offset += len(block)
        if not text:
            continue
        if "\r" in text:
            text = text.replace("\r\n", "\n")
        lines = text.split("\n")
        if block.endswith(b"\n"):
            del lines[-1]
            num_lines += len(lines)
        else:  # The last line of the file, or a piece of a line that was cut.
            num_lines += len(lines) - 1
            if lines[-1].endswith("\r"):
                lines[-1] = lines[-1][:-1]
        if lines:
            yield lines


def read_lines(source: Source) -> Iterator[str]:
    """Yields every line of every file that `source` names (see `list_files` and `read_line_batches`).

    Example:
        >>> from pathlib import Path
        >>> Path("a.txt").write_text("one\\ntwo\\n")
        8
        >>> list(read_lines("a.txt"))
        ['one', 'two']
    """
    for path in list_files(source):
        for lines in read_line_batches(path):
            yield from lines


def _blocks(path: Path, num_bytes: int, max_line_bytes: int) -> Iterator[bytes]:
    """Whole lines, as bytes, about `num_bytes` at a time. Only a line that is too long is cut."""
    parts: list[bytes] = []  # The beginning of a line whose end has not been read yet.
    held = 0
    for chunk in _chunks(path, num_bytes):
        end = chunk.rfind(b"\n") + 1
        if end:
            yield b"".join((*parts, chunk[:end]))
            parts, held, chunk = [], 0, chunk[end:]
        if chunk:
            parts.append(chunk)
            held += len(chunk)
        if held > max_line_bytes:
            line = b"".join(parts)
            cut = _cut(line, max_line_bytes)
            while len(line) > max_line_bytes:
                yield line[:cut]
                line = line[cut:]
                cut = _cut(line, max_line_bytes)
            parts, held = [line], len(line)
    if held:
        yield b"".join(parts)


def _cut(line: bytes, limit: int) -> int:
    """Where to cut a long line: after its last space, else before a character, never inside one."""
    cut = line.rfind(b" ", limit // 2, limit) + 1
    if cut:
        return cut
    cut = min(limit, len(line))
    while cut > limit - 4 and cut < len(line) and line[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut


def _chunks(path: Path, num_bytes: int) -> Iterator[bytes]:
    with open(path, "rb") as file:
        is_gzip = file.peek(2)[:2] == _GZIP_MAGIC
        stream: IO[bytes] = gzip.GzipFile(fileobj=file) if is_gzip else file  # type: ignore[assignment]
        while True:
            try:
                chunk = stream.read(num_bytes)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise ValueError(f"{str(path)!r} is a truncated or corrupt gzip file: {error}.") from error
            if not chunk:
                return
            yield chunk


def _decode(block: bytes, path: Path, offset: int, num_lines: int) -> str:
    nul = block.find(b"\0")
    if nul >= 0:
        where = _where(block, nul, offset, num_lines)
        raise ValueError(
            f"{str(path)!r} is not a text file: it has a NUL byte at {where}. Expected UTF-8 text, plain or "
            "compressed with gzip (UTF-16 and UTF-32 files have to be converted first)."
        )
    try:
        return block.decode("utf-8")
    except UnicodeDecodeError as error:
        where = _where(block, error.start, offset, num_lines)
        raise ValueError(
            f"{str(path)!r} is not valid UTF-8: byte 0x{block[error.start]:02x} at {where} ({error.reason}). "
            "Convert the file to UTF-8 first."
        ) from error


def _where(block: bytes, position: int, offset: int, num_lines: int) -> str:
    line = num_lines + block.count(b"\n", 0, position) + 1
    return f"byte {offset + position:,} (line {line:,})"


def write_atomic(path: str | Path, content: bytes) -> None:
    """Writes a file so that at every moment either the old content or the new one is there, whole.

    Args:
        path: the file; its directory has to exist.
        content: all of its bytes.

    Example:
        >>> write_atomic("a.bin", b"abc")
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives a path beside `path` to write to; at the end of the block, if all went well, it takes its place.

    Args:
        path: the file; its directory has to exist.

    Example:
        >>> with replacing("a.bin") as temporary:
        ...     temporary.write_bytes(b"abc")
        3
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def parse_json(content: bytes, name: str) -> Any:
    """The value of a JSON text in which no object has a name twice.

    Args:
        content: the text.
        name: where it is from, for the message.

    Raises:
        ValueError: it is something else, or damaged.

    Example:
        >>> parse_json(b'{"a": [1, 2]}', "a.json")
        {'a': [1, 2]}
    """
    try:
        return json.loads(content, object_pairs_hook=_with_unique_names)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not JSON, or it is damaged: {error}.") from error


def read_json(path: str | Path) -> Any:
    """`parse_json` of a file. One that is too large for what is read here as JSON is refused unread.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is something else, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path.name} in {str(path.parent)!r}.")
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise ValueError(
            f"{str(path)!r} has {path.stat().st_size:,} bytes, too many for what it should hold."
        )
    return parse_json(path.read_bytes(), repr(str(path)))


def read_json_object(path: str | Path) -> dict[str, Any]:
    """`read_json` of a file that has to hold an object.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is something else, or damaged.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{str(path)!r}: expected a JSON object, got a {type(content).__name__}.")
    return content


def _with_unique_names(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice in one object")
    return result
