"""One masked-language-modelling step at equal shape, each side at its best setting.

    python -m benchmarks.best_step [--smoke] [--rounds N] [--json FILE]

4 layers, width 256, vocabulary 30,522, batch 16 x 128, 20 predictions a row, dropout 0.1, AdamW.
bert_keras and KerasHub's `BertMaskedLM` in the backends and precisions listed, transformers'
`BertForMaskedLM` on PyTorch in eager float32 with labels. Each side is a process of its own; they take
turns, a few steps each time. Tokens a second, median of the turns; the ratio is to the fastest setting of
bert_keras: above 1, ours is faster.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.common import (
    compared,
    environment,
    first_of_each,
    kerashub_masked_lm,
    parser,
    report,
    serve_timed,
    workers_of,
)

MODULE = "benchmarks.best_step"
SIDES = [
    ("bert_keras", "tensorflow", "mixed_bfloat16"),
    ("bert_keras", "tensorflow", "float32"),
    ("bert_keras", "torch", "mixed_bfloat16"),
    ("bert_keras", "torch", "float32"),
    ("bert_keras", "jax", "float32"),
    ("KerasHub", "tensorflow", "mixed_bfloat16"),
    ("KerasHub", "tensorflow", "float32"),
    ("KerasHub", "jax", "float32"),
    ("transformers", "torch", "float32"),
]
SHAPE = {"vocab_size": 30_522, "layers": 4, "width": 256, "rows": 16, "length": 128, "predictions": 20}
SMOKE = {"vocab_size": 500, "layers": 1, "width": 64, "rows": 2, "length": 32, "predictions": 5}


def arrays(shape: dict[str, int]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    rows, length = shape["rows"], shape["length"]
    tokens = rng.integers(6, shape["vocab_size"], (rows, length)).astype("int32")
    order = np.argsort(rng.random((rows, length)), axis=1)
    places = np.sort(order[:, : shape["predictions"]], axis=1).astype("int32")
    mask = np.zeros((rows, length), bool)
    np.put_along_axis(mask, places, True, axis=1)
    segments = (np.arange(length) >= length // 2).astype("int32")[None].repeat(rows, 0)
    return {"tokens": tokens, "masked": np.where(mask, 5, tokens), "mask": mask} | {
        "places": places,
        "segments": segments,
    }


def model_and_batch(shape: dict[str, int], dtype: str, dropout: float = 0.1) -> tuple[Any, Any]:
    """Return a model of bert_keras with language modelling as its task, not compiled, and a batch for it."""
    from bert_keras import TaskMetadata, TaskWeightScheduler, create_transformer
    from bert_keras.data import SentenceBatch, TaskDataBatch
    from bert_keras.training import MultiTaskModel

    own = arrays(shape)
    lm = TaskMetadata("lm", True, shape["vocab_size"], 0.0, TaskWeightScheduler(True, False))
    encoder = create_transformer(
        shape["vocab_size"],
        shape["width"],
        shape["length"],
        shape["layers"],
        embedding_dropout=dropout,
        attention_dropout=dropout,
        residual_dropout=dropout,
        dtype=dtype,
    )
    labels = {"lm": TaskDataBatch(own["tokens"], own["mask"])}
    padding = np.ones(own["mask"].shape, bool)
    return MultiTaskModel(encoder, [lm]), SentenceBatch(own["masked"], own["segments"], padding, labels, {})


def bert_keras_step(shape: dict[str, int], dtype: str, dropout: float = 0.1) -> Callable[[], Any]:
    from bert_keras.training import AdamW, training_arrays

    model, batch = model_and_batch(shape, dtype, dropout)
    model.compile(AdamW(1e-4))
    x, y = training_arrays(batch, model.tasks, [1.0])
    return lambda: model.train_on_batch(x, y)


def kerashub_model_and_batch(shape: dict[str, int], dtype: str, dropout: float = 0.1) -> tuple[Any, Any]:
    """Return KerasHub's `BertMaskedLM`, compiled, and a batch for it: inputs, labels and weights."""
    import keras

    keras.config.set_dtype_policy(dtype)
    own = arrays(shape)
    model = kerashub_masked_lm(
        shape["vocab_size"], shape["layers"], shape["width"], shape["length"], dropout=dropout
    )
    model.compile(
        keras.optimizers.AdamW(1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy()],
    )
    x = {
        "token_ids": own["masked"],
        "segment_ids": own["segments"],
        "padding_mask": np.ones(own["mask"].shape, "int32"),
        "mask_positions": own["places"],
    }
    y = np.take_along_axis(own["tokens"], own["places"], axis=1)
    return model, (x, y, np.ones(y.shape, "float32"))


def kerashub_step(shape: dict[str, int], dtype: str) -> Callable[[], Any]:
    model, batch = kerashub_model_and_batch(shape, dtype)
    return lambda: model.train_on_batch(*batch)


def transformers_model_and_batch(shape: dict[str, int], dropout: float = 0.1) -> tuple[Any, Any]:
    """Return transformers' `BertForMaskedLM` in training, and a batch for it, on the CPU."""
    import torch
    import transformers

    own = arrays(shape)
    config = transformers.BertConfig(
        vocab_size=shape["vocab_size"],
        hidden_size=shape["width"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=max(1, shape["width"] // 64),
        intermediate_size=4 * shape["width"],
        max_position_embeddings=shape["length"],
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    x = {
        "input_ids": torch.tensor(own["masked"].astype("int64")),
        "token_type_ids": torch.tensor(own["segments"].astype("int64")),
        "attention_mask": torch.ones(own["mask"].shape, dtype=torch.int64),
        "labels": torch.tensor(np.where(own["mask"], own["tokens"], -100).astype("int64")),
    }
    return transformers.BertForMaskedLM(config).train(), x


def transformers_step(shape: dict[str, int], dtype: str) -> Callable[[], Any]:
    import torch

    model, x = transformers_model_and_batch(shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> float:
        optimizer.zero_grad()
        loss = model(**x).loss
        loss.backward()
        optimizer.step()
        return float(loss)

    return step


def child(name: str, dtype: str, steps: str, size: str) -> None:
    make = {"bert_keras": bert_keras_step, "KerasHub": kerashub_step, "transformers": transformers_step}
    serve_timed(make[name](SMOKE if size == "smoke" else SHAPE, dtype), int(steps))


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        return child(*sys.argv[2:])
    command = parser(__doc__)
    command.add_argument("--rounds", type=int, default=8)
    command.add_argument("--steps", type=int, default=4, help="of a turn")
    options = command.parse_args()
    rounds, sides, shape = options.rounds, SIDES, SHAPE
    if options.smoke:
        rounds, sides, shape = 1, first_of_each(SIDES), SMOKE
    size = "smoke" if options.smoke else "full"
    workers = workers_of(MODULE, sides, options.steps, size)
    tokens = shape["rows"] * shape["length"]
    rows, seconds = compared(workers, rounds, 1, tokens)
    result = {"question": "best_step", "shape": shape, "seconds": seconds}
    result |= environment(["keras", "keras-hub", "transformers", "tensorflow", "jax", "torch"])
    columns = ["side, backend, precision", "tokens/s", "min s", "median s", "max s", "ratio"]
    report("One masked-language-modelling step, best settings", columns, rows, result, options.json)


if __name__ == "__main__":
    main()
