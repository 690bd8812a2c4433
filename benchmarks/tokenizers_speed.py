"""How near `encode_flat` comes to the bare tokenizer library: python benchmarks/tokenizers_speed.py TEXT_FILE

Prints, for each text encoder, the median seconds of both ways over the same lines and their ratio (1 is the
speed of the library alone, more is faster than that).
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import sentencepiece
from tokenizers import BertWordPieceTokenizer

from bert_keras.text import BERTTextEncoder, SentencePieceTextEncoder, read_lines


def measure(ways: Sequence[Callable[[], object]], num_rounds: int) -> list[float]:
    """Median seconds of each way, the ways taking turns so that both see the same load."""
    seconds: list[list[float]] = [[] for _ in ways]
    for _ in range(num_rounds + 1):
        for way, taken in zip(ways, seconds, strict=True):
            start = time.perf_counter()
            way()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken[1:]) for taken in seconds]  # The first round warms up.


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text_file")
    parser.add_argument("--num-lines", type=int, default=50_000)
    parser.add_argument("--num-rounds", type=int, default=7)
    arguments = parser.parse_args()
    lines = list(islice(read_lines(arguments.text_file), arguments.num_lines))
    num_characters = sum(map(len, lines))
    with tempfile.TemporaryDirectory() as folder:
        model_file, vocab_file = Path(folder, "sp.model"), Path(folder, "vocab.txt")
        unigram = SentencePieceTextEncoder.train(lines, 8000, model_file=model_file)
        bare_unigram = sentencepiece.SentencePieceProcessor(model_file=str(model_file))
        bert = BERTTextEncoder.train(lines, 8000, vocab_file=vocab_file)
        bare_bert = BertWordPieceTokenizer(str(vocab_file))
    pairs = {
        "SentencePiece": (
            lambda: bare_unigram.encode(lines, num_threads=-1),
            lambda: unigram.encode_flat(lines),
        ),
        "BERT": (lambda: bare_bert.encode_batch(lines), lambda: bert.encode_flat(lines)),
    }
    for name, ways in pairs.items():
        bare, ours = measure(ways, arguments.num_rounds)
        speed = num_characters / ours / 1e6
        print(f"{name:14} library {bare:.3f} s  encode_flat {ours:.3f} s  ratio {bare / ours:.2f}", end="")
        print(f"  {speed:.1f} million characters/s")


if __name__ == "__main__":
    main()
