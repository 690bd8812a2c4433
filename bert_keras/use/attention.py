"""`attention_of`: where a model looks when it reads a text."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np

from bert_keras.data.rows import as_batch, text_pieces, windows
from bert_keras.encoders.inspection import attention_probabilities
from bert_keras.text import TextEncoder
from bert_keras.training.feed import encoder_arrays
from bert_keras.training.prediction import reading_limits


class Attention(NamedTuple):
    """The attention over one text.

    Attributes:
        tokens: the pieces, special tokens included.
        probabilities: float32, `(layers, heads, length, length)`: [layer, head, from, to].
    """

    tokens: list[str]
    probabilities: np.ndarray


def attention_of(model: keras.Model, text_encoder: TextEncoder, text: str | tuple[str, str]) -> Attention:
    """Return the attention probabilities of all heads over a text, or over a pair.

    Args:
        model: a transformer, or a model of `train_model` or `load_model` over one.
        text_encoder: the one that belongs to it.
        text: the text; what is longer than the encoder's `max_len` (at most 512) is cut off.

    Returns:
        The tokens and the probabilities, for `plots.attention_map`, `attention_heads` and `head_view`.

    Raises:
        TypeError: if the encoder is no transformer of this library.

    Example:

    ```python
    seen = attention_of(model, text_encoder, "The cat sat on the mat.")
    attention_map(seen.probabilities[0, 3], seen.tokens)
    ```
    """
    encoder: Any = getattr(model, "encoder", model)
    _, max_len = reading_limits(encoder, text_encoder, 1, None)
    [pieces] = text_pieces(text_encoder, [text], max_len, False)
    row = next(windows(0, pieces, text_encoder.eos_id, max_len, 0, "cut_end"))
    batch = as_batch([row], [], 1, text_encoder.pad_id, len(row.tokens), False)
    probabilities = attention_probabilities(encoder, encoder_arrays(batch))[:, 0]
    return Attention([text_encoder.id_to_token(token) for token in row.tokens], probabilities)
