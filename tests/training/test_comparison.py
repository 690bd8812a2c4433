"""The report on pretraining: what it says where pretraining helps, and where it cannot."""

import json

import keras
import numpy as np
import pytest
from scipy import stats

from bert_keras import (
    MultiTaskModel,
    Sentence,
    SentenceTaskData,
    TaskMetadata,
    TaskWeightScheduler,
    compare_pretraining,
    create_text_cnn,
    evaluate_model,
    labelled_generator,
    train_model,
)
from bert_keras.training.comparison import _mean_and_interval

pytestmark = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="JAX compiles each of many runs anew; its parts are tested there"
)
KINDS = np.arange(60) % 2  # what a token says of the class, hidden from who has not seen it
TASK = TaskMetadata("topic", False, 2, read_from="mean")


def sentences(number, seed, hidden=True):
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(number):
        kind = rng.integers(2)
        tokens = rng.choice(np.flatnonzero(KINDS == kind)[2:], 6)
        label = int(kind) if hidden else int(rng.integers(2))
        made.append(Sentence(tokens.tolist(), [0] * 6, [True] * 6, {}, {"topic": SentenceTaskData(label, 0)}))
    return made


def create(seed):
    return create_text_cnn(
        60, 16, num_filters=4, filter_widths=(2,), num_convolutions=1, dropout=0.0, seed=seed
    )


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """An encoder that has learnt the kinds of all tokens."""
    encoder = create(99)
    model = train_model(
        encoder, [TASK], finetune_generator=labelled_generator(sentences(600, 7), pad_id=0, batch_size=60),
        finetune_epochs=6, finetune_optimizer=keras.optimizers.Adam(1e-2), verbose=0,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("saved") / "pretrained"
    model.save_weights(path)
    return path


def compare(start, train, validation, test=None, **arguments):
    defaults = dict(pad_id=0, label_budgets=(8,), learning_rates=(3e-3,), seeds=3, epochs=5, verbose=0)
    return compare_pretraining(start, create, TASK, train, validation, test, **{**defaults, **arguments})


def test_where_pretraining_helps(pretrained):
    report = compare(
        pretrained, sentences(40, 1), sentences(60, 2), sentences(100, 3), label_budgets=(8, None)
    )
    assert report.measured_on == "test"
    assert [(row.examples, row.side) for row in report.rows] == [
        (8, "pretrained"), (8, "scratch"), (40, "pretrained"), (40, "scratch"),
    ]  # fmt: skip
    few = report.rows[:2]
    assert few[0].mean > 0.9 and few[1].mean < 0.8
    mean, interval = report.difference("topic_accuracy", 8)
    differences = np.array(few[0].scores) - np.array(few[1].scores)
    assert mean == pytest.approx(differences.mean())
    assert interval == pytest.approx(stats.sem(differences) * stats.t.ppf(0.975, 2), rel=1e-3)
    table = report.to_markdown().splitlines()
    assert len(table) == 4 and table[2].startswith("| topic_accuracy | 8 |") and f"{mean:+.3f} ±" in table[2]


def test_where_it_cannot_help(pretrained):
    """Labels by chance: neither side is better than chance, and the difference has an interval around 0."""
    random = [sentences(number, seed, hidden=False) for number, seed in ((40, 4), (100, 5))]
    report = compare(pretrained, *random, label_budgets=(40,), seeds=4)
    assert report.measured_on == "validation"
    mean, interval = report.difference("topic_accuracy", 40)
    assert abs(mean) < interval + 0.05


def test_both_sides_get_the_same(monkeypatch, tmp_path):
    """Equal weights make equal runs: examples, order, steps, rates and heads are the same on both sides."""
    report = compare(create, sentences(30, 1), sentences(30, 2), learning_rates=(1e-3, 1e-2), seeds=2)
    runs = {side: [run for run in report.runs if run["side"] == side] for side in ("pretrained", "scratch")}
    for one, other in zip(runs["pretrained"], runs["scratch"], strict=True):
        assert {**one, "side": ""} == {**other, "side": ""}
    assert {(run["learning_rate"], run["seed"]) for run in report.runs} == {
        (rate, seed) for rate in (1e-3, 1e-2) for seed in (0, 1)
    }
    assert report.difference("topic_accuracy", 8) == (0.0, 0.0)
    report.save(tmp_path / "report.json")
    assert len(json.loads((tmp_path / "report.json").read_text())["runs"]) == 8


def test_models_with_heads_are_encoders_too():
    """A function may give models with heads that go on, seed after seed, as `train_model` takes them."""

    def with_head(seed):
        return MultiTaskModel(create(seed), [TASK], seed=40 + seed)

    arguments = dict(learning_rates=(1e-9,), epochs=1, seeds=2)
    report = compare(with_head, sentences(8, 1), sentences(30, 2), **arguments)
    for run in report.runs:
        model = MultiTaskModel(
            create(run["seed"]), [TASK], seed=run["seed"] + 40 * (run["side"] == "pretrained")
        )
        held_out = labelled_generator(sentences(30, 2), pad_id=0, batch_size=30, shuffle=False, wrap=False)
        assert run["validation"]["topic_accuracy"] == pytest.approx(
            evaluate_model(model, held_out)["topic_accuracy"]
        )


def test_rates_are_chosen_on_validation_and_the_encoder_stays_as_it_is():
    encoder = create(3)
    before = [keras.ops.convert_to_numpy(v.value).copy() for v in encoder.weights]
    report = compare(
        encoder, sentences(40, 1), sentences(40, 2), sentences(40, 3), learning_rates=(1e-9, 1e-2, 1e-1)
    )
    for row in report.rows:
        means = {
            rate: np.mean(
                [
                    r["validation"][row.metric]
                    for r in report.runs
                    if (r["side"], r["learning_rate"]) == (row.side, rate)
                ]
            )
            for rate in (1e-9, 1e-2, 1e-1)
        }
        assert means[row.learning_rate] == max(means.values())
    for value, variable in zip(before, encoder.weights, strict=True):
        np.testing.assert_array_equal(value, keras.ops.convert_to_numpy(variable.value))


def test_a_search_that_favours_one_side_is_named():
    from bert_keras.training.comparison import ComparisonRow, _warn_of_edges

    rows = [
        ComparisonRow("m", 8, side, rate, (1.0,), 1.0, None)
        for side, rate in (("pretrained", 1e-2), ("scratch", 1e-3))
    ]
    with pytest.warns(UserWarning, match="best rate of the pretrained side, 0.01, is at the edge"):
        _warn_of_edges(rows, [1e-4, 1e-3, 1e-2])


def test_intervals():
    for size in (2, 3, 10, 31):
        scores = np.random.default_rng(size).normal(size=size).tolist()
        mean, interval = _mean_and_interval(scores)
        assert mean == pytest.approx(np.mean(scores))
        assert interval == pytest.approx(stats.sem(scores) * stats.t.ppf(0.975, size - 1), rel=1e-3)
    assert _mean_and_interval([0.5]) == (0.5, None)


def test_the_picture(tmp_path):
    pytest.importorskip("matplotlib")
    report = compare(create, sentences(30, 1), sentences(30, 2), label_budgets=(8, 30), seeds=2, epochs=1)
    figure = report.plot()
    figure.savefig(tmp_path / "report.png")
    [axes] = figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["pretrained", "scratch"]
    assert (tmp_path / "report.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(seeds=0), "`seeds` must be at least 1"),
        (dict(learning_rates=()), "must not be empty"),
        (dict(label_budgets=(0,)), "`label_budgets` must be at least 1 or None"),
        (dict(metric="bleu"), "no metric 'topic_bleu'.*'topic_accuracy'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        compare(create, sentences(20, 1), sentences(20, 2), **arguments)


def test_weights_that_do_not_fit_are_named():
    other = create_text_cnn(60, 8, num_filters=4, seed=0)
    with pytest.raises(ValueError, match="`pretrained` does not fit `create_encoder`"):
        compare(other, sentences(20, 1), sentences(20, 2))
    tasks = [TaskMetadata("topic", False, 2, weight_scheduler=TaskWeightScheduler(True, False))]
    with pytest.raises(ValueError, match="No task is active"):
        compare_pretraining(create, create, tasks, sentences(9, 1), sentences(9, 2), pad_id=0, verbose=0)
