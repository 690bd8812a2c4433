"""Batches prepared in the background: the same in the same order, and stopped cleanly."""

import threading
import time

import keras
import numpy as np
import pytest

from bert_keras import TaskMetadata, create_transformer, evaluate_model, train_model
from bert_keras.training.prefetch import THREAD_NAME, Prefetcher

PARITY = TaskMetadata("parity", False, 2, 0.1)


def encoder():
    return create_transformer(53, 8, 16, 1, 2, 12, seed=5)


def left_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(THREAD_NAME)]


def train(generator, **arguments):
    return train_model(
        encoder(), [PARITY], finetune_generator=generator, verbose=0, **{"finetune_steps": 5, **arguments}
    )


def test_numbers_come_in_order_whatever_they_take():
    waiting, most, lock = 0, 0, threading.Lock()

    def prepare(number):
        nonlocal waiting, most
        time.sleep(0.001 * (7 * number % 4))
        with lock:
            waiting += 1
            most = max(most, waiting)
        return number * number

    prefetcher = Prefetcher(prepare, workers=3, end=40)
    for number in range(40):
        assert prefetcher.get(number) == number * number
        with lock:
            waiting -= 1
    assert 2 <= most <= prefetcher.ahead + 1 == 7  # bounded memory
    prefetcher.close()
    assert waiting == 0 and left_threads() == []


def test_beginning_anew():
    asked = []
    prefetcher = Prefetcher(lambda number: asked.append(number) or number, workers=1)
    assert [prefetcher.get(number) for number in (5, 6, 2, 3, 90)] == [5, 6, 2, 3, 90]
    prefetcher.close()
    assert asked[0] == 5 and 90 in asked and set(asked) <= {*range(2, 10), *range(90, 93)}


def test_an_exception_is_raised_at_its_number():
    def prepare(number):
        if number == 2:
            raise RuntimeError("number 2 is spoiled")
        return number

    prefetcher = Prefetcher(prepare, workers=2)
    assert [prefetcher.get(0), prefetcher.get(1)] == [0, 1]
    with pytest.raises(RuntimeError, match="number 2 is spoiled"):
        prefetcher.get(2)
    assert prefetcher.get(3) == 3
    prefetcher.close()
    assert left_threads() == []


def test_histories_do_not_depend_on_the_number_of_workers(toy):
    histories, scores = [], []
    for workers in (0, 1, 2):
        model = train(
            toy(),
            workers=workers,
            finetune_epochs=2,
            validation_finetune_generator=toy(num_batches=3, seed=1),
        )
        histories.append(model.training_history["finetune"].history)
        scores.append(evaluate_model(model, toy(num_batches=3, seed=1)))
        assert left_threads() == []
    assert {"loss", "val_loss", "val_parity_macro_f1"} <= {*histories[0]}
    assert histories[0] == histories[1] == histories[2] and scores[0] == scores[1] == scores[2]


class Spoiled:
    """Batch 3 cannot be made, or does not fit."""

    def __init__(self, toy, how):
        self.toy, self.how = toy(), how

    def __len__(self):
        return 7

    def __getitem__(self, index):
        batch = self.toy[index]
        if index == 3 and self.how == "raises":
            raise ZeroDivisionError("batch 3 is spoiled")
        if index == 3:
            batch.tokens[0, 0] = 99
        return batch


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("raises", ZeroDivisionError, "batch 3 is spoiled"),
        ("does not fit", ValueError, "Batch 3 of `finetune_generator`: token ids must be from 0 to 52"),
    ],
)
def test_errors_reach_the_user(toy, workers, how, error, message):
    with pytest.raises(error, match=message):
        train(Spoiled(toy, how), workers=workers)
    assert left_threads() == []
    with pytest.raises(error, match=message.replace("finetune_", "")):
        evaluate_model(train(toy(), finetune_steps=1), Spoiled(toy, how))
    assert left_threads() == []


class Interrupted(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            assert len(left_threads()) == 2
            raise KeyboardInterrupt


def test_an_interrupt_ends_the_threads(toy):
    with pytest.raises(KeyboardInterrupt):
        train(toy(num_batches=50), workers=2, finetune_steps=50, finetune_callbacks=[Interrupted()])
    assert left_threads() == []


def test_iterables_are_read_in_order(toy):
    """By one thread, however many there may be."""
    read = []

    def batches():
        for index in range(12):
            read.append((index, threading.current_thread().name))
            time.sleep(0.002 * (index % 3))
            yield toy()[index]

    histories = []
    for generator in (toy(), batches()):
        histories.append(train(generator, workers=3, finetune_steps=8).training_history["finetune"].history)
    assert histories[0] == histories[1]
    assert [index for index, _ in read] == list(range(len(read))) and len(read) >= 8
    assert len({name for _, name in read[1:]} & {f"{THREAD_NAME}_{k}" for k in range(3)}) <= 1


def test_no_more_is_prepared_than_trained(toy):
    asked = []

    class Recorded(toy):
        def __getitem__(self, index):
            asked.append(index)
            return super().__getitem__(index)

    train(Recorded(num_batches=50), finetune_steps=4, finetune_epochs=2)
    assert set(range(8)) <= set(asked) <= set(range(12))
    assert np.bincount(asked)[1:8].tolist() == [1] * 7


def test_bad_number(toy):
    with pytest.raises(ValueError, match="`workers` must be at least 0. Received: workers=-1"):
        train(toy(), workers=-1)
