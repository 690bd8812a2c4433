"""Packed batches: losses, gradients and scores are those of the same examples unpacked, for all tasks."""

import keras
import numpy as np
import pytest

from bert_keras import (
    Doctor,
    MultiTaskModel,
    Sentence,
    SentenceBatch,
    SentenceTaskData,
    TaskDataBatch,
    TaskMetadata,
    create_transformer,
    encoder_inputs,
    evaluate_model,
    labelled_generator,
    mixed_generator,
    train_model,
)
from bert_keras.data import TokenTaskData
from bert_keras.training import training_arrays
from bert_keras.training.symptoms import LabelCounts

VOCAB, MAX_LEN = 40, 24
TAGS = ("O", "B-x", "I-x", "B-y", "I-y")
TASKS = [
    TaskMetadata("topic", False, 3),
    TaskMetadata("mean", False, 3, read_from="mean", class_weights=(1.0, 2.0, 0.5)),
    TaskMetadata("topics", False, 6, kind="multi_label", read_from="max"),
    TaskMetadata("score", False, kind="regression"),
    TaskMetadata("vector", False, 3, kind="regression", read_from="mean"),
    TaskMetadata("answer", False, kind="span"),
    TaskMetadata("tag", True, labels=TAGS),
    TaskMetadata("marks", True, 4, kind="multi_label"),
]


def example(number):
    rng = np.random.default_rng([3, number])
    size = int(rng.integers(3, 15))
    last = size - 1
    labels = {
        "topic": SentenceTaskData(int(rng.integers(3)), last if number % 2 else 0),
        "mean": SentenceTaskData(int(rng.integers(3)), 0),
        "topics": SentenceTaskData(tuple(range(number % 4)), 0),
        "score": SentenceTaskData(float(rng.normal()), 0),
        "vector": SentenceTaskData(tuple(rng.normal(size=3).tolist()), 0),
        "answer": SentenceTaskData((number % size, last), 0),
    }
    labels = {name: label for name, label in labels.items() if rng.random() < 0.7}
    mask = (rng.random(size) < 0.6).tolist()
    token_level = {"tag": TokenTaskData(rng.integers(0, 5, size).tolist(), mask)}
    if number % 3:
        token_level["marks"] = TokenTaskData([(int(rng.integers(4)),) for _ in range(size)], mask)
    tokens = rng.integers(5, VOCAB, size).tolist()
    return Sentence(tokens, [int(i > 4) for i in range(size)], [True] * size, token_level, labels)


SENTENCES = [example(number) for number in range(23)]


def generators(batch_size=4):
    """The same examples without packing, in one batch, and packed, in one batch or several."""
    alone = labelled_generator(
        SENTENCES, pad_id=0, batch_size=23, shuffle=False, wrap=False, length_multiple=3
    )
    packed = labelled_generator(
        SENTENCES, pad_id=0, batch_size=batch_size, max_len=MAX_LEN, pack=True, wrap=False, seed=4
    )
    return alone, packed


def encoder(**arguments):
    off = dict.fromkeys(("embedding_dropout", "attention_dropout", "residual_dropout"), 0.0)
    return create_transformer(VOCAB, 12, 16, 2, 3, 20, seed=5, **off, **arguments)


@pytest.fixture(scope="module")
def model():
    model = MultiTaskModel(encoder(), TASKS, seed=3)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if variable.path.endswith(("kernel", "embeddings")):
            variable.assign(rng.normal(0, 0.5, variable.shape))
    return model


def test_scores_are_those_of_the_same_examples_unpacked(model):
    """Losses of every kind, F1, entities, correlations, spans: over the whole set they are equal, though
    rows, batches and places are others."""
    alone, packed = generators()
    assert packed.num_rows < 12 and len(packed) == 3
    expected, found = evaluate_model(model, alone), evaluate_model(model, packed)
    assert {"tag_entity_f1", "answer_f1", "topics_macro_f1", "score_spearman", "mean_macro_f1"} <= {*found}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name != "loss":  # a mean over batches
            assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_a_step_is_that_of_the_same_examples_unpacked(model):
    """One batch holds everything: its losses and what a step of SGD changes, that is all gradients."""
    alone, packed = (generator[0] for generator in generators(batch_size=12))
    before = [keras.ops.convert_to_numpy(v.value) for v in model.weights]
    results = []
    for batch in (alone, packed):
        model.compile(keras.optimizers.SGD(0.5))
        logs = model.train_on_batch(*training_arrays(batch, TASKS, [1.0, 2.0] * 4), return_dict=True)
        after = [keras.ops.convert_to_numpy(v.value) for v in model.weights]
        changes = {v.path: a - b for v, a, b in zip(model.weights, after, before, strict=True)}
        results.append(({k: float(v) for k, v in logs.items()}, changes))
        for variable, value in zip(model.weights, before, strict=True):
            variable.assign(value)
    (expected, changed), (found, moved) = results
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert max(np.abs(change).max() for change in changed.values()) > 0.1
    for path, change in changed.items():
        np.testing.assert_allclose(moved[path], change, rtol=1e-3, atol=2e-5, err_msg=path)


def test_arrays_of_a_packed_batch():
    """By hand: two sequences in the first row, one in the second."""
    ids = np.array([[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 0, 0]], "int32")
    index = np.array([[2, 1], [-1, -1]], "int32")
    spans = np.array([[[0, 2], [1, 1]], [[0, 0], [0, 0]]], "int32")
    batch = SentenceBatch(
        ids + 4, ids * 0, ids > 0, sequence_ids=ids,
        sentence_classification={
            "topic": TaskDataBatch(np.array([[1, 2], [0, 0]], "int32"), index),
            "answer": TaskDataBatch(spans, index),
        },
    )  # fmt: skip
    tasks = [TASKS[0], TASKS[5]]
    x, y = training_arrays(batch, tasks, [1.0, 1.0])
    assert x["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 0, 0]]
    assert x["sequence_ids"].tolist() == ids.tolist()
    assert x["positions"]["topic"].tolist() == [[2, 4], [0, 0]] == x["positions"]["answer"].tolist()
    assert y["targets"]["topic"].tolist() == [[1, 2], [0, 0]]
    assert y["targets"]["answer"].tolist() == [[[0, 2], [4, 4]], [[0, 0], [0, 0]]]
    assert y["labelled"]["topic"].tolist() == [[1, 1], [0, 0]]


def test_few_shapes():
    """The number of examples differs from batch to batch; the arrays have few shapes all the same."""
    sentences = [example(number) for number in range(400)]
    generator = labelled_generator(sentences, pad_id=0, batch_size=8, max_len=64, pack=True)
    shapes, counts = set(), set()
    for index in range(60):
        x, _ = training_arrays(generator[index], TASKS, [1.0] * len(TASKS))
        of_sentences = {name: array for name, array in x["positions"].items() if name not in ("tag", "marks")}
        shapes.add(tuple(array.shape for array in of_sentences.values()))
        counts.add(int(generator[index].sequence_ids.max(1).sum()))
    assert len(counts) > 15 and len(shapes) <= 2


def test_training_on_packed_and_other_batches():
    """They learn from both, with packed validation; rows may be longer than the encoder's positions."""
    packed = labelled_generator(SENTENCES, pad_id=0, batch_size=3, max_len=40, pack=True)
    others = labelled_generator(SENTENCES[:6], pad_id=0, batch_size=6, length_multiple=8)
    tasks = [TaskMetadata("topic", False, 3), TaskMetadata("tag", True, labels=TAGS)]
    model = train_model(
        encoder(), tasks, finetune_generator=mixed_generator({"packed": packed, "others": others}),
        validation_finetune_generator=packed, finetune_steps=20, finetune_epochs=2, verbose=0,
        finetune_optimizer=keras.optimizers.Adam(1e-2),
    )  # fmt: skip
    history = model.training_history["finetune"].history
    assert history["topic_loss"][1] < 0.5 < history["topic_loss"][0]
    assert history["val_tag_entity_f1"][1] > history["val_tag_entity_f1"][0]


def own_encoder(mixing, names=("token_ids", "sequence_ids")):
    """A user's model that takes `sequence_ids`, and does or does not heed them."""
    inputs = {name: tensor for name, tensor in encoder_inputs().items() if name in names}
    hidden = keras.layers.Embedding(VOCAB, 6)(inputs["token_ids"])
    if mixing:
        hidden = hidden + keras.layers.Dense(6)(keras.ops.mean(hidden, axis=1, keepdims=True))
    return keras.Model(inputs, hidden)


class SaysNo(keras.Model):
    supports_packing = False


def says_no():
    inputs = encoder_inputs()
    return SaysNo(inputs, keras.layers.Embedding(VOCAB, 6)(inputs["token_ids"]))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: own_encoder(True), "change the hidden states of another"),
        (lambda: own_encoder(False, ["token_ids"]), r"only \['token_ids'\]"),
        (says_no, "`supports_packing` is False"),
    ],
)
def test_encoders_that_mix_sequences_are_refused(make, reason):
    _, packed = generators()
    topic, made = TaskMetadata("topic", False, 3), make()
    with pytest.raises(ValueError, match=rf"(?s)does not keep the sequences of a row apart.*{reason}"):
        train_model(made, [topic], finetune_generator=packed, verbose=0)
    with pytest.raises(ValueError, match="apart"):
        evaluate_model(MultiTaskModel(made, [topic]), packed)


def test_a_users_encoder_that_keeps_them_apart():
    _, packed = generators()
    train_model(own_encoder(False), [TaskMetadata("topic", False, 3)], finetune_generator=packed, verbose=0)


def spoiled(**changes):
    """A batch of two rows of two sequences each, with some arrays changed in place."""
    ids = np.array([[1, 1, 1, 2, 2, 0], [1, 1, 2, 2, 2, 2]], "int32")
    index = np.zeros((2, 2), "int32")
    arrays = {
        "sequence_ids": ids,
        "position_ids": np.array([[0, 1, 2, 0, 1, 0], [0, 1, 0, 1, 2, 3]], "int32"),
        "topic": index.copy(),
        "index": index.copy(),
        "span": np.zeros((2, 2, 2), "int32"),
    }
    for name, (place, value) in changes.items():
        if place is None:
            arrays[name] = value
        else:
            arrays[name][place] = value
    return SentenceBatch(
        ids + 4, ids * 0, ids > 0, {},
        {
            "topic": TaskDataBatch(arrays["topic"], arrays["index"]),
            "answer": TaskDataBatch(arrays["span"], index),
        },
        arrays["sequence_ids"], arrays["position_ids"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(sequence_ids=(None, np.ones((2, 6), "int32"))),
            "`sequence_ids` must be 0 at padding, and only there",
        ),
        (dict(sequence_ids=((0, 1), 2)), "in one piece"),
        (dict(position_ids=((1, 2), 2)), "`position_ids` must count from 0"),
        (dict(position_ids=((1, 2), -1)), "`position_ids` must be integers from 0 up.*least -1"),
        (dict(sequence_ids=(None, np.ones((2, 5), "int32"))), r"`sequence_ids` must be .*\(2, 6\).*\(2, 5\)"),
        (dict(topic=((1, 1), 3)), r"task 'topic'.*0 to 2"),
        (dict(topic=(None, np.zeros(2, "int32"))), r"task 'topic'.*\(2, 2\)"),
        (dict(index=(None, np.zeros(2, "int32"))), r"mask of the shape \(2, .*\(2,\)"),
        (dict(index=((0, 1), 2)), r"within it.*\[2\] for sequence 2 of row 0"),
        (dict(index=((1, 0), 5)), r"within it.*\[5\] for sequence 1 of row 1"),
        (dict(span=((0, 0), (1, 3))), r"task 'answer'.*within it.*\[0, 1, 3\] for sequence 1 of row 0"),
    ],
)
def test_faulty_packed_batches_are_refused(changes, message):
    tasks = [TaskMetadata("topic", False, 3), TaskMetadata("answer", False, kind="span")]
    with pytest.raises(ValueError, match=rf"(?s){message}"):
        train_model(encoder(), tasks, finetune_generator=[spoiled(**changes)], verbose=0)


def test_positions_and_not_rows_must_fit_the_encoder():
    tasks = [TaskMetadata("topic", False, 3)]
    sentences = [
        Sentence([5] * n, [0] * n, [True] * n, {}, {"topic": SentenceTaskData(0, 0)}) for n in (17, 3)
    ]
    packed = labelled_generator(sentences, pad_id=0, batch_size=1, max_len=20, pack=True)
    with pytest.raises(ValueError, match="sequences of 17 tokens, but the encoder has max_len=16"):
        train_model(encoder(), tasks, finetune_generator=packed, verbose=0)
    packed = labelled_generator(sentences[1:] * 9, pad_id=0, batch_size=1, max_len=20, pack=True)
    train_model(encoder(), tasks, finetune_generator=packed, verbose=0)


def test_a_doctor_counts_packed_labels_as_those_of_the_same_examples():
    """Labels of sequences anywhere in a row, none of them on padding, and the same classes."""
    alone, packed = generators()
    counts = []
    for generator in (alone, packed):
        counts.append(LabelCounts(TASKS, VOCAB))
        for batch in generator:
            counts[-1].add(batch)
    assert counts[0].labels == counts[1].labels and counts[0].labels["topic"] > 9
    assert counts[0].on_padding == counts[1].on_padding == dict.fromkeys(counts[0].labels, 0)
    np.testing.assert_array_equal(counts[0].ids, counts[1].ids)
    for name in ("topic", "mean", "tag"):
        classes = [each._classes[name].sum(axis=0) for each in counts]
        np.testing.assert_array_equal(*classes)


def test_a_doctor_watches_packed_training():
    _, packed = generators()
    doctor = Doctor(verbose=0)
    train_model(encoder(), TASKS, finetune_generator=packed, finetune_callbacks=[doctor], verbose=0)
    assert not [finding for finding in doctor.findings if "padding" in finding.symptom]
