"""Which tokens are predicted, and what stands in their place: pure functions over one batch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bert_keras.data.randomness import RandomStream, below
from bert_keras.text import TextEncoder


class Vocabulary(NamedTuple):
    """What masking needs to know of a text encoder.

    Attributes:
        msk_id: the mask.
        is_ordinary: `(vocab_size,)` bool: False for special tokens.
        ordinary_ids: `(n,)` int32: the ids where it is True.
    """

    msk_id: int
    is_ordinary: np.ndarray
    ordinary_ids: np.ndarray


class Thresholds(NamedTuple):
    """Probabilities in units of 2**-32, cumulative: a random word below `mask` means the mask, and so on."""

    mask: int
    rand: int
    predict: int


def vocabulary_of(text_encoder: TextEncoder) -> Vocabulary:
    """Return the tables of a text encoder.

    Raises:
        ValueError: if all its ids are special.
    """
    is_ordinary = np.ones(text_encoder.vocab_size, bool)
    is_ordinary[sorted(text_encoder.special_ids)] = False
    ordinary_ids = np.flatnonzero(is_ordinary).astype(np.int32)
    if not ordinary_ids.size:
        raise ValueError(
            f"`text_encoder` has {text_encoder.vocab_size} ids, and all of them are special tokens."
        )
    return Vocabulary(text_encoder.msk_id, is_ordinary, ordinary_ids)


def thresholds_of(keep_prob: float, mask_prob: float, rand_prob: float) -> Thresholds:
    """Return the thresholds; what the three leave of 1 is predicted but left as it is.

    Raises:
        ValueError: if one is outside 0 to 1, or they add up to more than 1.
    """
    names = {"keep_prob": keep_prob, "mask_prob": mask_prob, "rand_prob": rand_prob}
    for name, value in names.items():
        check_probability(name, value)
    total = sum(names.values())
    if total > 1 + 1e-6:
        raise ValueError(
            "`keep_prob`, `mask_prob` and `rand_prob` must add up to at most 1 (the rest is predicted but "
            "left as it is). "
            f"Received: {keep_prob} + {mask_prob} + {rand_prob} = {total:.6g}"
        )
    mask = round(mask_prob * 2**32)
    rand = mask + round(rand_prob * 2**32)
    return Thresholds(mask, rand, max(rand, round((1 - keep_prob) * 2**32)))


def check_probability(name: str, value: float) -> None:
    """Raise ValueError unless `value` is a number from 0 to 1."""
    if not 0.0 <= float(value) <= 1.0:
        raise ValueError(f"`{name}` must be a probability from 0 to 1. Received: {name}={value!r}")


def mask_tokens(
    tokens: np.ndarray,
    word_starts: np.ndarray | None,
    vocabulary: Vocabulary,
    thresholds: Thresholds,
    stream: RandomStream,
) -> tuple[np.ndarray, np.ndarray]:
    """Choose what is predicted, and hide it.

    Args:
        tokens: `(batch, length)` int32, original ids; not changed.
        word_starts: `(batch, length)` bool to choose whole words; None to choose each token by itself.
        vocabulary: special tokens are never chosen and never drawn.
        thresholds: how often.
        stream: of the batch.

    Returns:
        The input, `(batch, length)` int32, and where it is predicted, `(batch, length)` bool.
    """
    draws = stream.words(tokens.size)
    if word_starts is not None:
        draws = _spread_over_words(draws, word_starts)
    # A threshold of 2**32 (everything) is no uint32.
    chosen = (
        (draws < np.uint64(thresholds.predict))
        if thresholds.predict >> 32
        else draws < np.uint32(thresholds.predict)
    )
    chosen &= vocabulary.is_ordinary.take(tokens.reshape(-1), mode="clip")
    places = np.flatnonzero(chosen)
    # The kind is decided token by token. Within whole words the draw that chose the word cannot do that.
    kinds = draws[places] if word_starts is None else below(stream.words(places.size), thresholds.predict)
    masked = tokens.copy()
    flat = masked.reshape(-1)
    flat[places[kinds < thresholds.mask]] = vocabulary.msk_id
    replaced = places[(kinds >= thresholds.mask) & (kinds < thresholds.rand)]
    drawn = below(stream.words(replaced.size), vocabulary.ordinary_ids.size)
    flat[replaced] = vocabulary.ordinary_ids[drawn]
    return masked, chosen.reshape(tokens.shape)


def next_token_labels(tokens: np.ndarray, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """Return for every position the token that follows, and whether that is an ordinary one.

    Args:
        tokens: `(batch, length)` int32.
        vocabulary: special tokens, padding among them, are not predicted.

    Returns:
        Targets, `(batch, length)` int32 (the last column repeats the last token), and a bool mask of the same
        shape.
    """
    target = np.concatenate([tokens[:, 1:], tokens[:, -1:]], axis=1)
    mask = vocabulary.is_ordinary.take(target, mode="clip")
    mask[:, -1] = False
    return target, mask


def _spread_over_words(draws: np.ndarray, word_starts: np.ndarray) -> np.ndarray:
    """Give every token the draw of the first token of its word; every row begins with a word of its own."""
    starts = np.flatnonzero(word_starts)
    return np.repeat(draws[starts], np.diff(starts, append=draws.size))
