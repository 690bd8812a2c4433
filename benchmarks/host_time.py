"""What a training step costs the host on torch, where nothing is compiled: bert_keras beside its peers.

    python -m benchmarks.host_time [--smoke] [--rounds N] [--json FILE]

The step of `benchmarks.best_step` with 12 layers, so small (width 64, vocabulary 200, batch 2 x 16, 3
predictions a row) that computing takes next to no time: what is left is what Python, Keras and PyTorch do
around it, which a GPU waits for when its kernels are short. Dropout 0.1 and without, float32, one thread.
Each side is a process of its own; they take turns, ten steps each time. The ratio is to the first row.
"""

from __future__ import annotations

import sys
from functools import partial

from benchmarks.best_step import bert_keras_step, kerashub_step, transformers_step
from benchmarks.common import environment, parser, report, serve_timed, summary, take_turns, workers_of

SHAPE = {"vocab_size": 200, "layers": 12, "width": 64, "rows": 2, "length": 16, "predictions": 3}
STEPS = 10
SIDES = {
    "bert_keras": bert_keras_step,
    "bert_keras without dropout": partial(bert_keras_step, dropout=0.0),
    "KerasHub": kerashub_step,
    "transformers": transformers_step,
}


def child(name: str, dtype: str, layers: str) -> None:
    import torch

    torch.set_num_threads(1)
    serve_timed(SIDES[name]({**SHAPE, "layers": int(layers)}, dtype), STEPS)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        return child(*sys.argv[2:])
    command = parser(__doc__)
    command.add_argument("--rounds", type=int, default=15)
    options = command.parse_args()
    rounds, layers = (1, 1) if options.smoke else (options.rounds, SHAPE["layers"])
    workers = workers_of("benchmarks.host_time", [(name, "torch", "float32") for name in SIDES], layers)
    found = take_turns(workers, rounds)
    seconds = {name: summary([run["seconds"] for run in runs]) for name, runs in found.items()}
    first = next(iter(seconds.values()))["median"]
    rows = [
        [name, *(1000 * value for value in side.values()), side["median"] / first]
        for name, side in seconds.items()
    ]
    result = {"question": "host_time", "shape": {**SHAPE, "layers": layers}, "seconds": seconds}
    result |= environment(["keras", "keras-hub", "transformers", "torch"])
    columns = ["side, backend, precision", "min ms", "median ms", "max ms", "ratio"]
    report(f"The host's time for a step of {layers} layers", columns, rows, result, options.json)


if __name__ == "__main__":
    main()
