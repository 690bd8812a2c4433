"""Which of Keras' settings make a training step faster: `jit_compile` and `steps_per_execution`, by backend.

    python -m benchmarks.step_settings [--smoke] [--rounds N] [--json FILE]

The step of `benchmarks.best_step` (4 layers, width 256, vocabulary 30,522, batch 16 x 128, 20 predictions a
row) within `fit`, fed as `train_model` feeds it, in each backend's faster precision. Each setting is a
process of its own; they take turns of 16 steps, after one that compiles and does not count. `auto` is what
`train_model` leaves to Keras. On torch `jit_compile` is `torch.compile`, and there is no other number of
steps per execution. Tokens a second, median of the turns; the ratio is to the fastest setting of all.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.best_step import SHAPE, SMOKE, model_and_batch
from benchmarks.common import Worker, compared, environment, parser, report, serve_timed

MODULE = "benchmarks.step_settings"
SETTINGS = [  # backend, precision, jit_compile, steps_per_execution
    ("tensorflow", "mixed_bfloat16", "auto", 1),
    ("tensorflow", "mixed_bfloat16", "False", 1),
    ("tensorflow", "mixed_bfloat16", "True", 1),
    ("tensorflow", "mixed_bfloat16", "auto", 8),
    ("jax", "float32", "auto", 1),
    ("jax", "float32", "auto", 8),
    ("torch", "mixed_bfloat16", "auto", 1),
    ("torch", "mixed_bfloat16", "True", 1),
]


def child(dtype: str, jit_compile: str, steps_per_execution: str, steps: str, size: str) -> None:
    from bert_keras.training import AdamW, TaskFeed
    from bert_keras.training.checks import encoder_facts

    model, batch = model_and_batch(SMOKE if size == "smoke" else SHAPE, dtype)
    model.compile(
        AdamW(1e-4),
        jit_compile={"auto": "auto", "True": True, "False": False}[jit_compile],
        steps_per_execution=int(steps_per_execution),
    )
    feed = TaskFeed(
        [batch], model.tasks, encoder_facts(model.encoder), lambda task, step: 1.0, None, "generator"
    )

    def turn() -> Any:
        with feed.running():
            feed.start()
            return model.fit(feed.as_keras_data(), steps_per_epoch=int(steps), shuffle=False, verbose=0)

    serve_timed(turn)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        return child(*sys.argv[2:])
    command = parser(__doc__)
    command.add_argument("--rounds", type=int, default=5)
    options = command.parse_args()
    rounds, settings, shape = (
        (1, SETTINGS[::4], SMOKE) if options.smoke else (options.rounds, SETTINGS, SHAPE)
    )
    steps, size = 16, "smoke" if options.smoke else "full"
    workers = {
        f"bert_keras, {backend}, {dtype}, jit_compile={jit}, steps_per_execution={together}": Worker(
            MODULE, [dtype, jit, str(together), str(steps), size], {"KERAS_BACKEND": backend}
        )
        for backend, dtype, jit, together in settings
    }
    tokens = steps * shape["rows"] * shape["length"]
    rows, seconds = compared(workers, rounds, 0, tokens)
    rows = [[name.removeprefix("bert_keras, "), *figures] for name, *figures in rows]
    result = {"question": "step_settings", "shape": shape, "steps": steps, "seconds": seconds}
    result |= environment(["keras", "tensorflow", "jax", "torch"])
    columns = ["setting", "tokens/s", "min s", "median s", "max s", "ratio"]
    report("Masked-language-modelling steps within `fit`", columns, rows, result, options.json)


if __name__ == "__main__":
    main()
