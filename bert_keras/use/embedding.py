"""`embed`: texts to vectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from bert_keras.data.rows import Row, Text, as_batch, by_length, text_pieces, windows
from bert_keras.encoders.inputs import select_inputs
from bert_keras.text import TextEncoder
from bert_keras.training.feed import encoder_arrays
from bert_keras.training.prediction import reading_limits, row_length
from bert_keras.use.texts import in_chunks, one_or_many

POOLINGS = ("mean", "max", "first", "last")


def embed(
    model: keras.Model,
    text_encoder: TextEncoder,
    texts: Text | Iterable[Text],
    *,
    pooling: str = "mean",
    normalize: bool = False,
    batch_size: int = 32,
    max_len: int | None = None,
) -> Any:
    """Turn texts into vectors.

    Texts are read and vectors given as they come, in order: memory does not grow with their number. Within a
    few thousand texts, those of like length share a batch. Longer texts are cut at their end.

    Args:
        model: an encoder, or a model of `train_model` or `load_model`.
        text_encoder: the one that belongs to it.
        texts: one text, or any number of them; each a string or a pair (tuple) of strings.
        pooling: what is made of the hidden states of all tokens, special tokens included: their `"mean"` (as
            sentence-transformers does) or `"max"`, or the `"first"` or `"last"` token's.
        normalize: whether vectors are scaled to length 1, so that products are cosines.
        batch_size: rows of a batch.
        max_len: tokens of a row; by default the encoder's `max_len`, at most 512.

    Returns:
        Of one text a vector, float32 `(width,)`; of many an iterator over their vectors.

    Raises:
        ValueError: if an argument is out of its range.
        TypeError: if something is no text.

    Example:

    ```python
    vectors = np.stack(list(embed(model, text_encoder, texts, normalize=True)))
    nearest = np.argsort(-vectors @ embed(model, text_encoder, "A fine film.", normalize=True))[:5]
    ```

    Source of the mean: Reimers and Gurevych 2019, "Sentence-BERT".
    """
    if pooling not in POOLINGS:
        raise ValueError(f"`pooling` must be one of {list(POOLINGS)}. Received: pooling={pooling!r}")
    encoder = getattr(model, "encoder", model)
    _, max_len = reading_limits(encoder, text_encoder, batch_size, max_len)

    def rows(some: Iterable[Text]) -> Iterator[Row]:
        for chunk in in_chunks(some, 1024):
            for number, pieces in enumerate(text_pieces(text_encoder, chunk, max_len, False)):
                yield from windows(number, pieces, text_encoder.eos_id, max_len, 0, "cut_end")

    def run(some: list[Row]) -> np.ndarray:
        length = row_length(encoder, some, max_len)
        batch = as_batch(some, [], batch_size, text_encoder.pad_id, length, False)
        hidden = encoder.predict_on_batch(select_inputs(encoder, encoder_arrays(batch)))
        vectors = pooled(np.asarray(hidden, "float32")[: len(some)], batch.padding_mask[: len(some)], pooling)
        if normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors

    def vectors_of(some: Iterable[Text]) -> Iterator[np.ndarray]:
        return by_length(rows(some), lambda row: len(row.tokens), run, batch_size)

    return one_or_many(texts, vectors_of)


def pooled(hidden: np.ndarray, padding_mask: np.ndarray, pooling: str) -> np.ndarray:
    """Return a vector of each row, `(batch, width)`.

    Args:
        hidden: float32, `(batch, length, width)`.
        padding_mask: bool, `(batch, length)`, True for real tokens, of which each row has one at least.
        pooling: one of `POOLINGS`.
    """
    mask = padding_mask[..., None]
    if pooling == "mean":
        return np.where(mask, hidden, 0.0).sum(1) / mask.sum(1)
    if pooling == "max":
        return np.where(mask, hidden, -np.inf).max(1)
    place = np.zeros(len(hidden), int) if pooling == "first" else padding_mask.sum(1) - 1
    return hidden[np.arange(len(hidden)), place].copy()
