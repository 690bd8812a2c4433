"""`export_model`: ONNX, TensorFlow's SavedModel and LiteRT, through Keras' own `export`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bert_keras.encoders import LSTMEncoder, QRNNEncoder
from bert_keras.encoders.changes import quantized_layers
from bert_keras.encoders.inputs import encoder_inputs, input_names, select_inputs
from bert_keras.sharing.folders import checked_target, replacing_folder
from bert_keras.sharing.form import TEXT_ENCODER_FOLDER, has_heads, is_rebuildable
from bert_keras.sharing.formats import FORMATS, Format
from bert_keras.sharing.runtimes import Run, is_installed
from bert_keras.tasks import IS_NEXT_TASK, LM_TASK, TaskMetadata
from bert_keras.text import TextEncoder
from bert_keras.training.checks import encoder_facts
from bert_keras.training.model import MultiTaskModel
from bert_keras.version import __version__

SERVING_FILE = "serving.json"
HIDDEN_STATES = "hidden_states"  # what an encoder without tasks gives
TOLERANCE = 1e-3

_INPUTS = {
    "token_ids": "bos, text, eos; of a pair: bos, text, del, second text, eos; then pad",
    "segment_ids": "1 in the second text and its eos, else 0",
    "position_ids": "0, 1, 2, ... in every row",
    "sequence_ids": "1 at tokens, 0 at padding",
}


_OWN_NAMES = (*(form.file for form in FORMATS.values()), SERVING_FILE, TEXT_ENCODER_FOLDER)


def export_model(
    model: keras.Model,
    path: str | Path,
    format: str = "onnx",
    *,
    text_encoder: TextEncoder | None = None,
    tasks: str | Iterable[str] | None = None,
    check: bool = True,
    overwrite: bool = False,
    verbose: int = 1,
) -> Path:
    """Write a model for a runtime that knows neither Keras nor this library.

    The folder gets the model (`model.onnx`, `saved_model/` or `model.tflite`), `serving.json` (inputs,
    outputs, labels, special tokens: what a server has to know) and, if it is given, `text_encoder/`. Number
    and length of rows stay open. It computes in float32, also where the model has another dtype policy.

    Args:
        model: from `train_model`, `load_model` or `load_pretrained(...).model`, or an encoder alone, of which
            the hidden states are exported.
        path: the folder.
        format: `"onnx"`, `"tf_saved_model"` or `"litert"`. All need Keras' TensorFlow backend.
        text_encoder: the one that belongs to the model.
        tasks: names of the tasks whose logits the exported model gives. By default all but `lm` and
            `is_next`, or those if there are no others. `lm` gives logits over the vocabulary at every
            position, which is most of the time and memory of a row.
        check: run the exported model on two batches of different shapes, with padding, and compare with the
            model; this needs the format's runtime.
        overwrite: whether a folder that this function wrote earlier may be replaced.
        verbose: 1 prints what was written; 0 does not.

    Returns:
        The folder's path.

    Raises:
        ValueError: for an unknown format or task, a backend that cannot write the format, or a model that has
            to be float32 and cannot be rebuilt (the message says what to do); for an LSTM or QRNN, of which
            ONNX and LiteRT have none; or if the exported model gives other numbers than the model. Nothing is
            written then.
        ImportError: if a package is missing; the message names the extra to install.
        FileExistsError: as in `save_pretrained`.

    Example:

    ```python
    export_model(model, "my_sentiment_onnx", format="onnx", text_encoder=text_encoder)
    ```

    Sources: https://keras.io/api/models/model_saving_apis/export/; https://onnx.ai;
    https://ai.google.dev/edge/litert
    """
    form = _checked_format(model, format, check)
    target = checked_target(path, overwrite, _OWN_NAMES)
    chosen = _chosen_tasks(model, tasks)
    serving = _serving_model(_in_float32(model), chosen)
    facts = _facts(model, chosen, text_encoder, format)
    with replacing_folder(target) as folder:
        form.write(serving, folder / form.file)
        if check:
            facts["largest_difference"] = _difference(form.open(folder / form.file), serving, model)
        if text_encoder is not None:
            text_encoder.save(folder / TEXT_ENCODER_FOLDER)
        content = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
        (folder / SERVING_FILE).write_text(content, encoding="utf-8")
    if verbose:
        compared = f", largest difference {facts['largest_difference']:.1e}" if check else ""
        print(f"{path}: {format}, {[*facts['outputs']]}{compared}")
    return target


def _checked_format(model: keras.Model, format: str, check: bool) -> Format:
    if format not in FORMATS:
        raise ValueError(f"`format` must be one of {sorted(FORMATS)}. Received: format={format!r}")
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ValueError(
            f"format={format!r} is written with Keras' TensorFlow backend, and this process runs on "
            f"{backend}. Save the model here, save_pretrained(model, 'my_model', text_encoder), and export "
            "it in a process of TensorFlow: KERAS_BACKEND=tensorflow bert-keras convert my_model exported "
            f"--to {format.removeprefix('tf_').replace('_', '-')}"
        )
    form = FORMATS[format]
    encoder = model.encoder if has_heads(model) else model
    if quantized_layers(encoder):
        raise ValueError(
            "The encoder was quantised to int8, which is not exported. Export the model as it was before "
            "`quantize`, and let the runtime's own tools make it smaller."
        )
    if isinstance(encoder, LSTMEncoder | QRNNEncoder) and not form.takes_loops:
        raise ValueError(
            f"format={format!r} has no {type(encoder).__name__}: its converter knows no loops over texts of "
            "open length. format='tf_saved_model' takes any encoder."
        )
    if missing := [package for package in form.packages if not is_installed(package)]:
        raise ImportError(f"format={format!r} needs {missing}: pip install 'bert_keras[export]'.")
    if check and not is_installed(form.runtime):
        raise ImportError(
            f"check=True runs the exported model with {form.runtime}, which is not installed: "
            "pip install 'bert_keras[export]', or pass check=False."
        )
    return form


def _chosen_tasks(model: keras.Model, names: str | Iterable[str] | None) -> list[TaskMetadata]:
    known = {task.name: task for task in model.tasks} if has_heads(model) else {}
    if names is None:
        own = [name for name in known if name not in (LM_TASK, IS_NEXT_TASK)]
        names = own or known
    names = [names] if isinstance(names, str) else list(names)
    if wrong := [name for name in names if name not in known]:
        raise ValueError(f"`tasks` must be among the model's tasks {sorted(known)}. Received: {wrong}")
    if known and not names:
        raise ValueError(f"`tasks` is empty: name some of {sorted(known)}, or leave it out.")
    return [known[name] for name in names]


def _in_float32(model: keras.Model) -> keras.Model:
    """Return the model, or a copy of it that computes in float32."""
    encoder = model.encoder if has_heads(model) else model
    if encoder.dtype_policy.compute_dtype == encoder.dtype_policy.variable_dtype == "float32":
        return model
    if not is_rebuildable(encoder):
        raise ValueError(
            f"Exported models compute in float32, and the encoder {encoder.name!r} has the dtype policy "
            f"{encoder.dtype_policy.name!r}. Build it with float32, load the saved weights, and export that."
        )
    fresh: keras.Model = type(encoder).from_config({**encoder.get_config(), "dtype": "float32"})
    if has_heads(model):
        fresh = MultiTaskModel(fresh, model.tasks, seed=model.seed)
    for target, source in zip(fresh.weights, model.weights, strict=True):
        target.assign(keras.ops.cast(source, "float32"))
    return fresh


def _serving_model(model: keras.Model, tasks: Sequence[TaskMetadata]) -> keras.Model:
    """Return a model from the encoder's inputs to the logits of some tasks, or to hidden states."""
    if has_heads(model):
        return keras.Model(
            model.input, {task.name: model.output[task.name] for task in tasks}, name="serving"
        )
    inputs = {name: tensor for name, tensor in encoder_inputs().items() if name in input_names(model)}
    return keras.Model(inputs, {HIDDEN_STATES: model(select_inputs(model, inputs))}, name="serving")


def _facts(
    model: keras.Model, tasks: Sequence[TaskMetadata], text_encoder: TextEncoder | None, format: str
) -> dict[str, Any]:
    """Return what a server has to know."""
    encoder = model.encoder if has_heads(model) else model
    facts = encoder_facts(encoder)
    outputs = {
        task.name: {
            "shape": ["rows", "length", 2] if task.kind == "span" else _logits_shape(task),
            "kind": task.kind,
            "labels": None if task.labels is None else list(task.labels),
        }
        for task in tasks
    }
    if not tasks:
        outputs = {HIDDEN_STATES: {"shape": ["rows", "length", facts.width], "kind": "hidden states"}}
    wanted = [*_INPUTS] if has_heads(model) else input_names(encoder)
    special = {}
    if text_encoder is not None:
        roles = ("pad", "unk", "bos", "eos", "del", "msk")
        special = {role: getattr(text_encoder, f"{role}_id") for role in roles}
    return {
        "format": format,
        "file": FORMATS[format].file,
        "written_by": f"bert_keras {__version__}",
        "inputs": {
            name: {"shape": ["rows", "length"], "dtype": "int32", "meaning": _INPUTS[name]} for name in wanted
        },
        "outputs": outputs,
        "max_len": facts.max_len,
        "takes_longer_rows": facts.takes_any_length or facts.max_len is None,
        "special_ids": special,
    }


def _logits_shape(task: TaskMetadata) -> list[Any]:
    return ["rows", "length", task.num_classes] if task.is_token_level else ["rows", task.num_classes]


def _difference(run: Run, serving: keras.Model, model: keras.Model) -> float:
    """Return the largest difference of the exported model from the model, on two batches.

    Raises:
        ValueError: if they do not agree.
    """
    largest = 0.0
    for rows, length in ((2, 7), (3, 12)):
        arrays = _random_arrays(model, rows, length)
        expected = serving({name: arrays[name] for name in serving.input}, training=False)
        found = run(arrays)
        for name, tensor in expected.items():
            ours = np.asarray(keras.ops.convert_to_numpy(tensor))
            if found[name].shape != ours.shape or not np.allclose(found[name], ours, TOLERANCE, TOLERANCE):
                raise ValueError(
                    f"The exported model does not give the model's numbers for {name!r} on {rows} rows of "
                    f"{arrays['token_ids'].shape[1]} tokens: {found[name].shape} {found[name].ravel()[:4]}, "
                    f"expected {ours.shape} {ours.ravel()[:4]}. Nothing was written."
                )
            largest = max(largest, float(np.abs(found[name] - ours).max()))
    return largest


def _random_arrays(model: keras.Model, rows: int, length: int) -> dict[str, np.ndarray]:
    """Return inputs of which all rows but the first end early."""
    facts = encoder_facts(model.encoder if has_heads(model) else model)
    length = min(length, facts.max_len or length)
    rng = np.random.default_rng(length)
    ends = np.maximum(1, length - 2 * np.arange(rows))[:, None]
    columns = np.tile(np.arange(length, dtype="int32"), (rows, 1))
    segments = (columns > ends // 2) & ((facts.num_segments or 1) > 1)
    return {
        "token_ids": rng.integers(0, facts.vocab_size or 2, (rows, length), dtype="int32"),
        "segment_ids": segments.astype("int32"),
        "position_ids": columns,
        "sequence_ids": (columns < ends).astype("int32"),
    }
