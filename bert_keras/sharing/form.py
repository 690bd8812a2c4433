"""The form of a shared model: which files there are, and what `config.json` says.

config.json         what it is: encoder, tasks with their labels, recipes, names and shapes of variables
model.safetensors   the weights, each variable once under its path
text_encoder/       what turns text into the ids that the model reads
training.json       how it was trained: histories, recipes, seed, versions
README.md           the model card
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import keras

from bert_keras.checkpoints.array_files import is_shape
from bert_keras.encoders import ENCODER_CLASSES
from bert_keras.encoders.changes import changes_of
from bert_keras.text import TextEncoder
from bert_keras.text.files import read_json_object
from bert_keras.training.model import MultiTaskModel
from bert_keras.training.saving import SUFFIX
from bert_keras.version import __version__

FORMAT = "bert_keras model"
FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TRAINING_FILE = "training.json"
CARD_FILE = "README.md"
TEXT_ENCODER_FOLDER = "text_encoder"
OWN_NAMES = (CONFIG_FILE, WEIGHTS_FILE, TRAINING_FILE, CARD_FILE, TEXT_ENCODER_FOLDER)

# Of the folders that `bert-keras pretrain` and `finetune` write.
RUN_WEIGHTS = "model"
RUN_WEIGHTS_FILE = f"{RUN_WEIGHTS}{SUFFIX}"

_HEADS = "pretrained_heads"
_EXPECTED = {  # the parts of config.json and their types
    "model": str,
    "tasks": list,
    "encoder": dict,
    "recipes": dict,
    "text_encoder": dict,
    "variables": list,
    _HEADS: dict,
}


def has_heads(model: keras.Model) -> TypeGuard[MultiTaskModel]:
    """Whether a model has tasks, rather than being an encoder."""
    return isinstance(model, MultiTaskModel)


def is_rebuildable(encoder: keras.Model) -> bool:
    """Whether an encoder can be built from its configuration alone."""
    return type(encoder) in ENCODER_CLASSES.values()


def is_shared(directory: Path) -> bool:
    """Whether a folder was written by `save_pretrained`.

    Raises:
        ValueError: if its `config.json` is damaged.
    """
    path = directory / CONFIG_FILE
    return path.is_file() and read_json_object(path).get("format") == FORMAT


def variable_names(variables: Sequence[Any]) -> list[str]:
    """Return a name for each variable: its path, with a number where that is taken already (an own encoder
    may have a layer named like a head)."""
    names: list[str] = []
    for variable in variables:
        name, number = variable.path, 2
        while name in names:
            name, number = f"{variable.path}#{number}", number + 1
        names.append(name)
    return names


def head_arrays(encoder: keras.Model) -> dict[str, Any]:
    """Return the heads that came along with a published encoder, as arrays by name in the file."""
    heads: Mapping[str, Mapping[str, Any]] = getattr(encoder, "pretrained_heads", None) or {}
    return {
        f"{_HEADS}/{head}/{path}": array for head, arrays in heads.items() for path, array in arrays.items()
    }


def config_of(model: keras.Model, text_encoder: TextEncoder, heads: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `config.json` says of a model.

    Args:
        model: a model with tasks, or an encoder.
        text_encoder: the one that belongs to it.
        heads: of a published encoder, by name in the file.
    """
    encoder = model.encoder if has_heads(model) else model
    names = dict(zip(map(id, model.weights), variable_names(model.weights), strict=True))
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "written_by": f"bert_keras {__version__}",
        "model": "multi_task" if has_heads(model) else "encoder",
        "tasks": [task.get_config() for task in model.tasks] if has_heads(model) else [],
        "trained_heads": sorted(model.trained_heads) if has_heads(model) else [],
        "seed": model.seed if has_heads(model) else 0,
        "encoder": {
            "class_name": type(encoder).__name__,
            "name": encoder.name,
            "config": encoder.get_config() if is_rebuildable(encoder) else None,
            "variables": [names[id(variable)] for variable in encoder.weights],
            "changes": changes_of(encoder),  # LoRA and int8
        },
        "recipes": {phase: recipe.get_config() for phase, recipe in getattr(model, "recipes", {}).items()},
        "text_encoder": {
            "class_name": type(text_encoder).__name__,
            "vocab_size": text_encoder.vocab_size,
            "fingerprint": text_encoder.fingerprint,
        },
        "variables": [[names[id(variable)], list(variable.shape)] for variable in model.weights],
        _HEADS: {name: list(array.shape) for name, array in heads.items()},
    }


def read_config(directory: Path) -> dict[str, Any]:
    """Return what `config.json` says, checked in its form.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, or of a newer format.
    """
    path = directory / CONFIG_FILE
    config = read_json_object(path)
    version = config.get("format_version")
    if type(version) is not int or version > FORMAT_VERSION:
        raise ValueError(
            f"{str(path)!r} has format version {version!r}, written by {config.get('written_by')!r}; this "
            f"version reads up to {FORMAT_VERSION}. Install a newer bert_keras."
        )
    for name, kind in _EXPECTED.items():
        if not isinstance(config.get(name), kind):
            raise ValueError(
                f"{str(path)!r} is damaged: `{name}` must be a {kind.__name__}. Received: "
                f"{config.get(name)!r:.100}"
            )
    for entry in [*config["variables"], *map(list, config[_HEADS].items())]:
        if not (
            isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) and is_shape(entry[1])
        ):
            raise ValueError(f"{str(path)!r} is damaged: {entry!r:.100} is no name and shape.")
    own = config["encoder"].get("variables")
    if not isinstance(own, list) or not {*map(str, own)} <= {name for name, _ in config["variables"]}:
        raise ValueError(f"{str(path)!r} is damaged: the variables of `encoder` are not among `variables`.")
    return config


def saved_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all arrays that a configuration promises, by name, those of variables in order."""
    heads = config[_HEADS].items()
    return {name: tuple(shape) for name, shape in [*config["variables"], *heads]}


def heads_by_name(arrays: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Turn back what `head_arrays` gave."""
    heads: dict[str, dict[str, Any]] = {}
    for name, array in arrays.items():
        _, head, path = name.split("/", 2)
        heads.setdefault(head, {})[path] = array
    return heads


def is_head_array(name: str) -> bool:
    """Whether an array in the file is of a published head."""
    return name.startswith(f"{_HEADS}/")
