"""From a saved file back to a model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from bert_keras.encoders import ENCODER_CLASSES
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
        everything fits.

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
    variables = [(path, tuple(shape)) for path, shape in saved["variables"]]
    check_variables(variables, encoder.weights, f"{weights_path(filepath)} does not fit the encoder")
    if tasks is None:
        tasks = [TaskMetadata.from_config(task) for task in metadata["tasks"]]
    model = MultiTaskModel(encoder, tasks, seed=metadata["seed"])
    model.load_weights(filepath)
    model.recipes = {phase: Recipe(**config) for phase, config in metadata.get("recipes", {}).items()}
    return model
