"""Loading published weights: time beside KerasHub's building of the same shape, and memory.

    KERAS_BACKEND=... python -m benchmarks.loading [--smoke] [--rounds 3] [--json FILE]

A BERT of random weights is written in the Hugging Face form, 6 layers x 384 and 12 x 768. Each side runs in a
process of its own, in turn: `load_huggingface` (building included, files in the page cache) and KerasHub's
`BertBackbone(...)`, which draws random weights and reads none. Seconds are without imports. Memory: the
process's peak (Linux) minus what it held after imports and a first tiny model of the same kind, over the size
of the weights.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import environment, parser, report, summary

SHAPES = {"6 x 384": (6, 384, 30522), "12 x 768": (12, 768, 30522)}
TINY = (1, 64, 100)


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = command.parse_args()
    if options.child:
        return child(*options.child)
    shapes = {"1 x 64": TINY} if options.smoke else SHAPES
    rows, result = (
        [],
        {"question": "loading", **environment(["keras", "keras-hub", "tensorflow", "jax", "torch"])},
    )
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "tiny", TINY)
        for name, shape in shapes.items():
            write(Path(folder) / "model", shape)
            seconds: dict[str, list[float]] = {"bert_keras": [], "KerasHub": []}
            growth: dict[str, list[float]] = {"bert_keras": [], "KerasHub": []}
            for _ in range(1 if options.smoke else options.rounds):
                for side in seconds:
                    done = subprocess.run(
                        [
                            sys.executable,
                            "-m",
                            "benchmarks.loading",
                            "--child",
                            side,
                            json.dumps(shape),
                            folder,
                        ],
                        capture_output=True,
                        text=True,
                        check=False,
                    )
                    if done.returncode:
                        raise RuntimeError(done.stderr)
                    taken, grown = json.loads(done.stdout.splitlines()[-1])
                    seconds[side].append(taken)
                    growth[side].append(grown)
            size = (Path(folder) / "model/model.safetensors").stat().st_size / 1e6
            ours, theirs = (statistics.median(seconds[side]) for side in seconds)
            memory = statistics.median(growth["bert_keras"])
            rows.append([name, size, ours, theirs, theirs / ours, memory, memory / size])
            result[name] = {side: summary(times) for side, times in seconds.items()} | {"megabytes": growth}
    import keras

    columns = ["shape", "weights, MB", "load_huggingface, s", "KerasHub random, s", "ratio", "peak, MB"]
    report(f"Loading ({keras.backend.backend()})", [*columns, "peak / weights"], rows, result, options.json)


def write(directory: Path, shape: tuple[int, int, int]) -> None:
    """Write random weights of a BERT as `transformers` would."""
    import numpy as np
    from safetensors.numpy import save_file

    from bert_keras.checkpoints.configs import config_from_json, config_to_json
    from bert_keras.checkpoints.tables import BERT

    layers, width, vocab_size = shape
    config = config_from_json(
        "bert",
        {
            "vocab_size": vocab_size,
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 64 or 1,
            "intermediate_size": 4 * width,
            "max_position_embeddings": 512,
        },
        "benchmark",
    )
    shapes, arrays, rng = config.variable_shapes(), {}, np.random.default_rng(0)
    for row in BERT.rows_for(layers):
        if row.target in shapes:
            for source in row.sources:
                shape_there = row.transform.source_shape(shapes[row.target])
                arrays[source] = rng.standard_normal(shape_there, dtype="float32")
    directory.mkdir(exist_ok=True)
    save_file(arrays, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(config_to_json("bert", config)))


def child(side: str, shape_text: str, folder: str) -> None:
    """Measure one side in this process, and print seconds and megabytes."""
    layers, width, vocab_size = json.loads(shape_text)
    build: Any
    if side == "bert_keras":
        from bert_keras import load_huggingface

        def build(directory: str, *_: int) -> Any:
            return load_huggingface(Path(folder) / directory, verbose=0)
    else:
        import keras_hub

        def build(directory: str, layers: int, width: int, vocab_size: int) -> Any:
            return keras_hub.models.BertBackbone(vocab_size, layers, width // 64 or 1, width, 4 * width)

    keep = [build("tiny", 1, 64, 100)]
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak up to now
    before = resident("VmRSS")
    start = time.perf_counter()
    keep.append(build("model", layers, width, vocab_size))
    seconds = time.perf_counter() - start
    print(json.dumps([seconds, resident("VmHWM") - before]))


def resident(field: str) -> float:
    """Return what Linux says of this process's memory, in megabytes."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(rf"{field}:\s*(\d+)", status)[0]) * 1024 / 1e6


if __name__ == "__main__":
    main()
