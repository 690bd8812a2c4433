"""Folders that are complete or not there."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path


def checked_target(directory: str | Path, overwrite: bool, own_names: Collection[str]) -> Path:
    """Return where a folder is to be written, with links followed, or refuse.

    Args:
        directory: the folder.
        overwrite: whether an older one may be replaced.
        own_names: what such a folder holds. One that holds anything else is never replaced.

    Raises:
        FileExistsError: if something is there that must stay.
    """
    path = Path(os.path.realpath(directory))
    if not path.exists():
        return path
    if not path.is_dir():
        raise FileExistsError(f"{str(directory)!r} is a file. Give the name of a folder.")
    names = {entry.name for entry in path.iterdir()}
    if names and not overwrite:
        raise FileExistsError(
            f"{str(directory)!r} exists and is not empty. Pass overwrite=True to replace it, or choose "
            "another name."
        )
    if others := sorted(names - {*own_names}):
        raise FileExistsError(
            f"{str(directory)!r} holds more than what is written here: {others[:5]}. Replacing it would lose "
            "that: move it away, or choose another name."
        )
    return path


@contextlib.contextmanager
def replacing_folder(directory: Path) -> Iterator[Path]:
    """Give a new folder beside `directory` to write to; at the end of the block, if all went well, it takes
    its place.

    What was there is moved aside just before and removed just after, so a process that dies between the two
    leaves it whole, beside its place, as `.<name>.<digits>.old`.

    Args:
        directory: the folder; folders above it are made if need be.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    new = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}")
    old = new.with_name(f"{new.name}.old")
    new.mkdir()
    try:
        yield new
        _write_through(new)
        try:
            if directory.exists():
                os.rename(directory, old)
            os.rename(new, directory)
        except BaseException:
            if old.exists() and not directory.exists():
                os.rename(old, directory)
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if directory.exists():
            shutil.rmtree(old, ignore_errors=True)


def _write_through(directory: Path) -> None:
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
