"""Scores against scikit-learn, scipy, seqeval, and SQuAD's rules by hand."""

import numpy as np
import pytest
from scipy import stats

from bert_keras.training.scores import (
    answer_scores,
    are_entity_tags,
    entities,
    entity_scores,
    macro_f1,
    pearson,
    position_f1,
    set_f1,
    spearman,
)

pytestmark = pytest.mark.filterwarnings("ignore")


def test_one_class_each_against_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    for _ in range(500):
        size, classes = rng.integers(1, 30), rng.integers(1, 8)
        true, said = rng.integers(0, classes, (2, size))
        expected = metrics.f1_score(true, said, average="macro", zero_division=0)
        assert macro_f1(true, said) == pytest.approx(expected, abs=1e-12)


def test_sets_of_classes_against_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    for _ in range(300):
        size, classes = rng.integers(1, 20), rng.integers(2, 12)
        true, said = rng.random((2, size, classes)) < rng.random()
        sets = [[np.flatnonzero(row) for row in rows] for rows in (true, said)]
        expected = [metrics.f1_score(true, said, average=a, zero_division=0) for a in ("micro", "macro")]
        assert set_f1(*sets, classes) == pytest.approx(expected, abs=1e-12)


def test_correlations_against_scipy():
    rng = np.random.default_rng(2)
    for _ in range(500):
        size = rng.integers(3, 40)
        true = (
            rng.normal(size=size).round(rng.integers(0, 4)) * 10 ** rng.uniform(-3, 3) + rng.normal() * 1000
        )
        said = true * rng.normal() + rng.normal(size=size).round(1)
        if np.ptp(true) and np.ptp(said):
            assert pearson(true, said) == pytest.approx(stats.pearsonr(true, said).statistic, abs=1e-9)
            assert spearman(true, said) == pytest.approx(stats.spearmanr(true, said).statistic, abs=1e-9)
    assert np.isnan(pearson(np.ones(4), np.arange(4)))


TAGS = ["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in ("PER", "LOC-1"))]


@pytest.mark.parametrize("tags", [TAGS, TAGS[:5], ["O", "I-PER", "I-LOC", "B-PER"], ["O", "B", "I"]])
def test_entities_against_seqeval(tags):
    metrics = pytest.importorskip("seqeval.metrics")
    labeling = pytest.importorskip("seqeval.metrics.sequence_labeling")
    rng = np.random.default_rng(3)
    for _ in range(500):
        true, said = (
            [rng.choice(tags, size).tolist() for size in sizes]
            for sizes in [rng.integers(1, 9, rng.integers(1, 5))] * 2
        )
        assert [entities(one) for one in true] == [labeling.get_entities(one) for one in true]
        expected = [
            function(true, said, zero_division=0)
            for function in (metrics.precision_score, metrics.recall_score, metrics.f1_score)
        ]
        assert entity_scores(true, said) == pytest.approx(expected, abs=1e-12)


def test_which_labels_are_entity_tags():
    assert are_entity_tags(["O", "B-PER", "I-PER"])
    assert not any(map(are_entity_tags, [None, [], ["O"], ["NOUN", "O"], ["B-x", "A-x"], ["B", "I", "O"]]))


def test_answers():
    given = ["The Cat!", "a red dog", None, "x", "", "cat cat"]
    gold = [["cat"], ["the big red dog", "bird"], [], [], ["something"], ["cat sat cat"]]
    exact, f1 = answer_scores(given, gold)
    assert exact == pytest.approx((1 + 0 + 1 + 0 + 0 + 0) / 6)
    assert f1 == pytest.approx((1 + 2 * 2 / 5 + 1 + 0 + 0 + 2 * 2 / 5) / 6)
    assert answer_scores(["an"], [["the", "a"]]) == (1.0, 1.0)  # nothing is left of either


def test_positions():
    true, said = np.array([[2, 4], [0, 0], [5, 5]]), np.array([[3, 6], [0, 0], [6, 2]])
    assert position_f1(true, said) == pytest.approx((2 * 2 / 7 + 1 + 0) / 3)
