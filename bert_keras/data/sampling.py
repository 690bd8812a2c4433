"""Which stretch of the corpus becomes which example: chunks of consecutive sentences.

A plan cuts an epoch into units, counted so that an epoch reads about as many tokens as the corpus has. A unit
says roughly where in which document an example lies; the stream of the batch decides the rest. Nothing here
is proportional to the number of sentences, and everything takes all rows of a batch at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bert_keras.data.corpus import Corpus
from bert_keras.data.randomness import RandomStream, uniform_of

_NUM_CANDIDATES = 4


class Spans(NamedTuple):
    """What a batch is made of: one or two stretches of corpus tokens a row.

    All `(batch,)` int64, but `is_next` int32.

    Attributes:
        document: number of the document that A comes from.
        first_start, first_size: of A.
        second_start, second_size: of B; None without pairs.
        is_next: 1 where B follows A, 0 where it comes from another document; None without pairs.
    """

    document: np.ndarray
    first_start: np.ndarray
    first_size: np.ndarray
    second_start: np.ndarray | None = None
    second_size: np.ndarray | None = None
    is_next: np.ndarray | None = None

    @property
    def sizes(self) -> np.ndarray:
        """Return the tokens of A and B together, `(batch,)` int64."""
        return self.first_size if self.second_size is None else self.first_size + self.second_size


class Documents(NamedTuple):
    """The documents of at least so many tokens.

    All `(n,)` int64, but `ends` `(n + 1,)`: the number of tokens up to each document, counting these alone.
    """

    numbers: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    first_sentences: np.ndarray
    num_sentences: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, corpus: Corpus, min_tokens: int) -> Documents:
        """Return the documents that are long enough."""
        starts = np.asarray(corpus.sentence_offsets[corpus.document_offsets])
        numbers = np.flatnonzero(np.diff(starts) >= min_tokens)
        sizes = np.diff(starts)[numbers]
        first_sentences = np.asarray(corpus.document_offsets[:-1])[numbers]
        num_sentences = np.diff(corpus.document_offsets)[numbers]
        ends = np.concatenate([[0], np.cumsum(sizes)])
        return cls(numbers, starts[numbers], sizes, first_sentences, num_sentences, ends)


class ChunkPlan:
    """Examples of as many consecutive sentences as fit, alone or in pairs.

    An example has a target size: the capacity or, with probability `short_prob`, anything from 2 up. It takes
    so many tokens around a random place, begins with a sentence where it can, and touches the end of the
    document (beginning anywhere) where it otherwise could not be full. In a pair A ends and B begins at a
    boundary between sentences, drawn among those inside. B, followed or replaced, is cut to the size that
    both the text that follows and the text of another document could have had, and A is filled up at its
    front: the sizes say nothing about the label.

    Args:
        corpus: the corpus.
        capacity: tokens of an example without special tokens.
        min_tokens: no example has fewer.
        short_prob: share of shorter examples.
        mismatch_prob: share of pairs whose B comes from another document; None for examples without a pair.

    Raises:
        ValueError: if the corpus has nothing to make such examples of.
    """

    def __init__(
        self, corpus: Corpus, capacity: int, min_tokens: int, short_prob: float, mismatch_prob: float | None
    ) -> None:
        self._offsets = corpus.sentence_offsets
        self.num_special = 2 if mismatch_prob is None else 3
        self._capacity, self._short_prob, self._mismatch_prob = capacity, short_prob, mismatch_prob
        self._shortest = max(min_tokens, min(2, capacity))
        self._documents = documents = Documents.of(corpus, min_tokens)
        paired = mismatch_prob is not None
        self._sampled = (
            np.flatnonzero(documents.num_sentences >= 2) if paired else np.arange(documents.sizes.size)
        )
        check_supply(corpus, documents.sizes.size, self._sampled.size, min_tokens, mismatch_prob)
        mean_target = capacity - short_prob * (capacity - self._shortest) / 2
        self._num_units = np.maximum(
            1, np.ceil(documents.sizes[self._sampled] / mean_target).astype(np.int64)
        )
        self._unit_offsets = np.concatenate([[0], np.cumsum(self._num_units)])
        self.num_examples = int(self._unit_offsets[-1])

    def sizes(self, seed: int) -> np.ndarray:
        """Return sizes for all units, int64 `(num_examples,)`, without special tokens: drawn once, with those
        of documents as bounds."""
        units = np.arange(self.num_examples)
        target = self._targets(uniform_of(seed, 2 * units), uniform_of(seed, 2 * units + 1))
        return np.minimum(target, np.repeat(self._documents.sizes[self._sampled], self._num_units))

    def _targets(self, is_short: np.ndarray, size: np.ndarray) -> np.ndarray:
        short = self._shortest + _below(size, self._capacity - self._shortest + 1)
        return np.where(is_short < self._short_prob, short, self._capacity)

    def draw(self, units: np.ndarray, stream: RandomStream, sizes: np.ndarray | None = None) -> Spans:
        """Return the examples of some units.

        Args:
            units: `(batch,)` int64 from 0 to `num_examples - 1`.
            stream: of the batch.
            sizes: those of `sizes` for these units: no example will be larger. None to draw sizes too.
        """
        place, is_short, size, *pairing = stream.uniform(7 + _NUM_CANDIDATES, units.size)
        target = self._targets(is_short, size) if sizes is None else sizes
        which = np.searchsorted(self._unit_offsets, units, side="right") - 1
        share = (units - self._unit_offsets[which] + place) / self._num_units[which]
        document = self._sampled[which]
        begin, end = self._chunk(document, share, target)
        number = self._documents.numbers[document]
        if self._mismatch_prob is None:
            return Spans(number, begin, end - begin)
        middle, end = self._split(document, begin, end, target, pairing[0], pairing[1])
        room = end - middle
        is_next = pairing[2] >= self._mismatch_prob
        second = middle
        if self._mismatch_prob > 0:
            other, room = self._other(document, room, pairing[3], np.stack(pairing[4:]))
            second = np.where(is_next, middle, other)
        begin = np.maximum(self._documents.starts[document], middle - (target - room))
        return Spans(number, begin, middle - begin, second, room, is_next.astype(np.int32))

    def _chunk(
        self, document: np.ndarray, share: np.ndarray, target: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return where chunks begin and end whose middles lie a `share` of the way into their documents."""
        start, size = self._documents.starts[document], self._documents.sizes[document]
        end = start + size
        last = np.maximum(start, end - target)
        begin = np.clip(start + (share * size).astype(np.int64) - target // 2, start, last)
        sentence = np.asarray(self._offsets[np.searchsorted(self._offsets, begin, side="right") - 1])
        # A sentence that is longer than the target is read in steps of the target.
        aligned = sentence + (begin - sentence) // target * target
        begin = np.where(begin == last, begin, aligned)
        return begin, np.minimum(begin + target, end)

    def _split(
        self,
        document: np.ndarray,
        begin: np.ndarray,
        end: np.ndarray,
        target: np.ndarray,
        which: np.ndarray,
        size: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return where B begins, at a boundary between sentences, and where it ends.

        A chunk inside one long sentence moves: to the end of the sentence, or to its start if it is last.
        """
        first = np.searchsorted(self._offsets, begin, side="right")
        count = np.searchsorted(self._offsets, end, side="left") - first
        start = self._documents.starts[document]
        stop = start + self._documents.sizes[document]
        nearest = first - (self._offsets[first] >= stop)
        middle = np.asarray(self._offsets[np.where(count > 0, first + _below(which, count), nearest)])
        moved = np.maximum(start, middle - 1 - _below(size, target - 1))
        end = np.where(count > 0, end, np.minimum(stop, moved + target))
        return middle, end

    def _other(
        self, document: np.ndarray, room: np.ndarray, which: np.ndarray, candidates: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return where text of another document begins, with a sentence, and its size, at most `room`.

        Documents are drawn by size. Among a few candidates the first is taken that has room, else the
        largest. The first sentence of a document, which never follows another one, is taken only if nothing
        else leaves room.
        """
        documents = self._documents
        own = documents.sizes[document]
        token = _below(candidates, documents.ends[-1] - own)
        token += np.where(token >= documents.ends[document], own, 0)
        drawn = np.searchsorted(documents.ends, token, side="right") - 1
        best = np.argmax(np.minimum(documents.sizes[drawn], room), axis=0)
        other = drawn[best, np.arange(best.size)]
        room = np.minimum(room, documents.sizes[other])
        latest = documents.starts[other] + documents.sizes[other] - room
        first = documents.first_sentences[other]
        num_later = np.searchsorted(self._offsets, latest, side="right") - 1 - first
        sentence = first + np.where(num_later > 0, 1 + _below(which, num_later), 0)
        return np.asarray(self._offsets[sentence]), room


def check_supply(
    corpus: Corpus, num_any: int, num_sampled: int, min_tokens: int, mismatch_prob: float | None
) -> None:
    """Raise ValueError if there is nothing to sample.

    Args:
        corpus: for the message.
        num_any: number of documents that may give a B.
        num_sampled: number of documents (or sentences) that may give a whole example.
        min_tokens: they were chosen by, for the message.
        mismatch_prob: None without pairs.
    """
    held = f"{corpus.num_documents:,} documents, {corpus.num_sentences:,} sentences"
    if not num_any:
        raise ValueError(
            f"`min_len`: nothing in the corpus ({held}, {corpus.num_tokens:,} tokens) has the {min_tokens} "
            "tokens, without special tokens, that it asks for. Give a smaller `min_len`."
        )
    if not num_sampled:
        raise ValueError(
            f"`corpus` ({held}) has no document of two sentences (of enough tokens, if `min_len` is given). "
            "Write one sentence on each line and a blank line between documents, or prepare it with "
            "Corpus.prepare(..., one_document_per_line=True), or pass use_single_sentence=True."
        )
    if mismatch_prob and num_any < 2:
        raise ValueError(
            f"`mismatch_prob` is {mismatch_prob}, but only one document of the corpus ({held}) can be used: "
            "there is no negative pair, for its B must come from another document. Separate documents by "
            "blank lines, or pass use_single_sentence=True, or pass mismatch_prob=0."
        )


def _below(uniform: np.ndarray, bound: np.ndarray | int) -> np.ndarray:
    """Map float64 in [0, 1) to integers from 0 to `bound - 1`, or to 0; exact for bounds up to 2**53."""
    return (uniform * np.maximum(bound, 1)).astype(np.int64)
