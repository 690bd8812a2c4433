"""What int8 saves and costs: a classifier on all-MiniLM-L6-v2, fine-tuned on `sst2`, predicts its development
data.

    BERT_KERAS_DATA=... python -m benchmarks.quantisation [--smoke] [--examples N] [--rounds N] [--json FILE]

It is fine-tuned once in float32 (TensorFlow) and saved. Then each backend, in a process of its own, loads the
file and predicts in three ways, in turn: as it is, with `quantize(model)` (integer weights), and with
`quantize(model, activations=True)` (integer products). Labels changed are those that differ from float32's on
the same backend; the file is what `save_weights` writes. Texts a second: median of the turns, after one that
is not counted.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import (
    Worker,
    alternate,
    environment,
    minilm,
    parser,
    report,
    serve,
    sst2,
    summary,
)

MODULE = "benchmarks.quantisation"
BACKENDS = ("tensorflow", "jax", "torch")
WAYS: dict[str, dict[str, Any] | None] = {"float32": None, "int8": {}, "int8 products": {"activations": True}}
MAX_LEN = 64


def batches(text_encoder: Any, rows: list[tuple[str, int]], seed: int = 0, is_training: bool = True) -> Any:
    """Return batches of 32 sentences, in buckets of like length."""
    from bert_keras import labelled_generator, sentence_from_text

    sentences = [
        sentence_from_text(text_encoder, text, sentence_labels={"sst2": label}, max_len=MAX_LEN)
        for text, label in rows
    ]
    return labelled_generator(
        sentences,
        pad_id=text_encoder.pad_id,
        batch_size=32,
        max_len=MAX_LEN,
        buckets=6,
        seed=seed,
        shuffle=is_training,
        wrap=is_training,
    )


def finetuned(folder: Path, count: int, epochs: int) -> None:
    """Fine-tune on the first examples and keep the model."""
    from bert_keras import TaskMetadata, create_recipe, load_huggingface, load_text_encoder, train_model

    text_encoder = load_text_encoder(minilm())
    model = train_model(
        load_huggingface(minilm(), verbose=0),
        [TaskMetadata("sst2", False, 2, 0.1, read_from="mean")],
        finetune_generator=batches(text_encoder, sst2("train", count)),
        finetune_epochs=epochs,
        recipe=create_recipe("gentle"),
        verbose=0,
    )
    model.save_weights(folder / "model")


def measured(folder: Path, count: int | None, timed: int, rounds: int) -> dict[str, Any]:
    """Return what one backend finds, by way."""
    from bert_keras import load_model, load_text_encoder, predict, quantize

    text_encoder = load_text_encoder(minilm())
    rows = sst2("dev", count)
    models, megabytes = {}, {}
    for name, arguments in WAYS.items():
        models[name] = load_model(folder / "model")
        if arguments is not None:
            quantize(models[name], **arguments)
        models[name].save_weights(folder / name)
        megabytes[name] = (folder / f"{name}.weights.h5").stat().st_size / 1e6

    texts = [text for text, _ in rows]

    def labels(name: str, some: list[str]) -> list[int]:
        found = predict(models[name], text_encoder, some, max_len=MAX_LEN, verbose=0)
        return [int(result["sst2"].label) for result in found]

    said = {name: labels(name, texts) for name in models}
    sides = {name: lambda name=name: labels(name, texts[:timed]) for name in models}
    seconds = alternate(sides, rounds, warmup=1)
    return {
        name: {
            "accuracy": sum(a == b for a, (_, b) in zip(said[name], rows, strict=True)) / len(rows),
            "changed": sum(a != b for a, b in zip(said[name], said["float32"], strict=True)),
            "megabytes": megabytes[name],
            "texts_per_second": min(timed, len(rows)) / summary(seconds[name])["median"],
        }
        for name in models
    }


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        folder, *numbers = sys.argv[2:]
        count, timed, rounds = map(int, numbers)
        return serve(dict, measured(Path(folder), count or None, timed, rounds))
    command = parser(__doc__)
    command.add_argument("--examples", type=int, default=4000, help="examples of the fine-tuning")
    command.add_argument("--epochs", type=int, default=1)
    command.add_argument("--texts", type=int, default=0, help="texts predicted; by default all 872")
    command.add_argument("--timed", type=int, default=256, help="texts of each timed turn")
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--backends", nargs="+", default=list(BACKENDS))
    command.add_argument("--folder", type=Path, help="keep the model there, and take it from there")
    options = command.parse_args()
    if options.smoke:
        options.examples, options.texts, options.timed, options.rounds = 32, 16, 16, 1
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        name = str(options.folder or temporary)
        if not (Path(name) / "model.weights.h5").exists():
            finetuned(Path(name), options.examples, options.epochs)
        for backend in options.backends:
            worker = Worker(
                MODULE,
                [name, *map(str, (options.texts, options.timed, options.rounds))],
                {"KERAS_BACKEND": backend},
            )
            found[backend] = worker.facts
            worker.close()
    rows = [
        [
            backend,
            way,
            f"{one['accuracy']:.4f}",
            one["changed"],
            f"{one['megabytes']:.1f}",
            one["texts_per_second"],
        ]
        for backend, ways in found.items()
        for way, one in ways.items()
    ]
    result = {"question": "quantisation", "options": {**vars(options), "folder": None}, "found": found}
    result |= environment(["keras", "tensorflow", "jax", "torch"])
    columns = ["backend", "weights", "accuracy", "labels changed", "file, MB", "texts/s"]
    title = f"int8 after fine-tuning on {options.examples} examples of sst2"
    report(title, columns, rows, result, options.json)


if __name__ == "__main__":
    main()
