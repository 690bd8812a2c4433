"""Which share of the computed tokens is padding: plain batches, batches by length, packed rows.

    BERT_KERAS_DATA=... python -m benchmarks.padding [--smoke] [--work FOLDER] [--json FILE]

`sst2` under the text encoder of all-MiniLM-L6-v2, batches of 32 (packed: rows of 128), one epoch; plain
batches are padded to a multiple of 16. `gutenberg` under 8,000 WordPieces, batches of 32 rows of 128, the
first 500. Nothing is timed or drawn by chance of the machine: the figures are the same everywhere.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import data_folder, environment, minilm, parser, report, sst2
from bert_keras.data import (
    Corpus,
    SentenceBatch,
    labelled_generator,
    lm_generator,
    sentence_from_text,
)
from bert_keras.text import BERTTextEncoder, TextEncoder, load_text_encoder

LABELLED: dict[str, dict[str, Any]] = {
    "plain": {"length_multiple": 16},
    "four buckets": {"buckets": 4},
    "eight buckets": {"buckets": 8},
    "eight buckets of any length": {"buckets": 8, "length_multiple": 1},
    "packed": {"pack": True, "max_len": 128},
}
TEXT: dict[str, dict[str, Any]] = {
    "sentences": {"use_single_sentence": True, "fill": False},
    "pairs of sentences": {"fill": False},
    "chunks": {"use_single_sentence": True},
    "pairs of chunks": {},
}


def share_of(batches: Iterable[SentenceBatch]) -> float:
    real = computed = 0
    for batch in batches:
        real += int(batch.padding_mask.sum())
        computed += batch.padding_mask.size
    return 1.0 - real / computed


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--work", help="where text encoder and corpus are kept; by default nowhere")
    options = command.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [*of_labelled_texts(options.smoke), *of_novels(Path(options.work or folder), options.smoke)]
    result = {"question": "padding"} | environment(["tokenizers"])
    report("Share of padding", ["text", "batches", "padding"], rows, result, options.json)


def of_labelled_texts(is_small: bool) -> Iterator[list[str]]:
    text_encoder: TextEncoder = load_text_encoder(minilm())
    sentences = [
        sentence_from_text(text_encoder, text, sentence_labels={"sst2": label}, max_len=128)
        for text, label in sst2("train", 200 if is_small else None)
    ]
    for way, arguments in LABELLED.items():
        generator = labelled_generator(sentences, pad_id=text_encoder.pad_id, batch_size=32, **arguments)
        yield ["sst2", way, f"{share_of(generator):.1%}"]


def of_novels(work: Path, is_small: bool) -> Iterator[list[str]]:
    novels = data_folder() / ("gutenberg/valid.txt" if is_small else "gutenberg/train.txt")
    if not (work / "text_encoder").is_dir():
        BERTTextEncoder.train(novels, vocab_size=1000 if is_small else 8000).save(work / "text_encoder")
    text_encoder = TextEncoder.load(work / "text_encoder")
    corpus = Corpus.prepare(text_encoder, novels, cache_dir=work)
    for what, arguments in TEXT.items():
        for way, pack in (("plain", False), ("packed", True)):
            text = lm_generator(text_encoder, corpus, batch_size=32, max_len=128, pack=pack, **arguments)
            yield [
                f"gutenberg, {what}",
                way,
                f"{share_of(text[number] for number in range(5 if is_small else 500)):.1%}",
            ]


if __name__ == "__main__":
    main()
