"""Which source gives which batch, and what of the labels that it does not have."""

import pickle
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.stats import chisquare

from bert_keras.data import (
    Sentence,
    SentenceTaskData,
    TokenTaskData,
    labelled_generator,
    lm_generator,
    mixed_generator,
)


def source(number, size, **labels):
    """`size` batches of one example each, which says where it comes from: token `number`, then its place."""
    sentences = [
        Sentence(
            [number, 100 + place],
            [0, 0],
            [True, True],
            {name: TokenTaskData(*data) for name, data in labels.items() if isinstance(data[0], list)},
            {name: SentenceTaskData(*data) for name, data in labels.items() if not isinstance(data[0], list)},
        )
        for place in range(size)
    ]
    return labelled_generator(sentences, pad_id=0, batch_size=1, shuffle=False, length_multiple=2)


def origins(batches):
    return [tuple(batch.tokens[0].tolist()) for batch in batches]


THREE = {"a": source(1, 6), "b": source(2, 30), "c": source(3, 12)}


def test_an_epoch_takes_each_batch_of_each_source_once():
    mixed = mixed_generator(THREE)
    assert len(mixed) == 48
    everything = [(number, 100 + i) for number, size in ((1, 6), (2, 30), (3, 12)) for i in range(size)]
    orders = [origins(mixed[epoch * 48 + i] for i in range(48)) for epoch in range(3)]
    for order in orders:
        assert sorted(order) == everything
    assert orders[0] != orders[1] != orders[2]
    assert origins(mixed) == orders[0]
    assert origins(mixed_generator(THREE, seed=1)) != orders[0]


def test_fixed_shares_are_exact_in_every_epoch():
    mixed = mixed_generator(THREE, shares={"a": 2, "c": 1}, num_batches=9)
    drawn = [origins(mixed[epoch * 9 + i] for i in range(9)) for epoch in range(4)]
    assert [Counter(number for number, _ in epoch) for epoch in drawn] == [Counter({1: 6, 3: 3})] * 4
    places = sorted(place for epoch in drawn for number, place in epoch if number == 3)
    assert places == [100 + i for i in range(12)]  # the source goes on where it was, and begins again
    uneven = mixed_generator(THREE, shares={"a": 1, "b": 1, "c": 1}, num_batches=10)
    assert sorted(Counter(n for n, _ in origins(uneven)).values()) == [3, 3, 4]


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0, 1e9])
def test_temperature(temperature):
    mixed = mixed_generator(THREE, temperature=temperature, num_batches=4800)
    found = Counter(mixed.source_of(i)[0] for i in range(4800))
    weights = np.array([6, 30, 12]) ** (1 / temperature)
    expected = 4800 * weights / weights.sum()
    assert np.abs([found[name] - n for name, n in zip("abc", expected, strict=True)]).max() <= 1


def test_sources_are_spread_over_the_epoch():
    mixed = mixed_generator({"a": source(1, 1000), "b": source(2, 3000)})
    halves = [
        sum(mixed.source_of(i)[0] == "a" for i in range(start, start + 500)) for start in range(0, 4000, 500)
    ]
    assert chisquare(halves).pvalue > 1e-3


def by_step(step):
    return {"a": 1.0} if step < 1500 else {"b": 3.0, "c": 1.0}


def test_a_function_of_the_step():
    mixed = mixed_generator(THREE, shares=by_step, num_batches=10)
    names = [mixed.source_of(i) for i in range(6000)]
    assert {name for name, _ in names[:1500]} == {"a"}
    counts = Counter(name for name, _ in names[1500:])
    assert chisquare([counts["b"], counts["c"]], [3375, 1125]).pvalue > 1e-3
    for name in "abc":
        locals_ = [local for other, local in names if other == name]
        assert locals_ == list(range(len(locals_)))
    assert len(mixed) == 10


@pytest.mark.parametrize("arguments", [{}, {"shares": {"a": 1, "b": 2}}, {"shares": by_step}])
def test_a_batch_is_a_function_of_its_number(arguments):
    mixed = mixed_generator(THREE, **arguments)
    numbers = np.random.default_rng(0).integers(0, 5000, 400).tolist()
    expected = {i: origins([mixed_generator(THREE, **arguments)[i]])[0] for i in numbers[:20]}
    with ThreadPoolExecutor(8) as executor:
        found = dict(zip(numbers, origins(executor.map(mixed.__getitem__, numbers)), strict=True))
    assert all(found[i] == expected[i] for i in expected)
    again = pickle.loads(pickle.dumps(mixed))
    assert all(origins([again[i]])[0] == found[i] for i in numbers)


def test_labels_that_a_source_has_not_are_empty():
    sources = {
        "one": source(1, 2, topic=(1, 0), marks=([(1, 2), ()], [True, True])),
        "two": source(2, 2, score=(0.5, 0), tag=([3, 4], [True, False]), answer=((0, 1), 0)),
    }
    mixed = mixed_generator(sources)
    for batch in mixed:
        assert {*batch.token_classification} == {"marks", "tag"}
        assert {*batch.sentence_classification} == {"topic", "score", "answer"}
        is_one = batch.tokens[0, 0] == 1
        marks, tag = batch.token_classification["marks"], batch.token_classification["tag"]
        assert marks.target.tolist() == [[[1, 2], [-1, -1]] if is_one else [[-1, -1]] * 2]
        assert marks.target_mask.tolist() == [[is_one, is_one]]
        assert tag.target_mask.tolist() == [[not is_one, False]]
        score, answer = batch.sentence_classification["score"], batch.sentence_classification["answer"]
        assert (score.target.dtype, score.target.shape) == (np.float32, (1,))
        assert (score.target_mask[0] == 0) == (not is_one) and score.target_mask[0] in (-1, 0)
        assert answer.target.tolist() == [[-1, -1] if is_one else [0, 1]]


def test_language_modelling_goes_on(english_encoder, english):
    text = lm_generator(english_encoder, english, batch_size=4, max_len=32)
    mixed = mixed_generator(
        {"text": text, "topic": source(1, 5, topic=(1, 0))}, shares={"text": 1, "topic": 1}
    )
    assert mixed.vocab_size == getattr(text, "vocab_size", None)
    for i in range(8):
        batch = mixed[i]
        assert {*batch.token_classification} == {"lm"}
        assert {*batch.sentence_classification} == {"is_next", "topic"}
        has_text = mixed.source_of(i)[0] == "text"
        assert batch.token_classification["lm"].target_mask.any() == has_text
        assert (batch.sentence_classification["is_next"].target_mask >= 0).all() == has_text


def test_lists_begin_again():
    batches = list(source(1, 3))
    mixed = mixed_generator({"list": batches, "other": source(2, 3)}, shares={"list": 1}, num_batches=2)
    assert sorted(origins(mixed[i] for i in range(6))) == sorted(origins(batches) * 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mixed_generator({}), "1 to 255"),
        (lambda: mixed_generator({"a": []}), "none of them empty.*'a': 0"),
        (lambda: mixed_generator(THREE, shares={"d": 1}), r"among \['a', 'b', 'c'\].*'d'"),
        (lambda: mixed_generator(THREE, shares={"a": 0}), "not all 0"),
        (lambda: mixed_generator(THREE, shares={"a": -1, "b": 2}), "at least 0"),
        (lambda: mixed_generator(THREE, shares=lambda step: 3), r"`shares\(0\)` must be a mapping"),
        (lambda: mixed_generator(THREE, temperature=0), "`temperature` must be above 0"),
        (lambda: mixed_generator(THREE, temperature=2, shares={"a": 1}), "1 where `shares`"),
        (lambda: mixed_generator(THREE, num_batches=0), "`num_batches`"),
        (lambda: mixed_generator(THREE, seed=-1), "`seed`"),
        (
            lambda: mixed_generator({"x": source(1, 1, t=(1, 0)), "y": source(2, 1, t=(0.5, 0))}),
            "'t'.*'y' .sentence-level, one of float32. than in 'x' .sentence-level, one of int32",
        ),
        (
            lambda: mixed_generator({"x": source(1, 1, t=(1, 0)), "y": source(2, 1, t=([1, 1], [True] * 2))}),
            "'t'.*token-level.*sentence-level",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
