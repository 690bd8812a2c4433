"""Masked language modelling from scratch: held-out loss against steps and seconds, beside the unigram model.

    BERT_KERAS_DATA=... python -m benchmarks.pretraining [--side KerasHub] [--steps 400] [--save NAME]

8,000 SentencePiece pieces, 4 layers, width 256, length 128, batch 32, pairs with is_next; pre-norm and
rotary positions unless asked otherwise (`--norm-placement post --position-embedding learned --learning-
rate 5e-4` is the 2018 shape). The loss is measured on masked rows of `valid.txt` that no run trains on.
`--side KerasHub` trains KerasHub's BertMaskedLM on the very same masked rows (without is_next, which it
does not have). Seconds are those of training alone, compilation left out by a first step before the clock.
The modern encoder under its recipe: `benchmarks.trial`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.common import data_folder, environment, kerashub_masked_lm, parser, report
from bert_keras import (
    Corpus,
    SentencePieceTextEncoder,
    TaskMetadata,
    TaskWeightScheduler,
    TextEncoder,
    create_optimizer,
    create_transformer,
    evaluate_model,
    lm_generator,
    train_model,
)

PREDICTIONS = 36  # a row, for KerasHub, which wants a fixed number; the mean is below 19


def unigram_loss(train: Corpus, held_out: Any) -> float:
    """Return the held-out loss in nats of a model that knows how often each id occurs, and nothing else."""
    counts = np.bincount(train.tokens, minlength=train.vocab_size) + 1.0
    nats = -np.log(counts / counts.sum())
    total = count = 0.0
    for batch in held_out:
        target, mask = batch.token_classification["lm"]
        total += nats[target[mask]].sum()
        count += mask.sum()
    return total / count


class Clock(keras.callbacks.Callback):
    """Seconds spent in training steps."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        float(logs["loss"])
        self.seconds.append(time.perf_counter() - self.start)


def trained(
    options: Any, encoder: Any, tasks: list[TaskMetadata], train: Any, held_out: Any, **how: Any
) -> tuple[list[float], list[float]]:
    """Train, save, and return the held-out losses and the seconds of the steps."""
    clock = Clock()
    model = train_model(
        encoder,
        tasks,
        train,
        pretrain_steps=options.steps // options.points,
        pretrain_epochs=options.points,
        pretrain_callbacks=[clock],
        validation_pretrain_generator=held_out,
        seed=options.seed,
        verbose=2,
        jit_compile=options.jit,
        **how,
    )
    if options.save:
        model.save_weights(options.save)
    final = evaluate_model(model, held_out)
    print("held out:", {name: round(value, 4) for name, value in final.items()})
    return model.training_history["pretrain"].history["val_lm_loss"], clock.seconds


def ours(options: Any, vocab_size: int, train: Any, held_out: Any) -> tuple[list[float], list[float]]:
    schedule = TaskWeightScheduler(active_in_pretrain=True, active_in_finetune=False)
    lm = TaskMetadata("lm", True, vocab_size, 0.0, schedule)
    is_next = TaskMetadata("is_next", False, 2, options.dropout, schedule)
    encoder = create_transformer(
        vocab_size,
        options.width,
        options.max_len,
        options.layers,
        seed=options.seed,
        dtype=options.dtype,
        position_embedding=options.position_embedding,
        norm_placement=options.norm_placement,
        embedding_dropout=options.dropout,
        attention_dropout=options.dropout,
        residual_dropout=options.dropout,
    )
    optimizer = create_optimizer(
        options.steps,
        options.learning_rate,
        warmup=options.warmup,
        decay=options.decay,
        beta_2=options.beta_2,
        weight_decay=options.weight_decay,
    )
    return trained(options, encoder, [lm, is_next], train, held_out, pretrain_optimizer=optimizer)


def kerashub(options: Any, vocab_size: int, train: Any, held_out: Any) -> tuple[list[float], list[float]]:
    keras.utils.set_random_seed(options.seed)
    keras.config.set_dtype_policy(options.dtype)
    size = vocab_size, options.layers, options.width, options.max_len
    model = kerashub_masked_lm(*size, dropout=options.dropout)
    schedule = create_optimizer(
        options.steps, options.learning_rate, warmup=options.warmup, decay=options.decay
    )
    model.compile(
        keras.optimizers.AdamW(
            schedule._learning_rate,
            weight_decay=options.weight_decay,
            beta_2=options.beta_2,
            global_clipnorm=1.0,
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum_over_batch_size"),
        jit_compile=options.jit,
    )
    losses, seconds, step = [], [], 0
    for _ in range(options.points):
        for _ in range(options.steps // options.points):
            x, y, weights = keras_hub_arrays(train[step])
            start = time.perf_counter()
            model.train_on_batch(x, y, weights * weights.size / weights.sum())
            seconds.append(time.perf_counter() - start)
            step += 1
        losses.append(keras_hub_loss(model, held_out))
        print(f"step {step}: held-out loss {losses[-1]:.4f}", flush=True)
    return losses, seconds


def keras_hub_arrays(batch: Any) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    target, mask = batch.token_classification["lm"]
    places = np.argsort(~mask, axis=1, kind="stable")[:, :PREDICTIONS]
    x = {
        "token_ids": batch.tokens,
        "segment_ids": batch.segments,
        "padding_mask": batch.padding_mask.astype("int32"),
        "mask_positions": places.astype("int32"),
    }
    weights = np.take_along_axis(mask, places, axis=1).astype("float32")
    return x, np.take_along_axis(target, places, axis=1), weights


def keras_hub_loss(model: Any, held_out: Any) -> float:
    total = count = 0.0
    for batch in held_out:
        x, y, weights = keras_hub_arrays(batch)
        logits = model.predict_on_batch(x).astype("float64")
        logits -= logits.max(-1, keepdims=True)
        nats = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, y[..., None], -1)[..., 0]
        total += (nats * weights).sum()
        count += weights.sum()
    return total / count


SIDES = {"bert_keras": ours, "KerasHub": kerashub}


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--side", choices=list(SIDES), default="bert_keras")
    command.add_argument("--steps", type=int, default=400)
    command.add_argument("--points", type=int, default=4, help="number of held-out measurements")
    command.add_argument("--batch-size", type=int, default=32)
    command.add_argument("--max-len", type=int, default=128)
    command.add_argument("--layers", type=int, default=4)
    command.add_argument("--width", type=int, default=256)
    command.add_argument("--vocab-size", type=int, default=8000)
    command.add_argument("--dtype", default="float32")
    command.add_argument("--jit", default="auto")
    command.add_argument("--position-embedding", default="rotary")
    command.add_argument("--norm-placement", default="pre")
    command.add_argument("--dropout", type=float, default=0.0)
    command.add_argument("--learning-rate", type=float, default=2e-3)
    command.add_argument("--warmup", type=float, default=0.1)
    command.add_argument("--decay", default="linear")
    command.add_argument("--beta-2", type=float, default=0.98)
    command.add_argument("--weight-decay", type=float, default=0.01)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--save", metavar="NAME", help="save the trained weights there (bert_keras only)")
    command.add_argument(
        "--work", default="weights/gutenberg", help="where text encoder and corpora are kept"
    )
    options = command.parse_args()
    options.jit = {"true": True, "false": False}.get(options.jit, options.jit)
    if options.smoke:
        options.steps, options.points, options.layers, options.width, options.batch_size = 4, 2, 1, 64, 4
    text = data_folder() / "gutenberg"
    work = Path(options.work)
    if (work / "text_encoder").is_dir():
        text_encoder = TextEncoder.load(work / "text_encoder")
    else:
        text_encoder = SentencePieceTextEncoder.train(text / "train.txt", vocab_size=options.vocab_size)
        text_encoder.save(work / "text_encoder")
    shape: dict[str, Any] = {"batch_size": options.batch_size, "max_len": options.max_len}
    corpus = Corpus.prepare(text_encoder, text / "train.txt", cache_dir=work)
    train = lm_generator(text_encoder, corpus, seed=options.seed, **shape)
    held_out = lm_generator(
        text_encoder, text / "valid.txt", seed=1234, cache_dir=work, short_prob=0.0, **shape
    )
    held_out = [held_out[i] for i in range(2 if options.smoke else 704 // options.batch_size)]
    losses, seconds = SIDES[options.side](options, text_encoder.vocab_size, train, held_out)
    baseline = unigram_loss(corpus, held_out)
    steady = np.median(seconds)
    per_point = options.steps // options.points
    rows = [[per_point * (k + 1), loss, steady * per_point * (k + 1)] for k, loss in enumerate(losses)]
    result = {
        "question": "pretraining",
        "options": vars(options),
        "unigram_loss": baseline,
        "losses": losses,
        "step_seconds": steady,
        "backend": keras.backend.backend(),
        **environment(["keras", "keras-hub", "tensorflow"]),
    }
    report(
        f"{options.side}, {keras.backend.backend()}, {options.dtype}: unigram loss {baseline:.3f} nats, "
        f"median step {steady:.3f} s",
        ["step", "held-out loss", "seconds"],
        rows,
        result,
        options.json,
    )


if __name__ == "__main__":
    main()
