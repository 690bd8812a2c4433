"""The same weights and batches give the same losses on every backend that is installed."""

import importlib.util
import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

BACKENDS = [name for name in ("tensorflow", "jax", "torch") if importlib.util.find_spec(name)]

SCRIPT = textwrap.dedent(
    """
    import json, sys
    sys.path.insert(0, sys.argv[1])
    import keras
    from conftest import ToyGenerator
    from bert_keras import TaskMetadata, TaskWeightScheduler, create_optimizer, create_transformer
    from bert_keras import load_model, train_model
    from bert_keras.training import MultiTaskModel

    path, mode = sys.argv[2:]
    toys = ToyGenerator(batch_size=8)
    if mode == "write":
        off = dict(embedding_dropout=0.0, attention_dropout=0.0, residual_dropout=0.0)
        encoder = create_transformer(53, 12, 16, 2, 3, 20, seed=5, **off)
        parity = TaskMetadata("parity", False, 2, 0.0, TaskWeightScheduler(True, True, 0.5))
        MultiTaskModel(encoder, [TaskMetadata("lm", True, 53), parity]).save_weights(path)
    else:
        model = load_model(path)
        losses = []

        class Losses(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                losses.append([logs["loss"], logs["lm_loss"], logs["parity_loss"]])

        train_model(
            model, model.tasks, toys, pretrain_steps=1, pretrain_epochs=8, pretrain_callbacks=[Losses()],
            pretrain_optimizer=create_optimizer(8, 1e-2), verbose=0,
        )
        print("LOSSES " + json.dumps(losses))
    """
)


def run(backend, *arguments):
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    command = [sys.executable, "-c", SCRIPT, tests, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(len(BACKENDS) < 2, reason="needs two backends")
def test_backends_agree(tmp_path):
    run(BACKENDS[0], tmp_path / "initial", "write")
    losses = {}
    for backend in BACKENDS:
        line = next(
            line
            for line in run(backend, tmp_path / "initial", "train").splitlines()
            if line.startswith("LOSSES ")
        )
        losses[backend] = np.array(json.loads(line.removeprefix("LOSSES ")))
    first = losses[BACKENDS[0]]
    assert first.shape == (8, 3) and np.ptp(first[:, 0]) > 0.05  # it did train
    for backend in BACKENDS[1:]:
        np.testing.assert_allclose(
            losses[backend], first, rtol=2e-4, err_msg=f"{backend} against {BACKENDS[0]}"
        )
