"""Several sources in one run: what a step learns, under which weights, is what it would be alone."""

import keras
import numpy as np
import pytest

from bert_keras import (
    LinearSchedule,
    SentenceBatch,
    SwitchSchedule,
    TaskDataBatch,
    TaskMetadata,
    TaskWeightScheduler,
    create_transformer,
    mixed_generator,
    train_model,
)
from bert_keras.training import create_optimizer

LENGTH = 6


def tagged(number, seed=0):
    """Batches for the task `tag`, and others for `topic`."""
    batches = []
    for i in range(number):
        rng = np.random.default_rng([seed, i])
        tokens = rng.integers(5, 40, (3, LENGTH)).astype("int32")
        everywhere = np.ones(tokens.shape, bool)
        tags = TaskDataBatch(rng.integers(0, 4, tokens.shape).astype("int32"), everywhere)
        topics = TaskDataBatch(rng.integers(0, 3, 3).astype("int32"), np.zeros(3, "int32"))
        segments = np.zeros_like(tokens)
        if seed == 0:
            batches.append(SentenceBatch(tokens, segments, everywhere, {"tag": tags}, {}))
        else:
            batches.append(SentenceBatch(tokens, segments, everywhere, {}, {"topic": topics}))
    return batches


def encoder():
    return create_transformer(
        40, 12, 16, 1, 3, 20, seed=5, embedding_dropout=0.0, attention_dropout=0.0, residual_dropout=0.0
    )


class Recorded(keras.callbacks.Callback):
    """Losses of every epoch; epochs of one step make them losses of steps."""

    def __init__(self):
        super().__init__()
        self.logs = []

    def on_epoch_end(self, epoch, logs=None):
        self.logs.append(dict(logs))


def run(tasks, generator, steps, optimizer, **arguments):
    recorded = Recorded()
    model = train_model(
        encoder(), tasks, finetune_generator=generator, finetune_steps=1, finetune_epochs=steps,
        finetune_optimizer=optimizer, finetune_callbacks=[recorded], verbose=0, **arguments,
    )  # fmt: skip
    return model, recorded.logs


def weights_of(model):
    return [keras.ops.convert_to_numpy(v.value) for v in model.trainable_variables]


def close(model, other, atol=1e-6):
    for one, two in zip(weights_of(model), weights_of(other), strict=True):
        np.testing.assert_allclose(one, two, atol=atol, rtol=1e-5)


def test_a_step_on_one_source_is_as_without_the_others():
    """Losses and weights equal those of a run on one source that never was mixed."""
    tag, topic = TaskMetadata("tag", True, 4), TaskMetadata("topic", False, 3)
    mixed = mixed_generator(
        {"tags": tagged(3), "topics": tagged(3, seed=1)}, shares=lambda step: {"tags": 1.0}
    )
    model, logs = run([tag, topic], mixed, 3, keras.optimizers.SGD(0.1))
    alone, logs_alone = run([tag, topic], [_with_topic(b) for b in tagged(3)], 3, keras.optimizers.SGD(0.1))
    for one, other in zip(logs, logs_alone, strict=True):
        assert one["loss"] == pytest.approx(one["tag_loss"], rel=1e-6)
        assert one["tag_loss"] == pytest.approx(other["tag_loss"], rel=1e-6)
        assert one["topic_loss"] == 0.0
    close(model, alone)


def _with_topic(batch):
    empty = TaskDataBatch(np.zeros(3, "int32"), np.full(3, -1, "int32"))
    return SentenceBatch(
        batch.tokens, batch.segments, batch.padding_mask, batch.token_classification, {"topic": empty}
    )


SCHEDULE = LinearSchedule(0.0, 6.0, num_steps=6)


def expected_weights(accumulation, steps=6):
    """Weights of a run with plain SGD, each step's gradient scaled by hand through the learning rate."""
    task = TaskMetadata("tag", True, 4)
    values = [SCHEDULE.get(False, step) for step in range(steps)]
    if accumulation == 1:
        rates = keras.optimizers.schedules.PiecewiseConstantDecay(
            list(range(steps - 1)), [0.05 * value for value in values]
        )
        return run([task], tagged(steps), steps, keras.optimizers.SGD(rates))[0]
    batches = tagged(steps)
    joined = [_joined(batches[i : i + 2], values[i : i + 2]) for i in range(0, steps, 2)]
    means = [np.mean(values[i : i + 2]) for i in range(0, steps, 2)]
    rates = keras.optimizers.schedules.PiecewiseConstantDecay([0, 1], [0.05 * m for m in means])
    return run([task], joined, steps // 2, keras.optimizers.SGD(rates))[0]


def _joined(batches, values):
    """Two batches as one whose rows are repeated in proportion to the weights."""
    rows = [batch for batch, value in zip(batches, values, strict=True) for _ in range(round(value))]
    target = np.concatenate([b.token_classification["tag"].target for b in rows])
    tokens = np.concatenate([b.tokens for b in rows])
    mask = np.ones(tokens.shape, bool)
    return SentenceBatch(tokens, np.zeros_like(tokens), mask, {"tag": TaskDataBatch(target, mask)}, {})


@pytest.mark.parametrize("accumulation", [1, 2])
def test_schedules_take_effect_at_the_right_step(accumulation):
    """By SGD, a weight is a factor on the learning rate of its step; accumulated, on its batch's share."""
    task = TaskMetadata("tag", True, 4, weight_scheduler=SCHEDULE)
    optimizer = keras.optimizers.SGD(
        0.05, gradient_accumulation_steps=None if accumulation == 1 else accumulation
    )
    model, logs = run([task], tagged(6), 6, optimizer)
    assert [log["tag_weight"] for log in logs] == pytest.approx([0, 1, 2, 3, 4, 5])
    for log in logs:
        assert log["loss"] == pytest.approx(log["tag_weight"] * log["tag_loss"], rel=1e-5, abs=1e-7)
    close(model, expected_weights(accumulation), atol=2e-6)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch takes one step at a time")
def test_schedules_with_several_steps_per_execution():
    task = TaskMetadata("tag", True, 4, weight_scheduler=SCHEDULE)
    model = train_model(
        encoder(), [task], finetune_generator=tagged(6), finetune_steps=6, steps_per_execution=3,
        finetune_optimizer=keras.optimizers.SGD(0.05), verbose=0,
    )  # fmt: skip
    close(model, expected_weights(1), atol=2e-6)


def test_tasks_that_change_places():
    """Pretraining fades into fine-tuning within one run, and what is logged says so."""

    def late(step):
        return 2.0 if step >= 2 else 0.0

    tasks = [
        TaskMetadata("tag", True, 4, weight_scheduler=SwitchSchedule([1.0, 0.0], 2)),
        TaskMetadata("topic", False, 3, weight_scheduler=TaskWeightScheduler(False, True, 1.0, late)),
    ]
    sources = {"tags": tagged(4), "topics": tagged(4, seed=1)}
    mixed = mixed_generator(sources, shares=lambda step: {"tags": 1.0} if step < 2 else {"topics": 1.0})
    _, logs = run(tasks, mixed, 4, create_optimizer(4, 1e-3))
    assert [(log["tag_weight"], log["topic_weight"]) for log in logs] == [(1, 0)] * 2 + [(0, 2)] * 2
    for step, log in enumerate(logs):
        wanted = log["tag_loss"] if step < 2 else 2 * log["topic_loss"]
        assert log["loss"] == pytest.approx(wanted, rel=1e-5)


def test_a_schedule_that_gives_no_number():
    class Nothing(TaskWeightScheduler):
        def get(self, is_pretrain, step):
            return None

    task = TaskMetadata("tag", True, 4, weight_scheduler=Nothing(False, True))
    with pytest.raises(ValueError, match="'tag' must give a finite weight.*Received: None at step 0"):
        run([task], tagged(2), 2, create_optimizer(2, 1e-3))


def test_a_function_that_fails_is_named_by_its_task():
    weight = TaskWeightScheduler(False, True, finetune_value=lambda step: 1.0 if step == 0 else None)
    task = TaskMetadata("tag", True, 4, weight_scheduler=weight)
    with pytest.raises(TypeError, match="must give a number. Received: None at step 1") as caught:
        run([task], tagged(2), 2, create_optimizer(2, 1e-3))
    assert "The schedule of task 'tag' was asked for its weight at step 1." in caught.value.__notes__
