"""Labelled examples and their batches."""

from collections import Counter

import numpy as np
import pytest
from number_text import NumberEncoder

from bert_keras.data import (
    Sentence,
    SentenceTaskData,
    TokenTaskData,
    labelled_generator,
    sentence_from_text,
    sentence_from_words,
)

PAD, BOS, EOS, DEL = 0, 2, 3, 4


class WordEncoder(NumberEncoder):
    """A number of three digits comes to three tokens; "x" to none."""

    def _encode_chunk(self, texts):
        return [[6 + int(c) for w in text.split() if w != "x" for c in w] for text in texts]


@pytest.fixture(scope="module")
def encoder():
    return WordEncoder(16)


def ids(text):
    return [6 + int(c) for c in text]


def test_text(encoder):
    sentence = sentence_from_text(encoder, "12 3", sentence_labels={"a": 4, "b": np.int64(0)})
    assert sentence.tokens == [BOS, *ids("123"), EOS] and sentence.segments == [0] * 5
    assert sentence.padding_mask == [True] * 5 and sentence.token_classification == {}
    assert sentence.sentence_classification == {"a": (4, 0), "b": (0, 0)}
    assert sentence_from_text(encoder, "").tokens == [BOS, EOS]
    assert sentence_from_text(encoder, "12345", max_len=5).tokens == [BOS, *ids("123"), EOS]


def test_pair(encoder):
    sentence = sentence_from_text(encoder, "12", "345", sentence_labels={"a": 1})
    assert sentence.tokens == [BOS, *ids("12"), DEL, *ids("345"), EOS]
    assert sentence.segments == [0, 0, 0, 0, 1, 1, 1, 1]
    for first, second, max_len, expected in [
        ("1234567", "89", 8, ("123", "89")),
        ("12", "3456789", 8, ("12", "345")),
        ("12345", "67890", 8, ("123", "67")),
        ("12345", "67890", 9, ("123", "678")),
        ("12345", "", 6, ("123", "")),
        ("", "12345", 6, ("", "123")),
        ("123", "45", 8, ("123", "45")),
        ("9", "123456", 5, ("9", "1")),
    ]:
        sentence = sentence_from_text(encoder, first, second, max_len=max_len)
        assert sentence.tokens == [BOS, *ids(expected[0]), DEL, *ids(expected[1]), EOS]


def test_words(encoder):
    sentence = sentence_from_words(
        encoder,
        ["12", "x", "3", "456"],
        token_labels={"p": [7, 8, 9, 5], "q": [1, None, 0, None]},
        sentence_labels={"s": 2},
    )
    assert sentence.tokens == [BOS, *ids("123456"), EOS]
    target, mask = sentence.token_classification["p"]
    assert mask == [False, True, False, True, True, False, False, False]
    assert target == [0, 7, 0, 9, 5, 0, 0, 0]
    target, mask = sentence.token_classification["q"]
    assert mask == [False, True, False, True] + [False] * 4 and target[1:4] == [1, 0, 0]
    assert sentence.sentence_classification == {"s": (2, 0)}
    cut = sentence_from_words(encoder, ["12", "x", "3", "456"], token_labels={"p": [7, 8, 9, 5]}, max_len=5)
    assert cut.tokens == [BOS, *ids("123"), EOS] and cut.token_classification["p"].target == [0, 7, 0, 9, 0]


def test_equal_words_in_a_row_keep_their_labels(encoder):
    sentence = sentence_from_words(encoder, ["11", "11", "1"], token_labels={"p": [1, 2, 3]})
    assert sentence.token_classification["p"].target == [0, 1, 0, 2, 0, 3, 0]


def test_words_of_a_real_text_encoder(english_encoder):
    words = "Unquestionably , the exceptions propagate \u200b upwards !".split(" ")
    sentence = sentence_from_words(english_encoder, words, token_labels={"p": list(range(len(words)))})
    target, mask = map(np.array, sentence.token_classification["p"])
    firsts = [english_encoder.encode(word)[:1] for word in words]
    assert np.array(sentence.tokens)[mask].tolist() == sum(firsts, [])
    assert target[mask].tolist() == [i for i, first in enumerate(firsts) if first]
    assert len(sentence.tokens) > mask.sum() + 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(token_labels={"p": [1]}), "'p'.*each of the 2 words.*1"),
        (dict(token_labels={"p": [1, "a"]}), "'p'.*integers.*'a'"),
        (dict(token_labels={"p": [1, -1]}), "'p'.*integers.*-1"),
        (dict(token_labels={"p": [1, float("nan")]}), "'p'.*integers.*nan"),
        (dict(token_labels={"p": [1, (1, "a")]}), "'p'.*integers.*'a'"),
        (dict(sentence_labels={"s": (1, True)}), "'s'.*integers.*True"),
        (dict(sentence_labels={"s": True}), "'s'.*integers.*True"),
        (dict(sentence_labels={"s": None}), "'s'.*integers.*None"),
        (dict(sentence_labels={"s": 1}, token_labels={"s": [1, 2]}), "either.*'s'"),
        (dict(max_len=2), "max_len.*3.*2"),
    ],
)
def test_bad_words(encoder, options, message):
    with pytest.raises(ValueError, match=message):
        sentence_from_words(encoder, ["1", "2"], **options)


def test_bad_text(encoder):
    with pytest.raises(ValueError, match="'s'.*'pos'.*Number the classes"):
        sentence_from_text(encoder, "1", sentence_labels={"s": "pos"})
    with pytest.raises(ValueError, match="max_len.*5.*4"):
        sentence_from_text(encoder, "1", "2", max_len=4)


def example(number, size, **labels):
    """An example that can be told from others; every third token is labelled if it asks for `t`."""
    tokens = [1000 * number + i for i in range(size)]
    token = (
        {"t": TokenTaskData([number] * size, [i % 3 == 0 for i in range(size)])}
        if labels.pop("t", None)
        else {}
    )
    sentence = {name: SentenceTaskData(*value) for name, value in labels.items()}
    return Sentence(tokens, [i % 2 for i in range(size)], [True] * size, token, sentence)


SIZES = [5, 1, 17, 16, 3, 30, 2, 8, 8, 12, 33]


@pytest.fixture
def sentences():
    return [
        example(n + 1, size, t=n % 2, **({"s": (n, n % size)} if n % 3 else {}))
        for n, size in enumerate(SIZES)
    ]


def check_rows(batch, sentences):
    """Every row against its example, which its first token tells; returns their indices, None for empty "
    "rows."""
    rows = []
    length = batch.tokens.shape[1]
    for row in range(len(batch.tokens)):
        if batch.tokens[row, 0] == PAD:
            assert (
                not batch.tokens[row].any()
                and not batch.padding_mask[row].any()
                and not batch.segments[row].any()
            )
            assert not batch.token_classification["t"].target_mask[row].any()
            assert batch.sentence_classification["s"].target_mask[row] == -1
            rows.append(None)
            continue
        number = int(batch.tokens[row, 0]) // 1000 - 1
        sentence = sentences[number]
        size = len(sentence.tokens)
        pad = length - size
        assert batch.tokens[row].tolist() == sentence.tokens + [PAD] * pad
        assert batch.segments[row].tolist() == sentence.segments + [0] * pad
        assert batch.padding_mask[row].tolist() == [True] * size + [False] * pad
        target, mask = (array[row] for array in batch.token_classification["t"])
        label = sentence.token_classification.get("t")
        assert mask.tolist() == ([*label.target_mask] if label else [False] * size) + [False] * pad
        assert target.tolist() == ((number + 1) * mask).tolist()
        target, index = (array[row] for array in batch.sentence_classification["s"])
        assert (target, index) == sentence.sentence_classification.get("s", (0, -1))
        rows.append(number)
    return rows


def test_batches(sentences):
    generator = labelled_generator(sentences, pad_id=PAD, batch_size=4, seed=3)
    assert len(generator) == 3 and generator.token_tasks == ("t",) and generator.sentence_tasks == ("s",)
    rows = []
    for index in range(22):  # Eight epochs of eleven.
        batch = generator[index]
        rows += check_rows(batch, sentences)
        longest = max(SIZES[row] for row in rows[-4:])
        assert batch.tokens.shape == (4, -(-longest // 16) * 16)
        for array in (batch.tokens, batch.segments, batch.token_classification["t"].target):
            assert array.dtype == np.int32
        assert batch.padding_mask.dtype == batch.token_classification["t"].target_mask.dtype == bool
        label = batch.sentence_classification["s"]
        assert label.target.dtype == label.target_mask.dtype == np.int32
    epochs = [tuple(rows[i : i + 11]) for i in range(0, 88, 11)]
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs) and len({*epochs}) == 8


def test_pure(sentences):
    first, second = (labelled_generator(sentences, pad_id=PAD, batch_size=3, seed=1) for _ in range(2))
    for index in (10**12, 5, 0, 5):
        np.testing.assert_array_equal(first[index].tokens, second[index].tokens)
    other = labelled_generator(sentences, pad_id=PAD, batch_size=3, seed=2)
    assert any(other[i].tokens[:, 0].tolist() != first[i].tokens[:, 0].tolist() for i in range(4))
    with pytest.raises(IndexError, match="-1"):
        first[-1]


def test_iteration(sentences):
    generator = labelled_generator(sentences, pad_id=PAD, batch_size=4)
    assert len(list(generator)) == 3 and len(list(generator.epochs(3))) == 9
    for index, batch in enumerate(generator):
        np.testing.assert_array_equal(batch.tokens, generator[index].tokens)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("batch_size", [4, 11, 13])
def test_without_wrap(sentences, shuffle, batch_size):
    generator = labelled_generator(
        sentences, pad_id=PAD, batch_size=batch_size, shuffle=shuffle, wrap=False, length_multiple=1
    )
    for epoch in range(3):
        batches = [generator[epoch * len(generator) + i] for i in range(len(generator))]
        assert all(len(b.tokens) == batch_size for b in batches)
        rows = sum((check_rows(b, sentences) for b in batches), [])
        real = [row for row in rows if row is not None]
        assert sorted(real) == list(range(11)) and rows[:11] == real
        assert shuffle or real == list(range(11))


def test_order_kept_and_wrapped(sentences):
    generator = labelled_generator(sentences, pad_id=PAD, batch_size=4, shuffle=False)
    rows = sum((check_rows(generator[i], sentences) for i in range(6)), [])
    assert rows == [i % 11 for i in range(24)]


def test_lengths(sentences):
    for multiple, max_len, expected in (
        (1, None, 33),
        (8, None, 40),
        (16, 40, 40),
        (16, 33, 33),
        (64, None, 64),
    ):
        generator = labelled_generator(
            sentences, pad_id=PAD, batch_size=11, max_len=max_len, length_multiple=multiple
        )
        assert generator[0].tokens.shape == (11, expected)


def test_every_example_equally_often_at_each_place(sentences):
    generator = labelled_generator(sentences, pad_id=PAD, batch_size=11)
    firsts = Counter(int(generator[i].tokens[0, 0]) for i in range(2200))
    assert len(firsts) == 11 and 140 < min(firsts.values()) <= max(firsts.values()) < 260


def test_without_labels(encoder):
    generator = labelled_generator([sentence_from_text(encoder, "12")] * 3, pad_id=9, batch_size=2)
    batch = generator[0]
    assert batch.token_classification == batch.sentence_classification == {}
    assert batch.tokens.tolist() == [[BOS, *ids("12"), EOS, *[9] * 12]] * 2


def test_padding_within_an_example():
    sentence = Sentence([5, 6, 0], [0, 1, 0], [True, True, False])
    batch = labelled_generator([sentence], pad_id=7, batch_size=1, length_multiple=5)[0]
    assert batch.tokens.tolist() == [[5, 6, 0, 7, 7]]
    assert batch.padding_mask.tolist() == [[True, True, False, False, False]]


def faulty(token=None, sentence=None, **changes):
    """A good example, then one with a fault; `token` and `sentence` are labels of the task `t`."""
    parts = {"tokens": [5, 6], "segments": [0, 0], "padding_mask": [True] * 2, **changes}
    token_level = {} if token is None else {"t": token}
    return [
        example(1, 3),
        Sentence(*parts.values(), token_level, {} if sentence is None else {"t": sentence}),
    ]


TWO_TOKENS = TokenTaskData([1, 2], [True] * 2)
FAULTS = [
    ([], ValueError, "empty"),
    (["text"], TypeError, r"sentences\[0\].*Sentence.*str"),
    (faulty(segments=[0]), ValueError, r"sentences\[1\].*'segments': 1"),
    (faulty(padding_mask=[True] * 3), ValueError, r"sentences\[1\].*'padding_mask': 3"),
    ([example(1, 3), example(2, 9)], ValueError, r"\[1\].*9 tokens.*max_len.*8"),
    (faulty(TokenTaskData([1], [True])), ValueError, r"\[1\].*'t'.*each of the 2 tokens"),
    (faulty(TokenTaskData(["a", "b"], [True] * 2)), ValueError, r"\[1\].*'t'.*integers"),
    (faulty(SentenceTaskData(1, 0)), TypeError, r"\[1\].*'t'.*TokenTaskData"),
    (faulty(sentence=TokenTaskData([1], [True])), TypeError, r"\[1\].*'t'.*SentenceTaskData"),
    (faulty(sentence=SentenceTaskData(1, 2)), ValueError, r"\[1\].*'t'.*position 2.*2 tokens"),
    (faulty(sentence=SentenceTaskData("a", 0)), ValueError, r"\[1\].*'t'.*integer.*'a'"),
    (faulty(TWO_TOKENS, SentenceTaskData(1, 0)), ValueError, "either .*'t'"),
    (faulty(TWO_TOKENS) + faulty(sentence=SentenceTaskData(1, 0)), ValueError, "either .*'t'"),
]


@pytest.mark.parametrize(("sentences", "error", "message"), FAULTS)
def test_bad_sentences(sentences, error, message):
    with pytest.raises(error, match=message):
        labelled_generator(sentences, pad_id=PAD, max_len=8)


@pytest.mark.parametrize(
    "options", [dict(batch_size=0), dict(length_multiple=0), dict(max_len=0), dict(seed=-1)]
)
def test_bad_options(sentences, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        labelled_generator(sentences, pad_id=PAD, **options)


def test_sets_and_numbers():
    def sentence(size, sentence_level, token_level):
        return Sentence(
            [5] * size,
            [0] * size,
            [True] * size,
            {name: TokenTaskData(*data) for name, data in token_level.items()},
            {name: SentenceTaskData(*data) for name, data in sentence_level.items()},
        )

    sentences = [
        sentence(
            2, {"topics": ((4, 1, 2), 0), "score": (2, 0)}, {"marks": ([(1,), "no label"], [True, False])}
        ),
        sentence(
            3,
            {"topics": ((), 1), "score": (0.5, 0), "answer": ((1, 2), 0), "pair": ((0.5, 2), 0)},
            {"marks": ([(), (3, 0), ()], [True] * 3), "length": ([1.5, 2, None], [True, True, False])},
        ),
        sentence(1, {"topics": ((3,), -1), "answer": ((0, 0), 0)}, {}),
    ]
    batch = labelled_generator(
        sentences, pad_id=0, batch_size=3, shuffle=False, wrap=False, length_multiple=1
    )[0]
    topics, score, answer, pair = (
        batch.sentence_classification[name] for name in ("topics", "score", "answer", "pair")
    )
    assert topics.target.tolist() == [[4, 1, 2], [-1, -1, -1], [-1, -1, -1]]
    assert topics.target_mask.tolist() == [0, 1, -1]
    assert (score.target.tolist(), score.target.dtype) == ([2.0, 0.5, 0.0], np.float32)
    assert score.target_mask.tolist() == [0, 0, -1]
    assert answer.target.tolist() == [[-1, -1], [1, 2], [0, 0]]
    assert pair.target.tolist() == [[0, 0], [0.5, 2], [0, 0]]
    marks, length = batch.token_classification["marks"], batch.token_classification["length"]
    assert marks.target.tolist() == [
        [[1, -1], [-1, -1], [-1, -1]],
        [[-1, -1], [3, 0], [-1, -1]],
        [[-1, -1], [-1, -1], [-1, -1]],
    ]
    assert marks.target_mask.tolist() == [[True, False, False], [True] * 3, [False] * 3]
    assert length.target.tolist() == [[0, 0, 0], [1.5, 2, 0], [0, 0, 0]]
    assert length.target_mask.tolist() == [[False] * 3, [True, True, False], [False] * 3]


def test_labels_of_two_forms_are_refused():
    def sentence(label):
        return Sentence([5], [0], [True], {}, {"t": SentenceTaskData(label, 0)})

    with pytest.raises(ValueError, match=r"sentences\[1\].*'t'.*all be tuples"):
        labelled_generator([sentence(1), sentence((1,))], pad_id=0)
    with pytest.raises(ValueError, match="'t'.*equally long"):
        labelled_generator([sentence((1.0,)), sentence((1.0, 2.0))], pad_id=0)


def test_labels_of_words_that_are_sets(encoder):
    made = sentence_from_words(
        encoder, ["12", "3"], token_labels={"p": [(1, 2), ()]}, sentence_labels={"s": 0.5, "t": {3}}
    )
    target, mask = made.token_classification["p"]
    assert [value for value, has in zip(target, mask, strict=True) if has] == [(1, 2), ()]
    assert made.sentence_classification == {"s": (0.5, 0), "t": ((3,), 0)}
