"""What a run starts from: saved runs and models, published weights in folders, names on the Hub, OpenAI's
GPT."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import keras

from bert_keras.checkpoints import load_bert, load_huggingface, load_openai, openai_directory
from bert_keras.checkpoints.loading import huggingface_directory
from bert_keras.sharing import load_pretrained
from bert_keras.sharing.form import RUN_WEIGHTS_FILE, is_shared
from bert_keras.text import TextEncoder, load_text_encoder


class Start(NamedTuple):
    """What was loaded: an encoder or a model with heads, and the text encoder that belongs to it."""

    model: keras.Model
    text_encoder: TextEncoder


def load_start(
    start: str,
    *,
    max_len: int | None = None,
    is_causal: bool = False,
    dtype: str | None = None,
    seed: int = 0,
) -> Start:
    """Load what a run starts from.

    Args:
        start: the folder of a run of ours, or one that `save_pretrained` wrote; a folder in the form of
            Hugging Face, Google's BERT or OpenAI's GPT; `"openai"`, for the published GPT; or a name on the
            Hugging Face Hub.
        max_len: positions that are wanted at most, of published weights.
        is_causal: of OpenAI's GPT: as it was trained.
        dtype: dtype policy of published weights.
        seed: of what is fresh.

    Raises:
        FileNotFoundError, ValueError, ImportError, OSError: of the loading functions.
    """
    path = Path(start)
    if (path / RUN_WEIGHTS_FILE).is_file() or is_shared(path):
        return load_run(path)
    options: dict[str, Any] = {"dtype": dtype, "seed": seed, "verbose": 0}
    if start == "openai" or (path / "params_shapes.json").is_file():
        directory = openai_directory(None if start == "openai" else path)
        encoder = load_openai(directory, is_causal=is_causal, **options, max_len=_fitting(max_len, 512))
        return Start(encoder, load_text_encoder(directory))
    if (path / "bert_config.json").is_file():
        return Start(load_bert(path, **options), load_text_encoder(path))
    directory = huggingface_directory(start)
    if is_shared(directory):
        return load_run(directory)
    return Start(load_huggingface(directory, **options), load_text_encoder(directory))


def load_run(directory: Path) -> Start:
    """Load the model and text encoder of a finished run, or of a folder that `save_pretrained` wrote.

    Raises:
        FileNotFoundError: if there is none.
    """
    if not (directory / RUN_WEIGHTS_FILE).is_file() and not is_shared(directory):
        raise FileNotFoundError(
            f"{directory} is no finished run: it has no {RUN_WEIGHTS_FILE}. `bert-keras finetune` and "
            "`pretrain` write such folders, and so does save_pretrained."
        )
    loaded = load_pretrained(directory)
    return Start(loaded.model, loaded.text_encoder)


def _fitting(wanted: int | None, most: int) -> int | None:
    return None if wanted is None else min(wanted, most)
