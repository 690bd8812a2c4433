"""The loss and the metrics, worked out by hand in NumPy."""

import keras
import numpy as np
import pytest
from gradients import gradient

from bert_keras import (
    SentenceBatch,
    TaskDataBatch,
    TaskMetadata,
    TaskWeightScheduler,
    create_transformer,
    encoder_arrays,
    evaluate_model,
)
from bert_keras.training import MultiTaskModel, training_arrays
from bert_keras.training.losses import label_losses

TAG = TaskMetadata("tag", True, 5)
LM = TaskMetadata("lm", True, 53)
TOPIC = TaskMetadata("topic", False, 3)
TASKS = [LM, TAG, TOPIC]


def make_model(tasks=TASKS, **arguments):
    encoder = create_transformer(53, 12, 16, 2, 3, 20, seed=5, **arguments)
    return MultiTaskModel(encoder, tasks, seed=3)


def make_batch(seed=0, rows=4, length=7):
    rng = np.random.default_rng(seed)
    padding = np.arange(length) < rng.integers(3, length + 1, (rows, 1))
    tokens = np.where(padding, rng.integers(5, 53, (rows, length)), 0).astype("int32")
    lm_mask = (rng.random((rows, length)) < 0.4) & padding
    tag_mask = (rng.random((rows, length)) < 0.5) & padding
    lm_mask[0, 0] = tag_mask[1, 2] = True
    index = np.array([0, 2, -1, 1], "int32")[:rows]
    return SentenceBatch(
        tokens,
        (np.arange(length) > 3).astype("int32")[None].repeat(rows, 0),
        padding,
        {
            "lm": TaskDataBatch(rng.integers(0, 53, (rows, length)).astype("int32"), lm_mask),
            "tag": TaskDataBatch(rng.integers(0, 5, (rows, length)).astype("int32"), tag_mask),
        },
        {"topic": TaskDataBatch(rng.integers(0, 3, rows).astype("int32"), index)},
    )


def log_softmax(logits):
    logits = logits.astype("float64")
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def expected(model, batch):
    """Mean loss and accuracy by task, from the hidden states of all positions."""
    hidden = model.encoder(encoder_arrays(batch), training=False)
    results = {}
    for task in model.tasks:
        head = model.heads[task.name]
        if task.is_token_level:
            target, mask = batch.token_classification[task.name]
            logits = keras.ops.convert_to_numpy(head(hidden))[mask]
            target = target[mask]
        else:
            target, index = batch.sentence_classification[task.name]
            rows = np.flatnonzero(index >= 0)
            states = keras.ops.convert_to_numpy(hidden)[rows, index[rows]]
            logits = keras.ops.convert_to_numpy(head(model.pooler(states)))
            target = target[rows]
        losses = -log_softmax(logits)[np.arange(len(target)), target]
        results[task.name] = (losses.mean(), (logits.argmax(-1) == target).mean(), len(target))
    return results


def loss_of(model, batch, weights, tasks=TASKS):
    x, y = training_arrays(batch, tasks, weights)
    if not getattr(model, "compiled", False):
        model.compile(optimizer="sgd")
    return model.test_on_batch(x, y, return_dict=True)


def test_each_task_is_a_mean_over_its_labelled_positions_times_its_weight():
    model, batch = make_model(), make_batch()
    weights = [0.5, 2.0, 3.0]
    logs = loss_of(model, batch, weights)
    by_hand = expected(model, batch)
    assert {name: count for name, (_, _, count) in by_hand.items()}["topic"] == 3
    total = sum(w * by_hand[task.name][0] for w, task in zip(weights, TASKS, strict=True))
    assert logs["loss"] == pytest.approx(total, rel=1e-5)
    for name, (loss, accuracy, _) in by_hand.items():
        assert logs[f"{name}_loss"] == pytest.approx(loss, rel=1e-5)
        assert logs[f"{name}_accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert logs["lm_perplexity"] == pytest.approx(np.exp(by_hand["lm"][0]), rel=1e-4)


def test_means_over_several_batches_count_labels_not_batches():
    model = make_model()
    batches = [make_batch(0, rows=4), make_batch(1, rows=4), make_batch(2, rows=4)]
    batches[1].token_classification["tag"].target_mask[1:] = False
    logs = evaluate_model(model, batches)
    for task in TASKS:
        values = [expected(model, batch)[task.name] for batch in batches]
        count = sum(n for _, _, n in values)
        assert logs[f"{task.name}_loss"] == pytest.approx(sum(v * n for v, _, n in values) / count, rel=1e-5)
        assert logs[f"{task.name}_accuracy"] == pytest.approx(
            sum(a * n for _, a, n in values) / count, abs=1e-6
        )


def test_rows_without_labels_change_nothing():
    model, batch = make_model(), make_batch()
    alone = loss_of(model, batch, [1.0, 1.0, 1.0])
    more = make_batch(9)
    for labels in more.token_classification.values():
        labels.target_mask[:] = False
    more.sentence_classification["topic"].target_mask[:] = -1
    joined = SentenceBatch(
        *(
            np.concatenate([getattr(batch, name), getattr(more, name)])
            for name in ("tokens", "segments", "padding_mask")
        ),
        {
            name: TaskDataBatch(
                *map(np.concatenate, zip(labels, more.token_classification[name], strict=True))
            )
            for name, labels in batch.token_classification.items()
        },
        {
            name: TaskDataBatch(
                *map(np.concatenate, zip(labels, more.sentence_classification[name], strict=True))
            )
            for name, labels in batch.sentence_classification.items()
        },
    )
    model.reset_metrics()
    together = loss_of(model, joined, [1.0, 1.0, 1.0])
    for name, value in alone.items():
        assert together[name] == pytest.approx(value, rel=1e-5)


def test_a_batch_without_any_label_for_a_task_adds_nothing_and_trains_on():
    batch = make_batch()
    batch.token_classification["tag"].target_mask[:] = False
    model = make_model()
    head = [keras.ops.convert_to_numpy(v) for v in model.heads["tag"].weights]
    x, y = training_arrays(batch, TASKS, [1.0, 1.0, 1.0])
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    logs = model.train_on_batch(x, y, return_dict=True)
    assert np.isfinite(logs["loss"]) and logs["tag_loss"] == 0.0
    for before, after in zip(head, model.heads["tag"].weights, strict=True):
        np.testing.assert_array_equal(before, keras.ops.convert_to_numpy(after))


def test_the_gradient_of_the_short_way_equals_that_of_the_long_way():
    """Logits at labelled positions only, against Keras' own losses over the logits of all positions."""
    batch = make_batch()
    no_dropout = {"embedding_dropout": 0.0, "attention_dropout": 0.0, "residual_dropout": 0.0}
    short = make_model([LM], **no_dropout)
    short.compile(optimizer=keras.optimizers.SGD(1.0))
    short.train_on_batch(*training_arrays(batch, [LM], [1.0]))
    long = make_model([LM], **no_dropout)
    long.compile(
        optimizer=keras.optimizers.SGD(1.0),
        loss={"lm": keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")},
    )
    target, mask = batch.token_classification["lm"]
    long.train_on_batch(encoder_arrays(batch), {"lm": target}, {"lm": mask.astype("float32") / mask.sum()})
    for one, other in zip(short.weights, long.weights, strict=True):
        one, other = keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other)
        np.testing.assert_allclose(one, other, atol=2e-5, err_msg=str(short.weights))


def test_the_decoder_is_the_token_embedding():
    model = make_model()
    assert sum(v.shape == (53, 12) for v in model.weights) == 1
    arrays = encoder_arrays(make_batch())
    before = model.predict(arrays, verbose=0)["lm"]
    table = model.encoder.token_embedding.embeddings
    values = keras.ops.convert_to_numpy(table).copy()
    values[50] *= 2.0
    table.assign(values)
    after = model.predict(arrays, verbose=0)["lm"]
    assert not (encoder_arrays(make_batch())["token_ids"] == 50).any()
    np.testing.assert_allclose(after[..., 50], 2.0 * before[..., 50], rtol=1e-4, atol=1e-6)


def test_predicted_shapes_and_building_on():
    model = make_model()
    arrays = encoder_arrays(make_batch())
    shapes = {name: logits.shape for name, logits in model.predict(arrays, verbose=0).items()}
    assert shapes == {"lm": (4, 7, 53), "tag": (4, 7, 5), "topic": (4, 3)}
    extended = keras.Model(model.input, keras.layers.Dense(2, name="extra")(model.output["topic"]))
    assert extended.predict(arrays, verbose=0).shape == (4, 2)


def test_inactive_tasks_keep_their_heads(toy, toy_tasks):
    from bert_keras import train_model

    encoder = create_transformer(53, 12, 16, 1, 3, 20, seed=5)
    model = train_model(encoder, toy_tasks, toy(), pretrain_steps=2, verbose=0)
    lm_head = [keras.ops.convert_to_numpy(v) for v in model.heads["lm"].own_variables()]
    parity = [keras.ops.convert_to_numpy(v) for v in model.heads["parity"].own_variables()]
    again = train_model(model, toy_tasks, finetune_generator=toy(), finetune_steps=3, verbose=0)
    assert again is model and all(v.trainable for v in model.heads["lm"].own_variables())
    for before, after in zip(lm_head, model.heads["lm"].own_variables(), strict=True):
        np.testing.assert_array_equal(before, keras.ops.convert_to_numpy(after))
    changed = [
        np.abs(b - keras.ops.convert_to_numpy(a)).max()
        for b, a in zip(parity, again.heads["parity"].own_variables(), strict=True)
    ]
    assert max(changed) > 0


def test_the_weight_of_a_task_changes_at_every_step(toy):
    """Through the losses: SGD at rate 0 keeps the model, so each step's total loss is weight times a known
    loss."""
    from bert_keras import train_model

    class Ramp(TaskWeightScheduler):
        def get(self, is_pretrain, step):
            return 0.25 * step

    totals = []

    class Totals(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            totals.append(float(logs["loss"]))

    task = TaskMetadata("parity", False, 2, 0.0, Ramp(True, False))
    off = {"embedding_dropout": 0.0, "attention_dropout": 0.0, "residual_dropout": 0.0}
    encoder = create_transformer(53, 12, 16, 1, 3, 20, seed=5, **off)
    train_model(
        encoder,
        [task],
        toy(num_batches=3),
        pretrain_steps=3,
        pretrain_epochs=2,
        pretrain_optimizer=keras.optimizers.SGD(0.0),
        pretrain_callbacks=[Totals()],
        verbose=0,
    )
    model = MultiTaskModel(encoder, [task], seed=0)
    losses = [expected(model, toy()[step])["parity"][0] for step in range(6)]
    steps = np.array([0.25 * step * loss for step, loss in enumerate(losses)])
    # Keras shows the running mean within an epoch.
    shown = np.concatenate([np.cumsum(part) / np.arange(1, 4) for part in (steps[:3], steps[3:])])
    np.testing.assert_allclose(totals, shown, rtol=1e-5, atol=1e-7)


def test_a_causal_encoder_is_read_at_its_last_token():
    encoder = create_transformer(53, 12, 16, 1, 3, 20, is_causal=True, seed=5)
    model = MultiTaskModel(encoder, [TOPIC], seed=3)
    batch = make_batch()
    arrays = encoder_arrays(batch)
    hidden = keras.ops.convert_to_numpy(encoder(arrays, training=False))
    last = batch.padding_mask.sum(1) - 1
    states = hidden[np.arange(4), last]
    by_hand = keras.ops.convert_to_numpy(model.heads["topic"](model.pooler(states)))
    np.testing.assert_allclose(model.predict(arrays, verbose=0)["topic"], by_hand, atol=1e-5)


@pytest.mark.parametrize("classes", [2, 700])
def test_cross_entropy_and_its_gradient_by_hand(classes):
    rng = np.random.default_rng(4)
    logits = (30 * rng.normal(size=(9, classes))).astype("float32")
    logits[0] = 0.0
    targets = rng.integers(0, classes, 9).astype("int32")
    upstream = rng.normal(size=9).astype("float32")
    task = TaskMetadata("topic", False, classes)

    def losses(array):
        return label_losses(task, array, keras.ops.convert_to_tensor(targets))

    exact = log_softmax(logits)
    found = keras.ops.convert_to_numpy(losses(keras.ops.convert_to_tensor(logits)))
    np.testing.assert_allclose(found, -exact[np.arange(9), targets], rtol=1e-5, atol=1e-5)
    expected = (np.exp(exact) - np.eye(classes)[targets]) * upstream[:, None]
    weighted = gradient(
        lambda array: keras.ops.sum(losses(array) * keras.ops.convert_to_tensor(upstream)), logits
    )
    np.testing.assert_allclose(weighted, expected, rtol=1e-4, atol=1e-6)
