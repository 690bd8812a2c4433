"""From a saved file back to a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras

from bert_keras.encoders import ENCODER_CLASSES
from bert_keras.encoders.changes import ADDED, changes_of, make_changes
from bert_keras.tasks import TaskMetadata
from bert_keras.training.model import MultiTaskModel
from bert_keras.training.recipes import Recipe
from bert_keras.training.saving import check_variables, read_metadata, weights_path


def load_model(
    filepath: Any, encoder: keras.Model | None = None, tasks: Iterable[TaskMetadata] | None = None
) -> MultiTaskModel:
    """Load a model that `save_weights` wrote.

    Args:
        filepath: the file, with or without its `.weights.h5`.
        encoder: an encoder of the saved shape, which gets the saved weights. By default one is built from the
            saved configuration, which the encoders of this library have.
        tasks: the tasks as they were saved, if their schedules are of your own classes. By default they are
            read from the file; a schedule of a subclass then comes back as a plain `TaskWeightScheduler`.

    Returns:
        The model, ready to predict or to be trained on, with its `recipes`. The encoder is changed only if
        everything fits; it gets the LoRA or int8 layers that the file has, and what is under LoRA is frozen.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, or does not fit the encoder; every difference is named.

    Example:

    ```python
    model = load_model("my_awesome_model", encoder)
    logits = model.predict(encoder_arrays(batch))["is_next"]
    ```
    """
    metadata = read_metadata(filepath)
    saved = metadata["encoder"]
    if encoder is None:
        if saved["config"] is None or saved["class_name"] not in ENCODER_CLASSES:
            raise ValueError(
                f"{weights_path(filepath)} was saved with an encoder of the class {saved['class_name']}, "
                "which this library cannot build. Build it yourself and pass it as `encoder`."
            )
        encoder = ENCODER_CLASSES[saved["class_name"]].from_config(saved["config"])
    make_fitting(encoder, saved, f"{weights_path(filepath)} does not fit the encoder")
    if tasks is None:
        tasks = [TaskMetadata.from_config(task) for task in metadata["tasks"]]
    model = MultiTaskModel(encoder, tasks, seed=metadata["seed"])
    model.load_weights(filepath)
    model.recipes = {
        phase: Recipe.from_config(config) for phase, config in metadata.get("recipes", {}).items()
    }
    return model


def make_fitting(encoder: keras.Model, saved: Mapping[str, Any], problem: str) -> None:
    """Give an encoder the LoRA or int8 layers that a file has, if it has the file's shape otherwise.

    Args:
        encoder: the encoder.
        saved: its `variables` (pairs of path and shape) and `changes` (of `changes_of`; absent if none).
        problem: how the error begins.

    Raises:
        ValueError: if it differs; every difference is named.
    """
    changes = saved.get("changes", {})
    variables = [(path, tuple(shape)) for path, shape in saved["variables"]]
    if changes and not changes_of(encoder):
        here = {(variable.path, tuple(variable.shape)) for variable in encoder.weights}
        plain = [each for each in variables if not ADDED.search(each[0])]
        ordered = sorted(encoder.weights, key=lambda variable: variable.path)
        if len(plain) != len(here) or sorted(shape for _, shape in plain) != sorted(s for _, s in here):
            check_variables(sorted(plain), ordered, problem)
        make_changes(encoder, changes)
    check_variables(variables, encoder.weights, problem)
