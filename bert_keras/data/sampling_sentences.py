"""Which sentence of the corpus becomes which example: one sentence for one segment."""

from __future__ import annotations

import numpy as np

from bert_keras.data.corpus import Corpus
from bert_keras.data.randomness import RandomStream
from bert_keras.data.sampling import Spans, check_supply

_BLOCK = 1 << 20


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
        self._corpus, self._capacity = corpus, capacity
        self._sentences = None if min_tokens <= 1 else np.flatnonzero(_is_long(corpus, min_tokens))
        self.num_examples = corpus.num_sentences if self._sentences is None else self._sentences.size
        check_supply(corpus, self.num_examples, self.num_examples, min_tokens, None)

    def draw(self, units: np.ndarray, stream: RandomStream) -> Spans:
        """Return the examples of some units, `(batch,)` int64 from 0 to `num_examples - 1`."""
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

    def draw(self, units: np.ndarray, stream: RandomStream) -> Spans:
        """Return the examples of some units, `(batch,)` int64 from 0 to `num_examples - 1`."""
        coin, which = stream.uniform(2, units.size)
        document, first = self._locate(units)
        is_next = coin >= self._mismatch_prob
        second = first + 1
        if self._mismatch_prob > 0:
            own, end = self._pair_ends[document], self._pair_ends[document + 1]
            unit = (which * (self.num_examples - (end - own))).astype(np.int64)
            unit += np.where(unit >= own, end - own, 0)
            second = np.where(is_next, second, self._locate(unit)[1] + 1)
        offsets = self._corpus.sentence_offsets
        middle, second_start = np.asarray(offsets[first + 1]), np.asarray(offsets[second])
        first_size = middle - offsets[first]
        second_size = np.asarray(offsets[second + 1]) - second_start
        first_size = np.minimum(
            first_size, np.maximum(self._capacity - second_size, (self._capacity + 1) // 2)
        )
        second_size = np.minimum(second_size, self._capacity - first_size)
        return Spans(
            document, middle - first_size, first_size, second_start, second_size, is_next.astype(np.int32)
        )

    def _locate(self, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the document and the first sentence of some pairs."""
        document = np.searchsorted(self._pair_ends, units, side="right") - 1
        if self._firsts is not None:
            return document, self._firsts[units]
        return document, self._corpus.document_offsets[document] + units - self._pair_ends[document]


def _is_long(corpus: Corpus, min_tokens: int) -> np.ndarray:
    """Return for every sentence whether it has enough tokens: `(num_sentences,)` bool."""
    offsets = corpus.sentence_offsets
    result = np.empty(corpus.num_sentences, bool)
    for start in range(0, corpus.num_sentences, _BLOCK):
        sizes = np.diff(offsets[start : start + _BLOCK + 1])
        result[start : start + _BLOCK] = sizes >= min_tokens
    return result
