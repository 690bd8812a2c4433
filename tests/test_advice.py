"""Errors that come from elsewhere get a note that says what to do."""

import os
import subprocess
import sys

import keras
import pytest

from bert_keras import create_transformer, train_model
from bert_keras.advice import on_backend, on_full_memory


@pytest.mark.parametrize("name", ["nonsense", "jax"])
def test_a_backend_that_is_not_there(name):
    code = "import sys; sys.modules['jax'] = None; from bert_keras import create_transformer"
    environment = {**os.environ, "KERAS_BACKEND": name}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    wanted = "jax" if name == "jax" else "tensorflow"
    assert f"Install it, pip install 'bert_keras[{wanted}]'" in done.stderr.splitlines()[-1]


def test_other_missing_modules_are_left_alone():
    assert on_backend(ModuleNotFoundError("No module named 'spacy'", name="spacy")) is None
    assert on_backend(ValueError("something else")) is None


class ResourceExhaustedError(Exception):
    """As TensorFlow's is named."""


@pytest.mark.parametrize(
    "error",
    [
        ResourceExhaustedError("failed to allocate memory"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes"),
        MemoryError("Unable to allocate 9. GiB"),
    ],
)
def test_full_memory_in_training(error, toy, toy_tasks):
    class Full(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise error

    encoder = create_transformer(53, 12, 11, 1, 3, seed=0)
    with pytest.raises(type(error)) as caught:
        train_model(encoder, toy_tasks, toy(), pretrain_callbacks=[Full()], verbose=0)
    [note] = caught.value.__notes__
    assert "halve `max_len`" in note and "rematerialize=True" in note


def test_other_errors_of_training_are_left_alone():
    assert on_full_memory(ValueError("`max_len` must be at least 3")) is None
