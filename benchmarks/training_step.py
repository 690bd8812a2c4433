"""One masked-language-modelling step at equal shape: bert_keras beside KerasHub's BertMaskedLM, on one
backend.

    KERAS_BACKEND=jax python -m benchmarks.training_step [--smoke] [--dtype mixed_bfloat16] [--json FILE]

Both sides: 4 layers, width 256, 4 heads, vocabulary 8,000, batch 32 x 128, 20 predictions a row, dropout 0.1,
Keras' AdamW without clipping, accuracy as metric, `train_on_batch`; medians of alternating runs. The ratio is
KerasHub's time over ours: above 1, ours is faster.
"""

from __future__ import annotations

import keras
import numpy as np

from benchmarks.common import alternate, environment, kerashub_masked_lm, parser, report, summary
from bert_keras import TaskMetadata, TaskWeightScheduler, create_transformer
from bert_keras.data import SentenceBatch, TaskDataBatch
from bert_keras.training import MultiTaskModel, training_arrays


def random_batch(
    vocab_size: int, rows: int, length: int, predictions: int
) -> tuple[SentenceBatch, np.ndarray]:
    rng = np.random.default_rng(0)
    tokens = rng.integers(6, vocab_size, (rows, length)).astype("int32")
    places = np.sort(np.argsort(rng.random((rows, length)), axis=1)[:, :predictions], axis=1).astype("int32")
    mask = np.zeros((rows, length), bool)
    np.put_along_axis(mask, places, True, axis=1)
    segments = (np.arange(length) >= length // 2).astype("int32")[None].repeat(rows, 0)
    labels = {"lm": TaskDataBatch(tokens, mask)}
    return SentenceBatch(
        np.where(mask, 5, tokens), segments, np.ones((rows, length), bool), labels, {}
    ), places


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--dtype", default="float32", help="dtype policy of both sides")
    command.add_argument("--vocab-size", type=int, default=8000)
    command.add_argument("--rounds", type=int, default=20)
    options = command.parse_args()
    keras.config.set_dtype_policy(options.dtype)
    layers, width, rows, length, predictions = (1, 64, 4, 32, 5) if options.smoke else (4, 256, 32, 128, 20)
    rounds = 2 if options.smoke else options.rounds
    batch, places = random_batch(options.vocab_size, rows, length, predictions)

    lm = TaskMetadata("lm", True, options.vocab_size, 0.0, TaskWeightScheduler(True, False))
    encoder = create_transformer(options.vocab_size, width, length, layers, dtype=options.dtype)
    ours = MultiTaskModel(encoder, [lm])
    ours.compile(keras.optimizers.AdamW(1e-4))
    x, y = training_arrays(batch, [lm], [1.0])

    peer = kerashub_masked_lm(options.vocab_size, layers, width, length)
    peer.compile(
        keras.optimizers.AdamW(1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy()],
    )
    peer_x = {
        "token_ids": batch.tokens,
        "segment_ids": batch.segments,
        "padding_mask": batch.padding_mask.astype("int32"),
        "mask_positions": places,
    }
    peer_y = np.take_along_axis(batch.token_classification["lm"].target, places, axis=1)
    weights = np.ones(peer_y.shape, "float32")
    seconds = alternate(
        {
            "bert_keras": lambda: ours.train_on_batch(x, y),
            "KerasHub": lambda: peer.train_on_batch(peer_x, peer_y, weights),
        },
        rounds,
        warmup=2,
    )
    sides = {name: summary(values) for name, values in seconds.items()}
    ratio = sides["KerasHub"]["median"] / sides["bert_keras"]["median"]
    result = {
        "question": "training step",
        "backend": keras.backend.backend(),
        "dtype": options.dtype,
        "seconds": sides,
        "ratio": ratio,
        **environment(["keras", "keras-hub", "tensorflow", "jax", "torch"]),
    }
    table = [
        [name, side["min"] * 1e3, side["median"] * 1e3, side["max"] * 1e3, rows * length / side["median"]]
        for name, side in sides.items()
    ]
    report(
        f"Training step, {keras.backend.backend()}, {options.dtype}: KerasHub / bert_keras = {ratio:.2f}",
        ["side", "min ms", "median ms", "max ms", "tokens/s"],
        table,
        result,
        options.json,
    )


if __name__ == "__main__":
    main()
