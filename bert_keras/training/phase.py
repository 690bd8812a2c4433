"""One phase of training: checked, compiled and run."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras

from bert_keras.advice import advising, on_full_memory
from bert_keras.tasks import TaskMetadata
from bert_keras.training.budget import OPEN_END, TimeBudget, budget_seconds
from bert_keras.training.checks import check_causality, check_packing, encoder_facts
from bert_keras.training.doctor import Doctor
from bert_keras.training.evaluation import ValidationScores
from bert_keras.training.feed import TaskFeed, feed_length
from bert_keras.training.layer_rates import rates_of
from bert_keras.training.model import MultiTaskModel
from bert_keras.training.optimizers import create_optimizer
from bert_keras.training.recipe_course import course_of
from bert_keras.training.recipes import Recipe, create_recipe, muon_arguments
from bert_keras.training.saving import random_state
from bert_keras.training.unfreezing import GradualUnfreezing

Optimizer: TypeAlias = (
    "str | keras.optimizers.Optimizer | Callable[[int], keras.optimizers.Optimizer] | Recipe | None"
)

# Peak learning rates of `"adam"`: small encoders from scratch, and gentle fine-tuning.
PRETRAIN_LEARNING_RATE = 1e-3
FINETUNE_LEARNING_RATE = 1e-4


@dataclasses.dataclass(frozen=True)
class PhasePlan:
    """What is asked of one phase; the fields are `train_model`'s arguments."""

    generator: Any
    steps: int | None = None
    validation_generator: Any = None
    validation_steps: int | None = None
    optimizer: Optimizer = None
    epochs: int = 1
    callbacks: Sequence[keras.callbacks.Callback] | None = None
    budget: Any = None
    workers: int = 1


class Phase:
    """One phase of training, checked against its first batch on construction."""

    def __init__(self, model: MultiTaskModel, name: str, plan: PhasePlan) -> None:
        self.model, self.name, self.epochs, self.callbacks = model, name, plan.epochs, plan.callbacks or []
        self.budget = None if plan.budget is None else budget_seconds(plan.budget, f"{name}_budget")
        self.is_pretrain = name == "pretrain"
        self.tasks = _active_tasks(model, self.is_pretrain)
        generator = plan.generator
        self.steps = feed_length(generator, plan.steps, f"{name}_steps")
        facts = encoder_facts(model.encoder)
        self.feed = TaskFeed(
            generator, self.tasks, facts, self._weight, None, f"{name}_generator", plan.workers
        )
        self.feed.end = self.steps * plan.epochs if self.budget is None else None
        _check_vocabulary(generator, facts.vocab_size, f"{name}_generator")
        first = [source[0] for source in getattr(generator, "sources", {}).values()]
        for batch in first or [self.feed.batch(0)]:
            check_causality(batch, model.encoder, self.tasks)
            check_packing(batch, model.encoder)
        self.validation = None
        if plan.validation_generator is not None:
            length = feed_length(plan.validation_generator, plan.validation_steps, "validation_steps")
            self.validation = TaskFeed(
                plan.validation_generator,
                self.tasks,
                facts,
                self._validation_weight,
                length,
                f"validation_{name}_generator",
                plan.workers,
            )
            check_packing(self.validation.batch(0), model.encoder)
            self.callbacks = [ValidationScores(self.validation, length), *self.callbacks]
        self.recipe = create_recipe("gentle") if plan.optimizer is None else plan.optimizer
        if self.budget is not None:
            _check_budget(name, self.recipe, plan.epochs)
        self.optimizer = self._optimizer(self.recipe, facts.width)
        clock = None
        if self.budget is not None:
            clock = TimeBudget(self.budget, self.optimizer._learning_rate)
            self.epochs, self.callbacks = OPEN_END, [clock, *self.callbacks]
        self.feed.source = course_of(self.recipe, self.feed.source, self.steps * plan.epochs, clock)
        self.steps_done = 0

    def run(
        self,
        steps_per_execution: int,
        jit_compile: bool | str,
        verbose: int | str,
        is_compiled: bool = False,
    ) -> keras.callbacks.History:
        """Train. A model that is compiled already keeps what its backend made of that."""
        model = self.model
        model.recipes.pop(self.name, None)
        if isinstance(self.recipe, Recipe):
            model.recipes[self.name] = self.recipe
        self._let_doctors_watch()
        with contextlib.ExitStack() as stack:
            stack.enter_context(model.only_training(self.tasks))
            for feed in (self.feed, self.validation):
                if feed is not None:
                    stack.enter_context(feed.running())
            if not is_compiled:
                model.compile(
                    optimizer=self.optimizer, steps_per_execution=steps_per_execution, jit_compile=jit_compile
                )
                self._place_layers()
            stack.enter_context(advising(on_full_memory))
            model.optimizer.build(model.trainable_variables)
            return model.fit(
                self.feed.as_keras_data(),
                steps_per_epoch=self.steps,
                epochs=self.epochs,
                validation_data=None if self.validation is None else self.validation.as_keras_data(),
                callbacks=[*self.callbacks, _StepCounter(self)],
                shuffle=False,
                verbose=verbose,
            )

    def _let_doctors_watch(self) -> None:
        total = None if self.budget is not None else self.steps * self.epochs
        for callback in self.callbacks:
            if isinstance(callback, Doctor):
                callback.watch(self.feed, self.is_pretrain, total)

    def _place_layers(self) -> None:
        """Tell the optimizer how deep layers lie, and when they begin to learn."""
        rates = rates_of(self.model)
        if rates is not None:
            rates.place(self.model)
        for callback in self.callbacks:
            if isinstance(callback, GradualUnfreezing):
                callback.prepare(self.model, self.steps)

    def _weight(self, task: TaskMetadata, step: int) -> float:
        return task.weight_scheduler.get(self.is_pretrain, step)

    def _validation_weight(self, task: TaskMetadata, step: int) -> float:
        return task.weight_scheduler.get(self.is_pretrain, self.steps_done)

    def _optimizer(self, optimizer: Optimizer, width: int) -> keras.optimizers.Optimizer:
        num_steps = self.steps * self.epochs
        if isinstance(optimizer, Recipe):
            return optimizer.create_optimizer(
                num_steps if self.budget is None else None,
                width=width,
                batch_tokens=self.feed.batch(0).tokens.size,
                **muon_arguments(self.model.encoder),
            )
        if isinstance(optimizer, str) and optimizer == "adam":
            return create_optimizer(
                num_steps, PRETRAIN_LEARNING_RATE if self.is_pretrain else FINETUNE_LEARNING_RATE
            )
        if callable(optimizer) and not isinstance(optimizer, (str, keras.optimizers.Optimizer)):
            return optimizer(num_steps)
        return keras.optimizers.get(optimizer)


def finetune_again(
    model: MultiTaskModel,
    start: MultiTaskModel,
    generator: Any,
    epochs: int,
    optimizer: keras.optimizers.Optimizer,
) -> None:
    """Fine-tune a model that `train_model` has fine-tuned before, from the values of its twin.

    It does what `train_model` would do with the twin, but what the backend compiled serves again.

    Args:
        model: fine-tuned by `train_model`, with an optimizer like this one and as many batches.
        start: its fresh twin. Only its values are read.
        generator, epochs: as in `train_model`.
        optimizer: a fresh one. Only its values are read.
    """
    with start.only_training(_active_tasks(start, False)):
        optimizer.build(start.trainable_variables)
    pairs = (
        (model.weights, start.weights),
        (random_state(model), random_state(start)),
        (model.optimizer.variables, optimizer.variables),
    )
    for own, fresh in pairs:
        for variable, value in zip(own, fresh, strict=True):
            # A copy: on JAX, training ends the array that it starts from.
            variable.assign(keras.ops.convert_to_numpy(value).copy())
    phase = Phase(model, "finetune", PhasePlan(generator, optimizer=model.optimizer, epochs=epochs))
    model.training_history = {phase.name: phase.run(1, "auto", 0, is_compiled=True)}


class _StepCounter(keras.callbacks.Callback):
    """Starts the feed where a restored optimizer stands, and tells validation how many steps were trained."""

    def __init__(self, phase: Phase) -> None:
        super().__init__()
        self.phase = phase
        self.iterations_before = self._iterations(phase.model)

    @staticmethod
    def _iterations(model: MultiTaskModel) -> int:
        return int(keras.ops.convert_to_numpy(model.optimizer._iterations.value))

    def on_train_begin(self, logs: Any = None) -> None:
        feed, validation = self.phase.feed, self.phase.validation
        feed.first_step = self._iterations(self.model) - self.iterations_before
        feed.start()
        if validation is not None:
            validation.start()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.phase.steps_done = (epoch + 1) * self.phase.steps


def _check_budget(phase: str, recipe: Optimizer, epochs: int) -> None:
    if not isinstance(recipe, Recipe):
        raise ValueError(
            f"With `{phase}_budget` the learning rate follows the time, so it must come from a recipe. Give "
            f"`recipe`, or a `Recipe` as `{phase}_optimizer`. Received: {recipe!r}"
        )
    if epochs != 1:
        raise ValueError(
            f"`{phase}_budget` decides how long the phase trains; leave `{phase}_epochs` out "
            f"(`{phase}_steps` still says how many batches an epoch has). Received: {phase}_epochs={epochs}"
        )


def _active_tasks(model: MultiTaskModel, is_pretrain: bool) -> list[TaskMetadata]:
    active = [task for task in model.tasks if task.weight_scheduler.is_active(is_pretrain)]
    if not active:
        phase = "pretrain" if is_pretrain else "finetune"
        raise ValueError(
            f"No task is active in the phase '{phase}': {model.tasks}. Set `active_in_{phase}=True` in a "
            "weight_scheduler."
        )
    return active


def _check_vocabulary(generator: Any, vocab_size: int | None, name: str) -> None:
    ids = getattr(generator, "vocab_size", None)
    if ids is not None and vocab_size is not None and ids > vocab_size:
        raise ValueError(
            f"`{name}` has a vocabulary of {ids} ids, but the encoder's token embedding has {vocab_size} "
            f"rows. Build the encoder with vocab_size=text_encoder.vocab_size."
        )
