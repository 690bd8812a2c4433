"""Batches for language modelling and next-sentence prediction, each a pure function of its number."""

from __future__ import annotations

import copy
import functools
import operator
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from bert_keras.data.batch_source import BatchSource, rows_of_batch, shuffled
from bert_keras.data.corpus import Corpus
from bert_keras.data.labels import collate_labels
from bert_keras.data.layout import Layout, lay_out
from bert_keras.data.masking import (
    Thresholds,
    check_probability,
    mask_tokens,
    next_token_labels,
    thresholds_of,
    vocabulary_of,
)
from bert_keras.data.packing import Packing
from bert_keras.data.randomness import RandomStream
from bert_keras.data.sampling import ChunkPlan, Spans
from bert_keras.data.sampling_sentences import SentencePairPlan, SentencePlan
from bert_keras.data.sentence import Sentence, SentenceBatch, SentenceTaskData, TaskDataBatch, TokenTaskData
from bert_keras.text import TextEncoder

LM = "lm"
IS_NEXT = "is_next"
MASKS_OF_BERT = (0.85, 0.12, 0.015)  # kept, masked, replaced

Plan = ChunkPlan | SentencePlan | SentencePairPlan
LabelFunction = Callable[[Sentence], Mapping[str, TokenTaskData | SentenceTaskData]]


class LMGenerator(BatchSource):
    """What `lm_generator` returns: sized, indexable, iterable. See there.

    `generator[i]` is batch i for every i >= 0; from `len(generator)` on they are those of later epochs.
    Iterating gives one epoch, `epochs(n)` gives n of them or, without n, no end.

    Attributes:
        corpus: the corpus it reads.
        vocab_size: of the text encoder.
        batch_size, max_len: the shape of every batch.
        num_examples: examples of an epoch.
        num_rows: rows of an epoch: as many, or fewer if they are packed.
        masks_are_open: whether the shares of masked, replaced and kept tokens were left out, so that a recipe
            may choose them (`with_masking`); never with `is_causal`.
    """

    def __init__(
        self,
        text_encoder: TextEncoder,
        corpus: Corpus,
        plan_of: Callable[[int], Plan],
        batch_size: int,
        max_len: int,
        thresholds: Thresholds | None,
        whole_word: bool,
        seed: int,
        label_function: LabelFunction | None,
        pack: bool,
        masks_are_open: bool = False,
    ) -> None:
        self.corpus = corpus
        self.vocab_size = text_encoder.vocab_size
        self.batch_size = batch_size
        self._text_encoder, self._plan_of, self._seed, self._pack = text_encoder, plan_of, seed, pack
        self._vocabulary = vocabulary_of(text_encoder)
        self._thresholds = thresholds
        self._whole_word = whole_word
        self._label_function = label_function
        self.masks_are_open = masks_are_open
        self._set_length(max_len)

    def _set_length(self, max_len: int) -> None:
        plan = self._plan_of(max_len)
        self.max_len, self._plan = max_len, plan
        self.num_examples = self.num_rows = plan.num_examples
        self._packing: Packing | None = None
        if self._pack:
            self._packing = Packing(plan.sizes(self._seed) + plan.num_special, max_len, self._seed)
            self.num_rows = self._packing.num_rows

    def with_masking(self, keep_prob: float, mask_prob: float, rand_prob: float) -> LMGenerator:
        """Return a generator of the same batches under other masks.

        Args:
            keep_prob, mask_prob, rand_prob: as of `lm_generator`.

        Raises:
            ValueError: for shares out of their range, or if the generator is causal and masks nothing.
        """
        if self._thresholds is None:
            raise ValueError("A causal generator masks nothing: there is no masking to change.")
        other = copy.copy(self)
        other._thresholds, other.masks_are_open = thresholds_of(keep_prob, mask_prob, rand_prob), False
        return other

    def with_length(self, max_len: int) -> LMGenerator:
        """Return a generator from the same text and arguments of rows of another length.

        Args:
            max_len: as of `lm_generator`.

        Raises:
            ValueError: if it is out of its range, or shorter than `min_len`.
        """
        other = copy.copy(self)
        other._set_length(max_len)
        return other

    def _batch(self, index: int) -> SentenceBatch:
        rows, epochs = rows_of_batch(index, self.batch_size, self.num_rows, wrap=True)
        stream = RandomStream(self._seed, index)
        if self._packing is None:
            spans = self._plan.draw(shuffled(rows, epochs, self.num_rows, self._seed), stream)
            sizes = spans.sizes + self._plan.num_special
            layout = Layout.one_a_row(self.batch_size, self.max_len)
        else:
            places = self._packing.places(rows, epochs)
            spans = self._plan.draw(places.example, stream, places.size - self._plan.num_special)
            sizes = spans.sizes + self._plan.num_special
            layout = Layout.packed(places, sizes, self.batch_size, self.max_len, self._packing.most)
        reads_last = self._thresholds is None
        batch, is_next = lay_out(spans, layout, self.corpus.tokens, self._text_encoder, reads_last)
        originals = batch.tokens
        if self._thresholds is None:
            labels = TaskDataBatch(*next_token_labels(originals, self._vocabulary))
        else:
            starts = self._text_encoder.starts_word(originals) if self._whole_word else None
            batch.tokens, mask = mask_tokens(originals, starts, self._vocabulary, self._thresholds, stream)
            labels = TaskDataBatch(originals, mask)
        batch.token_classification[LM] = labels
        if is_next is not None:
            batch.sentence_classification[IS_NEXT] = is_next
        if self._label_function is not None:
            self._add_labels(batch, originals, spans, sizes, layout, self._label_function)
        return batch

    def _add_labels(
        self,
        batch: SentenceBatch,
        originals: np.ndarray,
        spans: Spans,
        sizes: np.ndarray,
        layout: Layout,
        label_function: LabelFunction,
    ) -> None:
        flat_tokens, flat_segments = originals.reshape(-1), batch.segments.reshape(-1)
        labels = []
        for number, (begin, size) in enumerate(zip(layout.begins.tolist(), sizes.tolist(), strict=True)):
            sentence = Sentence(
                flat_tokens[begin : begin + size].tolist(),
                flat_segments[begin : begin + size].tolist(),
                [True] * size,
                document=int(spans.document[number]),
            )
            if spans.is_next is not None:
                place = size - 1 if self._thresholds is None else 0
                label = SentenceTaskData(int(spans.is_next[number]), place)
                sentence.sentence_classification = {IS_NEXT: label}
            labels.append(label_function(sentence))
        taken = {*batch.token_classification, *batch.sentence_classification}
        token_level, sentence_level = collate_labels(labels, sizes, layout, taken, "`label_function`")
        batch.token_classification.update(token_level)
        batch.sentence_classification.update(sentence_level)


def lm_generator(
    text_encoder: TextEncoder,
    corpus: str | Path | Iterable[str | Path] | Corpus,
    *,
    batch_size: int = 256,
    max_len: int = 512,
    min_len: int | None = None,
    keep_prob: float | None = None,
    mask_prob: float | None = None,
    rand_prob: float | None = None,
    mismatch_prob: float = 0.5,
    use_single_sentence: bool = False,
    is_causal: bool = False,
    whole_word: bool = False,
    seed: int = 0,
    short_prob: float = 0.1,
    fill: bool = True,
    label_function: LabelFunction | None = None,
    pack: bool = False,
    cache_dir: str | Path | None = None,
) -> LMGenerator:
    """Return a source of batches for pretraining: masked (or next) tokens, and whether B follows A.

    Batch i depends on the corpus, the arguments and i alone, so it is the same in every process, in any
    order, on every machine. Rows are `[bos] A [del] B [eos]`, or `[bos] A [eos]`, then padding up to
    `max_len`. The labels are `token_classification["lm"]` and, with pairs,
    `sentence_classification["is_next"]`: 1 where B is the text that follows A, 0 where it comes from another
    document; it is read from position 0 (bos), with `is_causal` from the last token (eos).

    Args:
        text_encoder: the one that the corpus is, or will be, tokenised with.
        corpus: a prepared corpus, or text files as in `Corpus.prepare`.
        batch_size: rows of a batch.
        max_len: tokens of a row, special tokens and padding included.
        min_len: no example has fewer tokens, special tokens included. Documents that are shorter are left
            out.
        keep_prob: share of the tokens that are not predicted; 0.85 by default.
        mask_prob: share replaced by the mask and predicted; 0.12 by default.
        rand_prob: share replaced by a random ordinary token and predicted; 0.015 by default. What is left of
            1 is predicted as it is. If all three are left out, a recipe that trains from this generator
            takes its own shares in their place, which may change in the course of the training (`Recipe`).
        mismatch_prob: share of the pairs whose B comes from another document.
        use_single_sentence: give examples of one segment; there is no `is_next`, and `mismatch_prob` does not
            matter.
        is_causal: leave the tokens unmasked, and predict at each position the next token; the shares do not
            matter.
        whole_word: choose whole words for prediction; which of the three happens is still drawn for each
            token.
        seed: another seed gives other batches. From 0 to 2**64 - 1.
        short_prob: share of the examples that are made for a random smaller size (for `fill`).
        fill: fill examples with consecutive sentences up to `max_len`. Otherwise each segment is one sentence
            of the corpus, and each sentence (with pairs: each that has a successor) comes once an epoch.
        label_function: labels examples for further tasks. It is called with each example, as a `Sentence` of
            original tokens, that knows its document and `is_next`; it returns `TokenTaskData` or
            `SentenceTaskData` by task name. A task that it leaves out is not labelled in that example; for a
            task that may have no label in a whole batch return `SentenceTaskData(0, -1)` instead, or a
            `TokenTaskData` whose mask is all False.
        pack: put several examples into each row where they fit, apart from one another, so that hardly any
            padding is left: with `fill=False` above all. A batch still has `batch_size` rows, but more
            examples, not always equally many (`num_rows` is the rows of an epoch). Labels look as
            `TaskDataBatch` tells. With `fill` it is fixed which examples are made shorter; in pairs of
            sentences the B of another document is as long as the text that follows would be. About 16 bytes
            are held in memory for every sentence of the corpus.
        cache_dir: where a corpus that is not prepared yet is kept, as in `Corpus.prepare`.

    Returns:
        A sized, indexable, iterable `LMGenerator` of `SentenceBatch`.

    Raises:
        ValueError: if an argument is out of its range, the probabilities add up to more than 1, the corpus
            was made by another text encoder, or it has nothing to make such examples of (as no negative pair
            in a single document).
        FileNotFoundError: if a text file does not exist.

    Example:

    ```python
    generator = lm_generator(text_encoder, "corpus.txt", batch_size=32, max_len=128)
    batch = generator[0]
    batch.tokens.shape                                    # (32, 128)
    batch.token_classification["lm"].target_mask.sum()    # about 600 tokens to predict
    batch.sentence_classification["is_next"].target       # zeros and ones
    ```

    Source: Devlin et al., 2018, "BERT", appendix A, and create_pretraining_data.py of google-research/bert:
    15 % of the tokens are chosen; 80 % of them are masked, 10 % replaced and 10 % left. So are they here.
    """
    _check_size("batch_size", batch_size, 1)
    _check_lengths(min_len, use_single_sentence, max_len)
    if not 0 <= operator.index(seed) < 2**64:
        raise ValueError(f"`seed` must be from 0 to 2**64 - 1. Received: seed={seed}")
    check_probability("mismatch_prob", mismatch_prob)
    check_probability("short_prob", short_prob)
    masks = (keep_prob, mask_prob, rand_prob)
    given = zip(masks, MASKS_OF_BERT, strict=True)
    thresholds = thresholds_of(*(default if share is None else share for share, default in given))
    if is_causal and whole_word:
        raise ValueError(
            "`whole_word` chooses what is masked, and with `is_causal` nothing is. Pass only one of them."
        )
    prepared = (
        corpus if isinstance(corpus, Corpus) else Corpus.prepare(text_encoder, corpus, cache_dir=cache_dir)
    )
    _check_fingerprint(prepared, text_encoder)
    mismatch = None if use_single_sentence else mismatch_prob
    plan_of = functools.partial(_plan_of, prepared, fill, min_len, short_prob, mismatch)
    return LMGenerator(
        text_encoder,
        prepared,
        plan_of,
        batch_size,
        max_len,
        None if is_causal else thresholds,
        whole_word,
        seed,
        label_function,
        pack,
        masks_are_open=not is_causal and masks == (None, None, None),
    )


def _plan_of(
    corpus: Corpus, fill: bool, min_len: int | None, short_prob: float, mismatch: float | None, max_len: int
) -> Plan:
    """Return how a corpus gives examples for rows of a length; without `mismatch` of one segment each."""
    is_single = mismatch is None
    _check_lengths(min_len, is_single, max_len)
    num_special = 2 if is_single else 3
    capacity, min_tokens = max_len - num_special, max(1, (min_len or 0) - num_special)
    if fill:
        return ChunkPlan(corpus, capacity, min_tokens, short_prob, mismatch)
    if mismatch is None:
        return SentencePlan(corpus, capacity, min_tokens)
    return SentencePairPlan(corpus, capacity, min_tokens, mismatch)


def _check_lengths(min_len: int | None, is_single: bool, max_len: int) -> None:
    _check_size("max_len", max_len, 3 if is_single else 5)
    if min_len is None:
        return
    _check_size("min_len", min_len, 0)
    if min_len > max_len:
        raise ValueError(
            f"`min_len` must be at most `max_len`. Received: min_len={min_len}, max_len={max_len}"
        )


def _check_fingerprint(corpus: Corpus, text_encoder: TextEncoder) -> None:
    if corpus.fingerprint == text_encoder.fingerprint:
        return
    raise ValueError(
        f"`corpus` was prepared by another text encoder (vocab_size={corpus.vocab_size}, fingerprint "
        f"{corpus.fingerprint[:12]}) than `text_encoder` (vocab_size={text_encoder.vocab_size}, fingerprint "
        f"{text_encoder.fingerprint[:12]}). Prepare the text again with this one."
    )


def _check_size(name: str, value: int, least: int) -> None:
    if operator.index(value) < least:
        raise ValueError(f"`{name}` must be at least {least}. Received: {name}={value}")
