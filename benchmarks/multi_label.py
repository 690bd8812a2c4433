"""Does pretraining help a task of 1,999 labels? TextCNN and transformer, pretrained and from scratch.

    BERT_KERAS_DATA=... python -m benchmarks.multi_label [--encoders text_cnn transformer] [--runs FILE]

The experiment of brightmart/bert_language_understanding (2018) on its data, controlled: there TextCNN
rose from an F1 of 0.09 to 0.58 after one epoch, with a ten times larger learning rate for the pretrained
run, and the transformer did not converge. Here both starts get the same encoder, examples, steps, seeds
and learning rates to choose from. Words are ids already, so the vocabulary is one of whole words
(SentencePiece). Each encoder is pretrained by masked language modelling on the raw lines of the training
data alone, then fine-tuned for seven epochs; micro and macro F1 on `valid.txt` after
epochs 1, 5 and 7, at the threshold that is best for micro F1 on 750 training lines held out (there are some
seven examples of a label, and few probabilities pass one half; `--runs` keeps the figures at one half too).
The learning rate is the one with the best micro F1 there, after the last epoch and with the first seed.
Texts are read by a mean over their tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.common import RunLog, data_folder, environment, mean_and_spread, parser, report, searched
from bert_keras import (
    SentencePieceTextEncoder,
    TaskMetadata,
    TaskWeightScheduler,
    TextEncoder,
    create_optimizer,
    create_text_cnn,
    create_transformer,
    encode_examples,
    encoder_arrays,
    label_names,
    labelled_generator,
    lm_generator,
    load_model,
    read_fasttext,
    train_model,
)
from bert_keras.training.scores import set_f1

MAX_LEN = 128
TUNING = 750
SHOWN = (1, 5, 7)
ENCODERS = ("text_cnn", "transformer")


def shown_epochs(options: Any) -> list[int]:
    """Return the epochs after which F1 is taken: those of the table, and the last."""
    return [epoch for epoch in SHOWN if epoch < options.epochs] + [options.epochs]


def encoder_of(kind: str, vocab_size: int, seed: int, options: Any) -> keras.Model:
    if kind == "text_cnn":
        return create_text_cnn(vocab_size, size=options.size, seed=seed, dtype=options.dtype)
    width = {"tiny": 128, "small": 256, "big": 512}[options.size]
    return create_transformer(
        vocab_size,
        width,
        MAX_LEN,
        2,
        position_embedding="rotary",
        norm_placement="pre",
        seed=seed,
        dtype=options.dtype,
    )


def pretrained(
    kind: str, text_encoder: TextEncoder, lines: Path, options: Any, work: Path
) -> list[np.ndarray]:
    """Return the weights of an encoder after masked language modelling, which are kept in `work`."""
    lm = TaskMetadata("lm", True, text_encoder.vocab_size, 0.1, TaskWeightScheduler(True, False))
    generator = lm_generator(
        text_encoder,
        lines,
        batch_size=20,
        max_len=2 * MAX_LEN,
        use_single_sentence=True,
        fill=False,
        pack=True,
        cache_dir=work,
    )
    encoder = encoder_of(kind, text_encoder.vocab_size, 0, options)
    steps = 4 if options.smoke else options.pretrain_epochs * len(generator)
    shape = f"{kind}_{options.size}_{text_encoder.vocab_size}"
    file = work / f"{shape}_{steps}_{options.pretrain_rate:g}.weights.h5"
    if file.exists():
        return load_model(file).encoder.get_weights()
    start = time.perf_counter()
    model = train_model(
        encoder,
        [lm],
        generator,
        pretrain_steps=steps,
        pretrain_optimizer=lambda total: create_optimizer(total, options.pretrain_rate, beta_2=0.98),
        verbose=0,
    )
    loss = model.training_history["pretrain"].history["lm_loss"][-1]
    print(f"{kind}: mean masked loss {loss:.3f} over {time.perf_counter() - start:.0f} s", flush=True)
    model.save_weights(file)
    return encoder.get_weights()


def labels_and_scores(model: keras.Model, batches: Any, num_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which labels texts have, and what the model gives them: two arrays `(texts, labels)`."""
    true, scores = [], []
    for batch in batches:
        sets, index = batch.sentence_classification["topics"]  # ids of labels, filled up with -1
        found = np.asarray(model.predict_on_batch(encoder_arrays(batch))["topics"], "float32")
        has = np.zeros((len(sets), num_labels), bool)
        row, column = np.nonzero(sets >= 0)
        has[row, sets[row, column]] = True
        true.append(has[index >= 0])
        scores.append(found[index >= 0])
    return np.concatenate(true), np.concatenate(scores)


def best_threshold(true: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """Return the threshold with the highest micro F1, and that F1."""
    order = np.argsort(-scores, axis=None)
    hits = np.cumsum(true.reshape(-1)[order])
    f1 = 2.0 * hits / (np.arange(1, len(hits) + 1) + true.sum())
    best = int(f1.argmax())
    return float(scores.reshape(-1)[order[best]]), float(f1[best])


class _Scores(keras.callbacks.Callback):
    """After some epochs, micro and macro F1 at the threshold that is best on the tuning lines."""

    def __init__(self, batches: Callable[[str, int], Any], num_labels: int, epochs: Sequence[int]) -> None:
        super().__init__()
        self.batches, self.num_labels, self.epochs = batches, num_labels, epochs
        self.found: dict[str, list[float]] = {"micro": [], "macro": [], "micro_at_half": [], "tuning": []}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch + 1 not in self.epochs:
            return
        tuning, dev = (
            labels_and_scores(self.model, self.batches(split, 0), self.num_labels)
            for split in ("tuning", "dev")
        )
        threshold, tuned = best_threshold(*tuning)
        true = [np.flatnonzero(row) for row in dev[0]]
        (micro, macro), (half, _) = (
            set_f1(true, [np.flatnonzero(row >= least) for row in dev[1]], self.num_labels)
            for least in (threshold, 0.0)
        )
        for name, value in zip(self.found, (micro, macro, half, tuned), strict=True):
            self.found[name].append(round(value, 4))


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--encoders", nargs="+", default=list(ENCODERS), choices=list(ENCODERS))
    starts = ["pretrained", "scratch"]
    command.add_argument("--starts", nargs="+", default=starts, choices=starts)
    command.add_argument("--size", default="small", choices=["tiny", "small", "big"])
    command.add_argument("--vocab-size", type=int, default=20000)
    command.add_argument("--pretrain-epochs", type=int, default=12)
    command.add_argument("--pretrain-rate", type=float, default=2e-3)
    command.add_argument("--epochs", type=int, default=7)
    command.add_argument("--batch-size", type=int, default=8)
    command.add_argument("--seeds", type=int, default=3)
    command.add_argument("--learning-rates", type=float, nargs="+", default=[2e-4, 7e-4, 2e-3])
    command.add_argument(
        "--head-rate", type=float, default=1.0, help="the head's learning rate, as a multiple"
    )
    command.add_argument("--dtype", default="mixed_bfloat16")
    command.add_argument(
        "--work", default="weights/multi_label", help="where corpus and pretrained weights are kept"
    )
    command.add_argument("--runs", metavar="FILE", help="keep finished runs there, and take them from there")
    options = command.parse_args()
    if options.smoke:
        options.seeds, options.learning_rates, options.size, options.epochs = 1, [1e-3], "tiny", 1
    folder, work = data_folder() / "multi-label", Path(options.work)
    work.mkdir(parents=True, exist_ok=True)
    examples = list(read_fasttext(folder / "train.txt", "topics"))
    lines = work / "lines.txt"
    lines.write_text("\n\n".join(example.text for example in examples) + "\n", encoding="utf-8")
    text_encoder = SentencePieceTextEncoder.train(lines, vocab_size=options.vocab_size, model_type="word")
    names = label_names(examples, "topics")
    known = {*names}
    held_out = list(read_fasttext(folder / "valid.txt", "topics", on_error="skip"))
    for example in held_out:  # six labels that the training data lack
        example.labels["topics"] = [name for name in example.labels["topics"] if name in known]
    order = np.random.default_rng(0).permutation(len(examples))
    if options.smoke:
        order, held_out = order[: TUNING + 64], held_out[:32]
    log, rows = RunLog(options.runs), []
    for kind in options.encoders:
        task = TaskMetadata("topics", False, kind="multi_label", labels=names, dropout=0.1, read_from="mean")
        sets = {
            "train": [examples[i] for i in order[TUNING:]],
            "tuning": [examples[i] for i in order[:TUNING]],
            "dev": held_out,
        }
        sentences = {
            name: encode_examples(text_encoder, some, [task], max_len=MAX_LEN) for name, some in sets.items()
        }
        rows += study(kind, task, sentences, text_encoder, lines, log, options, work)
    result = {"question": "multi_label", "options": vars(options), "runs": log.runs}
    result |= environment(["keras", "tensorflow", "jax", "torch"])
    columns = [
        "encoder",
        "start",
        "learning rate",
        *(f"{m} F1, {e}" for e in shown_epochs(options) for m in ("micro", "macro")),
    ]
    title = (
        f"{len(names):,} labels, {options.epochs} epochs, {options.seeds} seeds, {keras.backend.backend()}"
    )
    report(title, columns, rows, result, options.json)


def study(
    kind: str,
    task: TaskMetadata,
    sentences: dict[str, Any],
    text_encoder: TextEncoder,
    lines: Path,
    log: RunLog,
    options: Any,
    work: Path,
) -> list[list[Any]]:
    """Return a row of the table for each start of one encoder."""
    weights: list[np.ndarray] = []

    def batches(split: str, seed: int) -> Any:
        is_training = split == "train"
        return labelled_generator(
            sentences[split],
            pad_id=text_encoder.pad_id,
            batch_size=options.batch_size if is_training else 125,
            seed=seed,
            shuffle=is_training,
            wrap=is_training,
            length_multiple=8,
            buckets=5 if is_training else None,
        )

    def runner(start: str) -> Callable[[float, int], dict[str, Any]]:
        def run(rate: float, seed: int) -> dict[str, Any]:
            encoder = encoder_of(kind, text_encoder.vocab_size, seed, options)
            if start == "pretrained":
                weights[:] = weights or pretrained(kind, text_encoder, lines, options, work)
                encoder.set_weights(weights)
            began = time.perf_counter()
            scores = _Scores(batches, task.num_classes, shown_epochs(options))
            train_model(
                encoder,
                [task],
                finetune_generator=batches("train", seed),
                finetune_epochs=options.epochs,
                finetune_optimizer=lambda steps: create_optimizer(steps, rate, head_rate=options.head_rate),
                finetune_callbacks=[scores],
                seed=seed,
                verbose=0,
            )
            found: dict[str, Any] = scores.found
            seconds = time.perf_counter() - began
            keras.backend.clear_session()
            return {**found, "seconds": seconds}

        return run

    rows = []
    for start in options.starts:
        key = {"encoder": kind, "start": start}
        key |= {name: getattr(options, name) for name in ("size", "epochs", "batch_size", "head_rate")}
        best, runs = searched(
            log, key, options.learning_rates, options.seeds, runner(start), lambda found: found["tuning"][-1]
        )
        shown = [
            mean_and_spread([run[metric][i] for run in runs])
            for i in range(len(shown_epochs(options)))
            for metric in ("micro", "macro")
        ]
        rows.append([kind, start, f"{best:g}", *shown])
    return rows


if __name__ == "__main__":
    main()
