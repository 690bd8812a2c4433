"""`save_huggingface`: what was trained here, in the files that `transformers` reads; and `verify`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from bert_keras.checkpoints.configs import CONFIG_TABLES, config_to_json, differences
from bert_keras.checkpoints.engine import export_arrays
from bert_keras.checkpoints.table import Head
from bert_keras.checkpoints.tables import EXPORTS, HUGGINGFACE_TABLES
from bert_keras.encoders.changes import check_plain
from bert_keras.encoders.transformer import Transformer
from bert_keras.text.base import TextEncoder
from bert_keras.text.files import replacing, write_atomic
from bert_keras.text.publishing import tokenizer_files

CHECK_FILE = "bert_keras_check.safetensors"
_CHECK_SEED = 20181011


# What `transformers` calls the kinds of task.
_PROBLEM_TYPES = {
    "classification": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}
_MODERNBERT_POOLING = {"token": "cls", "mean": "mean"}  # its classifier may read a mean


def save_huggingface(
    model: keras.Model,
    directory: str | Path,
    *,
    text_encoder: TextEncoder | None = None,
    task: str | None = None,
    labels: Sequence[str] | None = None,
    model_type: str | None = None,
    verbose: int = 1,
) -> None:
    """Write a model so that `transformers` opens it: `config.json`, `model.safetensors`, tokenizer files.

    What the model has decides the class: `lm`, `lm` with `is_next`, one sentence-level task, one token-level
    task, or the bare encoder (`BertForMaskedLM`, `BertForPreTraining`, `BertForSequenceClassification`,
    `BertForTokenClassification`, `BertModel`, and those of the other types; `OpenAIGPTLMHeadModel` for GPT).
    Beside them goes a small file for `verify`.

    Args:
        model: from `train_model` or `load_model`, or an encoder.
        directory: where to; it is made if need be. Files of the same names are replaced.
        text_encoder: whose tokenizer files are written too.
        task: the task to export, where the model has several: one file holds one.
        labels: names of the task's classes, in the order of their ids; by default the task's own `labels`.
        model_type: `"bert"`, `"roberta"`, `"distilbert"`, `"electra"`, `"modernbert"` or `"openai-gpt"`; by
            default the one that can express the encoder.
        verbose: 1 prints what was written and what was left out; 0 does not.

    Raises:
        ValueError: if no type can express the encoder (the message says why, for each type), it has LoRA
            (`merge_lora` first) or was quantised, it is not clear which task is meant, the task has no class
            in `transformers` (a span, or a sentence read by a maximum, or by a mean but for ModernBERT), or
            `labels` are not as many as classes.

    Example:

    ```python
    save_huggingface(model, "my_bert", text_encoder=text_encoder, task="sentiment", labels=["bad", "good"])
    transformers.AutoModelForSequenceClassification.from_pretrained("my_bert")
    ```
    """
    encoder = getattr(model, "encoder", model)
    if not isinstance(encoder, Transformer):
        raise ValueError(
            f"Only encoders of `create_transformer` and the `load_` functions have a published form. "
            f"Received: {type(encoder).__name__}"
        )
    check_plain(encoder, "write it for `transformers`")
    model_type = _model_type(encoder, model_type)
    kind, task_name = _kind(model, task, model_type)
    if kind not in EXPORTS[model_type]:
        raise ValueError(
            f"The type {model_type!r} has no class for {kind!r} (task {task_name!r}). It has: "
            f"{sorted(EXPORTS[model_type])}. Pass another `task`."
        )
    architecture, heads = EXPORTS[model_type][kind]
    variables = {variable.path: _numpy(variable) for variable in encoder.weights}
    given = _head_variables(model, encoder, task_name)
    heads = tuple(head for head in heads if kind != "encoder" or head.name in given)
    for head in heads:
        variables |= {f"{head.name}/{path}": array for path, array in given[head.name].items()}
    config = config_to_json(model_type, encoder.config)
    config |= {"architectures": [architecture], "torch_dtype": "float32"}
    config |= _special_ids(text_encoder, encoder, config)
    if task_name is not None:
        chosen = next(each for each in model.tasks if each.name == task_name)
        config |= _label_names(labels or chosen.labels, chosen.num_classes)
        if kind == "sentence":
            config["problem_type"] = _PROBLEM_TYPES[chosen.kind]
            if model_type == "modernbert":
                config["classifier_pooling"] = _MODERNBERT_POOLING[chosen.read_from]
    # All that can be refused is refused before anything is written.
    files = {} if text_encoder is None else tokenizer_files(text_encoder, model_type)
    _write(Path(directory), model_type, encoder, variables, heads, kind, config)
    for name, content in files.items():
        write_atomic(Path(directory) / name, content)
    if verbose:
        written = {task_name} if task_name else {head.name for head in heads}
        left_out = sorted(set(getattr(model, "heads", {})) - written)
        print(f"{directory}: {architecture}" + (f", without the tasks {left_out}" if left_out else ""))


def verify(model: keras.Model, directory: str | Path, *, verbose: int = 1) -> float:
    """Run the small batch that was stored when `directory` was written, and compare the hidden states.

    Args:
        model: what was loaded from there: an encoder, or a model with one.
        directory: that `save_huggingface` wrote.
        verbose: 1 prints the largest difference; 0 does not.

    Returns:
        The largest absolute difference from the stored hidden states.

    Raises:
        FileNotFoundError: if nothing was stored.
        ValueError: if what was stored is damaged, or has another shape than the model gives.

    Example:

    ```python
    verify(load_huggingface("my_bert"), "my_bert")
    ```
    """
    encoder = getattr(model, "encoder", model)
    path = Path(directory) / CHECK_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {CHECK_FILE} in {str(directory)!r}: `save_huggingface` writes it."
        )
    try:
        stored = safetensors_numpy.load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{str(path)!r} is damaged: {error}. Export the model again.") from error
    if stored.keys() != {"token_ids", "hidden_states"} or stored["token_ids"].ndim != 2:
        raise ValueError(f"{str(path)!r} was not written by `save_huggingface`: it has {sorted(stored)}.")
    ids, expected = stored["token_ids"], stored["hidden_states"]
    found = _hidden_states(encoder, ids)
    if found.shape != expected.shape:
        raise ValueError(
            f"{str(path)!r} has hidden states of shape {expected.shape}, the encoder gives {found.shape}: it "
            "is another one."
        )
    largest = float(np.abs(found - expected).max())
    if verbose:
        print(f"{directory}: largest difference of hidden states {largest:.2e}")
    return largest


def _model_type(encoder: Transformer, model_type: str | None) -> str:
    if model_type is not None and model_type not in CONFIG_TABLES:
        raise ValueError(f"`model_type` must be one of {sorted(CONFIG_TABLES)}. Received: {model_type!r}")
    candidates = list(CONFIG_TABLES) if model_type is None else [model_type]
    faults = {name: differences(name, encoder.config) for name in candidates}
    for name, found in faults.items():
        if not found:
            return name
    raise ValueError(
        "No published type can express this encoder:\n  "
        + "\n  ".join(f"{name}: {', '.join(found)}" for name, found in faults.items())
    )


def _kind(model: keras.Model, task: str | None, model_type: str) -> tuple[str, str | None]:
    """Return what is to be exported, and the task's name if it is one classification task."""
    tasks = {each.name: each for each in getattr(model, "tasks", [])}
    if task is not None and task not in tasks:
        raise ValueError(f"`task` must be one of the model's {sorted(tasks)}. Received: {task!r}")
    own = [name for name in tasks if name not in ("lm", "is_next")]
    if task is None and len(own) + ("lm" in tasks or "is_next" in tasks) > 1:
        raise ValueError(f"The model has several tasks, {sorted(tasks)}: pass `task`, the one to export.")
    if task is None and not own:
        return " and ".join(name for name in ("lm", "is_next") if name in tasks) or "encoder", None
    chosen = tasks[task or own[0]]
    if chosen.name in ("lm", "is_next"):
        return chosen.name, None
    ways = [*_MODERNBERT_POOLING] if model_type == "modernbert" else ["token"]
    if chosen.read_from not in ways or chosen.kind not in _PROBLEM_TYPES:
        raise ValueError(
            f"The task {chosen.name!r} cannot be written: `transformers` has no class for kind="
            f"{chosen.kind!r} with read_from={chosen.read_from!r}. For {model_type!r}, sentence-level tasks "
            f"must be read from one of {ways} and be one of {sorted(_PROBLEM_TYPES)}."
        )
    if chosen.is_token_level and chosen.kind != "classification":
        raise ValueError(
            f"The task {chosen.name!r} cannot be written: `transformers` tags tokens with one class each, "
            f"and its kind is {chosen.kind!r}."
        )
    return ("token" if chosen.is_token_level else "sentence"), chosen.name


def _head_variables(
    model: keras.Model, encoder: Transformer, task_name: str | None
) -> dict[str, Mapping[str, np.ndarray]]:
    """Return the values of the heads' variables, by the names of the conversion tables."""
    if not hasattr(model, "heads"):
        return dict(getattr(encoder, "pretrained_heads", None) or {})
    given: dict[str, Mapping[str, np.ndarray]] = {}
    for name, head in model.heads.items():
        table_name = "classifier" if name == task_name else name
        given[table_name] = {
            variable.path.split("/", 1)[1]: _numpy(variable) for variable in head.own_variables()
        }
    if model.pooler is not None:
        given["pooler"] = {v.path.split("/", 1)[1]: _numpy(v) for v in model.pooler.weights}
    return given


def _write(
    directory: Path,
    model_type: str,
    encoder: Transformer,
    variables: Mapping[str, np.ndarray],
    heads: tuple[Head, ...],
    kind: str,
    config: Mapping[str, Any],
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    table = HUGGINGFACE_TABLES[model_type]
    arrays = dict(export_arrays(table, encoder.num_layers, variables, heads))
    if kind == "encoder":  # as `transformers` names the arrays of a model without a head
        arrays = {name.removeprefix(table.prefix): array for name, array in arrays.items()}
    with replacing(directory / "model.safetensors") as temporary:
        safetensors_numpy.save_file(arrays, temporary, metadata={"format": "pt"})
    write_atomic(directory / "config.json", (json.dumps(config, indent=2) + "\n").encode())
    rng = np.random.default_rng(_CHECK_SEED)
    ids = rng.integers(0, encoder.vocab_size, (3, min(16, encoder.max_len)), dtype="int32")
    with replacing(directory / CHECK_FILE) as temporary:
        check = {"token_ids": ids, "hidden_states": _hidden_states(encoder, ids)}
        safetensors_numpy.save_file(check, temporary)


def _hidden_states(encoder: keras.Model, ids: np.ndarray) -> np.ndarray:
    """Of rows of which the second one ends early, in float32."""
    rows, length = ids.shape
    sequence_ids = np.ones_like(ids)
    sequence_ids[1, length // 2 :] = 0
    inputs = {
        "token_ids": ids,
        "segment_ids": np.zeros_like(ids),
        "position_ids": np.tile(np.arange(length, dtype="int32"), (rows, 1)),
        "sequence_ids": sequence_ids,
    }
    hidden = keras.ops.convert_to_numpy(keras.ops.cast(encoder(inputs, training=False), "float32"))
    return np.ascontiguousarray(hidden * (sequence_ids > 0)[..., None])


def _label_names(labels: Sequence[str] | None, num_classes: int) -> dict[str, Any]:
    names = [f"LABEL_{number}" for number in range(num_classes)] if labels is None else list(labels)
    if len(names) != num_classes:
        raise ValueError(f"`labels` must be {num_classes} names, one for each class. Received: {names}")
    return {
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }


def _special_ids(
    text_encoder: TextEncoder | None, encoder: Transformer, config: Mapping[str, Any]
) -> dict[str, int]:
    """What `config.json` says of a text encoder, which has to fit the model."""
    if text_encoder is None:
        return {}
    if text_encoder.vocab_size > encoder.vocab_size:
        raise ValueError(
            f"`text_encoder` has {text_encoder.vocab_size} ids, but the encoder's token embedding "
            f"{encoder.vocab_size} rows."
        )
    special = {
        "pad_token_id": text_encoder.pad_id,
        "bos_token_id": text_encoder.bos_id,
        "eos_token_id": text_encoder.eos_id,
    }
    if config["model_type"] == "modernbert":
        special |= {"cls_token_id": text_encoder.bos_id, "sep_token_id": text_encoder.eos_id}
    for name in config.keys() & special.keys():
        if config[name] not in (None, special[name]):
            raise ValueError(
                f"The type {config['model_type']!r} needs {name}={config[name]}, but the text encoder has "
                f"{special[name]}."
            )
    return special


def _numpy(variable: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(variable.value), "float32")
