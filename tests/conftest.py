"""What several test modules share."""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("USE_TF", "0")  # of transformers, which would import any that it finds
# With a process for each core, threads would only wait for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false"

import numpy as np
import pytest

from bert_keras import SentenceBatch, TaskDataBatch, TaskMetadata, TaskWeightScheduler


def pytest_collection_finish():
    """Leave out TensorFlow's optimisation of graphs: a tenth of the time where they run a few times."""
    if "tensorflow" in sys.modules:
        import tensorflow

        tensorflow.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


class ToyGenerator:
    """Rows that count upwards from a random start: each masked token follows from its neighbours; `parity` is
    the start's."""

    def __init__(self, vocab_size=53, batch_size=6, length=11, num_batches=7, seed=0):
        self.vocab_size, self.batch_size, self.length, self.num_batches = (
            vocab_size,
            batch_size,
            length,
            num_batches,
        )
        self.seed = seed

    def __len__(self):
        return self.num_batches

    def __getitem__(self, index):
        rng = np.random.default_rng([self.seed, index])
        start = rng.integers(0, self.vocab_size, (self.batch_size, 1))
        tokens = 5 + (start + np.arange(self.length)) % (self.vocab_size - 5)
        padding_mask = np.arange(self.length) < rng.integers(4, self.length + 1, (self.batch_size, 1))
        mask = (rng.random(tokens.shape) < 0.3) & padding_mask
        mask[0, 1] = True
        inputs = np.where(padding_mask, np.where(mask, 4, tokens), 0).astype("int32")
        return SentenceBatch(
            inputs,
            np.zeros_like(inputs),
            padding_mask,
            {"lm": TaskDataBatch(tokens.astype("int32"), mask)},
            {"parity": TaskDataBatch((start[:, 0] % 2).astype("int32"), np.zeros(self.batch_size, "int32"))},
        )


@pytest.fixture
def toy():
    return ToyGenerator


@pytest.fixture
def toy_tasks():
    return [
        TaskMetadata("lm", True, 53, 0.0, TaskWeightScheduler(True, False)),
        TaskMetadata("parity", False, 2, 0.0, TaskWeightScheduler(True, True)),
    ]


@pytest.fixture(scope="module")
def small():
    """The world in which the examples of docs and docstrings run."""
    import docs_world

    with docs_world.small():
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory, small):
    """What those examples take for granted, with files in a folder of its own."""
    import docs_world

    world = docs_world.World(tmp_path_factory.mktemp("world"))
    docs_world.write_files(world.folder)
    world.write_models()
    return world
