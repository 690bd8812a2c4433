"""Heads over encoders that ask for other ones than BERT's."""

import math

import keras
import numpy as np
import pytest

from bert_keras import (
    MultiTaskModel,
    SentenceBatch,
    TaskDataBatch,
    TaskMetadata,
    TaskWeightScheduler,
    create_transformer,
    load_model,
    train_model,
)

VOCAB, WIDTH, LENGTH = 31, 12, 7
SCHEDULE = TaskWeightScheduler(True, True)
TASKS = [
    TaskMetadata("lm", True, VOCAB, 0.0, SCHEDULE),
    TaskMetadata("tags", True, 5, 0.0, SCHEDULE),
    TaskMetadata("topic", False, 3, 0.0, SCHEDULE),
]
EPSILON = 1e-6


def make(**arguments):
    encoder = create_transformer(
        VOCAB, WIDTH, 5, 2, 3, 17, architecture="modern", initializer_range=0.5, seed=2, **arguments
    )
    model = MultiTaskModel(encoder, TASKS, seed=3)
    rng = np.random.default_rng(4)
    for variable in model.weights:
        if variable.path.startswith(("task_", "pooler")):
            variable.assign(rng.normal(0.3, 0.5, variable.shape))
    return model


def inputs(rows=2, length=LENGTH):
    tokens = np.random.default_rng(0).integers(0, VOCAB, (rows, length)).astype("int32")
    return {
        "token_ids": tokens,
        "segment_ids": np.zeros_like(tokens),
        "position_ids": np.tile(np.arange(length, dtype="int32"), (rows, 1)),
        "sequence_ids": np.ones_like(tokens),
    }


def transform(x, kernel, gamma):
    x = x @ kernel
    x = 0.5 * x * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPSILON) * gamma


@pytest.mark.parametrize("pool_everywhere", [False, True])
def test_heads_without_biases_and_with_norms(pool_everywhere):
    model = make(pool_everywhere=pool_everywhere)
    w = {v.path: keras.ops.convert_to_numpy(v).astype("float64") for v in model.weights}
    hidden = keras.ops.convert_to_numpy(model.encoder(inputs())).astype("float64")
    logits = {name: keras.ops.convert_to_numpy(array) for name, array in model(inputs()).items()}
    lm = transform(hidden, w["task_lm/transform/kernel"], w["task_lm/norm/gamma"])
    lm = lm @ w["embeddings/token_embedding/embeddings"].T + w["task_lm/bias"]
    np.testing.assert_allclose(logits["lm"], lm, atol=1e-4)
    pooled = transform(hidden, w["pooler/kernel"], w["pooler/norm/gamma"])
    topic = pooled[:, 0] @ w["task_topic/classifier/kernel"] + w["task_topic/classifier/bias"]
    np.testing.assert_allclose(logits["topic"], topic, atol=1e-4)
    tags = (pooled if pool_everywhere else hidden) @ w["task_tags/classifier/kernel"]
    np.testing.assert_allclose(logits["tags"], tags + w["task_tags/classifier/bias"], atol=1e-4)
    own = {path for path in w if path.startswith(("task_lm", "pooler"))}
    assert own == {
        "task_lm/transform/kernel", "task_lm/norm/gamma", "task_lm/bias", "pooler/kernel", "pooler/norm/gamma"
    }  # fmt: skip


def batch(length):
    rng = np.random.default_rng(1)
    arrays = inputs(4, length)
    labels = {
        "lm": TaskDataBatch(arrays["token_ids"], rng.random((4, length)) < 0.5),
        "tags": TaskDataBatch(arrays["token_ids"] % 5, rng.random((4, length)) < 0.5),
    }
    topics = TaskDataBatch(rng.integers(0, 3, 4), np.zeros(4, int))
    return SentenceBatch(
        arrays["token_ids"], arrays["segment_ids"], np.ones((4, length), bool), labels, {"topic": topics}
    )


@pytest.mark.parametrize("arguments", [{}, {"local_window": 4, "global_every": 2, "pool_everywhere": True}])
def test_it_trains_beyond_max_len_and_comes_back(arguments, tmp_path):
    model = make(**arguments)  # max_len=5
    before = [keras.ops.convert_to_numpy(v).copy() for v in model.trainable_variables]
    train_model(model, TASKS, [batch(LENGTH)], pretrain_steps=4, pretrain_optimizer="adam", verbose=0)
    for variable, value in zip(model.trainable_variables, before, strict=True):
        if variable.path != "embeddings/segment_embedding/embeddings":
            assert np.abs(keras.ops.convert_to_numpy(variable) - value).max() > 0, variable.path
    model.save_weights(tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    assert again.encoder.get_config() == model.encoder.get_config()
    for name, array in model(inputs()).items():
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(array), keras.ops.convert_to_numpy(again(inputs())[name])
        )


def test_tables_of_positions_still_have_an_end():
    encoder = create_transformer(
        VOCAB, WIDTH, 5, 1, 3, 17, architecture="modern", position_embedding="learned"
    )
    with pytest.raises(ValueError, match="rows of 7 tokens, but the encoder has max_len=5"):
        train_model(encoder, TASKS, [batch(LENGTH)], pretrain_steps=1, verbose=0)
