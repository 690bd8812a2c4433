"""Preparing a corpus beside bare calls of the tokenizer library on the same lines, and the memory it takes.

    python -m benchmarks.corpus_speed [--smoke] [--rounds N] [--megabytes 1000] [--folder DIR] [--json FILE]

Speed: `Corpus.prepare` reads, tokenises, and writes to the disk; the peer is given lines that are in memory
already, in batches, and returns their ids. Medians of alternating runs; the ratio is the peer's time over
ours: 0.8 or more is the aim. Memory: one process of its own prepares a text of so many megabytes; its peak
minus that after imports and loading.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from benchmarks.common import alternate, environment, parser, report, summary
from benchmarks.lm_generator_speed import english_text
from bert_keras.data import Corpus
from bert_keras.text import BERTTextEncoder, SentencePieceTextEncoder, TextEncoder

LINES_PER_CALL = 20_000


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--rounds", type=int, default=5)
    command.add_argument(
        "--megabytes", type=int, default=1000, help="size of the text for the measurement of memory; 0: none"
    )
    command.add_argument(
        "--only", choices=("WordPiece", "SentencePiece"), help="one of the two text encoders"
    )
    command.add_argument("--folder", help="where to put text and corpora (default: a temporary folder)")
    command.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = command.parse_args()
    if options.child:
        return prepare_and_print(*options.child)
    rounds, megabytes, vocab_size = (
        (1, 2, 1000) if options.smoke else (options.rounds, options.megabytes, 8000)
    )
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        text = folder / "text.txt"
        write_text(text, 1 if options.smoke else 20)
        encoders = {
            "WordPiece": BERTTextEncoder.train(text, vocab_size),
            "SentencePiece": SentencePieceTextEncoder.train(text, vocab_size),
        }
        encoders = {name: encoder for name, encoder in encoders.items() if options.only in (None, name)}
        speeds = {name: speed(encoder, text, folder, rounds) for name, encoder in encoders.items()}
        memory = (
            {name: peak(encoder, folder, megabytes) for name, encoder in encoders.items()}
            if megabytes
            else {}
        )
    rows = [
        [name, found["megabytes_per_second"], found["peer_megabytes_per_second"], found["ratio"],
         *(memory[name].values() if memory else ())]
        for name, found in speeds.items()
    ]  # fmt: skip
    columns = ["text encoder", "prepare MB/s", "library alone MB/s", "ratio"]
    columns += ["text MB", "peak MB beyond imports", "seconds"] if memory else []
    result = {"question": "corpus preparation", "speed": speeds, "memory": memory}
    packages = ["numpy", "tokenizers", "sentencepiece"]
    report("Preparing a corpus", columns, rows, {**result, **environment(packages)}, options.json)
    return None


def write_text(path: Path, megabytes: int) -> None:
    """English lines over and over, each with a number of its own, so that no line comes twice."""
    lines = english_text().split("\n")
    size = 0
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for number in itertools.count():
            line = lines[number % len(lines)]
            size += file.write(f"{number} {line}\n" if line.strip() else "\n")
            if size >= megabytes * 1_000_000:
                return


def speed(encoder: TextEncoder, text: Path, folder: Path, rounds: int) -> dict[str, Any]:
    lines = [line for line in text.read_text(encoding="utf-8").split("\n") if line.strip()]
    batches = [lines[start : start + LINES_PER_CALL] for start in range(0, len(lines), LINES_PER_CALL)]
    call = library(encoder, folder)

    def prepare() -> None:
        cache = Path(tempfile.mkdtemp(dir=folder))
        Corpus.prepare(encoder, text, cache_dir=cache)
        shutil.rmtree(cache)

    seconds = alternate({"prepare": prepare, "library": lambda: [call(batch) for batch in batches]}, rounds)
    found = {name: summary(values) for name, values in seconds.items()}
    size = text.stat().st_size / 1e6
    return {
        "megabytes_per_second": size / found["prepare"]["median"],
        "peer_megabytes_per_second": size / found["library"]["median"],
        "ratio": found["library"]["median"] / found["prepare"]["median"],
        "seconds": found,
    }


def library(encoder: TextEncoder, folder: Path) -> Callable[[Any], Any]:
    """A function from lines to lists of ids that calls the library and nothing else."""
    if isinstance(encoder, SentencePieceTextEncoder):
        model = folder / "peer.model"
        encoder.save_model(model)
        processor = SentencePieceProcessor(model_file=str(model))
        return lambda lines: processor.encode(lines, out_type=int, num_threads=-1)
    vocabulary = {encoder.id_to_token(i): i for i in range(encoder.vocab_size)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = BertNormalizer(lowercase=True), BertPreTokenizer()
    return lambda lines: [e.ids for e in tokenizer.encode_batch_fast(lines, add_special_tokens=False)]


def peak(encoder: TextEncoder, folder: Path, megabytes: int) -> dict[str, float]:
    text, saved, cache = folder / f"{megabytes}.txt", folder / "saved", folder / "large"
    if not text.exists():
        write_text(text, megabytes)
    encoder.save(saved)
    command = [sys.executable, "-m", "benchmarks.corpus_speed", "--child", str(saved), str(text), str(cache)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    shutil.rmtree(cache)
    beyond, seconds = map(float, done.stdout.split())
    return {"text_megabytes": megabytes, "peak_megabytes_beyond_imports": beyond, "seconds": seconds}


def prepare_and_print(saved: str, text: str, cache: str) -> None:
    encoder = TextEncoder.load(saved)
    before, start = _max_rss(), time.perf_counter()
    Corpus.prepare(encoder, text, cache_dir=cache)
    print(_max_rss() - before, time.perf_counter() - start)


def _max_rss() -> float:
    """Peak memory of this process so far, in MB. On Linux getrusage would include that of the parent "
    "process."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / 1e6 if sys.platform == "darwin" else size * 1024 / 1e6


if __name__ == "__main__":
    main()
