"""One HDF5 file for a trained model: weights by path, the tasks, and the encoder's configuration.

    metadata            UTF-8 JSON: format, tasks, encoder, variables in order (path, shape)
    weights/0, 1, ...   one array for each variable, in the order of `model.weights`
    optimizer/0, ...    the same for the optimizer        (only in backups during training)
    random_state/0, ... the states of the dropouts' seeds (only in backups during training)

A file is written beside its place and moved there when it is whole. Loading reads arrays and JSON and nothing
else.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import keras
import numpy as np

from bert_keras.encoders import ENCODER_CLASSES
from bert_keras.encoders.changes import changes_of
from bert_keras.text.files import replacing
from bert_keras.version import __version__

if TYPE_CHECKING:
    from bert_keras.training.model import MultiTaskModel

SUFFIX = ".weights.h5"
FORMAT = "bert_keras weights"
FORMAT_VERSION = 1


class DamagedFileError(OSError, ValueError):
    """A file that is truncated or something else. As an OSError it makes Keras' callbacks try their copy."""


def weights_path(filepath: Any) -> Path:
    """Return the path with `.weights.h5` at its end, added where it is missing."""
    path = Path(os.fspath(filepath))
    return path if path.name.endswith(SUFFIX) else path.with_name(path.name + SUFFIX)


def write_weights(model: MultiTaskModel, filepath: Any, overwrite: bool, include_optimizer: bool) -> None:
    """Write the model to one file, atomically.

    Raises:
        FileExistsError: if the file exists and must not be overwritten.
    """
    path = weights_path(filepath)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists. Pass overwrite=True to replace it, or choose another name.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        _write_metadata(file, _metadata(model))
        _write_variables(file, "weights", model.weights)
        if include_optimizer:
            optimizer = getattr(model, "optimizer", None)
            if optimizer is not None and optimizer.built:
                _write_variables(file, "optimizer", optimizer.variables)
            _write_variables(file, "random_state", random_state(model))


def read_metadata(filepath: Any) -> dict[str, Any]:
    """Return what a saved file says of itself.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is none of ours, damaged, or of a newer format.
    """
    with _opened(filepath) as file:
        return _read_metadata(file)


def read_weights(model: MultiTaskModel, filepath: Any) -> dict[str, Any]:
    """Load a saved file into a model that was built alike, or raise and change nothing.

    Optimizer and random state are restored if the file has them and the model was compiled with such an
    optimizer. While `fit` runs, as when it goes on from a backup, a warning says so if it was not.

    Returns:
        What the file says of itself.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or any variable differs; all differences are named.
    """
    with _opened(filepath) as file:
        metadata = _read_metadata(file)
        saved = [(path, tuple(shape)) for path, shape in metadata["variables"]]
        check_variables(saved, model.weights, f"{weights_path(filepath)} does not fit the model")
        changes = metadata["encoder"].get("changes", {})
        if changes != changes_of(model.encoder):
            raise ValueError(
                f"{weights_path(filepath)} has other LoRA or int8 layers than the model: {changes} in the "
                f"file, {changes_of(model.encoder)} here; nothing was loaded. `load_model` makes what the "
                "file has."
            )
        arrays = _read_group(file, "weights", model.weights)
        optimizer = getattr(model, "optimizer", None)
        states: list[np.ndarray] = []
        if "optimizer" in file and optimizer is not None:
            if not optimizer.built:
                optimizer.build(model.trainable_variables)
            if _group_shapes(file, "optimizer") == [tuple(v.shape) for v in optimizer.variables]:
                states = _read_group(file, "optimizer", optimizer.variables)
            elif model._is_fitting:  # a backup to go on from
                warnings.warn(
                    f"{weights_path(filepath)} has the state of another optimizer than this run's "
                    f"({type(optimizer).__name__}): weights were restored, but moments, steps and learning "
                    "rate begin anew. To go on where it stopped, train with the optimizer that wrote it.",
                    stacklevel=3,
                )
        seeds = random_state(model)
        seed_states: list[np.ndarray] = []
        if states and len(_group_shapes(file, "random_state")) == len(seeds):
            seed_states = _read_group(file, "random_state", seeds)
    _assign(model.weights, arrays)
    if states and optimizer is not None:
        _assign(optimizer.variables, states)
    if seed_states:
        _assign(seeds, seed_states)
    return metadata


def check_variables(saved: Sequence[tuple[str, tuple]], variables: Sequence[Any], problem: str) -> None:
    """Compare saved names and shapes with a model's variables.

    Names count where both sides have all the same or lack some of the other's; order decides otherwise, since
    Keras numbers nameless layers differently in every process.

    Raises:
        ValueError: naming every difference.
    """
    found = [(variable.path, tuple(variable.shape)) for variable in variables]
    if [shape for _, shape in saved] == [shape for _, shape in found]:
        return
    there, here = dict(saved), dict(found)
    faults = []
    for path in dict.fromkeys([*there, *here]):
        if path not in here:
            faults.append(f"{path}: {there[path]} in the file, absent here")
        elif path not in there:
            faults.append(f"{path}: absent in the file, {here[path]} here")
        elif there[path] != here[path]:
            faults.append(f"{path}: {there[path]} in the file, {here[path]} here")
    faults = faults or [f"another order of variables: {saved} in the file, {found} here"]
    raise ValueError(f"{problem}; nothing was loaded. {len(faults)} differences:\n  " + "\n  ".join(faults))


def random_state(model: keras.Model) -> list[Any]:
    """Return the variables that hold the states of the model's seed generators."""
    return [v for v in model.non_trainable_variables if v.path.endswith("seed_generator_state")]


def _metadata(model: MultiTaskModel) -> dict[str, Any]:
    encoder = model.encoder
    config = encoder.get_config() if type(encoder) in ENCODER_CLASSES.values() else None
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "written_by": f"bert_keras {__version__}",
        "tasks": [task.get_config() for task in model.tasks],
        "trained_heads": sorted(model.trained_heads),
        "seed": model.seed,
        "recipes": {phase: recipe.get_config() for phase, recipe in model.recipes.items()},
        "encoder": {
            "class_name": type(encoder).__name__,
            "config": config,
            "changes": changes_of(encoder),
            "variables": [(v.path, list(v.shape)) for v in encoder.weights],
        },
        "variables": [(v.path, list(v.shape)) for v in model.weights],
    }


def _write_metadata(file: h5py.File, metadata: dict[str, Any]) -> None:
    file.create_dataset("metadata", data=np.frombuffer(json.dumps(metadata).encode(), dtype="uint8"))


def _write_variables(file: h5py.File, group: str, variables: Sequence[Any]) -> None:
    target = file.create_group(group)
    for number, variable in enumerate(variables):
        array = keras.ops.convert_to_numpy(variable.value)
        if array.dtype.kind == "V":  # bfloat16, which HDF5 does not know
            array = array.astype("float32")
        target.create_dataset(str(number), data=array).attrs["path"] = variable.path


@contextlib.contextmanager
def _opened(filepath: Any) -> Iterator[h5py.File]:
    path = weights_path(filepath)
    if not path.is_file():
        raise FileNotFoundError(f"There are no saved weights at {path}.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DamagedFileError(
            f"{path} is no readable weights file; it is truncated or something else: {error}"
        ) from error
    with file:
        yield file


def _read_metadata(file: h5py.File) -> dict[str, Any]:
    problem = f"{file.filename} was not written by `save_weights` of bert_keras, or is damaged"
    if not isinstance(file.get("metadata"), h5py.Dataset) or file["metadata"].dtype != np.uint8:
        raise DamagedFileError(f"{problem}: it has no metadata.")
    try:
        metadata = json.loads(file["metadata"][()].tobytes())
    except (OSError, ValueError) as error:
        raise DamagedFileError(f"{problem}: {error}") from error
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise DamagedFileError(f"{problem}: its metadata are of another kind.")
    if metadata["format_version"] > FORMAT_VERSION:
        raise ValueError(
            f"{file.filename} has format version {metadata['format_version']}, written by "
            f"{metadata['written_by']}; this version reads up to {FORMAT_VERSION}. Install a newer "
            "bert_keras."
        )
    return metadata


def _group_shapes(file: h5py.File, group: str) -> list[tuple]:
    if group not in file:
        return []
    return [file[group][str(number)].shape for number in range(len(file[group]))]


def _read_group(file: h5py.File, group: str, variables: Sequence[Any]) -> list[np.ndarray]:
    arrays = []
    for number, variable in enumerate(variables):
        place = f"{group}/{number}"
        dataset = file.get(place)
        if not isinstance(dataset, h5py.Dataset) or dataset.shape != tuple(variable.shape):
            raise DamagedFileError(
                f"{file.filename} is damaged: the array {place} ({variable.path}) is missing or misshapen."
            )
        try:
            arrays.append(dataset[()])
        except OSError as error:
            raise DamagedFileError(
                f"{file.filename} is damaged at {place} ({variable.path}): {error}"
            ) from error
    return arrays


def _assign(variables: Sequence[Any], arrays: Sequence[np.ndarray]) -> None:
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(keras.ops.cast(keras.ops.convert_to_tensor(array), variable.dtype))
