"""Every symptom is provoked, and a healthy run has none."""

import collections
import pickle
import re
import threading

import keras
import numpy as np
import pytest

from bert_keras import (
    Doctor,
    MultiTaskModel,
    SentenceBatch,
    SwitchSchedule,
    TaskDataBatch,
    TaskMetadata,
    TaskWeightScheduler,
    create_optimizer,
    create_transformer,
    diagnose,
    encoder_inputs,
    train_model,
)
from bert_keras.training import budget
from bert_keras.training.nonfinite import break_point, first_nonfinite_layer
from bert_keras.training.symptoms import LabelCounts, learning_rate_problems, slow_feed, standing_at
from bert_keras.training.watched_source import watched

NO_DROPOUT = {"embedding_dropout": 0.0, "attention_dropout": 0.0, "residual_dropout": 0.0}
LM = TaskMetadata("lm", True, 53)
PARITY = TaskMetadata("parity", False, 2)


def encoder(**arguments):
    return create_transformer(53, 24, 16, 1, 2, 40, seed=5, **{**NO_DROPOUT, **arguments})


def symptoms(findings):
    return [finding.symptom for finding in findings]


def run(source, doctor, optimizer, steps=40, tasks=(LM,), callbacks=(), phase="pretrain", **arguments):
    arguments[f"{phase}_generator"] = source
    arguments[f"{phase}_steps"] = steps
    arguments[f"{phase}_optimizer"] = optimizer
    arguments[f"{phase}_callbacks"] = [doctor, *callbacks]
    quick = {"norm_placement": "pre", "position_embedding": "rotary"}
    return train_model(encoder(**quick), tasks, verbose=0, **arguments)


class Zipf:
    """Tokens of different frequency, none of which tells of another."""

    frequencies = 1.0 / np.arange(1, 49)

    def __len__(self):
        return 1000

    def __getitem__(self, index):
        rng = np.random.default_rng([3, index])
        tokens = 5 + rng.choice(48, (32, 11), p=self.frequencies / self.frequencies.sum()).astype("int32")
        mask = np.zeros(tokens.shape, bool)
        mask[:, 2:6] = True
        inputs = np.where(mask, 4, tokens).astype("int32")
        padding_mask = np.ones(tokens.shape, bool)
        return SentenceBatch(inputs, 0 * inputs, padding_mask, {"lm": TaskDataBatch(tokens, mask)}, {})


def test_a_healthy_run(toy, capsys):
    doctor = Doctor(patience=50)
    model = run(toy(batch_size=32, num_batches=200), doctor, create_optimizer(100, 1e-2), steps=100)
    assert doctor.findings == [] == diagnose(model, [toy()[i] for i in range(40)], patience=50)
    assert capsys.readouterr().out == ""
    assert model.training_history["pretrain"].history["lm_loss"][0] < np.log(48)


def test_standing_at_the_unigram_loss(capsys):
    doctor = Doctor(patience=30)
    source = Zipf()
    model = run(source, doctor, create_optimizer(80, 1e-2), steps=80)
    assert symptoms(doctor.findings) == ["The task 'lm' stands at its unigram loss"]
    p = source.frequencies / source.frequencies.sum()
    entropy = -(p * np.log(p)).sum()
    gives = float(re.search(r"gives ([\d.]+)\.$", doctor.findings[0].evidence).group(1))
    assert gives == pytest.approx(entropy, abs=0.05) and "since step" in doctor.findings[0].evidence
    assert "Doctor: The task 'lm' stands" in capsys.readouterr().out
    counts = LabelCounts([LM], 53)
    for index in range(64):
        counts.add(source[index])
    assert counts.unigram_loss("lm") == pytest.approx(entropy, abs=0.03)
    assert diagnose(model, [source[i] for i in range(9)]) == []  # one epoch's mean tells too little


def test_when_a_loss_stands():
    steps, losses = [10, 20, 30, 40, 50], [5.0, 3.2, 3.03, 2.98, 3.01]
    (finding,) = standing_at("lm", steps, losses, 3.0, 20)
    assert "since step 30 (for 20 steps)" in finding.evidence
    assert standing_at("lm", steps, losses, 3.0, 21) == []  # not long enough
    assert standing_at("lm", steps, [*losses[:-1], 2.7], 3.0, 20) == []  # it has left
    assert standing_at("lm", steps, losses, 2.0, 20) == []  # it is not there yet
    assert standing_at("lm", steps, losses, None, 20) == []


def test_learning_rates(toy):
    high, low = Doctor(verbose=0), Doctor(verbose=0)
    run(toy(batch_size=16, num_batches=200), high, keras.optimizers.Adam(3.0))
    assert symptoms(high.findings) == ["The learning rate is too high"]
    assert "% of their size; gradients of size" in high.findings[0].evidence
    run(toy(batch_size=16, num_batches=200), low, keras.optimizers.Adam(1e-8))
    assert symptoms(low.findings) == ["The learning rate is too low"]


def test_learning_rates_by_hand():
    assert symptoms(learning_rate_problems([5, 4, 4, 6, 6], [0.1], [])) == ["The learning rate is too high"]
    assert learning_rate_problems([5, 4, 4, 6, 6], [0.01], []) == []  # the steps are small: not the rate
    assert learning_rate_problems([5, 4, 3, 2, 2], [0.1], []) == []
    [found] = learning_rate_problems([300, 250, 200, 190], [0.1], [], times_unigram=48.7)
    assert found.symptom == "The learning rate is too high" and "48.7 times the unigram" in found.evidence
    assert learning_rate_problems([300, 250, 200, 190], [0.001], [], times_unigram=48.7) == []
    assert symptoms(learning_rate_problems([5, 5, 5, 4.9], [1e-6], [])) == ["The learning rate is too low"]
    assert learning_rate_problems([5, 4, 3, 2], [1e-6], []) == []
    assert learning_rate_problems([5, 5, 5, 4.9], [], []) == []


class Step(keras.callbacks.Callback):
    """A clock on which a step takes 0.1 s, apart from the feed.

    A thread that makes batches sees the time it spent itself, the training the time of all.
    """

    def __init__(self, monkeypatch):
        super().__init__()
        self.seconds = collections.defaultdict(float)
        monkeypatch.setattr(budget, "now", self.now)

    def now(self):
        if threading.current_thread() is threading.main_thread():
            return sum(list(self.seconds.values()))
        return self.seconds[threading.get_ident()]

    def pass_by(self, seconds):
        self.seconds[threading.get_ident()] += seconds

    def on_train_batch_begin(self, batch, logs=None):
        self.pass_by(0.1)


def test_faults_of_batches_schedules_and_feeds(toy, monkeypatch):
    clock = Step(monkeypatch)

    class Faulty(toy):
        def __getitem__(self, index):
            clock.pass_by(1.0)
            batch = super().__getitem__(index)
            batch.token_classification["lm"].target_mask[:, -1] = True  # rows are mostly shorter
            batch.tokens = np.minimum(batch.tokens, 9)
            unlabelled = np.full(len(batch.tokens), -1, "int32")
            batch.sentence_classification["absent"] = TaskDataBatch(0 * unlabelled, unlabelled)
            return batch

    late = TaskMetadata("parity", False, 2, weight_scheduler=SwitchSchedule([0.0, 1.0], steps=1000))
    absent = TaskMetadata("absent", False, 2)
    doctor = Doctor(verbose=0)
    source = Faulty(batch_size=32)
    optimizer = create_optimizer(20, 1e-3)
    model = run(source, doctor, optimizer, 20, [LM, late, absent], [clock], phase="finetune")
    faults = [
        "The encoder's weights were never restored",
        "The schedule never let the task 'parity' count",
        "Most token ids are never seen",
        "Labels of the task 'lm' fall on padding",
        "The task 'absent' has no labels",
        "The feed is slower than the device",
    ]
    assert symptoms(doctor.findings) == faults
    by_symptom = {finding.symptom: finding.evidence for finding in doctor.findings}
    assert "47 of 53 ids" in by_symptom[faults[2]] and "the highest that does is 9" in by_symptom[faults[2]]
    assert "0 labelled positions" in by_symptom[faults[4]]
    assert "making a batch took 1000.0 ms" in by_symptom[faults[5]]
    afterwards = diagnose(model, [source[i] for i in range(12)], phase="finetune")
    assert symptoms(afterwards) == [*faults[2:5], faults[1]]
    assert "\n  seen:   fine-tuning starts with fresh weights" in str(doctor.findings[0])


def test_when_a_feed_is_slow():
    (finding,) = slow_feed(0.9, 1.0, 10, False)
    assert "took 90.0 ms, a training step with the wait for it 100.0 ms" in finding.evidence
    assert (
        slow_feed(0.7, 1.0, 10, False) == [] == slow_feed(0.4, 1.0, 10, True) == slow_feed(0.9, 1.0, 4, True)
    )
    assert len(slow_feed(0.7, 1.0, 10, True)) == 1


def test_ids_out_of_range(toy):
    model = train_model(encoder(), [LM], toy(), pretrain_steps=1, verbose=0)
    batch = toy()[0]
    batch.tokens = batch.tokens + 50
    batch.tokens[0, 0] = -2
    (finding,) = diagnose(model, [batch])
    assert finding.symptom == "Token ids are out of range" and "ids from -2 to" in finding.evidence
    with pytest.raises(ValueError, match="phase='both'"):
        diagnose(model, [], phase="both")


@keras.saving.register_keras_serializable(package="tests")
class Root(keras.layers.Layer):
    """The square root of hidden states minus one number: no number where they are below it."""

    def call(self, hidden, token_ids):
        below = keras.ops.cast(keras.ops.equal(token_ids, 52), hidden.dtype)[:, :, None]
        return hidden + keras.ops.sqrt(1.0 - 2.0 * below)


def test_the_first_layer_with_a_nan(toy):
    class Late(toy):
        def __getitem__(self, index):
            batch = super().__getitem__(index)
            batch.tokens = np.minimum(batch.tokens, 51 if index < 13 else 52)
            batch.tokens[0, 0] = 51 if index < 13 else 52
            return batch

    inputs = encoder_inputs()
    hidden = keras.layers.Embedding(53, 12, name="token_embedding")(inputs["token_ids"])
    hidden = keras.layers.Dense(12, name="before")(hidden)
    hidden = Root(name="root")(hidden, inputs["token_ids"])
    own = keras.Model(inputs, keras.layers.Dense(12, name="after")(hidden))
    doctor = Doctor(verbose=0)
    arguments = {"pretrain_optimizer": "sgd", "pretrain_callbacks": [doctor], "verbose": 0}
    model = train_model(own, [LM], Late(num_batches=50), pretrain_steps=16, **arguments)
    (finding,) = doctor.findings
    assert (
        finding.symptom == "The loss is not a number" and "first in step 14: lm_loss=nan" in finding.evidence
    )
    assert "weights are not finite, the first is token_embedding/embeddings" in finding.evidence
    assert "The first layer whose output is not finite is 'root'." in finding.evidence
    assert symptoms(diagnose(model)) == ["The loss is not a number", "Weights are not finite"]


def test_the_first_layer_by_its_weights(toy):
    model = MultiTaskModel(encoder(), [LM, PARITY])
    batch = toy()[0]
    assert first_nonfinite_layer(model, model.tasks, batch) is None
    assert break_point(model, model.tasks, batch, None).startswith("All layers give finite numbers")
    variable = next(v for v in model.weights if v.path == "layer_0/feedforward_in/bias")
    variable.assign(np.full(variable.shape, np.inf, "float32"))
    assert first_nonfinite_layer(model, model.tasks, batch) == "layer_0/feedforward_in"
    words = break_point(model, model.tasks, batch, None)
    assert words.startswith(f"1 of {len(model.weights)} weights are not finite, the first is layer_0/feedf")
    assert "not at hand" in break_point(model, model.tasks, None, None)


class InterruptedRun(Exception):
    pass


class Interrupt(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise InterruptedRun


def test_an_optimizer_that_was_not_restored(toy, tmp_path):
    def train(optimizer, *callbacks):
        doctor = Doctor(verbose=0)
        backup = keras.callbacks.BackupAndRestore(tmp_path)
        callbacks = [backup, *callbacks]
        run(toy(num_batches=50), doctor, optimizer, 2, callbacks=callbacks, pretrain_epochs=3)
        return doctor.findings

    with pytest.raises(InterruptedRun):
        train("sgd", Interrupt())
    with pytest.warns(UserWarning, match="the state of another optimizer than this run's"):
        findings = train("adam")
    assert symptoms(findings) == ["The optimizer's state was never restored"]


def test_a_doctor_needs_train_model():
    with pytest.raises(ValueError, match="watches the phases of `train_model`"):
        Doctor().on_train_begin()


def test_a_task_that_is_never_active(toy):
    task = TaskMetadata("parity", False, 2, weight_scheduler=TaskWeightScheduler(True, False))
    model = train_model(encoder(), [task], toy(), pretrain_steps=1, verbose=0)
    with pytest.raises(ValueError, match="No task is active in the phase 'finetune'"):
        diagnose(model, phase="finetune")


def test_a_watched_source(toy):
    sized = watched(toy(num_batches=3))
    assert len(sized) == 3 and sized.vocab_size == 53
    first = sized[0]
    sized[0], sized[2]
    assert len(sized.uncounted()) == 2 and sized.uncounted() == []
    assert sized.kept(0) is not None and sized.kept(5) is sized.kept(2) and sized.making()[1] == 3
    again = pickle.loads(pickle.dumps(watched([1, 2])))
    assert again[1] == 2 and not hasattr(watched(type("Endless", (), {})()), "__len__")
    assert watched(sized).source is sized.source and first.tokens.shape == (6, 11)
