"""Alternating timed runs, a table of both sides, and JSON: what every benchmark here shares."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that knows `--smoke` (seconds, proves only that it runs) and `--json FILE`."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--smoke", action="store_true", help="smallest sizes, one round: proves that it runs")
    made.add_argument("--json", metavar="FILE", help="also write the result there")
    return made


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
    return {"python": platform.python_version(), "machine": platform.machine(), "versions": versions}


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
        for done in self.runs:
            if all(done.get(name) == value for name, value in key.items()):
                return done
        done = {**key, **run()}
        print(done, flush=True)
        self.runs.append(done)
        if self.file:
            with open(self.file, "a", encoding="utf-8") as lines:
                lines.write(json.dumps(done) + "\n")
        return done


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
    """Print a table; write the result as JSON if a file was named."""
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
            json.dump(result, file, indent=1)
