"""One figure changed: pretraining by a recipe for some steps, with figures of recipe and encoder of your own.

    BERT_KERAS_DATA=... python -m benchmarks.trial --steps 800 [--figures weight_decay=0.1 ...]
        [--encoder embedding_layer_norm=false ...] [--rows 32] [--length 128] [--width 256] [--layers 4]
        [--seeds 1] [--runs FILE] [--save FOLDER]

The setting of `benchmarks.learning`: text, vocabulary, held-out rows. Steps are counted and not seconds, so
that a busy machine gives the same losses; the median step is printed beside them. Values are JSON.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.common import RunLog, environment, mean_and_spread, parser, report
from benchmarks.learning import LAYERS, MAX_LEN, WIDTH, Setting
from benchmarks.pretraining import Clock
from bert_keras import TaskMetadata, TaskWeightScheduler, create_recipe, create_transformer, train_model


def changes(words: list[str]) -> dict[str, Any]:
    """Return what `name=JSON` words say; a value that is no JSON is a text."""
    found: dict[str, Any] = {}
    for word in words:
        name, value = word.split("=", 1)
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found


def run(setting: Setting, options: Any, seed: int) -> dict[str, Any]:
    recipe = create_recipe(options.recipe, **changes(options.figures))
    vocab_size = setting.text_encoder.vocab_size
    encoder = create_transformer(
        vocab_size,
        options.width,
        MAX_LEN,
        options.layers,
        architecture=options.architecture,
        seed=seed,
        dtype=options.dtype,
        **changes(options.encoder),
    )
    clock = Clock()
    model = train_model(
        encoder,
        [TaskMetadata("lm", True, vocab_size, 0.0, TaskWeightScheduler(True, False))],
        setting.batches(seed, options.rows, options.length),
        pretrain_steps=options.steps // options.points,
        pretrain_epochs=options.points,
        recipe=recipe,
        pretrain_callbacks=[clock],
        validation_pretrain_generator=setting.held_out,
        seed=seed,
        verbose=0,
    )
    if options.save:
        Path(options.save).mkdir(parents=True, exist_ok=True)
        model.save_weights(Path(options.save) / f"{options.name}-{seed}")
    losses = [float(loss) for loss in model.training_history["pretrain"].history["val_lm_loss"]]
    return {"losses": losses, "step seconds": statistics.median(clock.seconds)}


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--name", default="trial")
    command.add_argument("--steps", type=int, default=800)
    command.add_argument("--rows", type=int, default=32)
    command.add_argument("--length", type=int, default=MAX_LEN, help="of the rows that it trains on")
    command.add_argument("--width", type=int, default=WIDTH)
    command.add_argument("--layers", type=int, default=LAYERS)
    command.add_argument("--recipe", default="modern")
    command.add_argument("--figures", nargs="*", default=[], metavar="FIELD=VALUE", help="of the recipe")
    command.add_argument("--architecture", default="modern")
    command.add_argument("--encoder", nargs="*", default=[], metavar="ARGUMENT=VALUE", help="of the encoder")
    command.add_argument("--dtype", default="mixed_bfloat16")
    command.add_argument("--points", type=int, default=4, help="held-out measurements of each run")
    command.add_argument("--seeds", type=int, default=1)
    command.add_argument("--work", default="weights/learning", help="where text encoder and corpus are kept")
    command.add_argument("--runs", metavar="FILE", help="keep finished runs there, and take them from there")
    command.add_argument("--save", metavar="FOLDER", help="save the models there, as NAME-SEED")
    options = command.parse_args()
    if options.smoke:
        options.steps, options.points, options.rows, options.seeds = 4, 2, 4, 1
    setting, log = Setting(Path(options.work), options.smoke), RunLog(options.runs)
    kept = (
        "steps",
        "rows",
        "length",
        "width",
        "layers",
        "recipe",
        "figures",
        "architecture",
        "encoder",
        "dtype",
        "points",
    )
    key = {name: getattr(options, name) for name in kept}
    runs = [
        log.get({**key, "seed": seed}, lambda seed=seed: run(setting, options, seed))
        for seed in range(options.seeds)
    ]
    rows = [
        [
            options.steps * (point + 1) // options.points,
            mean_and_spread([found["losses"][point] for found in runs]),
        ]
        for point in range(options.points)
    ]
    result = {"question": "trial", "options": vars(options), "runs": log.runs}
    result |= environment(["keras", "tensorflow", "jax", "torch"])
    step = statistics.median(found["step seconds"] for found in runs)
    report(
        f"{options.name}: {step:.3f} s a step (median)",
        ["steps", "held-out loss"],
        rows,
        result,
        options.json,
    )


if __name__ == "__main__":
    main()
