"""LSTM, QRNN, TextCNN and a small transformer: pretrained alike, then fine-tuned alike.

    BERT_KERAS_DATA=... python -m benchmarks.encoders [--encoders lstm qrnn] [--runs FILE] [--work FOLDER]

Each encoder is equally wide and is pretrained by masked language modelling on the novels of `gutenberg/`,
with the same batches (32 rows of 128 tokens, consecutive sentences), steps, optimizer and learning rates
to choose from (the one with the lowest loss after a tenth of the steps, on masked rows of two other
novels, is trained to the end). Then sentiment (`sst2`) and part-of-speech tags (`ud-ewt`) are fine-tuned
together in one run, from the pretrained weights and from scratch, with the same examples, steps and
learning rates to choose from: the one with the best mean accuracy, with the first seed, on 500 examples
of each task held out for it. The figures are accuracies on the development data, mean and standard
deviation over seeds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
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
    searched,
)
from bert_keras import (
    BERTTextEncoder,
    Sentence,
    TaskMetadata,
    TaskWeightScheduler,
    TextEncoder,
    create_lstm,
    create_optimizer,
    create_qrnn,
    create_text_cnn,
    create_transformer,
    encode_examples,
    evaluate_model,
    label_names,
    labelled_generator,
    lm_generator,
    load_model,
    read_conll,
    read_delimited,
    train_model,
)

MAX_LEN, TUNING = 128, 500
TASKS = ("sst2", "ud-ewt")


def encoder_of(kind: str, vocab_size: int, seed: int, dropout: float, options: Any) -> keras.Model:
    if kind == "transformer":
        rates = dict.fromkeys(("embedding_dropout", "attention_dropout", "residual_dropout"), dropout)
        arguments: dict[str, Any] = {"position_embedding": "rotary", "norm_placement": "pre", **rates}
        return create_transformer(
            vocab_size, options.width, MAX_LEN, 2, seed=seed, dtype=options.dtype, **arguments
        )
    make = {"lstm": create_lstm, "qrnn": create_qrnn, "text_cnn": create_text_cnn}[kind]
    return make(vocab_size, options.width, seed=seed, dropout=dropout, dtype=options.dtype)


class Pretraining:
    """Masked language modelling of an encoder on the novels."""

    def __init__(self, text_encoder: TextEncoder, options: Any, log: RunLog) -> None:
        novels = data_folder() / "gutenberg"
        shape = {"batch_size": 32, "max_len": MAX_LEN, "use_single_sentence": True, "cache_dir": options.work}
        self.vocab_size, self.options, self.log = text_encoder.vocab_size, options, log
        self.train = lm_generator(text_encoder, novels / "train.txt", **shape)
        held_out = lm_generator(text_encoder, novels / "valid.txt", seed=1234, short_prob=0.0, **shape)
        self.held_out = [held_out[i] for i in range(2 if options.smoke else 20)]

    def run(self, kind: str) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Return what was measured of the longest run, and the encoder's weights."""
        options, key = self.options, {"encoder": kind, "width": self.options.width, "phase": "pretrain"}

        def loss(steps: int, rate: float) -> dict[str, Any]:
            return self.log.get(
                {**key, "steps": steps, "learning_rate": rate}, lambda: self._train(kind, steps, rate)
            )

        best = min(options.pretrain_rates, key=lambda rate: loss(options.steps // 10, rate)["loss"])
        found = loss(options.steps, best)
        return found, load_model(self._file(kind)).encoder.get_weights()

    def _file(self, kind: str) -> Path:
        return Path(self.options.work) / f"encoder_{kind}_{self.options.width}.weights.h5"

    def _train(self, kind: str, steps: int, rate: float) -> dict[str, Any]:
        lm = TaskMetadata("lm", True, self.vocab_size, 0.0, TaskWeightScheduler(True, False))
        encoder = encoder_of(kind, self.vocab_size, 0, 0.0, self.options)
        start = time.perf_counter()
        model = train_model(
            encoder,
            [lm],
            self.train,
            pretrain_steps=steps,
            pretrain_optimizer=lambda total: create_optimizer(total, rate, beta_2=0.98),
            verbose=0,
        )
        seconds = time.perf_counter() - start
        loss = evaluate_model(model, self.held_out)["lm_loss"]
        model.save_weights(self._file(kind))
        keras.backend.clear_session()
        return {"loss": loss if math.isfinite(loss) else 1e9, "seconds": seconds}


def read(text_encoder: TextEncoder, options: Any) -> tuple[list[TaskMetadata], dict[str, list[Sentence]]]:
    """Return the tasks, and sentences for training, tuning and development."""
    data, sets = data_folder(), {}
    for split in ("train", "dev"):
        sets["sst2", split] = list(read_delimited(data / f"sst2/{split}.tsv", text=0, labels={"sst2": 1}))
        sets["ud-ewt", split] = list(read_conll(data / f"ud-ewt/{split}.tsv", labels={"ud-ewt": 1}))
    names = {name: label_names(sets[name, "train"], name) for name in TASKS}
    tasks = [
        TaskMetadata("sst2", False, labels=names["sst2"], dropout=0.1, read_from="mean"),
        TaskMetadata("ud-ewt", True, labels=names["ud-ewt"], dropout=0.1),
    ]
    shuffled = np.random.default_rng(0)
    splits: dict[str, list[Sentence]] = {"train": [], "tuning": [], "dev": []}
    for name in TASKS:
        train = sets[name, "train"]
        order = shuffled.permutation(len(train))
        chosen = {
            "tuning": order[: 16 if options.smoke else TUNING],
            "train": order[TUNING : TUNING + options.examples],
        }
        for split, numbers in chosen.items():
            some = [train[i] for i in numbers]
            splits[split] += encode_examples(text_encoder, some, tasks, max_len=MAX_LEN)
        dev = sets[name, "dev"][:: 50 if options.smoke else 1]
        splits["dev"] += encode_examples(text_encoder, dev, tasks, max_len=MAX_LEN)
    return tasks, splits


class Finetuning:
    """Both tasks in one run."""

    def __init__(self, text_encoder: TextEncoder, options: Any) -> None:
        self.tasks, self.sentences = read(text_encoder, options)
        self.text_encoder, self.options = text_encoder, options

    def batches(self, split: str, seed: int) -> Any:
        """Return batches of 32 examples, for training about as many, packed into rows."""
        sentences, pad_id = self.sentences[split], self.text_encoder.pad_id
        if split != "train":
            return labelled_generator(
                sentences, pad_id=pad_id, batch_size=32, shuffle=False, wrap=False, length_multiple=16
            )
        return packed(sentences, pad_id, 32, seed, MAX_LEN)

    def runner(self, kind: str, weights: list[np.ndarray] | None) -> Callable[[float, int], dict[str, Any]]:
        options = self.options

        def run(rate: float, seed: int) -> dict[str, Any]:
            encoder = encoder_of(kind, self.text_encoder.vocab_size, seed, 0.1, options)
            if weights is not None:
                encoder.set_weights(weights)
            start = time.perf_counter()
            model = train_model(
                encoder,
                self.tasks,
                finetune_generator=self.batches("train", seed),
                finetune_epochs=options.epochs,
                finetune_optimizer=lambda steps: create_optimizer(steps, rate),
                seed=seed,
                verbose=0,
            )
            seconds = time.perf_counter() - start
            found: dict[str, Any] = {}
            for split in ("tuning", "dev"):
                scores = evaluate_model(model, self.batches(split, 0))
                found[split] = {name: scores[f"{name}_accuracy"] for name in TASKS}
            keras.backend.clear_session()
            return {**found, "seconds": seconds}

        return run


def main() -> None:
    command = parser(__doc__)
    kinds = ["transformer", "lstm", "qrnn", "text_cnn"]
    command.add_argument("--encoders", nargs="+", default=kinds, choices=kinds)
    command.add_argument("--width", type=int, default=256)
    command.add_argument("--steps", type=int, default=1500, help="of pretraining")
    command.add_argument("--pretrain-rates", type=float, nargs="+", default=[1e-3, 3e-3])
    command.add_argument("--examples", type=int, default=2000, help="labelled examples of each task")
    command.add_argument("--epochs", type=int, default=4)
    command.add_argument("--seeds", type=int, default=3)
    command.add_argument("--learning-rates", type=float, nargs="+", default=[3e-4, 1e-3, 3e-3])
    command.add_argument("--dtype", default="mixed_bfloat16")
    command.add_argument("--work", default="weights/encoders", help="where text encoder and weights are kept")
    command.add_argument("--runs", metavar="FILE", help="keep finished runs there, and take them from there")
    options = command.parse_args()
    if options.smoke:
        options.steps, options.pretrain_rates, options.learning_rates = 10, [1e-3], [1e-3]
        options.examples, options.epochs, options.seeds = 16, 1, 1
    work = Path(options.work)
    if (work / "text_encoder").is_dir():
        text_encoder: TextEncoder = TextEncoder.load(work / "text_encoder")
    else:
        novels = data_folder() / "gutenberg/train.txt"
        text_encoder = BERTTextEncoder.train(novels, vocab_size=8000)
        text_encoder.save(work / "text_encoder")
    log = RunLog(options.runs)
    pretraining, finetuning = Pretraining(text_encoder, options, log), Finetuning(text_encoder, options)
    rows = []
    for kind in options.encoders:
        pretrained, weights = pretraining.run(kind)
        for start, values in (("pretrained", weights), ("scratch", None)):
            key = {"encoder": kind, "width": options.width, "start": start, "examples": options.examples}
            key |= {"epochs": options.epochs, "pretraining": options.steps}
            best, runs = searched(
                log,
                key,
                options.learning_rates,
                options.seeds,
                finetuning.runner(kind, values),
                lambda found: sum(found["tuning"].values()),
            )
            scores = [mean_and_spread([run["dev"][name] for run in runs]) for name in TASKS]
            loss = f"{pretrained['loss']:.3f}" if values is not None else ""
            rows.append([kind, start, loss, f"{best:g}", *scores])
    result = {"question": "encoders", "options": vars(options), "runs": log.runs}
    result |= environment(["keras", "tensorflow", "jax", "torch"])
    title = (
        f"Width {options.width}, {options.steps} steps of pretraining, {options.seeds} seeds, "
        f"{options.examples} labelled examples of each task"
    )
    columns = ["encoder", "start", "held-out loss", "learning rate", *TASKS]
    report(title, columns, rows, result, options.json)


if __name__ == "__main__":
    main()
