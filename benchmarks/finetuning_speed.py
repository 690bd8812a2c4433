"""Fine-tuning all-MiniLM-L6-v2 on `sst2`: seconds for the same examples, beside transformers.

    BERT_KERAS_DATA=... python -m benchmarks.finetuning_speed [--smoke] [--rounds N] [--json FILE]

Each side trains on the same sentences in every turn, 32 an update, at the same learning rate, from raw
text. transformers: PyTorch, eager float32, dynamic padding to the longest of a batch, as its own examples
do. bert_keras: the backends and precisions listed, sentences packed into rows of 128. Each side is a
process of its own, after one whole turn that is not counted; a turn of bert_keras begins with fresh heads, so
that the tracing of its graph is in the figure. What both learn is compared by `benchmarks.transfer`. Real
tokens a second, median of the turns; the ratio is to the fastest setting of bert_keras.
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
    packed,
    parser,
    report,
    serve_timed,
    sst2,
    workers_of,
)

MODULE = "benchmarks.finetuning_speed"
SIDES = [
    ("bert_keras", "tensorflow", "mixed_bfloat16"),
    ("bert_keras", "tensorflow", "float32"),
    ("bert_keras", "torch", "mixed_bfloat16"),
    ("bert_keras", "torch", "float32"),
    ("transformers", "torch", "float32"),
]
RATE = 5e-5


def bert_keras_run(count: int, dtype: str) -> Callable[[], Any]:
    from bert_keras import (
        TaskMetadata,
        create_optimizer,
        load_huggingface,
        load_text_encoder,
        sentence_from_text,
        train_model,
    )

    text_encoder = load_text_encoder(minilm())
    encoder = load_huggingface(minilm(), dtype=dtype, verbose=0)
    task = TaskMetadata("sst2", False, 2, 0.1)

    def run() -> None:
        sentences = [
            sentence_from_text(text_encoder, text, sentence_labels={"sst2": label}, max_len=128)
            for text, label in sst2("train", count)
        ]
        batches = packed(sentences, text_encoder.pad_id, 32)
        train_model(
            encoder,
            [task],
            finetune_generator=batches,
            finetune_optimizer=lambda steps: create_optimizer(steps, RATE),
            verbose=0,
        )

    return run


def transformers_run(count: int, dtype: str) -> Callable[[], Any]:
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm())
    model = transformers.AutoModelForSequenceClassification.from_pretrained(minilm(), num_labels=2).train()

    def run() -> None:
        examples = sst2("train", count)
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
        for start in range(0, len(examples), 32):
            some = examples[start : start + 32]
            x = tokenizer([text for text, _ in some], padding=True, truncation=True, return_tensors="pt")
            loss = model(**x, labels=torch.tensor([label for _, label in some])).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return run


def child(name: str, dtype: str, count: str) -> None:
    make = {"bert_keras": bert_keras_run, "transformers": transformers_run}[name]
    serve_timed(make(int(count), dtype))


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        return child(*sys.argv[2:])
    command = parser(__doc__)
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--sentences", type=int, default=1920)
    options = command.parse_args()
    rounds, count = (1, 64) if options.smoke else (options.rounds, options.sentences)
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(minilm())([text for text, _ in sst2("train", count)])["input_ids"]
    tokens = sum(map(len, ids))
    workers = workers_of(MODULE, first_of_each(SIDES) if options.smoke else SIDES, count)
    rows, seconds = compared(workers, rounds, 0, tokens)
    result = {"question": "finetuning_speed", "sentences": count, "tokens": tokens, "seconds": seconds}
    result |= environment(["keras", "transformers", "tensorflow", "torch"])
    columns = ["side, backend, precision", "real tokens/s", "min s", "median s", "max s", "ratio"]
    report(f"Fine-tuning on {count} sentences of sst2", columns, rows, result, options.json)


if __name__ == "__main__":
    main()
