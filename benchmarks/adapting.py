"""Fewer trained parameters: all-MiniLM-L6-v2 fine-tuned on the same examples of `sst2` in several ways.

    BERT_KERAS_DATA=... python -m benchmarks.adapting [--smoke] [--examples N] [--seeds N] [--json FILE]

Everything, LoRA in two sizes, only the upper half, only the head, rates by depth, and blocks unfrozen one by
one. The same batches, epochs and recipe (`gentle`) for each; its learning rate is the one of its three that
does best on a tuning split with the first seed. Accuracy on the development data, mean and standard deviation
over seeds; parameters that are trained, heads included; seconds of the training at that rate, on the cores as
they were.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from benchmarks.common import RunLog, environment, mean_and_spread, minilm, parser, report, searched, sst2
from benchmarks.quantisation import batches
from bert_keras import (
    GradualUnfreezing,
    TaskMetadata,
    add_lora,
    create_recipe,
    evaluate_model,
    freeze,
    load_huggingface,
    load_text_encoder,
    train_model,
    trained_share,
)

LARGE, SMALL = (5e-4, 1e-3, 2e-3), (5e-5, 1e-4, 2e-4)  # learning rates at the reference width, 768


class Way(NamedTuple):
    """A way to fine-tune: what is done to the encoder, the rates to choose from, changes of the recipe."""

    prepare: Callable[[keras.Model], Any]
    rates: tuple[float, ...]
    changes: dict[str, Any] = {}
    unfreezes: bool = False


EVERY_KIND = ("query", "key", "value", "output", "feedforward")
WAYS = {
    "everything": Way(lambda encoder: None, SMALL),
    "LoRA, rank 8, query and value": Way(lambda encoder: add_lora(encoder, 8), LARGE),
    "LoRA, rank 8, all matrices": Way(lambda encoder: add_lora(encoder, 8, layers=EVERY_KIND), LARGE),
    "upper half": Way(lambda encoder: freeze(encoder, encoder.num_layers // 2), SMALL),
    "head": Way(freeze, LARGE),
    "layer_decay=0.8": Way(lambda encoder: None, SMALL, {"layer_decay": 0.8}),
    "gradual unfreezing": Way(lambda encoder: None, SMALL, {}, True),
}


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--examples", type=int, default=1000)
    command.add_argument("--tuning", type=int, default=300, help="examples of the tuning split")
    command.add_argument("--epochs", type=int, default=2)
    command.add_argument("--seeds", type=int, default=1)
    command.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    command.add_argument("--runs", metavar="FILE", help="keep finished runs there, and take them from there")
    options = command.parse_args()
    ways = {name: WAYS[name] for name in options.ways}
    if options.smoke:
        options.examples, options.tuning, options.epochs, options.seeds = 32, 32, 1, 1
        ways = {name: way._replace(rates=way.rates[:1]) for name, way in list(ways.items())[:2]}
    text_encoder = load_text_encoder(minilm())
    rows = sst2("train", options.tuning + options.examples)
    tuning, train, dev = (
        rows[: options.tuning],
        rows[options.tuning :],
        sst2("dev", 32 if options.smoke else None),
    )
    splits = {
        "tuning": batches(text_encoder, tuning, is_training=False),
        "dev": batches(text_encoder, dev, is_training=False),
    }

    def run(way: Way, rate: float, seed: int) -> dict[str, Any]:
        encoder = load_huggingface(minilm(), verbose=0)
        way.prepare(encoder)
        generator = batches(text_encoder, train, seed)
        steps = max(1, len(generator) * options.epochs // 14)  # all six blocks and embeddings within half
        start = time.perf_counter()
        model = train_model(
            encoder,
            [TaskMetadata("sst2", False, 2, 0.1, read_from="mean")],
            finetune_generator=generator,
            finetune_epochs=options.epochs,
            recipe=create_recipe("gentle", learning_rate=rate, **way.changes),
            finetune_callbacks=[GradualUnfreezing(steps=steps)] if way.unfreezes else None,
            seed=seed,
            verbose=0,
        )
        found = {"seconds": time.perf_counter() - start, "trained": trained_share(model).trained}
        found |= {name: evaluate_model(model, split)["sst2_accuracy"] for name, split in splits.items()}
        keras.backend.clear_session()
        return found

    log, table, best = RunLog(options.runs), [], {}
    for name, way in ways.items():
        key = {"way": name, "examples": options.examples, "epochs": options.epochs}
        best[name], runs = searched(
            log,
            key,
            way.rates,
            options.seeds,
            lambda rate, seed, way=way: run(way, rate, seed),
            lambda found: found["tuning"],
        )
        accuracy = mean_and_spread([found["dev"] for found in runs])
        seconds = sum(found["seconds"] for found in runs) / len(runs)
        table.append([name, f"{runs[0]['trained']:,}", f"{best[name]:g}", accuracy, f"{seconds:.0f}"])
    result = {"question": "adapting", "options": vars(options), "best_learning_rates": best, "runs": log.runs}
    result |= environment(["keras", "tensorflow", "jax", "torch"])
    columns = ["trained", "parameters", "learning rate", "sst2 dev", "seconds"]
    title = f"{options.examples} examples of sst2, {options.epochs} epochs, {options.seeds} seeds"
    report(title, columns, table, result, options.json)


if __name__ == "__main__":
    main()
