"""Which sentence of the corpus becomes which example: one sentence for one segment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bert_keras.data.corpus import Corpus
from bert_keras.data.randomness import RandomStream
from bert_keras.data.sampling import Spans, check_supply

_BLOCK = 1 << 20
_NUM_CANDIDATES = 4


class SentencePlan:
    """Every sentence is one example, once an epoch. What is longer than the capacity is cut at its end.

    Args:
        corpus: the corpus.
        capacity: tokens of an example without special tokens.
        min_tokens: sentences with fewer are left out.

    Raises:
        ValueError: if no sentence is left.
    """

    def __init__(self, corpus: Corpus, capacity: int, min_tokens: int) -> None:
        self._corpus, self._capacity, self.num_special = corpus, capacity, 2
        self._sentences = None if min_tokens <= 1 else np.flatnonzero(_is_long(corpus, min_tokens))
        self.num_examples = corpus.num_sentences if self._sentences is None else self._sentences.size
        check_supply(corpus, self.num_examples, self.num_examples, min_tokens, None)

    def sizes(self, seed: int) -> np.ndarray:
        """Return the sizes of all examples, int32 `(num_examples,)`, without special tokens."""
        sizes = np.empty(self._corpus.num_sentences, np.int32)
        for start, some in _sentence_sizes(self._corpus):
            sizes[start : start + some.size] = np.minimum(some, self._capacity)
        return sizes if self._sentences is None else sizes[self._sentences]

    def draw(self, units: np.ndarray, stream: RandomStream, sizes: np.ndarray | None = None) -> Spans:
        """Return the examples of some units, `(batch,)` int64 from 0 to `num_examples - 1`; their sizes are
        known anyway."""
        sentence = units if self._sentences is None else self._sentences[units]
        document = np.searchsorted(self._corpus.document_offsets, sentence, side="right") - 1
        start = np.asarray(self._corpus.sentence_offsets[sentence])
        size = np.asarray(self._corpus.sentence_offsets[sentence + 1]) - start
        return Spans(document, start, np.minimum(size, self._capacity))


class SentencePairPlan:
    """Every sentence that has a successor is A once an epoch. B is the successor of A or of another.

    So B alone says nothing about the label: followed or replaced, it is drawn from the same sentences. Where
    both do not fit, the longer is cut first: A at its front, B at its end. Documents of one sentence are left
    out.

    Args:
        corpus: the corpus.
        capacity: tokens of an example without special tokens.
        min_tokens: no example has fewer, so both sentences must have at least half of it.
        mismatch_prob: share of pairs whose B comes from another document.

    Raises:
        ValueError: if no pair is left, or all are in one document although `mismatch_prob` is not 0.
    """

    def __init__(self, corpus: Corpus, capacity: int, min_tokens: int, mismatch_prob: float) -> None:
        self._corpus, self._capacity, self._mismatch_prob = corpus, capacity, mismatch_prob
        self.num_special = 3
        self._of_size: _BySize | None = None
        document_offsets = np.asarray(corpus.document_offsets)
        self._firsts = None
        num_pairs = np.diff(document_offsets) - 1
        least = -(-min_tokens // 2)
        if least > 1:
            is_long = _is_long(corpus, least)
            is_long[:-1] &= is_long[1:]
            is_long[document_offsets[1:] - 1] = False
            self._firsts = np.flatnonzero(is_long)
            num_pairs = np.diff(np.searchsorted(self._firsts, document_offsets))
        self._pair_ends = np.concatenate([[0], np.cumsum(num_pairs)])
        self.num_examples = int(self._pair_ends[-1])
        num_documents = np.count_nonzero(num_pairs) if self.num_examples else corpus.num_documents
        check_supply(corpus, int(num_documents), self.num_examples, min_tokens, mismatch_prob)

    def sizes(self, seed: int) -> np.ndarray:
        """Return the sizes of all examples, int32 `(num_examples,)`, without special tokens: those of the
        pairs that follow each other. From now on `draw` finds B of other documents by their size."""
        totals, seconds = np.empty((2, self.num_examples), np.int32)
        offsets = self._corpus.sentence_offsets
        for start in range(0, self.num_examples, _BLOCK):
            some = slice(start, min(start + _BLOCK, self.num_examples))
            first = self._locate(np.arange(some.start, some.stop))[1]
            begin, middle, end = (np.asarray(offsets[first + k]) for k in range(3))
            seconds[some] = np.minimum(end - middle, self._capacity)
            totals[some] = sum(self._cut(middle - begin, seconds[some]))
        self._of_size = _BySize.of(seconds)
        return totals

    def draw(self, units: np.ndarray, stream: RandomStream, sizes: np.ndarray | None = None) -> Spans:
        """Return the examples of some units.

        Args:
            units: `(batch,)` int64 from 0 to `num_examples - 1`.
            stream: of the batch.
            sizes: those of `sizes` for these units: then B of another document is as long as the text that
                follows, or at least no longer.
        """
        coin, which, *candidates = stream.uniform(2 if sizes is None else 2 + _NUM_CANDIDATES, units.size)
        document, first = self._locate(units)
        offsets = self._corpus.sentence_offsets
        middle, end = np.asarray(offsets[first + 1]), np.asarray(offsets[first + 2])
        is_next = coin >= self._mismatch_prob
        second_start, second_size = middle, end - middle
        if self._mismatch_prob > 0:
            unit = self._other(document, which)
            if self._of_size is not None and sizes is not None:
                alike = self._of_size.draw(np.minimum(second_size, self._capacity), np.stack(candidates))
                for others in alike[::-1]:
                    unit = np.where(self._locate(others)[0] != document, others, unit)
            other = self._locate(unit)[1] + 1
            other_start = np.asarray(offsets[other])
            other_size = np.asarray(offsets[other + 1]) - other_start
            if sizes is not None:
                other_size = np.minimum(other_size, second_size)
            second_start = np.where(is_next, second_start, other_start)
            second_size = np.where(is_next, second_size, other_size)
        first_size, second_size = self._cut(middle - offsets[first], second_size)
        return Spans(
            document, middle - first_size, first_size, second_start, second_size, is_next.astype(np.int32)
        )

    def _other(self, document: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Return pairs of other documents, all equally likely."""
        own, end = self._pair_ends[document], self._pair_ends[document + 1]
        unit = (which * (self.num_examples - (end - own))).astype(np.int64)
        return unit + np.where(unit >= own, end - own, 0)

    def _cut(self, first_size: np.ndarray, second_size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first_size = np.minimum(
            first_size, np.maximum(self._capacity - second_size, (self._capacity + 1) // 2)
        )
        return first_size, np.minimum(second_size, self._capacity - first_size)

    def _locate(self, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the document and the first sentence of some pairs."""
        document = np.searchsorted(self._pair_ends, units, side="right") - 1
        if self._firsts is not None:
            return document, self._firsts[units]
        return document, self._corpus.document_offsets[document] + units - self._pair_ends[document]


class _BySize(NamedTuple):
    """Pairs in the order of the size of B: `(num_examples,)`, and where each size begins."""

    units: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, sizes: np.ndarray) -> _BySize:
        dtype = np.uint16 if sizes.max() < 2**16 else sizes.dtype
        units = np.argsort(sizes.astype(dtype), kind="stable")
        return cls(units, np.concatenate([[0], np.cumsum(np.bincount(sizes))]))

    def draw(self, sizes: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Return pairs of some sizes of B, `(n,)`, for numbers in [0, 1), `(..., n)`."""
        start = self.starts[sizes]
        return self.units[start + (uniform * (self.starts[sizes + 1] - start)).astype(np.int64)]


def _sentence_sizes(corpus: Corpus) -> Iterator[tuple[int, np.ndarray]]:
    """Yield blocks of sizes with the number of their first sentence."""
    for start in range(0, corpus.num_sentences, _BLOCK):
        yield start, np.diff(corpus.sentence_offsets[start : start + _BLOCK + 1])


def _is_long(corpus: Corpus, min_tokens: int) -> np.ndarray:
    """Return for every sentence whether it has enough tokens: `(num_sentences,)` bool."""
    result = np.empty(corpus.num_sentences, bool)
    for start, sizes in _sentence_sizes(corpus):
        result[start : start + sizes.size] = sizes >= min_tokens
    return result
