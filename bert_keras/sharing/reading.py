"""`load_pretrained`: a folder or a name on the Hub to a model that is ready for use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from bert_keras.checkpoints.loading import huggingface_directory
from bert_keras.checkpoints.sources import SafetensorsSource
from bert_keras.encoders import ENCODER_CLASSES
from bert_keras.sharing.form import (
    CONFIG_FILE,
    RUN_WEIGHTS,
    RUN_WEIGHTS_FILE,
    TEXT_ENCODER_FOLDER,
    TRAINING_FILE,
    WEIGHTS_FILE,
    heads_by_name,
    is_head_array,
    is_rebuildable,
    is_shared,
    read_config,
    saved_shapes,
    variable_names,
)
from bert_keras.sharing.pretrained import Pretrained
from bert_keras.tasks import TaskMetadata
from bert_keras.text import TextEncoder
from bert_keras.text.files import read_json_object
from bert_keras.training.loading import load_model, make_fitting
from bert_keras.training.model import MultiTaskModel
from bert_keras.training.recipes import Recipe
from bert_keras.training.saving import read_metadata

_OTHERS = {  # files of folders in other forms, and what opens those
    "bert_config.json": "load_bert",
    "params_shapes.json": "load_openai",
    CONFIG_FILE: "load_huggingface",
}

Shapes = Mapping[str, tuple[int, ...]]


def load_pretrained(
    directory_or_name: str | Path,
    *,
    encoder: keras.Model | None = None,
    dtype: Any = None,
    revision: str | None = None,
) -> Pretrained:
    """Load a model that `save_pretrained` wrote, or a run of the command line, ready for use.

    Arrays and JSON are read, and nothing in the files is run.

    Args:
        directory_or_name: a folder, or a name on the Hugging Face Hub, for which the extra `hub` has to be
            installed.
        encoder: an encoder of the saved shape, which gets the saved weights: needed where the model was saved
            over an encoder of your own. By default it is built from the saved configuration.
        dtype: dtype policy, such as `"mixed_bfloat16"`; by default the saved one.
        revision: of the model on the Hub: a branch, a tag or a commit.

    Returns:
        A `Pretrained`: `model`, `text_encoder`, and `predict`, `classify`, `tag`, `answer`, `embed`,
        `fill_mask` and `generate` on raw texts.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged; its arrays are not the model's, all differences named; the folder is
            of another form (the message says what opens it); or an argument does not go with the folder. An
            `encoder` that was given is then as it was.
        ImportError: if a name is given and `huggingface_hub` is not installed.
        OSError: if the name cannot be had from the Hub.

    Example:

    ```python
    save_pretrained(model, "my_reviewer", text_encoder)
    pretrained = load_pretrained("my_reviewer")
    pretrained.classify("A fine film.", task="sentiment").label
    model = train_model(pretrained.model, [sentiment], finetune_generator=reviews)  # or go on training
    ```
    """
    if revision is not None and Path(directory_or_name).is_dir():
        raise ValueError(
            f"`revision` is for names on the Hub, and {str(directory_or_name)!r} is a folder here. "
            f"Received: revision={revision!r}"
        )
    if encoder is not None and dtype is not None:
        raise ValueError(
            f"Give `dtype` or `encoder`: a given encoder has its dtype already. Received: dtype={dtype!r}"
        )
    directory = huggingface_directory(directory_or_name, revision)
    if is_shared(directory):
        return _load_shared(directory, encoder, dtype)
    if (directory / RUN_WEIGHTS_FILE).is_file():
        return _load_run(directory, encoder, dtype)
    for name, function in _OTHERS.items():
        if (directory / name).is_file():
            raise ValueError(
                f"{str(directory)!r} was not written by save_pretrained: it is a published model of another "
                f"form. encoder = {function}({str(directory_or_name)!r}) and text_encoder = "
                f"load_text_encoder({str(directory)!r}) open it."
            )
    raise FileNotFoundError(
        f"{str(directory)!r} holds no model: expected {CONFIG_FILE}, {WEIGHTS_FILE} and "
        f"{TEXT_ENCODER_FOLDER}/, as save_pretrained writes them."
    )


def _load_shared(directory: Path, encoder: keras.Model | None, dtype: Any) -> Pretrained:
    config = read_config(directory)
    source = SafetensorsSource(directory)
    text_encoder = _text_encoder(directory, config)
    training = read_json_object(directory / TRAINING_FILE)
    shapes = saved_shapes(config)
    found = {name: info.shape for name, info in source.arrays.items()}
    _compare(shapes, found, f"{directory / CONFIG_FILE} and {WEIGHTS_FILE} disagree", "config", "weights")
    if encoder is None:
        encoder = _build_encoder(config["encoder"], directory / CONFIG_FILE, dtype)
    own = {name: shapes[name] for name in config["encoder"]["variables"]}
    problem = f"{str(directory)!r} does not fit the encoder; nothing was loaded"
    if changes := config["encoder"].get("changes"):
        try:
            make_fitting(encoder, {"variables": [*own.items()], "changes": changes}, problem)
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            path = directory / CONFIG_FILE
            raise ValueError(f"{str(path)!r} tells of LoRA or int8 that cannot be made: {error!r}") from error
    _pairs(own, encoder.weights, is_rebuildable(encoder), problem)
    model = _with_heads(encoder, config, directory / CONFIG_FILE)
    saved = {name: shape for name, shape in shapes.items() if not is_head_array(name)}
    problem = f"{str(directory)!r} does not fit the model; nothing was loaded"
    for name, variable in _pairs(saved, model.weights, is_rebuildable(encoder), problem):
        variable.assign(keras.ops.cast(keras.ops.convert_to_tensor(source.read(name)), variable.dtype))
    heads = {name: source.read(name) for name in shapes if is_head_array(name)}
    if heads:
        encoder.pretrained_heads = heads_by_name(heads)
    encoder.is_trained = True
    return Pretrained(model, text_encoder, directory, config, training)


def _text_encoder(directory: Path, config: Mapping[str, Any]) -> TextEncoder:
    text_encoder = TextEncoder.load(directory / TEXT_ENCODER_FOLDER)
    if text_encoder.fingerprint != config["text_encoder"].get("fingerprint"):
        raise ValueError(
            f"{str(directory / TEXT_ENCODER_FOLDER)!r} is not the text encoder that was saved with the "
            "model: its ids would mean other tokens. Put the original back."
        )
    return text_encoder


def _build_encoder(saved: Mapping[str, Any], path: Path, dtype: Any) -> keras.Model:
    config, class_name = saved.get("config"), saved.get("class_name")
    if config is None or class_name not in ENCODER_CLASSES:
        raise ValueError(
            f"{str(path)!r}: the encoder is a {class_name} named {saved.get('name')!r}, which this library "
            "cannot build. Build it as it was built for training, and pass it: load_pretrained(..., "
            "encoder=encoder)."
        )
    if dtype is not None:
        config = {**config, "dtype": dtype}
    try:
        return ENCODER_CLASSES[class_name].from_config(config)
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{str(path)!r} describes no {class_name} of this version: {error}") from error


def _with_heads(encoder: keras.Model, config: Mapping[str, Any], path: Path) -> keras.Model:
    if config["model"] == "encoder":
        return encoder
    try:
        tasks = [TaskMetadata.from_config(task) for task in config["tasks"]]
        recipes = {phase: Recipe.from_config(recipe) for phase, recipe in config["recipes"].items()}
        seed = int(config["seed"])
        trained = frozenset(config["trained_heads"]) if "trained_heads" in config else None
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{str(path)!r} describes no tasks and recipes of this version: {error}") from error
    model = MultiTaskModel(encoder, tasks, seed=seed)
    model.recipes = recipes
    model.trained_heads = frozenset(model.heads) if trained is None else trained
    return model


def _pairs(saved: Shapes, variables: Sequence[Any], by_name: bool, problem: str) -> list[tuple[str, Any]]:
    """Return the saved name of each variable: by name, or, where the layers of an own encoder are numbered
    anew and all shapes agree, by order.

    Raises:
        ValueError: naming every difference.
    """
    here = {
        name: tuple(variable.shape)
        for name, variable in zip(variable_names(variables), variables, strict=True)
    }
    if not by_name and here.keys() != saved.keys() and [*here.values()] == [*saved.values()]:
        return list(zip(saved, variables, strict=True))
    _compare(saved, here, problem, "file", "model")
    return list(zip(here, variables, strict=True))


def _compare(one: Shapes, other: Shapes, problem: str, place: str, other_place: str) -> None:
    def shown(name: str) -> str:
        first, second = one.get(name, "absent"), other.get(name, "absent")
        return f"{name}: {first} in the {place}, {second} in the {other_place}"

    faults = [shown(name) for name in dict.fromkeys([*one, *other]) if one.get(name) != other.get(name)]
    if faults:
        raise ValueError(f"{problem}. {len(faults)} differences:\n  " + "\n  ".join(faults))


def _load_run(directory: Path, encoder: keras.Model | None, dtype: Any) -> Pretrained:
    """Load what the command line wrote."""
    weights = directory / RUN_WEIGHTS
    saved = read_metadata(weights)["encoder"]
    if encoder is None and dtype is not None:
        encoder = _build_encoder(saved, directory / RUN_WEIGHTS_FILE, dtype)
    model = load_model(weights, encoder)
    text_encoder = TextEncoder.load(directory / TEXT_ENCODER_FOLDER)
    return Pretrained(model, text_encoder, directory, {}, {})
