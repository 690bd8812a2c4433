"""BERT-base on one GPU: training steps beside KerasHub and transformers, and the share of the GPU's rate.

    python -m benchmarks.gpu [--smoke] [--length 512] [--sides NAME ...] [--json FILE]
    python -m benchmarks.gpu --profile SIDE             # which kernels take the time

12 layers, width 768, vocabulary 30,522, as many rows as hold 32,768 tokens, 15 % of the positions predicted,
AdamW, bfloat16 (Keras' `mixed_bfloat16`, torch's autocast). bert_keras and KerasHub train by `fit`,
transformers by a plain loop with the fused optimizer, which does not wait for the loss. Each side is a
process of its own; some at a time are in the GPU's memory and take turns of ten steps, after two that are not
counted. Dropout is 0.1 everywhere but where a side says otherwise. A side that is not ready after
`--patience` seconds is left out.

Utilisation is what the products that the model needs (`benchmarks.utilisation`) make of the rate that the
maker gives for dense bfloat16 (989 TFLOP/s, H100 and H200), and of the rate of one product of two matrices of
8,192 x 8,192 measured on the spot.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.best_step import kerashub_model_and_batch, model_and_batch, transformers_model_and_batch
from benchmarks.common import Worker, environment, parser, report, summary, take_turns, torch_device

PEAK = 989e12
SIDES = {
    # name: module's function, backend, dropout, compiled
    "bert_keras, jax": ("ours", "jax", 0.1, False),
    "bert_keras, torch": ("ours", "torch", 0.1, False),
    "bert_keras, torch, compiled": ("ours", "torch", 0.1, True),
    "bert_keras, jax, no dropout": ("ours", "jax", 0.0, False),
    "bert_keras, torch, no dropout": ("ours", "torch", 0.0, False),
    "KerasHub, jax": ("kerashub", "jax", 0.1, False),
    "KerasHub, torch": ("kerashub", "torch", 0.1, False),
    "transformers": ("transformers", "torch", 0.1, False),
    "transformers, compiled": ("transformers", "torch", 0.1, True),
}
SHAPE = {"vocab_size": 30_522, "layers": 12, "width": 768}
SMOKE = {"vocab_size": 500, "layers": 1, "width": 64}
TOKENS = 32_768  # a step
MANY = 1_000_000  # turns: until the parent has enough


def shape_of(length: int, smoke: bool) -> dict[str, int]:
    base, tokens = (SMOKE, 4 * length) if smoke else (SHAPE, TOKENS)
    return {**base, "rows": tokens // length, "length": length, "predictions": round(0.15 * length)}


class Turns:
    """Turns of some steps, each when the parent says so; a first one, which compiles, at once."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.start = 0.0

    def begin(self) -> None:
        self.start = time.perf_counter()

    def end(self, loss: Any) -> None:
        """Wait for the device, say how long the turn took, and wait for the next."""
        float(loss)
        answer = {"seconds": time.perf_counter() - self.start, "peak": self._peak()}
        print("@answer " + json.dumps(answer), flush=True)
        if not sys.stdin.readline():
            raise SystemExit

    def _peak(self) -> float:
        """Return the most GiB of the device's memory that were in use."""
        if self.backend == "torch":
            import torch

            return torch.cuda.max_memory_allocated() / 2**30 if torch_device() == "cuda" else 0.0
        import jax

        return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0) / 2**30

    def callback(self) -> Any:
        import keras

        turns = self

        class Callback(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
                turns.begin()

            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                turns.end(logs["loss"])

        return Callback()


Train = Callable[[int, Turns], None]  # steps of a turn; ends with SystemExit


def ours(shape: dict[str, int], dropout: float, is_compiled: bool) -> Train:
    from bert_keras import train_model
    from bert_keras.training import AdamW

    model, batch = model_and_batch(shape, "mixed_bfloat16", dropout)

    def train(steps: int, turns: Turns) -> None:
        train_model(
            model,
            model.tasks,
            [batch],
            pretrain_steps=steps,
            pretrain_epochs=MANY,
            pretrain_optimizer=AdamW(1e-4),
            pretrain_callbacks=[turns.callback()],
            jit_compile=is_compiled or "auto",
            verbose=0,
        )

    return train


def kerashub(shape: dict[str, int], dropout: float, is_compiled: bool) -> Train:
    import keras

    model, batch = kerashub_model_and_batch(shape, "mixed_bfloat16", dropout)
    batches = (batch for _ in itertools.repeat(None))  # Keras takes generators, no other iterators

    def train(steps: int, turns: Turns) -> None:
        fit = keras.Model.fit  # KerasHub's own would look for a library to preprocess with
        fit(
            model,
            batches,
            steps_per_epoch=steps,
            epochs=MANY,
            callbacks=[turns.callback()],
            verbose=0,
        )

    return train


def transformers(shape: dict[str, int], dropout: float, is_compiled: bool) -> Train:
    import torch

    device = torch_device()
    model, x = transformers_model_and_batch(shape, dropout)
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    run = torch.compile(model) if is_compiled else model

    def step() -> Any:
        inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in x.items()}
        with torch.autocast(device, torch.bfloat16):
            loss = run(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    def train(steps: int, turns: Turns) -> None:
        while True:
            turns.begin()
            for _ in range(steps):
                loss = step()
            turns.end(loss)

    return train


def product_rate(side: int, times: int = 20) -> float:
    """Return floating-point operations a second of a product of two bfloat16 matrices, on torch."""
    import torch

    device = torch_device()
    one, other = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for turn in range(times + 3):
        start = time.perf_counter()
        torch.matmul(one, other)
        if device == "cuda":
            torch.cuda.synchronize()
        if turn >= 3:
            seconds.append(time.perf_counter() - start)
    return 2.0 * side**3 / summary(seconds)["median"]


def kernels(name: str, shape: dict[str, int]) -> list[tuple[str, float, int]]:
    """Return the device's kernels in some steps of a side: name, milliseconds and calls of a step, longest
    first."""
    make, backend, dropout, is_compiled = SIDES[name]
    watched = _Watched(backend)
    with contextlib.suppress(SystemExit):
        globals()[make](shape, dropout, is_compiled)(watched.steps, watched)
    return [
        (key, value / watched.steps, round(watched.calls[key] / watched.steps))
        for key, value in watched.found.most_common()
    ]


class _Watched(Turns):
    """Two turns, of which the second runs under the backend's profiler."""

    steps = 5

    def __init__(self, backend: str) -> None:
        super().__init__(backend)
        self.found: Counter[str] = Counter()  # milliseconds
        self.calls: Counter[str] = Counter()
        self.profile: Any = None
        self.folder = tempfile.mkdtemp()

    def end(self, loss: Any) -> None:
        float(loss)
        if self.profile is None:
            self._start()
            return
        print(f"{1000 * (time.perf_counter() - self.start) / self.steps:.1f} ms a step under the profiler")
        self._stop()
        raise SystemExit

    def _start(self) -> None:
        if self.backend == "torch":
            import torch

            kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
            self.profile = torch.profiler.profile(activities=kinds)
            self.profile.start()
            return
        import jax

        jax.profiler.start_trace(self.folder)
        self.profile = True

    def _stop(self) -> None:
        if self.backend == "torch":
            self.profile.stop()
            for event in self.profile.key_averages():
                if str(event.device_type) != "DeviceType.CPU":
                    self._count(event.key, event.self_device_time_total / 1000, event.count)
                elif "Synchronize" in event.key:
                    self._count(f"{event.key} (host)", event.self_cpu_time_total / 1000, event.count)
            return
        import jax

        jax.profiler.stop_trace()
        for file in Path(self.folder).rglob("*.xplane.pb"):
            for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
                for line in plane.lines if "/device:" in plane.name else ():
                    for event in line.events if line.name.startswith("Stream") else ():
                        self._count(event.name, event.duration_ns / 1e6, 1)

    def _count(self, name: str, milliseconds: float, times: int) -> None:
        self.found[name] += milliseconds
        self.calls[name] += times


def child(name: str, length: str, size: str, steps: str) -> None:
    make, backend, dropout, is_compiled = SIDES[name]
    train = globals()[make](shape_of(int(length), size == "smoke"), dropout, is_compiled)
    train(int(steps), Turns(backend))


def worker(name: str, patience: float, *arguments: Any) -> Worker | None:
    """Start a process for one side, and wait until it is warm; None if it fails or takes longer."""
    variables = {"KERAS_BACKEND": SIDES[name][1], "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    try:
        return Worker("benchmarks.gpu", [name, *map(str, arguments)], variables, patience)
    except SystemExit as error:
        print(f"{name}: {error}", file=sys.stderr, flush=True)
        return None


def compared(names: list[str], length: int, options: Any) -> dict[str, list[dict[str, float]]]:
    """Start all sides at once, then let them take turns; return what was measured of each."""
    size = "smoke" if options.smoke else "full"
    with ThreadPoolExecutor(len(names)) as pool:
        workers = pool.map(lambda name: worker(name, options.patience, length, size, options.steps), names)
    return take_turns({name: w for name, w in zip(names, workers, strict=True) if w}, options.rounds)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        return child(*sys.argv[2:])
    command = parser(__doc__)
    command.add_argument("--length", type=int, nargs="+", default=[128, 512])
    command.add_argument("--sides", nargs="+", default=list(SIDES), choices=list(SIDES), metavar="NAME")
    command.add_argument("--steps", type=int, default=10, help="of a turn")
    command.add_argument("--rounds", type=int, default=5)
    command.add_argument(
        "--at-once", type=int, default=4, help="sides that wait in the GPU's memory together"
    )
    command.add_argument(
        "--patience",
        type=float,
        default=150.0,
        help="seconds in which a side must have started",
    )
    command.add_argument("--profile", metavar="SIDE", choices=list(SIDES))
    options = command.parse_args()
    if options.smoke:
        options.length, options.steps, options.rounds = [32], 2, 1
        options.sides = list({SIDES[name][0]: name for name in SIDES if "compiled" not in name}.values())
    if options.profile:
        for length in options.length:
            found = kernels(options.profile, shape_of(length, options.smoke))
            print(f"{options.profile}, length {length}: {sum(v for _, v, _ in found):.1f} ms a step")
            for key, value, count in found[:25]:
                print(f"{value:9.3f} ms  {count:5d} x  {key[:110]}")
        return
    os.environ.setdefault("KERAS_BACKEND", "torch")  # of this process, which only counts
    from benchmarks.utilisation import needed_flops

    if device_name() == "no GPU" and not options.smoke:
        raise SystemExit("This needs a GPU that PyTorch and JAX can use, and there is none.")
    rate = product_rate(64 if options.smoke else 8192)
    columns = ["length", "side", "tokens/s", "min ms", "median ms", "max ms", "of 989 TFLOP/s"]
    columns += [f"of {rate / 1e12:.0f} TFLOP/s", "GiB"]
    result = {"question": "gpu", "product_rate": rate, "tokens_a_step": TOKENS}
    result |= environment(["keras", "keras-hub", "transformers", "jax", "torch"])
    result["hardware"]["processor"] = f"{device_name()}, {result['hardware']['processor']}"
    rows, result["seconds"] = [], {}
    for length in options.length:
        shape = shape_of(length, options.smoke)
        needed, tokens = needed_flops(shape), shape["rows"] * length
        for first in range(0, len(options.sides), options.at_once):
            for name, runs in compared(
                options.sides[first : first + options.at_once], length, options
            ).items():
                step = summary([run["seconds"] / options.steps for run in runs])
                result["seconds"][f"{name}, {length}"] = step
                reached = needed / step["median"]
                rows.append(
                    [length, name, tokens / step["median"]]
                    + [1000 * step[which] for which in ("min", "median", "max")]
                    + [f"{reached / PEAK:.1%}", f"{reached / rate:.1%}", max(run["peak"] for run in runs)]
                )
            # After each group, as machines with a GPU may be had for minutes only.
            report("A training step of BERT-base on a GPU", columns, rows, result, options.json)


def device_name() -> str:
    import torch

    return torch.cuda.get_device_name() if torch_device() == "cuda" else "no GPU"


if __name__ == "__main__":
    main()
