"""Batches of lm_generator from a prepared corpus on one core, beside transformers' masking of tokenised rows.

    python -m benchmarks.lm_generator_speed [--smoke] [--rounds N] [--json FILE]

Ours does everything: sampling pairs, laying out rows, segments, padding, masking, `lm` and `is_next` labels.
The peer, DataCollatorForLanguageModeling, is given finished rows of the same number of real tokens and only
pads and masks them (if transformers and torch are installed). Medians of alternating runs; every figure is
real (non-padding) tokens per second. The ratio is ours over the peer's: above 1, ours is faster.
"""

from __future__ import annotations

import os

# One core, whatever the libraries would like.
os.environ.update(
    {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "USE_TF": "0"}
)

import importlib.util
import pydoc_data.topics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import alternate, environment, parser, report, summary
from bert_keras.data import Corpus, lm_generator
from bert_keras.data.lm_generator import LMGenerator
from bert_keras.text import BERTTextEncoder

SHAPES = ((32, 128), (256, 512))
MODES: dict[str, dict[str, Any]] = {
    "pairs": {},
    "pairs, whole words": {"whole_word": True},
    "single": {"use_single_sentence": True},
    "causal, single": {"use_single_sentence": True, "is_causal": True},
    "sentences, packed": {"use_single_sentence": True, "fill": False, "pack": True},
    "pairs of sentences, packed": {"fill": False, "pack": True},
}


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--rounds", type=int, default=15)
    options = command.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rounds, tokens_per_run = (2, 20_000) if options.smoke else (options.rounds, 1_000_000)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, "text.txt")
        text.write_text(english_text(), encoding="utf-8")
        text_encoder = BERTTextEncoder.train(text, vocab_size=2000 if options.smoke else 8000)
        corpus = Corpus.prepare(text_encoder, text, cache_dir=folder)
        rows, results = [], []
        for shape in SHAPES[: 1 if options.smoke else None]:
            for mode, arguments in MODES.items():
                result = measure(text_encoder, corpus, shape, mode, arguments, rounds, tokens_per_run)
                results.append(result)
                rows.append(
                    [result["shape"], mode, *result["tokens_per_second"].values(), result["ratio"] or "-"]
                )
    report(
        f"lm_generator on one core, corpus of {corpus.num_tokens:,} tokens, million real tokens a second",
        ["batch", "mode", "bert_keras", "transformers (masking only)", "ratio"],
        [
            [*row[:2], *(cell / 1e6 if isinstance(cell, float) and cell > 1e3 else cell for cell in row[2:])]
            for row in rows
        ],
        {
            "question": "lm_generator speed",
            "results": results,
            **environment(["numpy", "transformers", "torch"]),
        },
        options.json,
    )


def english_text() -> str:
    """One sentence (or line) on each line, blank lines between documents; a few hundred kilobytes or more."""
    if "BERT_KERAS_DATA" in os.environ:
        return Path(os.environ["BERT_KERAS_DATA"], "gutenberg", "train.txt").read_text(encoding="utf-8")
    topics = pydoc_data.topics.topics
    documents = (
        "\n".join(line.strip() for line in topics[name].split("\n") if line.strip())
        for name in sorted(topics)
    )
    return "\n\n".join(documents)


def measure(
    text_encoder: BERTTextEncoder,
    corpus: Corpus,
    shape: tuple[int, int],
    mode: str,
    arguments: dict[str, Any],
    rounds: int,
    tokens_per_run: int,
) -> dict[str, Any]:
    batch_size, max_len = shape
    generator = lm_generator(text_encoder, corpus, batch_size=batch_size, max_len=max_len, **arguments)
    count = max(1, tokens_per_run // (batch_size * max_len))
    real = sum(int(generator[i].padding_mask.sum()) for i in range(count))
    sides: dict[str, Callable[[], Any]] = {"bert_keras": lambda: [generator[i] for i in range(count)]}
    peer = peer_collator(text_encoder, generator) if not arguments.get("is_causal") else None
    peer_count = max(1, count // 4)
    peer_real = 0
    if peer is not None and "whole_word" not in arguments:
        collate, finished = peer
        peer_real = sum(
            len(row["input_ids"]) for i in range(peer_count) for row in finished[i % len(finished)]
        )
        sides["transformers"] = lambda: [collate(finished[i % len(finished)]) for i in range(peer_count)]
    seconds = alternate(sides, rounds)
    medians = {name: summary(values)["median"] for name, values in seconds.items()}
    ours = real / medians["bert_keras"]
    theirs = peer_real / medians["transformers"] if "transformers" in medians else None
    return {
        "shape": f"{batch_size} x {max_len}", "mode": mode, "ratio": ours / theirs if theirs else None,
        "tokens_per_second": {"bert_keras": ours, "transformers": theirs or "-"},
        "seconds": {name: summary(values) for name, values in seconds.items()},
        "real_tokens": {"bert_keras": real, "transformers": peer_real},
    }  # fmt: skip


def peer_collator(
    text_encoder: BERTTextEncoder, generator: LMGenerator
) -> tuple[Callable[[Any], Any], list[Any]] | None:
    """The collator, and rows for it: those of a few of our batches, before masking."""
    if importlib.util.find_spec("transformers") is None or importlib.util.find_spec("torch") is None:
        return None
    import torch
    from transformers import BertTokenizerFast, DataCollatorForLanguageModeling

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "vocab.txt")
        path.write_text(
            "\n".join(map(text_encoder.id_to_token, range(text_encoder.vocab_size))), encoding="utf-8"
        )
        tokenizer = BertTokenizerFast(vocab_file=str(path))
    finished = []
    for index in range(3):
        batch = generator[index]
        sizes = batch.padding_mask.sum(axis=1)
        tokens = batch.token_classification["lm"].target
        finished.append([{"input_ids": row[:size].tolist()} for row, size in zip(tokens, sizes, strict=True)])
    return DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15), finished


if __name__ == "__main__":
    main()
