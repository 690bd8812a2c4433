"""Prediction over texts of natural lengths with a classifier on all-MiniLM-L6-v2, beside transformers.

    BERT_KERAS_DATA=... python -m benchmarks.prediction_speed [--smoke] [--rounds N] [--json FILE]

Raw texts of `sst2` to class names. transformers: PyTorch, eager float32, batches of 64, dynamic padding.
bert_keras: `predict`, in the backends and precisions listed. Each side is a process of its own and warm.
Texts a second, median of the turns; the ratio is to the fastest setting of bert_keras.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from benchmarks.common import (
    compared,
    environment,
    first_of_each,
    minilm,
    parser,
    report,
    serve_timed,
    sst2,
    workers_of,
)

MODULE = "benchmarks.prediction_speed"
SIDES = [
    ("bert_keras", "tensorflow", "mixed_bfloat16"),
    ("bert_keras", "tensorflow", "float32"),
    ("bert_keras", "torch", "mixed_bfloat16"),
    ("bert_keras", "torch", "float32"),
    ("bert_keras", "jax", "float32"),
    ("transformers", "torch", "float32"),
]


def bert_keras_run(raw: list[str], dtype: str) -> Callable[[], Any]:
    from bert_keras import TaskMetadata, load_huggingface, load_text_encoder, predict
    from bert_keras.training import MultiTaskModel

    text_encoder = load_text_encoder(minilm())
    task = TaskMetadata("sst2", False, labels=("bad", "good"))
    model = MultiTaskModel(load_huggingface(minilm(), dtype=dtype, verbose=0), [task])
    return lambda: [result["sst2"].label for result in predict(model, text_encoder, raw, verbose=0)]


def transformers_run(raw: list[str], dtype: str) -> Callable[[], Any]:
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm())
    model = transformers.AutoModelForSequenceClassification.from_pretrained(minilm(), num_labels=2).eval()

    def run() -> list[str]:
        said = []
        with torch.inference_mode():
            for start in range(0, len(raw), 64):
                x = tokenizer(raw[start : start + 64], padding=True, truncation=True, return_tensors="pt")
                said += [("bad", "good")[i] for i in model(**x).logits.argmax(-1).tolist()]
        return said

    return run


def child(name: str, dtype: str, count: str) -> None:
    raw = [text for text, _ in sst2("train", int(count))]
    make = {"bert_keras": bert_keras_run, "transformers": transformers_run}[name]
    predicted = make(raw, dtype)
    if not {*predicted()} <= {"bad", "good"} or len(predicted()) != len(raw):
        raise RuntimeError("Not every text got a class.")
    serve_timed(predicted)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        return child(*sys.argv[2:])
    command = parser(__doc__)
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--texts", type=int, default=2000)
    options = command.parse_args()
    rounds, sides, count = options.rounds, SIDES, options.texts
    if options.smoke:
        rounds, sides, count = 1, first_of_each(SIDES), 64
    workers = workers_of(MODULE, sides, count)
    rows, seconds = compared(workers, rounds, 0, count)
    result = {"question": "prediction_speed", "texts": count, "seconds": seconds}
    result |= environment(["keras", "transformers", "tensorflow", "jax", "torch"])
    columns = ["side, backend, precision", "texts/s", "min s", "median s", "max s", "ratio"]
    report(f"Prediction over {count} texts of sst2", columns, rows, result, options.json)


if __name__ == "__main__":
    main()
