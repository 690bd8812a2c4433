"""Kinds of task beside plain classification: losses by hand, ways of reading, what is measured."""

import keras
import numpy as np
import pytest
from scipy.special import log_softmax

from bert_keras import (
    SentenceBatch,
    TaskDataBatch,
    TaskMetadata,
    create_transformer,
    encoder_arrays,
    evaluate_model,
    load_model,
    train_model,
)
from bert_keras.training import MultiTaskModel, training_arrays

LENGTH = 8


def make_model(*tasks, **arguments):
    return MultiTaskModel(create_transformer(40, 12, 16, 2, 3, 20, seed=5, **arguments), tasks, seed=3)


def make_batch(token_level=None, sentence_level=None, rows=4, seed=0):
    rng = np.random.default_rng(seed)
    padding = np.arange(LENGTH) < rng.integers(4, LENGTH + 1, (rows, 1))
    tokens = np.where(padding, rng.integers(5, 40, (rows, LENGTH)), 0).astype("int32")
    return SentenceBatch(
        tokens, np.zeros_like(tokens), padding, dict(token_level or {}), dict(sentence_level or {})
    )


def outputs(model, batch):
    return {name: keras.ops.convert_to_numpy(value) for name, value in model(encoder_arrays(batch)).items()}


def logs_of(model, batch, weights=None):
    x, y = training_arrays(batch, model.tasks, weights or [1.0] * len(model.tasks))
    model.compile(optimizer="sgd")
    return model.test_on_batch(x, y, return_dict=True)


def binary_cross_entropies(logits, is_present, positive_weights=1.0):
    probability = 1 / (1 + np.exp(-logits.astype("float64")))
    return -(positive_weights * is_present * np.log(probability) + (1 - is_present) * np.log(1 - probability))


SETS = np.array([[4, 0, -1], [-1, -1, -1], [2, -1, -1], [1, 2, 3]], "int32")
IS_PRESENT = np.array([[1, 0, 0, 0, 1], [0, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 1, 1, 1, 0]])
FIRST = np.array([0, 0, -1, 0], "int32")  # the third row has no label
LABELLED = FIRST >= 0


@pytest.mark.parametrize(
    "options",
    [{}, {"class_weights": (1.0, 2.0, 0.0, 0.5, 3.0)}, {"label_smoothing": 0.2}]
    + [{"class_weights": (1.0, 2.0, 0.0, 0.5, 3.0), "label_smoothing": 0.2}],
)
def test_sets_of_classes(options):
    model = make_model(TaskMetadata("topics", False, 5, kind="multi_label", **options))
    batch = make_batch(sentence_level={"topics": TaskDataBatch(SETS, FIRST)})
    logits = outputs(model, batch)["topics"][LABELLED]
    smoothing = options.get("label_smoothing", 0.0)
    target = IS_PRESENT[LABELLED] * (1 - smoothing) + smoothing / 2
    by_hand = binary_cross_entropies(logits, target, np.array(options.get("class_weights", 1.0)))
    logs = logs_of(model, batch)
    assert logs["topics_loss"] == pytest.approx(by_hand.sum(-1).mean(), rel=1e-5)
    said, true = logits > 0, IS_PRESENT[LABELLED] > 0
    f1 = 2 * (said & true).sum() / (said.sum() + true.sum())
    assert logs["topics_micro_f1"] == pytest.approx(f1, abs=1e-6)


def test_sets_of_classes_of_tokens():
    model = make_model(TaskMetadata("marks", True, 5, kind="multi_label"))
    target = np.full((4, LENGTH, 3), -1, "int32")
    target[:, 1:3], mask = SETS[:, None], np.zeros((4, LENGTH), bool)
    mask[LABELLED, 1], mask[0, 2] = True, True
    batch = make_batch({"marks": TaskDataBatch(target, mask)})
    present = np.repeat(IS_PRESENT[:, None], LENGTH, 1)[mask]
    by_hand = binary_cross_entropies(outputs(model, batch)["marks"][mask], present)
    assert logs_of(model, batch)["marks_loss"] == pytest.approx(by_hand.sum(-1).mean(), rel=1e-5)


def test_a_set_begins_with_one_class_on_average():
    model = make_model(TaskMetadata("topics", False, 200, kind="multi_label"))
    logits = outputs(model, make_batch())["topics"]
    assert (1 / (1 + np.exp(-logits))).sum(-1) == pytest.approx(np.ones(4), rel=0.1)


def test_classes_with_weights_and_smoothing():
    weights = (0.5, 2.0, 1.0)
    task = TaskMetadata("topic", False, 3, class_weights=weights, label_smoothing=0.1)
    model, target = make_model(task), np.array([0, 1, 0, 2], "int32")
    batch = make_batch(sentence_level={"topic": TaskDataBatch(target, FIRST)})
    logits = outputs(model, batch)["topic"][LABELLED].astype("float64")
    smoothed = np.eye(3)[target[LABELLED]] * 0.9 + 0.1 / 3
    by_hand = -(smoothed * log_softmax(logits, -1)).sum(-1) * np.array(weights)[target[LABELLED]]
    assert logs_of(model, batch)["topic_loss"] == pytest.approx(by_hand.mean(), rel=1e-5)


@pytest.mark.parametrize("dimensions", [1, 3])
def test_numbers(dimensions):
    model = make_model(TaskMetadata("score", False, dimensions, kind="regression"))
    target = np.random.default_rng(1).normal(size=(4, dimensions)).astype("float32")
    target = target[:, 0] if dimensions == 1 else target
    batch = make_batch(sentence_level={"score": TaskDataBatch(target, FIRST)})
    errors = outputs(model, batch)["score"][LABELLED] - target.reshape(4, -1)[LABELLED]
    logs = logs_of(model, batch)
    assert logs["score_loss"] == pytest.approx((errors**2).mean(), rel=1e-5)
    assert logs["score_mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-5)


def test_numbers_of_tokens_and_whole_numbers():
    model = make_model(TaskMetadata("time", True, kind="regression"))
    mask = np.zeros((4, LENGTH), bool)
    mask[0, 1] = mask[2, 3] = True
    batch = make_batch({"time": TaskDataBatch(np.full((4, LENGTH), 3, "int32"), mask)})
    errors = outputs(model, batch)["time"][mask] - 3
    assert logs_of(model, batch)["time_loss"] == pytest.approx((errors**2).mean(), rel=1e-5)


def test_spans():
    model = make_model(TaskMetadata("answer", False, kind="span"))
    spans = np.array([[1, 3], [0, 0], [2, 2], [3, 3]], "int32")
    batch = make_batch(sentence_level={"answer": TaskDataBatch(spans, FIRST)})
    scores = outputs(model, batch)["answer"].astype("float64")
    assert scores.shape == (4, LENGTH, 2)
    assert (scores[~batch.padding_mask] < -1e8).all()
    by_hand = -np.array(
        [
            log_softmax(scores[row][batch.padding_mask[row], end])[spans[row, end]]
            for row in np.flatnonzero(LABELLED)
            for end in (0, 1)
        ]
    )
    logs = logs_of(model, batch)
    assert logs["answer_loss"] == pytest.approx(by_hand.mean(), rel=1e-5)
    right = (scores.argmax(1) == spans).all(-1)[LABELLED]
    assert logs["answer_exact_match"] == pytest.approx(right.mean(), abs=1e-6)


@pytest.mark.parametrize("how", ["mean", "max"])
def test_reading_over_the_sequence(how):
    model = make_model(TaskMetadata("topic", False, 3, read_from=how))
    assert model.pooler is None
    batch = make_batch(sentence_level={"topic": TaskDataBatch(np.array([0, 1, 2, 1], "int32"), FIRST)})
    hidden = keras.ops.convert_to_numpy(model.encoder(encoder_arrays(batch)))
    read = np.stack(
        [getattr(states[m], how)(0) for states, m in zip(hidden, batch.padding_mask, strict=True)]
    )
    kernel, bias = (keras.ops.convert_to_numpy(v.value) for v in model.heads["topic"].classifier.weights)
    by_hand = read @ kernel + bias
    np.testing.assert_allclose(outputs(model, batch)["topic"], by_hand, rtol=1e-4, atol=1e-5)
    loss = -log_softmax(by_hand[LABELLED], -1)[np.arange(3), [0, 1, 1]].mean()
    assert logs_of(model, batch)["topic_loss"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("how", ["mean", "max"])
def test_sequences_of_one_row_are_read_apart(how):
    """Two sequences packed into a row give what each gives alone."""
    model = make_model(
        TaskMetadata("topic", False, 3, read_from=how), TaskMetadata("answer", False, kind="span")
    )
    rng = np.random.default_rng(3)
    first, second = rng.integers(5, 40, 5), rng.integers(5, 40, 4)

    def arrays(*parts, length=12):
        joined = {name: np.zeros((1, length), "int32") for name in ("token_ids", "segment_ids")}
        joined |= {name: np.zeros((1, length), "int32") for name in ("position_ids", "sequence_ids")}
        start = 0
        for number, part in enumerate(parts, 1):
            where = slice(start, start + len(part))
            joined["token_ids"][0, where], joined["sequence_ids"][0, where] = part, number
            joined["position_ids"][0, where] = np.arange(len(part))
            start += len(part)
        return joined

    def logits(inputs, *positions):
        places = np.array([positions], "int32")
        result = model({**inputs, "positions": {"topic": places, "answer": places}})
        return {name: keras.ops.convert_to_numpy(value) for name, value in result.items()}

    packed = logits(arrays(first, second), 0, 5)
    for number, (part, start) in enumerate([(first, 0), (second, 5)]):
        alone = logits(arrays(part), 0)
        np.testing.assert_allclose(packed["topic"][number], alone["topic"][0], rtol=1e-4, atol=1e-5)
        where = slice(start, start + len(part))
        np.testing.assert_allclose(
            packed["answer"][number, where], alone["answer"][0, : len(part)], rtol=1e-4, atol=1e-5
        )
        outside = np.delete(packed["answer"][number], np.arange(12)[where], axis=0)
        assert (outside < -1e8).all()


def all_kinds():
    return [
        TaskMetadata("topics", False, 5, kind="multi_label", read_from="mean", labels=tuple("abcde")),
        TaskMetadata("score", False, kind="regression", read_from="max"),
        TaskMetadata("answer", False, kind="span"),
        TaskMetadata("tag", True, 4),
        TaskMetadata("topic", False, 3),
    ]


def labelled_batch(rows=4, seed=0):
    rng = np.random.default_rng(seed)
    mask = np.zeros((rows, LENGTH), bool)
    mask[:, 1:4] = True
    zeros = np.zeros(rows, "int32")
    return make_batch(
        {"tag": TaskDataBatch(rng.integers(0, 4, (rows, LENGTH)).astype("int32"), mask)},
        {
            "topics": TaskDataBatch(np.resize(SETS, (rows, 3)), zeros),
            "score": TaskDataBatch(rng.normal(size=rows).astype("float32"), zeros),
            "answer": TaskDataBatch(rng.integers(0, 4, (rows, 2)).astype("int32"), zeros),
            "topic": TaskDataBatch(rng.integers(0, 3, rows).astype("int32"), zeros),
        },
        rows,
        seed,
    )


def test_all_kinds_are_learned_together_and_saved(tmp_path):
    tasks, batch = all_kinds(), labelled_batch()
    encoder = create_transformer(
        40, 32, 16, 1, 4, 64, seed=5, embedding_dropout=0.0, attention_dropout=0.0, residual_dropout=0.0
    )
    model = train_model(
        encoder, tasks, finetune_generator=[batch], finetune_steps=150, verbose=0,
        finetune_optimizer=keras.optimizers.Adam(5e-3),
    )  # fmt: skip
    scores = evaluate_model(model, [batch])
    for name in ("topics_micro_f1", "tag_accuracy", "topic_accuracy", "answer_exact_match"):
        assert scores[name] == pytest.approx(1.0, abs=1e-6)
    assert scores["score_mae"] < 0.1
    model.save_weights(tmp_path / "all")
    again = load_model(tmp_path / "all")
    assert [task.get_config() for task in again.tasks] == [task.get_config() for task in tasks]
    for name, logits in outputs(model, batch).items():
        np.testing.assert_array_equal(outputs(again, batch)[name], logits)


def test_examples_without_labels_change_neither_loss_nor_measure():
    model, batch, more = make_model(*all_kinds()), labelled_batch(), labelled_batch(seed=9)
    alone = evaluate_model(model, [batch])
    for labels in more.token_classification.values():
        labels.target_mask[:] = False
    for labels in more.sentence_classification.values():
        labels.target_mask[:] = -1
    together = evaluate_model(model, [batch, more])
    assert together.keys() == alone.keys()
    for name, value in alone.items():
        if name != "loss":
            assert together[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name


@pytest.mark.parametrize(
    ("task", "target", "message"),
    [
        (dict(kind="multi_label", num_classes=4), [[4], [0], [0], [0]], r"0 to 3.*4 classes.*4"),
        (dict(kind="multi_label", num_classes=4), [[1, 1], [0, -1], [0, -1], [0, -1]], "a class twice"),
        (dict(kind="multi_label", num_classes=4), [1, 0, 0, 0], r"shape \(4, any\).*\(4,\)"),
        (dict(kind="span"), [[0, 8], [0, 0], [0, 0], [0, 0]], r"0 to 7.*8 tokens"),
        (dict(kind="span"), [[0], [0], [0], [0]], r"shape \(4, 2\)"),
        (dict(num_classes=3), [0.5, 0, 0, 0], "integers.*float.*kind"),
        (dict(kind="regression"), [np.nan, 0, 0, 0], "finite"),
        (dict(kind="regression", num_classes=2), [0.0, 0, 0, 0], r"shape \(4, 2\)"),
    ],
)
def test_labels_of_the_wrong_kind(task, target, message):
    encoder = create_transformer(40, 12, 16, 1, 3, 20)
    batch = make_batch(sentence_level={"t": TaskDataBatch(np.array(target), np.zeros(4, "int32"))})
    with pytest.raises(ValueError, match=rf"(?s)task 't'.*{message}"):
        train_model(encoder, [TaskMetadata("t", False, **task)], finetune_generator=[batch], verbose=0)
