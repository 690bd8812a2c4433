"""Does pretraining help? Part-of-speech tagging and sentiment, fine-tuned together in one run, from saved
weights and from scratch.

    python -m benchmarks.pretraining --save weights/gutenberg/pretrained        # first
    BERT_KERAS_DATA=... python -m benchmarks.finetuning [--examples 1000] [--seeds 3] [--json FILE]

Both starts get the same encoder shape, examples, steps, seeds and learning rates. The learning rate of each
start is the one that does best on a tuning split held out of the training data, by the mean of both tasks'
accuracies with the first seed; the figures are accuracies at that rate on the development data and on that
split, mean and standard deviation over seeds. With `--lm-share` masked language modelling goes on in the same
run, for both starts, on the texts of both training sets without their labels; the tasks keep their number of
steps.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.common import (
    RunLog,
    data_folder,
    environment,
    mean_and_spread,
    packed,
    parser,
    report,
    scaled_recipe,
    searched,
    sst2,
)
from bert_keras import (
    Sentence,
    TaskMetadata,
    TaskWeightScheduler,
    TextEncoder,
    create_optimizer,
    create_transformer,
    evaluate_model,
    labelled_generator,
    lm_generator,
    load_model,
    mixed_generator,
    sentence_from_text,
    sentence_from_words,
    train_model,
)

TASKS = ("sentiment", "pos")
STARTS = ("pretrained", "scratch")
MAX_LEN = 64
BATCH_SIZE = 32


def read_sst2(split: str, text_encoder: TextEncoder) -> list[Sentence]:
    return [
        sentence_from_text(text_encoder, text, sentence_labels={"sentiment": label}, max_len=MAX_LEN)
        for text, label in sst2(split)
    ]


def tagged_sentences(path: Path) -> Iterator[tuple[list[str], list[str]]]:
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        rows = [line.split("\t") for line in block.split("\n") if line]
        if rows:
            words, tags = zip(*rows, strict=True)
            yield list(words), list(tags)


def read_pos(path: Path, text_encoder: TextEncoder, tags: list[str]) -> list[Sentence]:
    return [
        sentence_from_words(
            text_encoder, words, token_labels={"pos": [tags.index(t) for t in labels]}, max_len=MAX_LEN
        )
        for words, labels in tagged_sentences(path)
    ]


def text_batches(text_encoder: TextEncoder, folder: str, batch_size: int) -> Any:
    """Return batches for language modelling of the texts of both training sets."""
    texts = [text for text, _ in sst2("train")]
    texts += [" ".join(words) for words, _ in tagged_sentences(data_folder() / "ud-ewt/train.tsv")]
    file = Path(folder) / "texts.txt"
    file.write_text("\n".join(texts), encoding="utf-8")
    shape: dict[str, Any] = {"batch_size": batch_size, "max_len": MAX_LEN, "cache_dir": folder}
    return lm_generator(text_encoder, file, use_single_sentence=True, fill=False, pack=True, **shape)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        study(folder)


def study(folder: str) -> None:
    command = parser(__doc__)
    command.add_argument("--weights", default="weights/gutenberg/pretrained")
    command.add_argument("--text-encoder", default="weights/gutenberg/text_encoder")
    command.add_argument("--starts", nargs="+", default=list(STARTS), choices=STARTS)
    command.add_argument(
        "--examples", type=int, default=1000, help="labelled examples of each task, or all that there are"
    )
    command.add_argument("--tuning", type=int, default=500, help="examples of each task in the tuning split")
    command.add_argument("--epochs", type=int, default=4)
    command.add_argument("--batch-size", type=int, default=BATCH_SIZE)
    command.add_argument("--seeds", type=int, default=3)
    command.add_argument("--learning-rates", type=float, nargs="+", default=[1e-4, 3e-4, 1e-3])
    command.add_argument(
        "--recipe",
        choices=["modern", "bert", "gentle"],
        help="in place of AdamW; the rates are factors of its own",
    )
    command.add_argument(
        "--fresh-blocks",
        type=int,
        default=0,
        help="of the saved encoder's blocks, so many of the last start anew",
    )
    command.add_argument(
        "--lm-share", type=float, default=0.0, help="share of the steps that model language, below 1"
    )
    command.add_argument("--pack", action="store_true", help="put several training sentences into a row")
    command.add_argument("--lm-weight", type=float, default=1.0, help="of its loss")
    command.add_argument("--head-rate", type=float, default=1.0, help="rate of the heads, as a multiple")
    command.add_argument("--layer-decay", type=float, default=1.0, help="rate of a block over that above it")
    command.add_argument("--dropout", type=float, default=0.1, help="of the heads and of the encoder")
    command.add_argument("--dtype", default="float32")
    command.add_argument("--runs", metavar="FILE", help="keep finished runs there, and take them from there")
    command.add_argument("--read-from", default="mean", choices=["token", "mean", "max"])
    options = command.parse_args()
    if options.smoke:
        options.examples, options.tuning, options.epochs, options.seeds, options.learning_rates = (
            16,
            16,
            1,
            1,
            [3e-4],
        )
    data = data_folder()
    text_encoder = TextEncoder.load(options.text_encoder)
    tags = sorted({tag for _, labels in tagged_sentences(data / "ud-ewt/train.tsv") for tag in labels})
    sources = {
        "sentiment": [read_sst2(split, text_encoder) for split in ("train", "dev")],
        "pos": [read_pos(data / f"ud-ewt/{split}.tsv", text_encoder, tags) for split in ("train", "dev")],
    }
    shuffle = np.random.default_rng(0)
    order = {name: shuffle.permutation(len(train)) for name, (train, _) in sources.items()}
    start, stop = options.tuning, options.tuning + options.examples
    tuning = [sources[name][0][i] for name in TASKS for i in order[name][:start]]
    train = [sources[name][0][i] for name in TASKS for i in order[name][start:stop]]
    dev = [sentence for name in TASKS for sentence in sources[name][1]][:: 50 if options.smoke else 1]
    schedule = TaskWeightScheduler(active_in_pretrain=False, active_in_finetune=True)
    tasks = [
        TaskMetadata("sentiment", False, 2, options.dropout, schedule, read_from=options.read_from),
        TaskMetadata("pos", True, len(tags), options.dropout, schedule),
    ]
    text: Any = None
    if options.lm_share:
        weight = TaskWeightScheduler(False, True, finetune_value=options.lm_weight)
        tasks.append(TaskMetadata("lm", True, text_encoder.vocab_size, 0.0, weight))
        text = text_batches(text_encoder, folder, options.batch_size)
    saved = load_model(options.weights).encoder
    dropouts = dict.fromkeys(("embedding_dropout", "attention_dropout", "residual_dropout"), options.dropout)
    config = {**saved.get_config(), **dropouts, "dtype": options.dtype}
    pretrained_weights = saved.get_weights()

    def batches(sentences: list[Sentence], seed: int, is_training: bool) -> Any:
        if is_training and options.pack:
            return packed(sentences, text_encoder.pad_id, options.batch_size, seed)
        return labelled_generator(
            sentences,
            pad_id=text_encoder.pad_id,
            batch_size=options.batch_size,
            seed=seed,
            shuffle=is_training,
            wrap=is_training,
        )

    def run(start_from: str, learning_rate: float, seed: int) -> dict[str, dict[str, float]]:
        encoder = create_transformer(**{**config, "seed": seed})
        if start_from == "pretrained":
            fresh = {
                f"layer_{k}"
                for k in range(config["num_layers"])[config["num_layers"] - options.fresh_blocks :]
            }
            for variable, value in zip(encoder.weights, pretrained_weights, strict=True):
                if not fresh & {*variable.path.split("/")}:
                    variable.assign(value)
        generator = batches(train, seed, True)
        if text is not None:
            share = options.lm_share
            steps = round(len(generator) / (1 - share))
            shares = {"tasks": 1 - share, "text": share}
            generator = mixed_generator(
                {"tasks": generator, "text": text}, shares=shares, num_batches=steps, seed=seed
            )
        plain = options.recipe is None
        by_depth = {"head_rate": options.head_rate, "layer_decay": options.layer_decay}
        model = train_model(
            encoder,
            tasks,
            recipe=None if plain else scaled_recipe(options.recipe, learning_rate, **by_depth),
            finetune_generator=generator,
            finetune_epochs=options.epochs,
            finetune_optimizer=(lambda steps: create_optimizer(steps, learning_rate, **by_depth))
            if plain
            else None,
            seed=seed,
            verbose=0,
        )
        scores = {}
        for split, sentences in (("tuning", tuning), ("dev", dev)):
            measured = evaluate_model(model, batches(sentences, 0, False))
            scores[split] = {name: measured[f"{name}_accuracy"] for name in TASKS}
        keras.backend.clear_session()
        return scores

    log, rows, best = RunLog(options.runs), [], {}
    for start_from in options.starts:
        key = {"start": start_from, "examples": options.examples, "epochs": options.epochs}
        key |= {"recipe": options.recipe, "dropout": options.dropout, "lm_share": options.lm_share}
        key |= {"lm_weight": options.lm_weight, "head_rate": options.head_rate}
        key |= {"layer_decay": options.layer_decay, "pack": options.pack, "dtype": options.dtype}
        key |= {"read_from": options.read_from, "weights": Path(options.weights).name}
        key["batch_size"] = options.batch_size if options.batch_size != BATCH_SIZE else None  # once left out
        if start_from == "pretrained":
            key["fresh_blocks"] = options.fresh_blocks
        best[start_from], runs = searched(
            log,
            key,
            options.learning_rates,
            options.seeds,
            lambda rate, seed, start_from=start_from: run(start_from, rate, seed),
            lambda found: sum(found["tuning"].values()),
        )
        scores = [
            mean_and_spread([found[split][name] for found in runs])
            for split in ("dev", "tuning")
            for name in TASKS
        ]
        rows.append([start_from, f"{best[start_from]:g}", *scores])
    result = {
        "question": "finetuning",
        "options": vars(options),
        "best_learning_rates": best,
        "runs": log.runs,
        **environment(["keras", "tensorflow", "jax", "torch"]),
    }
    title = (
        f"{options.examples} labelled examples of each task, {options.epochs} epochs, {options.seeds} seeds"
    )
    header = ["start", "learning rate", "sst2 dev", "ud-ewt dev", "sst2 held out", "ud-ewt held out"]
    report(title, header, rows, result, options.json)


if __name__ == "__main__":
    main()
