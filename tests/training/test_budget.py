"""Time budgets under a clock that the test turns: how many steps, which learning rates, what goes on after an
interruption."""

import datetime

import keras
import numpy as np
import pytest

from bert_keras import TaskMetadata, create_recipe, create_transformer, train_model
from bert_keras.training import ProgressDecay, budget, budget_seconds

numpy = keras.ops.convert_to_numpy


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("30 min", 1800),
        ("90 s", 90),
        ("1.5 h", 5400),
        ("1 h 30 min", 5400),
        ("2 hours, 5mins", 7500),
        ("10 seconds", 10),
        (2, 2),
        (0.5, 0.5),
        (datetime.timedelta(minutes=3), 180),
    ],
)
def test_words_for_times(given, seconds):
    assert budget_seconds(given) == seconds


@pytest.mark.parametrize(
    "given", ["", "soon", "30", "30 parsecs", "1.2.3 s", "-5 s", "5 s ago", 0, -1, True, None]
)
def test_what_is_no_time(given):
    with pytest.raises(ValueError, match="`pretrain_budget` must be a time above 0"):
        budget_seconds(given, "pretrain_budget")


class Clock(keras.callbacks.Callback):
    """A clock that each step moves by `seconds(step)`, and that sees the learning rates."""

    def __init__(self, monkeypatch, seconds):
        super().__init__()
        self.time, self.seconds, self.rates = 100.0, seconds, []
        monkeypatch.setattr(budget, "now", lambda: self.time)

    def on_train_batch_begin(self, batch, logs=None):
        self.rates.append(float(numpy(self.model.optimizer.learning_rate)))
        self.time += self.seconds(len(self.rates) - 1)


RECIPE = create_recipe(
    "bert", learning_rate=1e-2, warmup=0.2, schedule="stable", decay_share=0.4, width_exponent=0.0
)


def train(source, clock, callbacks=(), steps=5, **arguments):
    arguments = {"pretrain_budget": "20 s", "recipe": RECIPE, "verbose": 0, **arguments}
    return train_model(
        create_transformer(53, 12, 16, 1, 3, 20, seed=5),
        [TaskMetadata("parity", False, 2)],
        source,
        pretrain_steps=steps,
        pretrain_callbacks=[clock, *callbacks],
        **arguments,
    )


def expected_rate(progress):
    return 1e-2 * min(1.0, progress / 0.2, (1.0 - progress) / 0.4)


def test_the_rate_follows_the_time_and_has_run_down_at_its_end(toy, monkeypatch):
    # The first step compiles, for 50 seconds that do not count. Then 12 steps of 1 s and 4 of 2 s fill 20 s.
    clock = Clock(monkeypatch, lambda step: 50.0 if step == 0 else 1.0 if step <= 12 else 2.0)
    model = train(toy(num_batches=50), clock)
    assert len(clock.rates) == 1 + 12 + 4
    assert clock.rates[0] == 0.0
    # Step k begins after k - 1 counted seconds; the rate is that of its middle, once a step was measured.
    begun = [*range(12), 12, 14, 16, 18]
    for step in range(2, 13):
        assert clock.rates[step] == pytest.approx(expected_rate((begun[step - 1] + 0.5) / 20), rel=1e-4)
    # The median still expects steps of 1 s; what is behind is exact.
    for step in range(13, 17):
        assert clock.rates[step] == pytest.approx(expected_rate((begun[step - 1] + 0.5) / 20), rel=1e-4)
    assert clock.rates[-1] < 0.2 * 1e-2
    history = model.training_history["pretrain"].history
    assert history["budget_used"] == pytest.approx([4 / 20, 9 / 20, 16 / 20, 20 / 20])


def test_validation_is_not_counted(toy, monkeypatch):
    clock = Clock(monkeypatch, lambda step: 1.0)

    class Slow(toy):
        def __getitem__(self, index):
            clock.time += 1000.0
            return super().__getitem__(index)

    train(toy(num_batches=50), clock, validation_pretrain_generator=Slow(seed=2), validation_steps=1)
    assert len(clock.rates) == 1 + 20


class InterruptedRun(Exception):
    pass


class Interrupt(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise InterruptedRun


def test_a_resumed_run_has_what_was_left(toy, monkeypatch, tmp_path):
    first = Clock(monkeypatch, lambda step: 1.0)
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    with pytest.raises(InterruptedRun):
        train(toy(num_batches=50), first, [backup, Interrupt()])
    assert len(first.rates) == 10  # 9 seconds of 20 used
    second = Clock(monkeypatch, lambda step: 70.0 if step == 0 else 1.0)
    train(toy(num_batches=50), second, [keras.callbacks.BackupAndRestore(tmp_path)])
    assert len(second.rates) == 1 + 11
    assert second.rates[0] == pytest.approx(expected_rate(9.5 / 20), rel=1e-4)
    assert second.rates[-1] == pytest.approx(expected_rate(19.5 / 20), rel=1e-4)


def test_a_real_clock(toy):
    times = []

    class Times(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            times.append(budget.now())

    model = train(toy(num_batches=50), Times(), steps=1000, pretrain_budget=1.0, recipe="modern")
    steps = np.diff(times)
    assert 1.0 - steps.max() <= steps.sum() <= 1.0 + 2 * steps.max()
    assert model.training_history["pretrain"].history["budget_used"] == [pytest.approx(1.0, abs=steps.max())]
    assert float(numpy(model.optimizer.learning_rate)) == pytest.approx(0.0, abs=1e-3 * steps.max())
    assert model.recipes["pretrain"].name == "modern"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"recipe": None, "pretrain_optimizer": "adam"}, "must come from a recipe.*'adam'"),
        ({"pretrain_epochs": 3}, "leave `pretrain_epochs` out"),
        ({"pretrain_budget": "long"}, "pretrain_budget='long'"),
        ({"finetune_budget": "1 s"}, "`finetune_budget`.*but no `finetune_generator`"),
    ],
)
def test_what_does_not_go_together(toy, monkeypatch, arguments, problem):
    with pytest.raises(ValueError, match=problem):
        train(toy(), Clock(monkeypatch, lambda step: 1.0), **arguments)


def test_a_clock_is_needed():
    with pytest.raises(ValueError, match="num_steps=None"):
        budget.TimeBudget(1.0, ProgressDecay(1.0, 10, 0.1, "linear"))
