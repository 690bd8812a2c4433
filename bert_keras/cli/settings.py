"""What a run is described by: flags over one TOML file over defaults, and saved beside the result."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import platform
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bert_keras.text.files import write_atomic
from bert_keras.version import __version__

RUN_FILE = "run.toml"
HISTORY_FILE = "history.csv"
_PACKAGES = ("keras", "numpy", "tensorflow", "jax", "torch", "tokenizers", "sentencepiece")
_GIT_SECONDS = 5


@dataclass(frozen=True)
class PretrainSettings:
    """Of `bert-keras pretrain`. The command's help explains the fields."""

    corpus: str = ""
    output: str = ""
    text_encoder: str = ""
    start: str = ""
    held_out: str = ""
    size: str = "mini"
    architecture: str = "modern"
    is_causal: bool = False
    max_len: int = 128
    batch_size: int = 32
    steps: int = 10_000
    recipe: str = ""
    learning_rate: float = 0.0
    dtype: str = "float32"
    seed: int = 0


@dataclass(frozen=True)
class FinetuneSettings:
    """Of `bert-keras finetune`. The command's help explains the fields."""

    train: str = ""
    output: str = ""
    start: str = ""
    validation: str = ""
    text: str = "0"
    label: str = "1"
    second_text: str = ""
    word: int = 0
    task: str = "label"
    kind: str = "classification"
    label_separator: str = ""
    read_from: str = "token"
    max_len: int = 128
    batch_size: int = 32
    epochs: int = 3
    recipe: str = "gentle"
    learning_rate: float = 0.0
    dtype: str = "float32"
    seed: int = 0


Settings = TypeVar("Settings", PretrainSettings, FinetuneSettings)
_PATHS = ("corpus", "output", "text_encoder", "start", "held_out", "train", "validation")


def read_settings(cls: type[Settings], config: Path | None, flags: Mapping[str, Any]) -> Settings:
    """Return defaults, overridden by the TOML file, overridden by the flags that were given.

    Args:
        cls: which settings.
        config: a TOML file with the fields' names as keys, or one that a run saved; None for none.
        flags: by field; None was not given.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a key that is unknown, a value of another type, or a file that is no TOML.
    """
    given: dict[str, Any] = {}
    if config is not None:
        try:
            given = tomllib.loads(config.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{config} is no TOML: {error}") from error
        given.pop("environment", None)  # of an earlier run
    fields: dict[str, Any] = {field.name: type(field.default) for field in dataclasses.fields(cls)}
    if unknown := sorted({*given} - {*fields}):
        raise ValueError(f"{config} has unknown keys {unknown}. Known are: {sorted(fields)}")
    for name, value in given.items():
        is_number = fields[name] is float and type(value) is int
        if type(value) is not fields[name] and not is_number:
            raise ValueError(
                f"{config}: `{name}` must be of type {fields[name].__name__}. Received: {value!r}"
            )
        given[name] = fields[name](value)
    return cls(**{**given, **{name: value for name, value in flags.items() if value is not None}})


def require(settings: Any, *names: str) -> None:
    """Raise ValueError for fields that have no default and were not given."""
    for name in names:
        if not getattr(settings, name):
            flag = "--" + name.replace("_", "-")
            raise ValueError(
                f"`{name}` is missing: give it as an argument or as {flag}, or in the TOML file."
            )


def save_settings(settings: Any, directory: Path) -> None:
    """Write the settings as TOML, with what the run was made by; paths become absolute."""
    values = dataclasses.asdict(settings)
    for name in _PATHS:
        if values.get(name) and Path(values[name]).exists():
            values[name] = str(Path(values[name]).resolve())
    lines = [f"{name} = {_toml(value)}" for name, value in values.items()]
    lines += ["", "[environment]", *(f"{name} = {_toml(value)}" for name, value in environment().items())]
    directory.mkdir(parents=True, exist_ok=True)
    write_atomic(directory / RUN_FILE, ("\n".join(lines) + "\n").encode())


def environment() -> dict[str, str]:
    """Return versions, backend, machine, time and the state of git in the current folder."""
    import keras  # seconds: only where something is trained

    found = {
        "bert_keras": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "backend": keras.backend.backend(),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    for package in _PACKAGES:
        try:
            found[f"version_{package}"] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    commit = _git("rev-parse", "HEAD")
    found["git_commit"] = commit or "not in a git repository"
    if commit:
        found["git_state"] = "changed" if _git("status", "--porcelain", "--untracked-files=no") else "clean"
    return found


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=_GIT_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _toml(value: Any) -> str:
    """Return a string, a number or a flag as TOML writes it (JSON's strings are TOML's)."""
    return json.dumps(value, ensure_ascii=False)
