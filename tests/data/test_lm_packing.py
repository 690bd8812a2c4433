"""lm_generator with several examples in a row."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from number_text import NUM_SPECIAL, Places, is_run, originals

from bert_keras.data import Corpus, SentenceTaskData, TokenTaskData, lm_generator


def sequences(batch, encoder):
    """Every sequence of a batch: row, columns, numbers in A and in B (None without a pair), and is_next."""
    tokens, ids = originals(batch), batch.sequence_ids
    assert ((ids > 0) == batch.padding_mask).all() and (tokens[ids == 0] == encoder.pad_id).all()
    found = []
    for row in range(len(ids)):
        end = 0
        for number in range(1, ids[row].max() + 1):
            columns = np.flatnonzero(ids[row] == number)
            assert is_run(columns.tolist()) and columns[0] == end
            end = columns[-1] + 1
            assert batch.position_ids[row, columns].tolist() == list(range(len(columns)))
            own = tokens[row, columns].tolist()
            assert own[0] == encoder.bos_id and own[-1] == encoder.eos_id
            inner, segments = [i - NUM_SPECIAL for i in own[1:-1]], batch.segments[row, columns].tolist()
            if "is_next" not in batch.sentence_classification:
                assert not any(segments)
                found.append((row, columns, inner, None, None))
                continue
            cut = own.index(encoder.del_id)
            assert segments == [0] * (cut + 1) + [1] * (len(own) - cut - 1)
            label = batch.sentence_classification["is_next"]
            assert label.target_mask[row, number - 1] >= 0
            found.append((row, columns, inner[: cut - 1], inner[cut:], int(label.target[row, number - 1])))
        assert not ids[row, end:].any()
        if "is_next" in batch.sentence_classification:
            mask = batch.sentence_classification["is_next"].target_mask[row]
            assert (mask[ids[row].max() :] == -1).all()
    return found


def epoch_of(generator, encoder, epoch=0):
    """All sequences of one epoch."""
    rows, size = generator.num_rows, generator.batch_size
    found = []
    for index in range(epoch * rows // size, -(-(epoch + 1) * rows // size)):
        for row, *rest in sequences(generator[index], encoder):
            if epoch * rows <= index * size + row < (epoch + 1) * rows:
                found.append(rest)
    return found


def test_every_sentence_once_an_epoch(large, numbers):
    corpus, documents = large
    sentences = sorted(s for document in documents for s in document)
    generator = lm_generator(
        numbers, corpus, batch_size=7, max_len=40, use_single_sentence=True, fill=False, pack=True
    )
    assert generator.num_examples == len(sentences) > 5 * len(generator)
    assert len(generator) == -(-generator.num_rows // 7)
    orders = []
    for epoch in (0, 3):
        found = [first for _, first, _, _ in epoch_of(generator, numbers, epoch)]
        assert sorted(found) == sentences
        orders.append(found)
    assert orders[0] != orders[1]
    padding = [1 - generator[i].padding_mask.mean() for i in range(len(generator))]
    assert np.mean(padding) < 0.01


def test_long_sentences_are_cut(make_corpus, numbers):
    corpus, documents = make_corpus([[30, 2, 9], [3]])
    generator = lm_generator(
        numbers, corpus, batch_size=2, max_len=8, use_single_sentence=True, fill=False, pack=True
    )
    expected = [sentence[:6] for document in documents for sentence in document]
    assert sorted(first for _, first, _, _ in epoch_of(generator, numbers)) == expected
    short = lm_generator(
        numbers, corpus, batch_size=2, max_len=8, min_len=5, use_single_sentence=True, fill=False, pack=True
    )
    assert sorted(len(first) for _, first, _, _ in epoch_of(short, numbers)) == [3, 6, 6]


@pytest.mark.parametrize("max_len", [16, 120])
def test_pairs_of_sentences(large, numbers, max_len):
    corpus, documents = large
    places = Places(documents)
    generator = lm_generator(numbers, corpus, batch_size=8, max_len=max_len, fill=False, pack=True, seed=2)
    labels, alike = [], []
    for epoch in (0, 1):
        firsts = []
        for _, first, second, is_next in epoch_of(generator, numbers, epoch):
            assert is_run(first) and is_run(second)
            sentence = places.sentence_of[first[-1]]
            firsts.append(sentence)
            follower = places.sentences[sentence + 1]
            assert (
                first[-1] in places.ends and places.document_of[follower[0]] == places.document_of[first[0]]
            )
            if is_next:
                assert second == follower[: len(second)]
            else:
                assert places.document_of[second[0]] != places.document_of[first[0]]
                assert second[0] in places.starts and second[0] not in places.document_starts
                other = places.sentences[places.sentence_of[second[0]]]
                alike.append(min(len(other), max_len - 3) == min(len(follower), max_len - 3))
            labels.append(is_next)
        assert sorted(firsts) == sorted(
            places.sentence_of[s[0]] for document in documents for s in document[:-1]
        )
    assert np.mean(labels) == pytest.approx(0.5, abs=0.05) and np.mean(alike) > 0.99
    used = np.mean([generator[i].padding_mask.mean() for i in range(len(generator))])
    assert used > (0.95 if max_len == 120 else 0.8)


def test_all_of_one_length_from_another_document(make_corpus, numbers):
    """The only sentence of a length has B of another one, cut to fit."""
    corpus, documents = make_corpus([[2, 13], [3, 5, 5], [4, 5]])
    places = Places(documents)
    generator = lm_generator(
        numbers, corpus, batch_size=3, max_len=30, fill=False, pack=True, mismatch_prob=1.0
    )
    for epoch in range(30):
        for _, first, second, is_next in epoch_of(generator, numbers, epoch):
            assert is_next == 0 and places.document_of[second[0]] != places.document_of[first[0]]
            assert len(second) == 5


@pytest.mark.parametrize("single", [True, False])
def test_filled_examples(large, numbers, single):
    """Short ones share rows; each is a stretch (or two) of the corpus as it would be without packing."""
    corpus, documents = large
    places = Places(documents)
    arguments = dict(batch_size=8, max_len=33, use_single_sentence=single, short_prob=0.5, seed=4)
    packed, plain = (lm_generator(numbers, corpus, pack=pack, **arguments) for pack in (True, False))
    assert packed.num_examples == plain.num_examples and packed.num_rows < 0.85 * plain.num_rows
    sizes, labels = [], []
    for _, first, second, is_next in epoch_of(packed, numbers):
        assert is_run(first) and len({places.document_of[i] for i in first}) == 1
        sizes.append(len(first) + len(second or []))
        if not single:
            same = places.document_of[second[0]] == places.document_of[first[-1]]
            assert is_run(second) and same == bool(is_next)
            assert (first[-1] + 1 == second[0]) == bool(is_next)
            labels.append(is_next)
    assert len(sizes) == packed.num_examples
    assert single or np.mean(labels) == pytest.approx(0.5, abs=0.08)
    capacity = 31 if single else 30
    assert 0.35 < np.mean(np.array(sizes) == capacity) < 0.6 and max(sizes) == capacity
    found = [sum(len(f) + len(s or []) for _, f, s, _ in epoch_of(g, numbers)) for g in (packed,)]
    assert found[0] == pytest.approx(sum(len(s) for d in documents for s in d), rel=0.15)


@pytest.mark.parametrize("pairs", [True, False])
def test_causal(large, numbers, pairs):
    corpus, _ = large
    generator = lm_generator(
        numbers, corpus, batch_size=5, max_len=50, use_single_sentence=not pairs, fill=False, pack=True,
        is_causal=True,
    )  # fmt: skip
    batch = generator[3]
    labels = batch.token_classification["lm"]
    for row in range(5):
        for column in range(50):
            if not labels.target_mask[row, column]:
                continue
            assert labels.target[row, column] == batch.tokens[row, column + 1] >= NUM_SPECIAL
            assert batch.sequence_ids[row, column] == batch.sequence_ids[row, column + 1] > 0
    ordinary = (batch.tokens >= NUM_SPECIAL).sum()
    assert labels.target_mask.sum() == ordinary
    if pairs:
        index = batch.sentence_classification["is_next"].target_mask
        ends = [np.flatnonzero(batch.tokens[row] == numbers.eos_id) for row in range(5)]
        for row in range(5):
            begins = np.concatenate([[0], ends[row][:-1] + 1])
            assert index[row][index[row] >= 0].tolist() == (ends[row] - begins).tolist()


def test_masks(large, numbers):
    """15 % of the ordinary tokens; in whole words, all tokens of a word or none."""
    corpus, _ = large
    arguments = dict(batch_size=16, max_len=64, use_single_sentence=True, fill=False, pack=True)
    plain = lm_generator(numbers, corpus, **arguments)
    chosen = ordinary = masked = 0
    for index in range(20):
        batch = plain[index]
        mask = batch.token_classification["lm"].target_mask
        is_ordinary = originals(batch) >= NUM_SPECIAL
        assert not mask[~is_ordinary].any()
        chosen, ordinary = chosen + mask.sum(), ordinary + is_ordinary.sum()
        masked += (batch.tokens[mask] == numbers.msk_id).sum()
        assert (batch.tokens[~mask] == originals(batch)[~mask]).all()
    assert chosen / ordinary == pytest.approx(0.15, abs=0.01) and masked / chosen == pytest.approx(
        0.8, abs=0.03
    )
    whole = lm_generator(numbers, corpus, whole_word=True, **arguments)
    for index in range(5):
        batch = whole[index]
        mask, tokens = batch.token_classification["lm"].target_mask, originals(batch)
        inside = tokens[:, 1:] >= NUM_SPECIAL
        goes_on = inside & ((tokens[:, 1:] - NUM_SPECIAL) % 3 != 0) & (tokens[:, :-1] >= NUM_SPECIAL)
        assert (mask[:, 1:] == mask[:, :-1])[goes_on].all()
        assert mask.any()


def test_label_function(large, numbers):
    corpus, documents = large
    places = Places(documents)

    def label(sentence):
        first = sentence.tokens[1] - NUM_SPECIAL
        assert sentence.document == places.document_of[first]
        assert ("is_next" in sentence.sentence_classification) and all(sentence.padding_mask)
        known = {"document": SentenceTaskData(sentence.document, len(sentence.tokens) - 1)}
        known["own"] = TokenTaskData(sentence.tokens, [t >= NUM_SPECIAL for t in sentence.tokens])
        if first % 2:
            known["ends"] = SentenceTaskData((0, len(sentence.tokens) - 1), 0)
        return known

    generator = lm_generator(
        numbers, corpus, batch_size=6, max_len=60, fill=False, pack=True, label_function=label
    )
    batch = generator[1]
    own = batch.token_classification["own"]
    assert (own.target[own.target_mask] == originals(batch)[own.target_mask]).all()
    assert (own.target_mask == (originals(batch) >= NUM_SPECIAL)).all()
    shape = batch.sentence_classification["is_next"].target.shape
    count = Counter()
    for row, columns, first, _, _ in sequences(batch, numbers):
        number = batch.sequence_ids[row, columns[0]] - 1
        target, index = batch.sentence_classification["document"]
        assert target.shape == shape
        assert (target[row, number], index[row, number]) == (places.document_of[first[0]], len(columns) - 1)
        target, index = batch.sentence_classification["ends"]
        count[first[0] % 2] += 1
        assert index[row, number] == (0 if first[0] % 2 else -1)
        if first[0] % 2:
            assert target[row, number].tolist() == [0, len(columns) - 1]
    assert min(count.values()) > 3 and len(count) == 2


def test_pure(large, numbers):
    corpus, _ = large
    one, other = (
        lm_generator(numbers, corpus, batch_size=4, fill=False, pack=True, max_len=50) for _ in range(2)
    )
    expected = {index: one[index] for index in (3, 10**9, 0)}
    for index in (0, 3, 10**9):
        for name in ("tokens", "segments", "sequence_ids", "position_ids"):
            np.testing.assert_array_equal(getattr(other[index], name), getattr(expected[index], name))
    different = lm_generator(numbers, corpus, batch_size=4, fill=False, pack=True, max_len=50, seed=1)
    assert (different[0].tokens != expected[0].tokens).any()


def test_hardly_any_padding(english, english_encoder):
    arguments = dict(batch_size=32, max_len=128, use_single_sentence=True, fill=False)
    packed = lm_generator(english_encoder, english, pack=True, **arguments)
    assert np.mean([packed[i].padding_mask.mean() for i in range(len(packed))]) > 0.97
    plain = lm_generator(english_encoder, english, **arguments)
    assert np.mean([plain[i].padding_mask.mean() for i in range(20)]) < 0.5


@pytest.mark.skipif("BERT_KERAS_DATA" not in os.environ, reason="BERT_KERAS_DATA is not set")
def test_padding_on_gutenberg(english_encoder, tmp_path):
    path = Path(os.environ["BERT_KERAS_DATA"], "gutenberg", "valid.txt")
    corpus = Corpus.prepare(english_encoder, path, cache_dir=tmp_path)
    for arguments in (dict(use_single_sentence=True), dict(), dict(use_single_sentence=True, max_len=512)):
        generator = lm_generator(
            english_encoder,
            corpus,
            **{"batch_size": 16, "max_len": 128, "fill": False, "pack": True, **arguments},
        )
        assert np.mean([generator[i].padding_mask.mean() for i in range(len(generator))]) > 0.95
