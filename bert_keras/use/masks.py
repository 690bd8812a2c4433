"""`fill_mask`: what a language model puts in place of a gap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from bert_keras.data.rows import Pieces, Row, Text, as_batch, by_length
from bert_keras.data.sentence import TaskDataBatch
from bert_keras.tasks import LM_TASK
from bert_keras.text import TextEncoder
from bert_keras.training.feed import training_arrays
from bert_keras.training.model import MultiTaskModel
from bert_keras.training.prediction import reading_limits, row_length
from bert_keras.use.texts import in_chunks, one_or_many


class MaskPrediction(NamedTuple):
    """What may stand in a gap.

    Attributes:
        text: the piece as text.
        token_id: its id.
        probability: among all pieces of the vocabulary.
    """

    text: str
    token_id: int
    probability: float


def fill_mask(
    model: MultiTaskModel,
    text_encoder: TextEncoder,
    texts: Text | Iterable[Text],
    *,
    mask: str = "[MASK]",
    top_k: int = 5,
    batch_size: int = 32,
    max_len: int | None = None,
) -> Any:
    """Tell what a masked language model puts in place of gaps.

    Args:
        model: with the task `lm`, over an encoder that is not causal.
        text_encoder: the one that belongs to it.
        texts: one text or any number of them, each with one gap or more.
        mask: how a gap is written in the texts, whatever the vocabulary calls it.
        top_k: how many pieces are told of each gap.
        batch_size: rows of a batch.
        max_len: tokens of a row; by default the encoder's `max_len`, at most 512.

    Returns:
        Of one text a list with an entry for each gap: a list of `top_k` `MaskPrediction`, most probable
        first, without special tokens. Of many texts an iterator over such lists, in order.

    Raises:
        ValueError: if the model has no task `lm` or is causal, a text has no gap or is longer than `max_len`,
            or an argument is out of its range.
        TypeError: if something is no string.

    Example:

    ```python
    [[best, *others]] = fill_mask(model, text_encoder, "The capital of France is [MASK].")
    ```
    """
    task = next((task for task in model.tasks if task.name == LM_TASK), None)
    if task is None:
        raise ValueError(
            f"`model` must have the task 'lm'. It has: {[task.name for task in model.tasks]}. "
            "Pretrain with it, or load a checkpoint with its head and build MultiTaskModel(encoder, [lm])."
        )
    facts, max_len = reading_limits(model.encoder, text_encoder, batch_size, max_len)
    if facts.is_causal:
        raise ValueError("`model` is causal and cannot fill gaps; `generate` goes on with a text.")
    most = text_encoder.vocab_size - len(text_encoder.special_ids)
    if not 1 <= top_k <= most or not mask.strip():
        raise ValueError(
            f"`top_k` must be from 1 to {most}, and `mask` not empty. Received: top_k={top_k}, mask={mask!r}"
        )

    def rows(some: Iterable[Text]) -> Iterator[Row]:
        for chunk in in_chunks(some, 1024):
            for text in chunk:
                yield _row(text_encoder, text, mask, max_len)

    def run(some: list[Row]) -> list[list[list[MaskPrediction]]]:
        length = row_length(model, some, max_len)
        batch = as_batch(some, [], batch_size, text_encoder.pad_id, length, False)
        gaps = batch.tokens == text_encoder.msk_id
        batch.token_classification[LM_TASK] = TaskDataBatch(np.zeros_like(batch.tokens), gaps)
        x, _ = training_arrays(batch, [task], [1.0])
        logits = np.asarray(model.predict_on_batch(x)[LM_TASK], "float32")
        found: list[list[list[MaskPrediction]]] = [[] for _ in some]
        for place, row in enumerate(np.flatnonzero(gaps) // batch.tokens.shape[1]):
            found[int(row)].append(best_pieces(text_encoder, logits[place], top_k))
        return found

    def filled(some: Iterable[Text]) -> Iterator[list[list[MaskPrediction]]]:
        return by_length(rows(some), lambda row: len(row.tokens), run, batch_size)

    return one_or_many(texts, filled)


def best_pieces(text_encoder: TextEncoder, logits: np.ndarray, top_k: int) -> list[MaskPrediction]:
    """Return the most probable pieces that are no special tokens, of logits `(vocabulary,)`."""
    log = logits - np.logaddexp.reduce(logits)
    choice = log[: text_encoder.vocab_size].copy()
    choice[list(text_encoder.special_ids)] = -np.inf
    best = np.argsort(-choice, kind="stable")[:top_k]
    shown = [text_encoder.decode([i]).strip() or text_encoder.id_to_token(int(i)) for i in best]
    return [MaskPrediction(text, int(i), float(np.exp(log[i]))) for text, i in zip(shown, best, strict=True)]


def _row(text_encoder: TextEncoder, text: Any, mask: str, max_len: int) -> Row:
    if not isinstance(text, str):
        raise TypeError(f"Each text must be a string. Received: {text!r:.200}")
    parts = text.split(mask)
    if len(parts) < 2:
        raise ValueError(f"Each text must have a gap, written {mask!r}. Received: {text!r:.200}")
    encoded = text_encoder.encode_batch([part.rstrip() for part in parts])
    ids = list(encoded[0])
    for part in encoded[1:]:
        ids += [text_encoder.msk_id, *part]
    if len(ids) + 2 > max_len:
        raise ValueError(f"A text has {len(ids) + 2} tokens, more than {max_len}: {text!r:.100}")
    pieces = Pieces([text_encoder.bos_id], ids, None, None)
    return Row(0, pieces, [text_encoder.bos_id, *ids, text_encoder.eos_id], 0)
