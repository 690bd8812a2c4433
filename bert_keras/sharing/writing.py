"""`save_pretrained`: a model with all that others need to use it, in one folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors import numpy as safetensors_numpy

from bert_keras.sharing.card import Card
from bert_keras.sharing.folders import checked_target, replacing_folder
from bert_keras.sharing.form import (
    CARD_FILE,
    CONFIG_FILE,
    OWN_NAMES,
    TEXT_ENCODER_FOLDER,
    TRAINING_FILE,
    WEIGHTS_FILE,
    config_of,
    has_heads,
    head_arrays,
    variable_names,
)
from bert_keras.sharing.record import training_record
from bert_keras.sharing.scores import given_scores
from bert_keras.sharing.told import Told, several
from bert_keras.text import TextEncoder
from bert_keras.training.checks import encoder_facts


def save_pretrained(
    model: keras.Model,
    directory: str | Path,
    text_encoder: TextEncoder,
    *,
    name: str | None = None,
    description: str | None = None,
    data: str | None = None,
    license: str | None = None,
    language: str | Sequence[str] | None = None,
    datasets: str | Sequence[str] | None = None,
    base_model: str | None = None,
    tags: str | Sequence[str] | None = None,
    scores: Mapping[str, Any] | None = None,
    limitations: str | None = None,
    history: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    verbose: int = 1,
) -> Path:
    """Write a model with all that others need to use it, in one folder that `load_pretrained` opens.

    The folder has `config.json` (the encoder's configuration, the tasks with their labels, the recipes),
    `model.safetensors` (every variable once, as it is), `text_encoder/`, `training.json` (histories, recipes,
    seed, versions) and a model card, `README.md`, as the Hugging Face Hub reads it: it can be uploaded there
    as it stands. The folder appears when it is complete; if anything fails before, what was there stays.

    Args:
        model: from `train_model` or `load_model`, or an encoder alone.
        directory: where to.
        text_encoder: the one that the model was trained with.
        name: of the model; `"owner/name"` if it is to be shared under that name on the Hub. By default the
            folder's.
        description: what it is and what it is for.
        data: what it was trained on.
        license: as the Hub names it, such as `"apache-2.0"`.
        language: codes of its languages, such as `"en"`.
        datasets: names of the data sets on the Hub.
        base_model: name on the Hub of the published model that training began with.
        tags: more words to find it by on the Hub.
        scores: what was measured: the result of `evaluate_model`, or such results by the name of the data.
            Validation scores of the training are added to the card by themselves.
        limitations: what it cannot do, and what it should not be used for.
        history: for each phase Keras' `History`, or a mapping from measure to one number for each epoch; by
            default what `train_model` left in `model.training_history`.
        overwrite: whether a folder that this function wrote earlier may be replaced.
        verbose: 1 prints what was written; 0 does not.

    Returns:
        The folder's path.

    Raises:
        FileExistsError: if the folder exists and is not empty, unless `overwrite` is True; also then, if it
            holds files that do not come from here.
        ValueError: if the text encoder does not belong to the model, an argument is of another form, or the
            model's heads have layers that were quantised or have LoRA (those of the encoder are kept).

    Example:

    ```python
    save_pretrained(model, "my_folder", text_encoder, license="apache-2.0", language="en",
                    data="67,349 sentences from film reviews.", scores=evaluate_model(model, held_out))
    load_pretrained("my_folder").classify("A fine film.").label
    ```

    Sources: https://huggingface.co/docs/hub/model-cards; Mitchell et al. 2019, "Model Cards for Model
    Reporting".
    """
    _check(model, text_encoder)
    path = checked_target(directory, overwrite, OWN_NAMES)
    told = Told(
        name=path.name if name is None else name,
        description=description,
        data=data,
        license=license,
        language=several("language", language),
        datasets=several("datasets", datasets),
        base_model=base_model,
        tags=several("tags", tags),
        limitations=limitations,
    )
    tasks = model.tasks if has_heads(model) else []
    measured = given_scores(scores, tasks)
    record = training_record(model, history)
    source = told.name if "/" in told.name else path.name
    card = Card(model, told, measured, record, source).to_markdown().encode()
    heads = {} if has_heads(model) else head_arrays(model)
    config = config_of(model, text_encoder, heads)
    with replacing_folder(path) as folder:
        (folder / CONFIG_FILE).write_bytes(_as_json(config))
        _write_arrays(model, heads, folder / WEIGHTS_FILE)
        shutil.copymode(folder / CONFIG_FILE, folder / WEIGHTS_FILE)  # safetensors' are the user's alone
        text_encoder.save(folder / TEXT_ENCODER_FOLDER)
        (folder / TRAINING_FILE).write_bytes(_as_json(record))
        (folder / CARD_FILE).write_bytes(card)
    if verbose:
        print(f"{directory}: {model.count_params():,} parameters, tasks {[task.name for task in tasks]}")
    return path


def _check(model: keras.Model, text_encoder: TextEncoder) -> None:
    """Refuse what could not be loaded again."""
    if not isinstance(text_encoder, TextEncoder):
        raise ValueError(
            "`text_encoder` must be the TextEncoder that the model was trained with. "
            f"Received: {type(text_encoder).__name__}"
        )
    encoder = model.encoder if has_heads(model) else model
    vocab_size = encoder_facts(encoder).vocab_size
    if vocab_size is not None and text_encoder.vocab_size > vocab_size:
        raise ValueError(
            f"`text_encoder` has {text_encoder.vocab_size} ids, but the encoder {vocab_size}: they do not "
            "belong together."
        )
    own = {id(layer) for layer in encoder._flatten_layers()}
    changed = [
        layer.name
        for layer in model._flatten_layers()
        if id(layer) not in own
        and (getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None))
    ]
    if changed:
        raise ValueError(
            f"LoRA and int8 are for encoders; the layers {changed[:3]} belong to heads that were quantised "
            "or have LoRA. Leave heads as they are."
        )


def _write_arrays(model: keras.Model, heads: Mapping[str, Any], path: Path) -> None:
    arrays = {
        name: np.asarray(keras.ops.convert_to_numpy(variable.value), order="C")
        for name, variable in zip(variable_names(model.weights), model.weights, strict=True)
    }
    arrays |= {name: np.asarray(array, order="C") for name, array in heads.items()}
    safetensors_numpy.save_file(arrays, path, metadata={"format": "bert_keras"})


def _as_json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
