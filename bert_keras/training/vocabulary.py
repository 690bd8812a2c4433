"""`extend_vocabulary`: words of a new domain for an encoder that has been trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import keras
import numpy as np

from bert_keras.encoders.changes import check_plain
from bert_keras.encoders.transformer import Transformer
from bert_keras.tasks import LM_TASK, TaskMetadata
from bert_keras.text import TextEncoder
from bert_keras.training.model import MultiTaskModel

_Model = TypeVar("_Model", bound=keras.Model)


def extend_vocabulary(
    model: _Model, text_encoder: TextEncoder, new_tokens: Iterable[str]
) -> tuple[_Model, TextEncoder]:
    """Add tokens to a text encoder and rows for them to an encoder.

    Each new row is the mean of the rows of the pieces that the token was spelled with before, and so is its
    bias in the `lm` decoder, so that training goes on from where it was. The arguments stay as they are.

    Args:
        model: an encoder of `create_transformer` or of a `load_` function, or a model of `train_model` or
            `load_model` on such an encoder.
        text_encoder: the one whose ids the encoder knows.
        new_tokens: whole words, without white space, in the form that the text encoder brings text into
            (lower case, if it lower-cases).

    Returns:
        A new model of the same kind, and a new text encoder; ids up to now stay what they are. The `lm` task
        of the new model has the new number of classes: give `train_model` the model's own `tasks`.

    Raises:
        ValueError: if a token is no new whole word, or the encoder knows other ids than the text encoder has.

    Example:

    ```python
    encoder, text_encoder = extend_vocabulary(encoder, text_encoder, ["cytokine", "interleukin"])
    ```
    """
    encoder = model.encoder if isinstance(model, MultiTaskModel) else model
    if not isinstance(encoder, Transformer):
        raise ValueError(
            "Only encoders of `create_transformer` and the `load_` functions can be extended. "
            f"Received: {type(encoder).__name__}"
        )
    check_plain(encoder, "extend its vocabulary")
    if encoder.vocab_size != text_encoder.vocab_size:
        raise ValueError(
            f"The encoder has {encoder.vocab_size} rows of token embeddings, but `text_encoder` "
            f"{text_encoder.vocab_size} ids: they do not belong together."
        )
    new_tokens = [new_tokens] if isinstance(new_tokens, str) else list(new_tokens)
    longer_text_encoder = text_encoder.extended(new_tokens)
    pieces = [text_encoder.encode_word(token) for token in new_tokens]
    longer = _extended_encoder(encoder, longer_text_encoder.vocab_size, pieces)
    if not isinstance(model, MultiTaskModel):
        return longer, longer_text_encoder
    tasks = [_extended_task(task, longer.vocab_size) for task in model.tasks]
    longer.pretrained_heads = MappingProxyType({})
    with_heads = MultiTaskModel(longer, tasks, seed=model.seed, name=model.name)
    with_heads.trained_heads = model.trained_heads
    own = {variable.path: variable for variable in model.weights}
    for variable in with_heads.weights[len(longer.weights) :]:
        variable.assign(
            _extended(keras.ops.convert_to_numpy(own[variable.path].value), variable.shape, pieces)
        )
    return with_heads, longer_text_encoder


def _extended(array: np.ndarray, shape: Any, pieces: list[list[int]]) -> np.ndarray:
    """Append the mean of each token's rows, if rows are missing."""
    if array.shape == tuple(shape):
        return array
    return np.concatenate([array, np.stack([array[ids].mean(axis=0) for ids in pieces])])


def _extended_encoder(encoder: Transformer, vocab_size: int, pieces: list[list[int]]) -> Transformer:
    config = dataclasses.replace(encoder.config, vocab_size=vocab_size)
    longer = Transformer(config, name=encoder.name, dtype=encoder.dtype_policy)
    for old, new in zip(encoder.weights, longer.weights, strict=True):
        new.assign(_extended(keras.ops.convert_to_numpy(old.value), new.shape, pieces))
    heads: Mapping[str, Mapping[str, np.ndarray]] = getattr(encoder, "pretrained_heads", None) or {}
    extended = {name: dict(arrays) for name, arrays in heads.items()}
    if LM_TASK in extended:
        extended[LM_TASK]["bias"] = _extended(extended[LM_TASK]["bias"], (vocab_size,), pieces)
    longer.pretrained_heads = MappingProxyType(extended)
    return longer


def _extended_task(task: TaskMetadata, vocab_size: int) -> TaskMetadata:
    if task.name != LM_TASK:
        return task
    return dataclasses.replace(task, num_classes=vocab_size)
