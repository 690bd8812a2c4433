"""Seconds until work can begin: imports, and from the start of the process to the first embedding of a text.

    python -m benchmarks.startup [--smoke] [--rounds N] [--json FILE]

Every figure is that of a whole new process, in turn. Imports: `keras` alone, `bert_keras` (with what it
takes to build an encoder), and `bert_keras.text`, which needs no Keras. First embedding: all-MiniLM-L6-v2
loaded, one text encoded, mean of the hidden states; transformers does the same on PyTorch, and is told to
leave alone a TensorFlow that is there as well (`USE_TF=0`): it would import that, too. Medians; the ratio is
to the side named first in its group.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from benchmarks.common import environment, minilm, parser, report, summary

OURS = """
from bert_keras import embed, load_huggingface, load_text_encoder
folder = {folder!r}
print(embed(load_huggingface(folder, verbose=0), load_text_encoder(folder), "A bird in the hand.").shape)
"""
THEIRS = """
import torch
from transformers import AutoModel, AutoTokenizer
folder = {folder!r}
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
with torch.inference_mode():
    print(model(**tokenizer(["A bird in the hand."], return_tensors="pt")).last_hidden_state.mean(1).shape)
"""
IMPORT = "import bert_keras; bert_keras.create_transformer"


def programs() -> list[tuple[str, str, str, str]]:
    """Return group, side, backend and program of each."""
    backends = ("jax", "tensorflow", "torch")
    return [
        *(("import", "keras", backend, "import keras") for backend in backends),
        *(("import", "bert_keras", backend, IMPORT) for backend in backends),
        ("import", "bert_keras.text", "none", "import bert_keras.text"),
        *(("embedding", "bert_keras", backend, OURS) for backend in backends),
        ("embedding", "transformers", "torch", THEIRS),
    ]


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--rounds", type=int, default=3)
    options = command.parse_args()
    rounds, every = (1, 3) if options.smoke else (options.rounds, 1)
    folder = str(minilm())
    seconds: dict[tuple[str, str, str], list[float]] = {}
    for turn in range(rounds + (not options.smoke)):  # the first one fills the disk's cache
        for group, side, backend, program in programs()[::every]:
            keras_backend = "jax" if backend == "none" else backend
            variables = {"KERAS_BACKEND": keras_backend, "TF_CPP_MIN_LOG_LEVEL": "3", "USE_TF": "0"}
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, "-c", program.format(folder=folder)],
                check=True,
                capture_output=True,
                env={**os.environ, **variables},
            )
            if turn or options.smoke:
                seconds.setdefault((group, side, backend), []).append(time.perf_counter() - start)
    rows, first = [], {}
    for (group, side, backend), values in seconds.items():
        found = summary(values)
        first.setdefault(group, found["median"])
        rows.append([group, side, backend, *found.values(), found["median"] / first[group]])
    result = {"question": "startup", "seconds": [[*key, values] for key, values in seconds.items()]}
    result |= environment(["keras", "transformers", "tensorflow", "jax", "torch"])
    columns = ["what", "side", "backend", "min s", "median s", "max s", "ratio"]
    report("From the start of a process", columns, rows, result, options.json)


if __name__ == "__main__":
    main()
