"""`inspect`: what is in a file or folder: arrays, tasks, and where it comes from."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bert_keras.cli.settings import RUN_FILE
from bert_keras.text.files import read_json_object

_OF_OURS = ".weights.h5"


def inspect(path: Path) -> dict[str, Any]:
    """Tell what a file or folder is and holds.

    Args:
        path: weights that `save_weights` wrote, the folder of a run, one that `save_pretrained` wrote, a text
            encoder, a prepared corpus, or a published model in the form of Hugging Face, Google's BERT or
            OpenAI's GPT.

    Returns:
        `kind`, and by kind `tasks`, `encoder`, `arrays` (name and shape), `run` (settings and environment),
        `training`, `config`, or counts.

    Raises:
        FileNotFoundError: if there is nothing.
        ValueError: if it is damaged or of no kind that is known here.
    """
    if path.name.endswith(_OF_OURS) or path.with_name(path.name + _OF_OURS).is_file():
        return _weights(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no {path}.")
    if path.suffix == ".safetensors":
        return _published(path.parent)
    if not path.is_dir():
        raise ValueError(
            f"{path} is of no kind that is known here: *{_OF_OURS}, *.safetensors, or a folder with a model, "
            "a text encoder or a corpus."
        )
    return _folder(path)


def _folder(path: Path) -> dict[str, Any]:
    if (path / RUN_FILE).is_file():
        found = {"kind": "run", "run": tomllib.loads((path / RUN_FILE).read_text(encoding="utf-8"))}
        for name, state in (("model", "finished"), ("checkpoint", "stopped, can be gone on with")):
            if (path / f"{name}{_OF_OURS}").is_file():
                return found | {"state": state} | {**_weights(path / name), "kind": "run"}
        return found | {"state": "nothing was saved yet"}
    if (path / f"model{_OF_OURS}").is_file():
        return _weights(path / "model")
    if (path / "text_encoder.json").is_file() and not (path / "config.json").is_file():
        return _text_encoder(path)
    if (path / "meta.json").is_file():
        return _corpus(path)
    return _shared(path) or _published(path)


def _weights(path: Path) -> dict[str, Any]:
    from bert_keras.training.saving import read_metadata

    metadata = read_metadata(path)
    return {
        "kind": "weights of bert_keras",
        "written_by": metadata["written_by"],
        "tasks": metadata["tasks"],
        "encoder": {name: metadata["encoder"][name] for name in ("class_name", "config")},
        **_arrays(metadata["variables"]),
    }


def _shared(path: Path) -> dict[str, Any] | None:
    from bert_keras.checkpoints.sources import SafetensorsSource
    from bert_keras.sharing.form import TRAINING_FILE, is_shared, read_config

    if not is_shared(path):
        return None
    config, training = read_config(path), read_json_object(path / TRAINING_FILE)
    phases = training.get("phases", {}).items()
    return {
        "kind": "model of save_pretrained",
        "written_by": config["written_by"],
        "tasks": config["tasks"],
        "encoder": {name: config["encoder"].get(name) for name in ("class_name", "config")},
        "text_encoder": config["text_encoder"],
        "training": {phase: {"epochs": one.get("epochs")} for phase, one in phases},
        "versions": training.get("versions"),
        **_arrays((name, info.shape) for name, info in SafetensorsSource(path).arrays.items()),
    }


def _text_encoder(path: Path) -> dict[str, Any]:
    from bert_keras.text import TextEncoder

    text_encoder = TextEncoder.load(path)
    roles = ("pad", "unk", "bos", "eos", "del", "msk")
    return {
        "kind": "text encoder",
        "class_name": type(text_encoder).__name__,
        "vocab_size": text_encoder.vocab_size,
        "fingerprint": text_encoder.fingerprint,
        "special_tokens": {
            role: text_encoder.id_to_token(getattr(text_encoder, f"{role}_id")) for role in roles
        },
    }


def _corpus(path: Path) -> dict[str, Any]:
    from bert_keras.data import Corpus

    corpus = Corpus.open(path)
    names = ("num_documents", "num_sentences", "num_tokens", "vocab_size", "fingerprint")
    return {"kind": "corpus", **{name: getattr(corpus, name) for name in names}}


def _published(path: Path) -> dict[str, Any]:
    from bert_keras.checkpoints.sources import OpenAISource, SafetensorsSource, TensorFlowSource

    kinds: tuple[tuple[str, Any, str], ...] = (
        ("params_shapes.json", OpenAISource, "GPT as OpenAI published it"),
        ("bert_config.json", TensorFlowSource, "BERT as Google published it"),
        ("config.json", SafetensorsSource, "model of transformers"),
    )
    for name, source, kind in kinds:
        if not (path / name).is_file():
            continue
        content = None if name == "params_shapes.json" else read_json_object(path / name)
        arrays = source(path).arrays
        shapes = [(array, info.shape) for array, info in arrays.items()]
        return {"kind": kind, "config": content, **_arrays(shapes)}
    raise ValueError(
        f"{path} is no folder that is known here: it has none of model{_OF_OURS}, text_encoder.json, "
        f"meta.json, {', '.join(name for name, _, _ in kinds)}."
    )


def _arrays(shapes: Iterable[Any]) -> dict[str, Any]:
    arrays = {str(name): [int(size) for size in shape] for name, shape in shapes}
    return {"parameters": sum(map(math.prod, arrays.values())), "arrays": arrays}
