"""`pretrain` and `finetune`: runs that can be stopped, gone on with, and repeated."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
from tqdm import tqdm

from bert_keras.cli.settings import (
    HISTORY_FILE,
    RUN_FILE,
    FinetuneSettings,
    PretrainSettings,
    read_settings,
    require,
    save_settings,
)
from bert_keras.cli.starts import Start, load_start
from bert_keras.data import (
    Corpus,
    encode_examples,
    label_names,
    labelled_generator,
    lm_generator,
    read_conll,
    read_delimited,
    read_jsonl,
)
from bert_keras.data.example import Example
from bert_keras.encoders import create_transformer
from bert_keras.schedules import TaskWeightScheduler
from bert_keras.sharing.form import RUN_WEIGHTS, RUN_WEIGHTS_FILE
from bert_keras.tasks import TaskMetadata
from bert_keras.text import load_text_encoder
from bert_keras.training import Recipe, create_recipe, evaluate_model, train_model
from bert_keras.training.checks import encoder_facts

CHECKPOINT = "checkpoint"
CHECKPOINT_FILE = "checkpoint.weights.h5"
EPOCHS_OF_PRETRAINING = 20  # parts that a pretraining is reported in
SECONDS_BETWEEN_CHECKPOINTS = 600.0


class StoppedRun(KeyboardInterrupt):
    """A run was asked to stop, and can be gone on with."""


class Run(keras.callbacks.Callback):
    """Saves checkpoints, stops at Ctrl-C, goes on where a checkpoint stands, and shows progress.

    Args:
        directory: of the run.
        num_steps: of the whole training.
        begin: called when all was checked and training begins; None to go on from the checkpoint.
    """

    def __init__(self, directory: Path, num_steps: int, begin: Callable[[], None] | None) -> None:
        super().__init__()
        self.directory, self.num_steps, self.begin = directory, num_steps, begin
        self.wants_stop = self.was_stopped = False
        self.saved_at = time.monotonic()
        self.step = 0
        self.bar: Any = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within this context the first Ctrl-C asks for a stop after the step, the second interrupts."""

        def ask(number: int, frame: Any) -> None:
            self.wants_stop = True
            signal.signal(signal.SIGINT, before)

        before = signal.signal(signal.SIGINT, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
            if self.bar is not None:
                self.bar.close()

    def on_train_begin(self, logs: Any = None) -> None:
        if self.begin is None:
            self.model.load_weights(self.directory / CHECKPOINT)
        else:
            self.begin()
        self.step = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        self.bar = tqdm(total=self.num_steps, initial=self.step, unit=" steps", disable=None)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.step += 1
        self.bar.update(1)
        if logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{float(logs['loss']):.3f}", refresh=False)
        if self.step >= self.num_steps:
            self.model.stop_training = True
        elif self.wants_stop:
            self._save()
            self.was_stopped = self.model.stop_training = True
        elif time.monotonic() - self.saved_at > SECONDS_BETWEEN_CHECKPOINTS:
            self._save()

    def _save(self) -> None:
        self.model.save_weights(self.directory / CHECKPOINT, include_optimizer=True)
        self.saved_at = time.monotonic()


def pretrain(
    config: Path | None, resume: Path | None, overwrite: bool, flags: dict[str, Any]
) -> dict[str, Any]:
    """Pretrain an encoder, and return what was measured."""
    settings = read_settings(PretrainSettings, _config(config, resume), flags)
    require(settings, "corpus", "output")
    if not settings.start and not settings.text_encoder:
        raise ValueError(
            "Give --text-encoder, a folder that `bert-keras tokenizer` made, or --start, a model with one."
        )
    directory = _directory(settings.output, resume, overwrite)
    start = _pretraining_start(settings)
    facts = encoder_facts(getattr(start.model, "encoder", start.model))
    recipe = _recipe(settings.recipe or ("gentle" if settings.start else "modern"), settings.learning_rate)
    shape: dict[str, Any] = {
        "batch_size": settings.batch_size,
        "max_len": min(settings.max_len, facts.max_len or settings.max_len),
        "is_causal": facts.is_causal,
        "use_single_sentence": facts.is_causal,
    }
    generator = lm_generator(start.text_encoder, _corpus(settings.corpus, start), seed=settings.seed, **shape)
    held_out = None
    if settings.held_out:
        held_out = lm_generator(start.text_encoder, _corpus(settings.held_out, start), seed=1, **shape)
    schedule = TaskWeightScheduler(active_in_pretrain=True, active_in_finetune=False)
    tasks = [TaskMetadata("lm", True, facts.vocab_size or 0, weight_scheduler=schedule)]
    if not facts.is_causal:
        tasks.append(TaskMetadata("is_next", False, 2, weight_scheduler=schedule))
    steps = max(1, settings.steps // EPOCHS_OF_PRETRAINING)
    epochs = -(-settings.steps // steps)

    def train(callbacks: list[Any]) -> Any:
        return train_model(
            start.model,
            tasks,
            generator,
            pretrain_steps=steps,
            pretrain_epochs=epochs,
            recipe=recipe,
            pretrain_callbacks=callbacks,
            validation_pretrain_generator=held_out,
            validation_steps=None if held_out is None else min(len(held_out), 50),
            seed=settings.seed,
            verbose=0,
        )

    return _run(settings, directory, resume is None, settings.steps, start, train, held_out)


def finetune(
    config: Path | None, resume: Path | None, overwrite: bool, flags: dict[str, Any]
) -> dict[str, Any]:
    """Fine-tune a model on labelled texts, and return what was measured."""
    settings = read_settings(FinetuneSettings, _config(config, resume), flags)
    require(settings, "train", "output", "start")
    directory = _directory(settings.output, resume, overwrite)
    examples = list(_examples(settings, settings.train))
    if not examples:
        raise ValueError(f"{settings.train} has no examples.")
    is_token_level = examples[0].words is not None
    labels = None if settings.kind == "regression" else label_names(examples, settings.task)
    if settings.kind == "classification" and labels is not None and len(labels) == 1:
        raise ValueError(
            f"All labels in {settings.train} are {labels[0]!r}: there is nothing to tell apart. Is --label "
            f"({settings.label}) the right column?"
        )
    schedule = TaskWeightScheduler(active_in_pretrain=False, active_in_finetune=True)
    task = TaskMetadata(
        settings.task,
        is_token_level,
        dropout=0.1,
        weight_scheduler=schedule,
        kind=settings.kind,
        read_from="token" if is_token_level else settings.read_from,
        labels=labels,
    )
    start = load_start(settings.start, dtype=settings.dtype, seed=settings.seed)
    facts = encoder_facts(getattr(start.model, "encoder", start.model))
    max_len = min(settings.max_len, facts.max_len or settings.max_len)

    def batches(some: list[Example], **options: Any) -> Any:
        read_from = "last" if facts.is_causal else "first"
        sentences = encode_examples(start.text_encoder, some, [task], max_len=max_len, read_from=read_from)
        options["batch_size"] = min(settings.batch_size, len(sentences))
        return labelled_generator(sentences, pad_id=start.text_encoder.pad_id, max_len=max_len, **options)

    generator = batches(examples, seed=settings.seed)
    validation = None
    if settings.validation:
        validation = batches(list(_examples(settings, settings.validation)), shuffle=False, wrap=False)
    num_steps = len(generator) * settings.epochs

    def train(callbacks: list[Any]) -> Any:
        return train_model(
            start.model,
            [task],
            finetune_generator=generator,
            finetune_epochs=settings.epochs,
            recipe=_recipe(settings.recipe, settings.learning_rate),
            finetune_callbacks=callbacks,
            validation_finetune_generator=validation,
            seed=settings.seed,
            verbose=0,
        )

    return _run(settings, directory, resume is None, num_steps, start, train, validation)


def _run(
    settings: Any,
    directory: Path,
    is_new: bool,
    num_steps: int,
    start: Start,
    train: Callable[[list[Any]], Any],
    held_out: Any,
) -> dict[str, Any]:
    def begin() -> None:
        for name in (RUN_WEIGHTS_FILE, CHECKPOINT_FILE):
            (directory / name).unlink(missing_ok=True)
        save_settings(settings, directory)
        start.text_encoder.save(directory / "text_encoder")

    run = Run(directory, num_steps, begin if is_new else None)
    log = keras.callbacks.CSVLogger(str(directory / HISTORY_FILE), append=not is_new)
    with run.listening():
        model = train([run, log])
    if run.was_stopped:
        raise StoppedRun(f"Stopped after {run.step} of {num_steps} steps. To go on: add --resume {directory}")
    model.save_weights(directory / RUN_WEIGHTS)
    (directory / CHECKPOINT_FILE).unlink(missing_ok=True)
    [history] = [phase.history for phase in model.training_history.values()]
    result = {"output": str(directory), "steps": num_steps}
    result |= {name: values[-1] for name, values in history.items() if not name.startswith("val_")}
    if held_out is not None:
        result["held_out"] = evaluate_model(model, held_out, steps=min(len(held_out), 200))
    return result


def _config(config: Path | None, resume: Path | None) -> Path | None:
    if resume is None:
        return config
    if config is not None:
        raise ValueError("--resume goes on with the settings of the run: leave out --config.")
    if not (resume / CHECKPOINT_FILE).is_file():
        raise FileNotFoundError(f"{resume} has no {CHECKPOINT_FILE}: there is nothing to go on with.")
    return resume / RUN_FILE


def _directory(output: str, resume: Path | None, overwrite: bool) -> Path:
    if resume is not None:
        return resume
    directory = Path(output)
    for name in (RUN_WEIGHTS_FILE, CHECKPOINT_FILE):
        if (directory / name).exists() and not overwrite:
            raise FileExistsError(
                f"{directory} holds a run already ({name}). Give another --output, or --overwrite"
                + (f", or --resume {directory}." if name == CHECKPOINT_FILE else ".")
            )
    return directory


def _recipe(name: str, learning_rate: float) -> Recipe:
    """Return a recipe, with the peak of the learning rate that was given, if one was."""
    recipe = create_recipe(name)
    if not learning_rate:
        return recipe
    matrix_rate = recipe.matrix_learning_rate
    if matrix_rate is not None:
        matrix_rate *= learning_rate / recipe.learning_rate
    rates = {"learning_rate": learning_rate, "matrix_learning_rate": matrix_rate}
    return create_recipe(name, **rates, width_exponent=0.0, batch_exponent=0.0)


def _pretraining_start(settings: PretrainSettings) -> Start:
    if settings.start:
        return load_start(
            settings.start,
            max_len=settings.max_len,
            is_causal=settings.is_causal,
            dtype=settings.dtype,
            seed=settings.seed,
        )
    text_encoder = load_text_encoder(settings.text_encoder)
    encoder = create_transformer(
        text_encoder.vocab_size,
        size=settings.size,
        max_len=settings.max_len,
        is_causal=settings.is_causal,
        architecture=settings.architecture,
        dtype=settings.dtype,
        seed=settings.seed,
    )
    return Start(encoder, text_encoder)


def _corpus(source: str, start: Start) -> Corpus:
    if (Path(source) / "meta.json").is_file():
        return Corpus.open(source)
    return Corpus.prepare(start.text_encoder, source)


def _examples(settings: FinetuneSettings, source: str) -> Iterator[Example]:
    """Read labelled texts, by the ending of the file's name."""
    ending = "".join(Path(source).suffixes).removesuffix(".gz")
    label, text = _column(settings.label), _column(settings.text)
    second = settings.second_text or None
    if ending.endswith((".tsv", ".csv", ".txt")):
        return read_delimited(
            source,
            text=text,
            labels={settings.task: label},
            second_text=None if second is None else _column(second),
            label_separator=settings.label_separator or None,
        )
    if ending.endswith((".jsonl", ".ndjson")):
        text = "text" if text == 0 else str(text)
        label = "label" if label == 1 else str(label)
        return read_jsonl(source, text=text, labels={settings.task: label}, second_text=second)
    if ending.endswith((".conll", ".conllu", ".bio", ".iob", ".iob2")):
        if not isinstance(label, int):
            raise ValueError(f"--label must be the number of a column, from 0. Received: {label!r}")
        return read_conll(source, labels={settings.task: label}, word=settings.word)
    raise ValueError(
        f"The name of {source} must end in .tsv, .csv or .txt (columns), .jsonl, or .conll, .conllu or .bio "
        "(a word on each line), which tells what is in it."
    )


def _column(name: str) -> str | int:
    return int(name) if name.isdigit() else name
