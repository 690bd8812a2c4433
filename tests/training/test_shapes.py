"""How many shapes a compiled backend meets, and how often it compiles."""

import keras
import numpy as np
import pytest

from bert_keras import (
    MultiTaskModel,
    Sentence,
    TaskMetadata,
    create_transformer,
    labelled_generator,
    train_model,
)
from bert_keras.data import SentenceTaskData, TokenTaskData
from bert_keras.training import training_arrays

TASKS = [TaskMetadata("topic", False, 3), TaskMetadata("score", False, kind="regression", read_from="mean")]
TAG = TaskMetadata("tag", True, 4)


def sentences(number=150):
    rng = np.random.default_rng(1)
    made = []
    for _ in range(number):
        size = int(np.clip(rng.lognormal(2.4, 0.6), 3, 48))
        labels = {"topic": SentenceTaskData(int(rng.integers(3)), 0), "score": SentenceTaskData(0.5, 0)}
        tags = {"tag": TokenTaskData([1] * size, [i % 2 == 0 for i in range(size)])}
        made.append(Sentence(rng.integers(5, 40, size).tolist(), [0] * size, [True] * size, tags, labels))
    return made


def shapes(generator, tasks):
    found = set()
    for index in range(len(generator)):
        arrays = training_arrays(generator[index], tasks, [1.0] * len(tasks))
        found.add(tuple(array.shape for array in keras.tree.flatten(arrays)))
    return found


WAYS = [
    (dict(buckets=(8, 16, 24, 48)), TASKS, 4),
    (dict(buckets=3), [*TASKS, TAG], 6),
    (dict(pack=True, max_len=48), TASKS, 2),
    (dict(pack=True, max_len=48), [*TASKS, TAG], 3),
]


@pytest.mark.parametrize(("way", "tasks", "most"), WAYS)
def test_few_shapes(way, tasks, most):
    generator = labelled_generator(sentences(800), pad_id=0, batch_size=8, **way)
    found = shapes(generator, tasks)
    assert len(generator) > 20 and 0 < len(found) <= most


def test_few_compilations(monkeypatch):
    """JAX compiles once for each shape, TensorFlow traces twice in all."""
    tasks, most = TASKS[:1], 2
    generator = labelled_generator(sentences(), pad_id=0, batch_size=8, buckets=(16, 48))
    traces, compiled = [], []
    compute_loss = MultiTaskModel.compute_loss
    monkeypatch.setattr(
        MultiTaskModel, "compute_loss", lambda *a, **k: (traces.append(1), compute_loss(*a, **k))[1]
    )
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        jax.monitoring.register_event_duration_secs_listener(
            lambda event, _, **more: compiled.append((event, str(more.get("fun_name"))))
        )
    train_model(
        create_transformer(40, 8, 48, 1, 2, 8),
        tasks,
        finetune_generator=generator,
        finetune_epochs=2,
        verbose=0,
    )
    if backend == "torch":
        assert len(traces) == 2 * len(generator)  # nothing is compiled
        return
    number = len(shapes(generator, tasks)) if backend == "jax" else 2
    assert 0 < len(traces) <= number + 1 <= most + 1
    if backend == "jax":
        steps = sum("backend_compile" in event and "train_step" in name for event, name in compiled)
        assert steps == number
