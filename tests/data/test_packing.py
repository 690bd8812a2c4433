"""Several examples in a row: who shares one, what is left empty, and that labels stay where they belong."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bert_keras.data import (
    Sentence,
    SentenceBatch,
    SentenceTaskData,
    TokenTaskData,
    labelled_generator,
    mixed_generator,
    sentence_from_text,
)
from bert_keras.data.packing import Packing, fill_rows

PAD = 7


def example(number, size):
    """Tokens that tell the example; labels of some tasks: a class of tokens, a class, a set, and a span."""
    rng = np.random.default_rng([5, number])
    token_level, sentence_level = {}, {}
    if number % 3:
        mask = (rng.random(size) < 0.4).tolist()
        token_level["tag"] = TokenTaskData([number + i for i in range(size)], mask)
    if number % 2:
        sentence_level["topic"] = SentenceTaskData(number, number % size)
    if number % 4:
        sentence_level["topics"] = SentenceTaskData(tuple(range(number % 4)), 0)
    if number % 5:
        sentence_level["answer"] = SentenceTaskData((size // 2, size - 1), 0)
    tokens = [100 * number + i for i in range(size)]
    return Sentence(tokens, [int(i > 2) for i in range(size)], [True] * size, token_level, sentence_level)


SIZES = [5, 1, 17, 16, 3, 30, 2, 8, 8, 12, 33, 29, 1, 4, 9, 26, 31]


@pytest.fixture(scope="module")
def sentences():
    return [example(number + 1, size) for number, size in enumerate(SIZES)]


def unpacked(batch):
    """Every sequence of a packed batch: the example's number, tokens, segments and labels, after a look at
    all of the batch."""
    found = []
    rows, length = batch.tokens.shape
    assert batch.is_packed
    for name in ("tokens", "segments", "sequence_ids", "position_ids"):
        assert getattr(batch, name).shape == (rows, length) and getattr(batch, name).dtype == np.int32
    for row in range(rows):
        column, number = 0, 1
        while column < length and batch.padding_mask[row, column]:
            example_number = int(batch.tokens[row, column]) // 100
            size = SIZES[example_number - 1]
            where = slice(column, column + size)
            assert (batch.sequence_ids[row, where] == number).all()
            assert batch.position_ids[row, where].tolist() == list(range(size))
            assert batch.padding_mask[row, where].all()
            labels = {
                n: (d.target[row, where], d.target_mask[row, where])
                for n, d in batch.token_classification.items()
            }
            for name, data in batch.sentence_classification.items():
                labels[name] = (data.target[row, number - 1], data.target_mask[row, number - 1])
            found.append((example_number, batch.tokens[row, where], batch.segments[row, where], labels))
            column, number = column + size, number + 1
        rest = slice(column, length)
        assert (batch.tokens[row, rest] == PAD).all() and not batch.sequence_ids[row, rest].any()
        assert not batch.position_ids[row, rest].any() and not batch.padding_mask[row, rest].any()
        for data in batch.token_classification.values():
            assert not data.target_mask[row, rest].any()
        for data in batch.sentence_classification.values():
            assert (data.target_mask[row, number - 1 :] == -1).all()
    return found


def check(found, sentences):
    for number, tokens, segments, labels in found:
        sentence = sentences[number - 1]
        assert tokens.tolist() == sentence.tokens and segments.tolist() == sentence.segments
        target, mask = labels["tag"]
        own = sentence.token_classification.get("tag")
        assert mask.tolist() == (own.target_mask if own else [False] * len(tokens))
        assert own is None or target[mask].tolist() == np.array(own.target)[mask].tolist()
        for name in ("topic", "topics", "answer"):
            target, index = labels[name]
            own = sentence.sentence_classification.get(name)
            assert index == (-1 if own is None else own.target_index)
            if own is not None:
                given = target.tolist() if target.ndim == 0 else tuple(target[target >= 0].tolist())
                assert given == own.target


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_every_example_once_an_epoch_with_its_labels(sentences, batch_size):
    generator = labelled_generator(
        sentences, pad_id=PAD, batch_size=batch_size, max_len=34, pack=True, seed=3
    )
    assert generator.num_examples == len(SIZES) and generator.num_rows == -(-sum(SIZES) // 34)
    assert len(generator) == -(-generator.num_rows // batch_size)
    numbers = []
    for index in range(-(-6 * generator.num_rows // batch_size)):
        batch = generator[index]
        assert batch.tokens.shape == (batch_size, 34)
        for row in range(batch_size):
            one = SentenceBatch(
                *(getattr(batch, name)[row : row + 1] for name in ("tokens", "segments", "padding_mask")),
                {n: type(d)(*(a[row : row + 1] for a in d)) for n, d in batch.token_classification.items()},
                {
                    n: type(d)(*(a[row : row + 1] for a in d))
                    for n, d in batch.sentence_classification.items()
                },
                batch.sequence_ids[row : row + 1],
                batch.position_ids[row : row + 1],
            )
            found = unpacked(one)
            check(found, sentences)
            numbers.append([number for number, *_ in found])
    rows = generator.num_rows
    epochs = [sum(numbers[i * rows : (i + 1) * rows], []) for i in range(6)]
    assert all(sorted(epoch) == list(range(1, len(SIZES) + 1)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6


@pytest.mark.parametrize("shuffle", [True, False])
def test_without_wrap(sentences, shuffle):
    generator = labelled_generator(
        sentences, pad_id=PAD, batch_size=4, max_len=40, pack=True, wrap=False, shuffle=shuffle
    )
    epochs = []
    for epoch in range(2):
        found = sum((unpacked(generator[epoch * len(generator) + i]) for i in range(len(generator))), [])
        check(found, sentences)
        epochs.append([number for number, *_ in found])
        assert sorted(epochs[-1]) == list(range(1, len(SIZES) + 1))
    assert (epochs[0] == epochs[1]) is not shuffle


def test_examples_of_a_size_change_their_neighbours():
    """Who shares a row with the first example is drawn evenly over the epochs."""
    sentences = [Sentence([100 * n] * 5, [0] * 5, [True] * 5) for n in range(1, 8)]
    generator = labelled_generator(sentences, pad_id=PAD, batch_size=4, max_len=10, pack=True)
    together = np.zeros((8, 8), int)
    for epoch in range(600):
        for row in generator[epoch].tokens:
            numbers = {*(row[row != PAD] // 100).tolist()}
            for one in numbers:
                together[one, list(numbers)] += 1
    assert together.diagonal().tolist() == [0] + [600] * 7
    pairs = together[1:, 1:][np.triu_indices(7, 1)]
    assert pairs.sum() == 3 * 600  # three full rows an epoch
    assert 55 < pairs.min() and pairs.max() < 120  # 85.7 expected


def digest(generator, indices):
    made = hashlib.sha256()
    for index in indices:
        batch = generator[index]
        for array in (batch.tokens, batch.sequence_ids, batch.position_ids):
            made.update(np.ascontiguousarray(array).tobytes())
    return made.hexdigest()


def packed_for_digest(seed=11):
    sentences = [example(number + 1, size) for number, size in enumerate(SIZES)]
    return labelled_generator(sentences, pad_id=PAD, batch_size=3, max_len=40, pack=True, seed=seed)


def test_the_same_in_any_order_and_process():
    generator = packed_for_digest()
    expected = digest(generator, [0, 1, 10**9])
    backwards = packed_for_digest()
    [backwards[index] for index in (10**9, 5, 1)]
    assert digest(backwards, [0, 1, 10**9]) == expected != digest(packed_for_digest(12), [0, 1, 10**9])
    command = "import test_packing as t; print(t.digest(t.packed_for_digest(), [0, 1, 10**9]))"
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    done = subprocess.run(
        [sys.executable, "-c", command],
        cwd=Path(__file__).parent,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == expected, done.stderr


@pytest.mark.parametrize("length", [40, 128, 1000])
def test_hardly_any_padding(length):
    rng = np.random.default_rng(length)
    sizes = np.clip(rng.lognormal(3, 0.7, 3001).astype(int), 2, length)
    packing = Packing(sizes, length, seed=1)
    assert sizes.sum() / (packing.num_rows * length) > 0.97
    everything = packing.places(np.arange(packing.num_rows), np.zeros(packing.num_rows, np.int64))
    assert sorted(everything.example.tolist()) == list(range(3001))
    assert (everything.size == sizes[everything.example]).all()
    ends = everything.column + everything.size
    follows = everything.row[1:] == everything.row[:-1]
    assert (everything.column[1:] == np.where(follows, ends[:-1], 0)).all() and ends.max() <= length


@pytest.mark.parametrize("seed", range(20))
def test_rows_are_those_of_first_fit_decreasing(seed):
    """Against the textbook's loop over examples and rows."""
    rng = np.random.default_rng(seed)
    length = int(rng.integers(5, 40))
    sizes = rng.integers(1, length + 1, rng.integers(1, 60))
    rows = []
    for size in sorted(sizes.tolist(), reverse=True):
        fitting = [row for row in rows if sum(row) + size <= length]
        if fitting:
            fitting[0].append(size)
        else:
            rows.append([size])
    found = []
    for parts, count in fill_rows(np.bincount(sizes, minlength=length + 1), length):
        found += [[size for size, number in parts for _ in range(number)]] * count
    assert sorted(found) == sorted(rows)


def data(*parts):
    if "BERT_KERAS_DATA" not in os.environ:
        pytest.skip("BERT_KERAS_DATA is not set")
    return Path(os.environ["BERT_KERAS_DATA"], *parts).read_text(encoding="utf-8").split("\n")


def share_of_padding(generator, batches=20):
    return 1 - np.mean([generator[i].padding_mask.mean() for i in range(batches)])


def test_padding_on_sst2(english_encoder):
    texts = [line.split("\t")[0] for line in data("sst2", "train.tsv") if line]
    sentences = [sentence_from_text(english_encoder, text, max_len=128) for text in texts]
    packed = labelled_generator(sentences, pad_id=0, max_len=128, pack=True)
    assert share_of_padding(packed) < 0.02
    assert share_of_padding(labelled_generator(sentences, pad_id=0, max_len=128)) > 0.3


def test_mixed_with_unpacked_batches(sentences):
    packed = labelled_generator(sentences, pad_id=PAD, batch_size=3, max_len=34, pack=True)
    others = labelled_generator(
        [Sentence([9, 9], [0, 0], [True] * 2, {}, {"more": SentenceTaskData((0.5, 1.5), 1)})],
        pad_id=PAD,
        batch_size=2,
    )
    mixed = mixed_generator({"packed": packed, "others": others})
    for index in range(len(mixed)):
        batch, (name, local) = mixed[index], mixed.source_of(index)
        assert {*batch.sentence_classification} == {"topic", "topics", "answer", "more"}
        assert batch.is_packed == (name == "packed")
        if name == "packed":
            np.testing.assert_array_equal(batch.position_ids, packed[local].position_ids)
            np.testing.assert_array_equal(batch.sequence_ids, packed[local].sequence_ids)
            more = batch.sentence_classification["more"]
            assert more.target.shape == (3, 1, 2) and more.target.dtype == np.float32
            assert (more.target_mask == -1).all() and more.target_mask.shape == (3, 1)


def test_positions_are_made_from_sequences():
    ids = np.array([[1, 1, 2, 2, 2, 0], [1, 2, 3, 0, 0, 0]], np.int32)
    tokens = np.ones_like(ids)
    batch = SentenceBatch(tokens, tokens * 0, ids > 0, sequence_ids=ids)
    assert batch.position_ids.tolist() == [[0, 1, 0, 1, 2, 0], [0, 0, 0, 0, 0, 0]]
    assert batch.sequence_starts(3).tolist() == [[0, 2, 0], [0, 1, 2]]
    assert batch.sequence_starts(1).tolist() == [[0], [0]]
    assert SentenceBatch(tokens, tokens * 0, ids > 0).position_ids is None


def test_examples_with_holes_and_without_tokens():
    sentences = [
        Sentence([5, 6, 0], [0, 1, 0], [False, True, False]),
        Sentence([], [], []),
        Sentence([8], [0], [True]),
    ]
    batch = labelled_generator(sentences, pad_id=PAD, batch_size=1, max_len=5, pack=True, shuffle=False)[0]
    assert batch.tokens[0, :3].tolist() == [5, 6, 0] and batch.sequence_ids[0, :3].tolist() == [0, 1, 0]
    assert batch.sequence_starts(1).tolist() == [[0]]
    assert sorted(batch.tokens[0, 3:].tolist()) == [PAD, 8]


def test_packing_needs_a_length(sentences):
    with pytest.raises(ValueError, match="`pack` needs `max_len`"):
        labelled_generator(sentences, pad_id=PAD, pack=True)
