"""Run the benchmarks one after the other and render docs/benchmarks.md from what they found.

    python -m benchmarks [--only NAME ...] [--smoke]      # runs, keeps benchmarks/results/NAME.json, renders
    python -m benchmarks --render                         # renders what is kept

Each runs in a process of its own. `--smoke` runs each script once at its smallest and keeps nothing;
`--list` prints a run of each script.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bert_keras.text.files import write_atomic

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE.parent / "docs/benchmarks.md"


class Run(NamedTuple):
    """One run of a script.

    Attributes:
        name: of its result.
        script: the module in this package.
        backend: Keras' backend; None if the script chooses.
        needs_data: whether it reads the folder of real data.
        needs_gpu: whether it is left out where there is none.
        arguments: of the script.
    """

    name: str
    script: str
    backend: str | None = None
    needs_data: bool = False
    arguments: tuple[str, ...] = ()
    needs_gpu: bool = False


def each_backend(script: str, *arguments: str) -> list[Run]:
    backends = ("tensorflow", "jax", "torch")
    return [Run(f"{script}_{backend}", script, backend, False, arguments) for backend in backends]


PLAN: dict[str, list[Run]] = {
    "Preparing a corpus": [Run("corpus_speed", "corpus_speed")],
    "Batches for pretraining": [Run("lm_generator_speed", "lm_generator_speed")],
    "Padding": [Run("padding", "padding", needs_data=True)],
    "One training step, best settings": [Run("best_step", "best_step")],
    "Where a step's time goes": [
        Run("step_parts", "step_parts", "tensorflow"),
        Run("step_parts_modern", "step_parts", "tensorflow", False, ("--recipe", "modern")),
    ],
    "A step beside the machine's products": each_backend("utilisation"),
    "The host's time on torch": [Run("host_time", "host_time")],
    "Settings of a step": [Run("step_settings", "step_settings")],
    "Operations of a step": each_backend("operations"),
    "One training step on the same backend": each_backend("training_step"),
    "Raw text to trained steps": [Run("end_to_end", "end_to_end", needs_data=True)],
    "Fine-tuning": [Run("finetuning_speed", "finetuning_speed", needs_data=True)],
    "Prediction": [Run("prediction_speed", "prediction_speed", needs_data=True)],
    "Loading published weights": each_backend("loading"),
    "Starting": [Run("startup", "startup")],
    "Growth": [Run("growth_tensorflow", "growth", "tensorflow")],
    "On a GPU": [
        Run("gpu_512", "gpu", "torch", False, ("--length", "512"), True),
        Run("gpu_128", "gpu", "torch", False, ("--length", "128", "--at-once", "8"), True),
    ],
}


def carry_out(run: Run) -> bool:
    """Run a script, keep what it finds, and return whether it succeeded."""
    RESULTS.mkdir(exist_ok=True)
    print(f"\n==> {run.name}", flush=True)
    return started(run, "--json", str(kept(run))).wait() == 0


def try_out(run: Run) -> bool:
    """Run a script at its smallest, and return whether it succeeded."""
    print(f"\n==> {run.name}", flush=True)
    return started(run, "--smoke").wait() == 0


def started(run: Run, *further: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"benchmarks.{run.script}", *run.arguments, *further]
    variables = {} if run.backend is None else {"KERAS_BACKEND": run.backend}
    return subprocess.Popen(command, env={**os.environ, **variables}, cwd=HERE.parent)


def one_of_each_script(runs: Sequence[Run]) -> list[Run]:
    return [*{run.script: run for run in reversed(runs)}.values()][::-1]


def rendered() -> str:
    """Return the page: for each question what is asked, in the words of the script, and the tables found."""
    parts = [
        "# Benchmarks",
        "`python -m benchmarks` measures again and renders this page; do not edit it. The scripts lie in "
        "`benchmarks/`, the figures with all details in `benchmarks/results/`. What was learnt from them is "
        "in [log.md](log.md); what encoders learn, in [learning.md](learning.md).",
    ]
    for heading, runs in PLAN.items():
        found = [json.loads(path.read_text(encoding="utf-8")) for run in runs if (path := kept(run)).exists()]
        if not found:
            continue
        parts.append(f"## {heading}")
        parts.append(explained(runs[0].script))
        parts += [part for result in found for part in shown(result)]
    return "\n\n".join(parts) + "\n"


def kept(run: Run) -> Path:
    return RESULTS / f"{run.name}.json"


def explained(script: str) -> str:
    """Return the docstring of a script, its commands as code."""
    text = ast.get_docstring(ast.parse((HERE / f"{script}.py").read_text(encoding="utf-8"))) or ""
    paragraphs = []
    for part in text.split("\n\n"):
        code = "\n".join(line.strip() for line in part.splitlines())
        paragraphs.append(f"```sh\n{code}\n```" if part.startswith("    ") else part)
    return "\n\n".join(paragraphs)


def shown(result: dict[str, Any]) -> list[str]:
    """Return the table of a result, and what it was measured on."""
    lines = [result["columns"], ["---"] * len(result["columns"]), *result["rows"]]
    table = "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
    versions = ", ".join(f"{name} {v}" for name, v in result["versions"].items() if v)
    hardware = f"{result['hardware']['cores']} cores, {result['hardware']['processor']}"
    return [f"**{result['title']}**", table, f"Python {result['python']}, {versions}; {hardware}."]


def main() -> None:
    command = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    runs = [run for group in PLAN.values() for run in group]
    command.add_argument("--only", nargs="+", metavar="NAME", help=f"some of {[run.name for run in runs]}")
    command.add_argument("--smoke", action="store_true", help="smallest sizes; nothing is kept")
    command.add_argument("--render", action="store_true", help="run nothing")
    command.add_argument("--list", action="store_true", help="run nothing, print a run of each script")
    options = command.parse_args()
    if options.list:
        print(*(run.name for run in one_of_each_script(runs)), sep="\n")
        return
    names = options.only or [run.name for run in runs]
    unknown = sorted({*names} - {run.name for run in runs})
    if unknown:
        raise SystemExit(f"Unknown: {unknown}. Known are {[run.name for run in runs]}.")
    chosen = [] if options.render else [run for run in runs if run.name in names]
    if "BERT_KERAS_DATA" not in os.environ:
        left_out = [run.name for run in chosen if run.needs_data]
        if left_out:
            print(f"BERT_KERAS_DATA names no folder of data, so these are left out: {left_out}", flush=True)
        chosen = [run for run in chosen if not run.needs_data]
    if not options.smoke and not options.only and shutil.which("nvidia-smi") is None:
        chosen = [run for run in chosen if not run.needs_gpu]
    if options.smoke:
        chosen = one_of_each_script(chosen)
        succeeded = [try_out(run) for run in chosen]
    else:
        succeeded = [carry_out(run) for run in chosen]
    failed = [run.name for run, well in zip(chosen, succeeded, strict=True) if not well]
    if not options.smoke:
        write_atomic(PAGE, rendered().encode())
    if failed:
        raise SystemExit(f"Failed: {failed}")


if __name__ == "__main__":
    main()
