"""How cost grows with the size of the corpus, with length, batch and width: where it stops being linear.

    KERAS_BACKEND=... python -m benchmarks.growth [--smoke] [--rounds N] [--json FILE]

Corpus: microseconds a token to prepare it and to make batches from it, at one, ten and a hundred times
the size. Step: microseconds a real token of one masked-language-modelling step (4 layers, width 256,
batch 16 x 128, vocabulary 8,000, 15 % predicted, mixed_bfloat16 unless on JAX), with one of length, batch
and width changed at a time. `growth` is the cost of a token over that in the row before: 1 is linear.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.common import environment, parser, report
from benchmarks.lm_generator_speed import english_text
from bert_keras import (
    BERTTextEncoder,
    Corpus,
    SentenceBatch,
    TaskDataBatch,
    TaskMetadata,
    TaskWeightScheduler,
    create_transformer,
    lm_generator,
)
from bert_keras.training import MultiTaskModel, training_arrays

BASE = {"length": 128, "batch": 16, "width": 256}
CHANGES: dict[str, tuple[int, ...]] = {
    "length": (32, 128, 512, 1024),
    "batch": (4, 16, 64),
    "width": (128, 256, 512, 768),
}


def corpus_costs(times: tuple[int, ...]) -> list[list[Any]]:
    """Return a row for each size: tokens, and microseconds a token of preparing and of making batches."""
    sample = english_text()[:2_000_000]
    rows: list[list[Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        text_encoder = BERTTextEncoder.train(sample.split("\n"), vocab_size=4000)
        for factor in times:
            text = Path(folder, f"{factor}.txt")
            with text.open("w", encoding="utf-8") as file:
                for _ in range(factor):
                    file.write(sample + "\n\n")
            start = time.perf_counter()
            corpus = Corpus.prepare(text_encoder, text, cache_dir=folder)
            preparing = time.perf_counter() - start
            generator = lm_generator(text_encoder, corpus, batch_size=32, max_len=128)
            seconds = []
            for turn in range(5):
                start = time.perf_counter()
                real = sum(int(generator[i].padding_mask.sum()) for i in range(turn * 100, turn * 100 + 100))
                seconds.append((time.perf_counter() - start) / real)
            tokens = corpus.num_tokens
            rows.append(["preparing", tokens, preparing / tokens * 1e6])
            rows.append(["batches", tokens, statistics.median(seconds) * 1e6])
    return sorted(rows, key=lambda row: row[0], reverse=True)


def step_cost(length: int, batch: int, width: int, rounds: int) -> float:
    """Return microseconds a token of one step, the median of some."""
    dtype = "float32" if keras.backend.backend() == "jax" else "mixed_bfloat16"
    rng = np.random.default_rng(0)
    tokens = rng.integers(6, 8000, (batch, length)).astype("int32")
    mask = rng.random((batch, length)) < 0.15
    lm = TaskMetadata("lm", True, 8000, 0.0, TaskWeightScheduler(True, False))
    model = MultiTaskModel(create_transformer(8000, width, length, 4, dtype=dtype), [lm])
    model.compile(keras.optimizers.AdamW(1e-4))
    labels = {"lm": TaskDataBatch(tokens, mask)}
    made = SentenceBatch(np.where(mask, 5, tokens), 0 * tokens, np.ones(mask.shape, bool), labels, {})
    x, y = training_arrays(made, [lm], [1.0])
    model.train_on_batch(x, y)
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        model.train_on_batch(x, y)
        seconds.append(time.perf_counter() - start)
    keras.backend.clear_session()
    return statistics.median(seconds) / (batch * length) * 1e6


def with_growth(rows: list[list[Any]]) -> list[list[Any]]:
    """Add to each row its cost over that of the row before in its group."""
    grown = []
    for _, group in itertools.groupby(rows, key=lambda row: row[0]):
        before = None
        for row in group:
            grown.append([*row, "" if before is None else row[2] / before])
            before = row[2]
    return grown


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--rounds", type=int, default=7)
    options = command.parse_args()
    rows = corpus_costs((1, 2) if options.smoke else (1, 10, 100))
    for what, sizes in CHANGES.items():
        for size in sizes[:1] if options.smoke else sizes:
            cost = step_cost(**{**BASE, what: size}, rounds=1 if options.smoke else options.rounds)
            rows.append([f"step, {what}", size, cost])
    table = with_growth(rows)
    result = {"question": "growth", "base": BASE, "backend": keras.backend.backend()}
    result |= environment(["keras", "tensorflow", "jax", "torch", "tokenizers", "numpy"])
    title = f"Cost of a token ({keras.backend.backend()})"
    report(title, ["what", "tokens, or size", "microseconds a token", "growth"], table, result, options.json)


if __name__ == "__main__":
    main()
