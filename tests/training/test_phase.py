"""Fine-tuning again with what was compiled before is as if everything were fresh."""

import keras
import numpy as np
import pytest
from test_comparison import sentences

from bert_keras import (
    MultiTaskModel,
    TaskMetadata,
    TaskWeightScheduler,
    create_optimizer,
    create_transformer,
    labelled_generator,
    train_model,
)
from bert_keras.training.phase import finetune_again

TASKS = [
    TaskMetadata("topic", False, 2, dropout=0.3),
    TaskMetadata("idle", False, 3, weight_scheduler=TaskWeightScheduler(True, False)),
]


def encoder(seed):
    return create_transformer(60, 16, 16, 1, 2, 24, embedding_dropout=0.3, seed=seed)


def optimizer(steps):
    return create_optimizer(steps, 1e-2, accumulation_steps=2, head_rate=3.0)


def values(variables):
    return [keras.ops.convert_to_numpy(variable.value) for variable in variables]


def test_it_is_as_if_fresh():
    generators = [labelled_generator(sentences(40, n), pad_id=0, batch_size=16, seed=n) for n in (1, 2)]

    def trained(seed):
        return train_model(
            encoder(seed), TASKS, finetune_generator=generators[seed], finetune_epochs=2,
            finetune_optimizer=optimizer, seed=seed, verbose=0,
        )  # fmt: skip

    model, expected = trained(0), trained(1)
    compiled = model.train_function
    first = values(model.weights)
    twin = MultiTaskModel(encoder(1), TASKS, seed=1)
    start = values(twin.weights)
    finetune_again(model, twin, generators[1], 2, optimizer(2 * len(generators[1])))
    assert model.train_function is compiled
    for value, wanted, before in zip(values(model.weights), values(expected.weights), first, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-7)
        assert before.std() == 0 or np.abs(before - value).max() > 0  # it was another
    for value, wanted in zip(
        values(model.optimizer.variables), values(expected.optimizer.variables), strict=True
    ):
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-8)
    history, wanted = (each.training_history["finetune"].history for each in (model, expected))
    assert history.keys() == wanted.keys()
    for name, column in history.items():
        assert column == pytest.approx(wanted[name], rel=1e-5)
    for value, before in zip(values(twin.weights), start, strict=True):
        np.testing.assert_array_equal(value, before)  # the twin is left alone
