"""`train_model`: pretraining and fine-tuning of any mix of tasks."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import keras

from bert_keras.tasks import TaskMetadata, check_tasks
from bert_keras.training.model import MultiTaskModel
from bert_keras.training.phase import Optimizer, Phase, PhasePlan
from bert_keras.training.quantizing import check_not_quantized
from bert_keras.training.recipes import Recipe, create_recipe, is_from_scratch


def train_model(
    encoder_model: keras.Model,
    tasks: Iterable[TaskMetadata],
    pretrain_generator: Any = None,
    finetune_generator: Any = None,
    *,
    pretrain_steps: int | None = None,
    pretrain_epochs: int = 1,
    pretrain_optimizer: Optimizer = None,
    pretrain_callbacks: Sequence[keras.callbacks.Callback] | None = None,
    pretrain_budget: Any = None,
    finetune_steps: int | None = None,
    finetune_epochs: int = 1,
    finetune_optimizer: Optimizer = None,
    finetune_callbacks: Sequence[keras.callbacks.Callback] | None = None,
    finetune_budget: Any = None,
    validation_pretrain_generator: Any = None,
    validation_finetune_generator: Any = None,
    validation_steps: int | None = None,
    recipe: str | Recipe | None = None,
    seed: int = 0,
    steps_per_execution: int = 1,
    jit_compile: bool | str = "auto",
    rematerialize: bool = False,
    workers: int = 1,
    verbose: int | str = 1,
) -> MultiTaskModel:
    """Train an encoder on tasks: pretraining, then fine-tuning, each if there is a generator for it.

    In each phase the tasks that are active there are trained together; the loss of a batch is the sum over
    tasks of the schedule's weight times the mean loss over the task's labelled positions.

    Args:
        encoder_model: any encoder, or a `MultiTaskModel` (from `train_model` or `load_model`), whose heads go
            on for tasks that keep their name and number of classes.
        tasks: what is learned.
        pretrain_generator, finetune_generator: batches of each phase: `lm_generator`, `labelled_generator`,
            your own object with `__len__` and `__getitem__` (a list too; it begins again where it ends), or
            any iterable of `SentenceBatch`.
        pretrain_steps, finetune_steps: batches an epoch; by default the generator's length.
        pretrain_epochs, finetune_epochs: number of epochs. Batches and schedules count on over epochs.
        pretrain_optimizer, finetune_optimizer: a `Recipe`; `"adam"` for `create_optimizer(num_steps,
            learning_rate)` with a peak of 1e-3 in pretraining and 1e-4 in fine-tuning; any other name or
            optimizer that Keras takes; or a function from the phase's number of batches to an optimizer. By
            default the recipe decides.
        pretrain_callbacks, finetune_callbacks: Keras callbacks.
        pretrain_budget, finetune_budget: how long a phase trains, in place of a number of epochs: seconds, or
            words like `"30 min"` or `"1.5 h"`. The recipe's learning rate follows the share of the time that
            is used, and has run down at its end. A run resumed from a backup has what was left. Not counted:
            the first step after each start, which compiles, and what is between epochs (validation).
        validation_pretrain_generator, validation_finetune_generator: sized and indexable; evaluated after
            each epoch.
        validation_steps: batches of each validation; by default all.
        recipe: how the first of the phases trains: `"modern"`, `"bert"`, `"gentle"`, or figures of your own
            (`create_recipe`). By default `"modern"` for a fresh encoder, and `"gentle"` for one with
            published or saved weights. Fine-tuning after pretraining is gentle. An `lm_generator` that was
            made without shares of its own masks as the recipe says, and has shorter rows for as long as it
            wants them (`bert`: 128 tokens in nine tenths of the steps).
        seed: seed of fresh heads.
        steps_per_execution: batches that TensorFlow or JAX take in one call, so that Python is in the way
            less often; callbacks see only every last of them. torch takes 1 alone.
        jit_compile: as in Keras' `compile`.
        rematerialize: keep only what goes from block to block of a transformer, and compute the rest once
            more in the backward pass: less memory, for longer rows or larger batches, about a third more
            time; the numbers stay the same (Chen et al. 2016).
        workers: threads that prepare batches, in order, a few ahead of training (two for each worker wait at
            most); 0 for none. More than one need generators that may be indexed from several threads at once,
            as all of this library may.
        verbose: as in Keras' `fit`.

    Returns:
        The trained model. `model.training_history` has Keras' `History` of each phase by name, and
        `model.recipes` the recipe, where one was used; it is saved with the model.

    Raises:
        ValueError: before anything is trained, if the first batch, the tasks and the encoder do not fit one
            another: ids or labels out of range, labels missing, rows longer than the encoder's positions,
            next-token labels over an encoder that sees the future, packed rows for one that does not keep
            their sequences apart, a phase without active tasks. If both a recipe and an optimizer are given
            for one phase. If the encoder was quantised.

    Example:

    ```python
    model = train_model(encoder, [lm, is_next], generator, pretrain_steps=1000)
    ```
    """
    if operator.index(workers) < 0:
        raise ValueError(f"`workers` must be at least 0. Received: workers={workers}")
    model = model_for(encoder_model, tasks, seed)
    check_not_quantized(model.encoder)
    _set_rematerialize(model.encoder, rematerialize)
    if pretrain_generator is None and finetune_generator is None:
        raise ValueError(
            "Give `pretrain_generator`, `finetune_generator`, or both: there is nothing to train on."
        )
    first = "pretrain" if pretrain_generator is not None else "finetune"
    optimizers = {"pretrain": pretrain_optimizer, "finetune": finetune_optimizer}
    optimizers[first] = _first_optimizer(model, first, optimizers[first], recipe)
    plans = {
        "pretrain": PhasePlan(
            generator=pretrain_generator,
            steps=pretrain_steps,
            validation_generator=validation_pretrain_generator,
            validation_steps=validation_steps,
            optimizer=optimizers["pretrain"],
            epochs=pretrain_epochs,
            callbacks=pretrain_callbacks,
            budget=pretrain_budget,
            workers=workers,
        ),
        "finetune": PhasePlan(
            generator=finetune_generator,
            steps=finetune_steps,
            validation_generator=validation_finetune_generator,
            validation_steps=validation_steps,
            optimizer=optimizers["finetune"],
            epochs=finetune_epochs,
            callbacks=finetune_callbacks,
            budget=finetune_budget,
            workers=workers,
        ),
    }
    prepared = []
    for name, plan in plans.items():
        if plan.generator is not None:
            prepared.append(Phase(model, name, plan))
        elif not (plan.steps is None and plan.validation_generator is None and plan.budget is None):
            raise ValueError(
                f"`{name}_steps`, `{name}_budget` or a validation generator was given, but no "
                f"`{name}_generator`."
            )
    model.training_history = {}
    for phase in prepared:
        model.training_history[phase.name] = phase.run(steps_per_execution, jit_compile, verbose)
    return model


def model_for(encoder_model: keras.Model, tasks: Iterable[TaskMetadata], seed: int = 0) -> MultiTaskModel:
    """Put heads for the tasks on an encoder. A model that has heads gives its pooler and those of like tasks
    their weights.

    Args:
        encoder_model: an encoder or a `MultiTaskModel`.
        tasks: the tasks.
        seed: seed of fresh heads.
    """
    tasks = check_tasks(tasks)
    if not isinstance(encoder_model, MultiTaskModel):
        return MultiTaskModel(encoder_model, tasks, seed=seed)
    if [task.get_config() for task in tasks] == [task.get_config() for task in encoder_model.tasks]:
        encoder_model.tasks = tasks
        return encoder_model
    model = MultiTaskModel(encoder_model.encoder, tasks, seed=seed)
    model.recipes = dict(encoder_model.recipes)
    before = {(task.name, task.is_token_level, task.num_classes) for task in encoder_model.tasks}
    for task in tasks:
        if (task.name, task.is_token_level, task.num_classes) in before:
            _copy_weights(encoder_model.heads[task.name], model.heads[task.name])
            model.trained_heads |= {task.name} & encoder_model.trained_heads
    if model.pooler is not None and encoder_model.pooler is not None:
        _copy_weights(encoder_model.pooler, model.pooler)
    return model


def _first_optimizer(
    model: MultiTaskModel, phase: str, optimizer: Optimizer, recipe: str | Recipe | None
) -> Optimizer:
    """Return the optimizer of the phase that comes first, or the recipe for it."""
    if recipe is not None and optimizer is not None:
        raise ValueError(
            f"Give `recipe` or `{phase}_optimizer`: each decides how the phase '{phase}' trains. "
            f"Received: recipe={recipe!r}, {phase}_optimizer={optimizer!r}"
        )
    if optimizer is not None:
        return optimizer
    if recipe is None:
        recipe = "modern" if is_from_scratch(model.encoder) else "gentle"
    return create_recipe(recipe) if isinstance(recipe, str) else recipe


def _set_rematerialize(encoder: keras.Model, value: bool) -> None:
    if hasattr(encoder, "rematerialize"):
        encoder.rematerialize = value
    elif value:
        raise ValueError(
            "`rematerialize=True` is for transformers of this library. Received an encoder of type "
            f"{type(encoder).__name__}; let its own layers use `keras.remat`, and leave the argument out."
        )


def _copy_weights(source: keras.layers.Layer, target: keras.layers.Layer) -> None:
    for variable, value in zip(target.weights, source.weights, strict=True):
        if variable is not value:  # a copy: on JAX, training ends the array that it starts from
            variable.assign(keras.ops.convert_to_numpy(value.value).copy())
