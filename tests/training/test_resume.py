"""An interrupted run, resumed by Keras' own callback, ends in the same weights to the bit."""

import keras
import numpy as np
import pytest

from bert_keras import TaskMetadata, create_optimizer, create_transformer, train_model

STEPS, EPOCHS = 3, 4


class InterruptedRun(Exception):
    pass


class Interrupt(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise InterruptedRun


def train(generator, callbacks, optimizer=None):
    tasks = [TaskMetadata("lm", True, 53, 0.1), TaskMetadata("parity", False, 2, 0.1)]
    return train_model(
        create_transformer(53, 12, 16, 1, 3, 20, seed=5),
        tasks,
        generator,
        pretrain_steps=STEPS,
        pretrain_epochs=EPOCHS,
        pretrain_optimizer=optimizer or create_optimizer(STEPS * EPOCHS, 1e-2),
        pretrain_callbacks=callbacks,
        verbose=0,
    )


def test_resuming_goes_on_exactly(toy, tmp_path):
    asked = []

    class Recorded(toy):
        def __getitem__(self, index):
            asked.append(index)
            return super().__getitem__(index)

    whole = train(toy(num_batches=50), [])
    backup = tmp_path / "backup"
    with pytest.raises(InterruptedRun):
        train(toy(num_batches=50), [keras.callbacks.BackupAndRestore(backup), Interrupt()])
    resumed = train(Recorded(num_batches=50), [keras.callbacks.BackupAndRestore(backup)])
    # Batch 0 is looked at before training starts; training goes on with the third epoch's.
    assert [index for index in dict.fromkeys(asked) if 0 < index < STEPS * EPOCHS] == list(range(6, 12))
    for one, other in zip(whole.weights, resumed.weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other))


class WeightsBefore(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            self.found = [array.copy() for array in self.model.get_weights()]


def test_a_backup_of_another_optimizer_gives_weights_and_says_what_it_does_not_give(toy, tmp_path):
    at_stop, at_start = WeightsBefore(2), WeightsBefore(2)
    with pytest.raises(InterruptedRun):
        train(toy(num_batches=50), [keras.callbacks.BackupAndRestore(tmp_path), at_stop, Interrupt()])
    with pytest.warns(UserWarning, match=r"another optimizer than this run's \(SGD\)"):
        train(
            toy(num_batches=50),
            [keras.callbacks.BackupAndRestore(tmp_path), at_start],
            keras.optimizers.SGD(1e-3),
        )
    for one, other in zip(at_stop.found, at_start.found, strict=True):
        np.testing.assert_array_equal(one, other)
