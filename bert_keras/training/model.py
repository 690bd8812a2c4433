"""The multi-task model: an encoder, a head for each task, and their common loss."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import keras
from keras import ops

from bert_keras.encoders.dense import Dense
from bert_keras.encoders.inputs import ENCODER_INPUTS, encoder_inputs, select_inputs
from bert_keras.encoders.layers import SeedSequence
from bert_keras.tasks import LM_TASK, TaskMetadata, check_tasks
from bert_keras.training.checks import EncoderFacts, encoder_facts
from bert_keras.training.heads import (
    ClassificationHead,
    LanguageModelHead,
    NormedDense,
    ReadSequence,
    SpanScores,
    Transform,
    adopt_heads,
)
from bert_keras.training.losses import label_losses
from bert_keras.training.metrics import TaskMetrics
from bert_keras.training.quantizing import check_not_quantized
from bert_keras.training.saving import read_weights, write_weights


class _Heads(NamedTuple):
    heads: dict[str, Any]
    pooler: Any
    ways: dict[str, ReadSequence]
    span_scores: SpanScores
    pool_everywhere: bool

    def logits(
        self,
        task: TaskMetadata,
        hidden: Any,
        sequence_ids: Any,
        positions: Any = None,
        training: bool | None = None,
    ) -> Any:
        """Logits of a task from all hidden states: at some positions, or everywhere it has any."""
        at = () if positions is None else (positions,)
        if task.kind == "span":
            return self.span_scores(self.logits_of(task, hidden, training), sequence_ids, *at)
        if task.is_token_level and positions is None:
            return self.logits_of(task, hidden, training)
        return self.logits_of(task, self.ways[task.read_from](hidden, sequence_ids, *at), training)

    def logits_of(self, task: TaskMetadata, features: Any, training: bool | None) -> Any:
        """Logits of a task from what it reads."""
        if _uses_pooler(task, self.pool_everywhere):
            features = self.pooler(features)
        arguments = {} if training is None else {"training": training}
        return self.heads[task.name](features, **arguments)


def _uses_pooler(task: TaskMetadata, pool_everywhere: bool) -> bool:
    if task.kind == "span" or task.name == LM_TASK:
        return False
    return pool_everywhere or (not task.is_token_level and task.read_from == "token")


def _make_pooler(facts: EncoderFacts, seed: int) -> keras.layers.Dense:
    arguments: dict[str, Any] = {
        "activation": facts.pooler_activation,
        "use_bias": facts.use_bias,
        "kernel_initializer": keras.initializers.TruncatedNormal(stddev=0.02, seed=seed),
        "dtype": facts.dtype_policy,
        "name": "pooler",
    }
    if facts.pooler_norm:
        return NormedDense(facts.width, facts.norm_kind, facts.layer_norm_epsilon, **arguments)
    return Dense(facts.width, **arguments)


def _reads_positions(task: TaskMetadata) -> bool:
    return task.kind != "span" and task.read_from == "token"


def _first_bias(task: TaskMetadata) -> float:
    """Begin a set of classes with one of them on average: all even would make the first losses huge (the
    prior of Lin et al. 2017, section 4.1)."""
    return -math.log(max(1, task.num_classes - 1)) if task.kind == "multi_label" else 0.0


@keras.saving.register_keras_serializable(package="bert_keras")
class MultiTaskModel(keras.Model):
    """An encoder with a head for each task: from the encoder's inputs to logits by task name.

    Logits of a token-level task are `(batch, length, num_classes)`. Those of a sentence-level task are
    `(batch, num_classes)`, read from the first token (of a causal encoder: the last) through a pooler (dense,
    tanh; or what the encoder asks for) that all such tasks share, as in BERT, or, if `read_from` says so,
    from a mean or maximum over the sequence without a pooler. Those of a span are `(batch, length, 2)`, -1e9
    outside the sequence. Where the encoder was loaded with heads of a published checkpoint
    (`encoder.pretrained_heads`), the pooler and the
    tasks of their names start from them. It is a functional Keras model: compile it with losses of your own,
    call `predict`, or build on `model.output` as usual.

    Trained by `train_model`, each batch also says at which positions tasks have labels (`TaskFeed`), and
    logits are computed there and nowhere else.

    Args:
        encoder: a `keras.Model` over the inputs of `encoder_inputs`, giving `(batch, length, width)`.
        tasks: the tasks; names differ.
        seed: seed of the heads' weights and dropout.

    Attributes:
        encoder, tasks: the arguments.
        recipes: the `Recipe` of each phase that was trained by one.
        trained_heads: names of the tasks whose heads have learned: they came with a checkpoint or a file, or
            `fit` trained them. The others are fresh.

    Raises:
        ValueError: if names repeat, the encoder's inputs or output are not of this form, or `"lm"` and the
            token embedding disagree about the size of the vocabulary.

    Example:

    ```python
    model = MultiTaskModel(encoder, [lm, is_next])
    model.predict(encoder_arrays(batch))["is_next"].shape  # (batch, 2)
    ```
    """

    def __init__(
        self,
        encoder: keras.Model,
        tasks: Iterable[TaskMetadata],
        seed: int = 0,
        name: str = "multi_task_model",
    ) -> None:
        tasks = check_tasks(tasks)
        facts = encoder_facts(encoder)
        seeds = SeedSequence(seed)
        policy = facts.dtype_policy
        pooler: Any = None
        if any(_uses_pooler(task, facts.pool_everywhere) for task in tasks):
            pooler = _make_pooler(facts, seeds.next())
        heads: dict[str, keras.layers.Layer] = {}
        for task in tasks:
            arguments: dict[str, Any] = {
                "seeds": (seeds.next(), seeds.next()),
                "dtype": policy,
                "name": f"task_{task.name}",
            }
            if task.name == LM_TASK:
                table = facts.tied_table(task.num_classes)
                transform = None
                if not facts.is_causal or table.output_dim != facts.width:
                    transform = Transform(
                        facts.layer_norm_epsilon, facts.use_exact_gelu, facts.norm_kind, facts.use_bias
                    )
                heads[task.name] = LanguageModelHead(table, task.dropout, transform, **arguments)
            else:
                heads[task.name] = ClassificationHead(
                    task.num_classes, task.dropout, first_bias=_first_bias(task), **arguments
                )
        ways = {
            how: ReadSequence(how, facts.is_causal, dtype=policy, name=f"read_{how}")
            for how in ("token", "mean", "max")
        }
        span_scores = SpanScores(dtype="float32", name="span_scores")
        parts = _Heads(heads, pooler, ways, span_scores, facts.pool_everywhere)
        inputs = encoder_inputs()
        hidden = encoder(select_inputs(encoder, inputs))
        outputs = {task.name: parts.logits(task, hidden, inputs["sequence_ids"]) for task in tasks}
        super().__init__(inputs, outputs, name=name)
        self.encoder, self.tasks, self.seed = encoder, tasks, seed
        self.pooler, self.heads, self._parts = pooler, heads, parts
        adopted = adopt_heads(getattr(encoder, "pretrained_heads", None) or {}, pooler, heads)
        self.trained_heads = frozenset(adopted & heads.keys())
        self.task_metrics = TaskMetrics(tasks)
        self.recipes: dict[str, Any] = {}
        self._is_fitting = False

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        positions = inputs.get("positions") if isinstance(inputs, Mapping) else None
        if positions is None:
            return super().call(inputs, training=training)
        labelled = [task for task in self.tasks if task.name in positions]
        places = {task.name: ops.reshape(positions[task.name], (-1,)) for task in labelled}
        arrays = {name: inputs[name] for name in ENCODER_INPUTS}
        training = bool(training)
        if hasattr(self.encoder, "states_at") and all(_reads_positions(task) for task in labelled):
            joined = self.encoder.states_at(arrays, ops.concatenate([*places.values()]), training=training)
            states, start = {}, 0
            for name, place in places.items():
                count = ops.shape(place)[0]
                states[name] = joined[start : start + count]
                start = start + count
            return {task.name: self._parts.logits_of(task, states[task.name], training) for task in labelled}
        hidden = self.encoder(select_inputs(self.encoder, arrays), training=training)
        return {
            task.name: self._parts.logits(task, hidden, arrays["sequence_ids"], places[task.name], training)
            for task in labelled
        }

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Return the weighted sum of the tasks' mean losses over their labelled positions.

        Labels that do not come from a `TaskFeed` get Keras' own treatment under what was given to `compile`.
        """
        if not (isinstance(y, Mapping) and "task_weights" in y):
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        total = ops.zeros((), dtype="float32")
        for task in self.tasks:
            if task.name not in y["targets"]:
                continue
            labelled = ops.reshape(y["labelled"][task.name], (-1,))
            targets = y["targets"][task.name]  # (batch, k) or (batch, k, m)
            targets = ops.reshape(targets, (-1, *ops.shape(targets)[2:]))
            logits, weight = y_pred[task.name], y["task_weights"][task.name][0]
            losses = label_losses(task, logits, targets)
            mean_loss = self.task_metrics.update(task.name, logits, targets, losses, labelled, weight)
            total = total + weight * mean_loss
        for loss in self.losses:
            total = total + self._aggregate_additional_loss(loss)
        return total

    @property
    def metrics(self) -> list[Any]:
        own = {id(metric) for metric in self.task_metrics.all()}
        others = [metric for metric in super().metrics if id(metric) not in own]
        return others + self.task_metrics.active()

    @contextlib.contextmanager
    def only_training(self, tasks: Iterable[TaskMetadata]) -> Iterator[None]:
        """Within this context the heads of other tasks are frozen and have no metrics.

        Otherwise weight decay would wear down heads that no loss holds up.
        """
        tasks = list(tasks)
        names = [task.name for task in tasks]
        idle = [
            variable
            for name, head in self.heads.items()
            if name not in names
            for variable in head.own_variables()
        ]
        if self.pooler is not None and not any(
            _uses_pooler(task, self._parts.pool_everywhere) for task in tasks
        ):
            idle += self.pooler.weights
        idle = [variable for variable in idle if variable.trainable]
        before, self.task_metrics.active_tasks = self.task_metrics.active_tasks, names
        for variable in idle:
            variable.trainable = False
        try:
            yield
        finally:
            self.task_metrics.active_tasks = before
            for variable in idle:
                variable.trainable = True

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        check_not_quantized(self.encoder)
        before, self._is_fitting = self.trained_heads, True
        self.trained_heads |= {*self.task_metrics.active_tasks}  # so say files that callbacks write, too
        try:
            history = super().fit(*args, **kwargs)
        except BaseException:
            self.trained_heads = before
            raise
        finally:
            self._is_fitting = False
        self.encoder.is_trained = True
        return history

    def save_weights(
        self,
        filepath: Any,
        overwrite: bool = True,
        max_shard_size: Any = None,
        include_optimizer: bool | None = None,
    ) -> None:
        """Write one file with the weights, the tasks and the encoder's configuration. The previous file stays
        whole until then.

        Args:
            filepath: where to; `.weights.h5` is added where it is missing.
            overwrite: whether an existing file may be replaced.
            max_shard_size: must be None: there is one file.
            include_optimizer: whether the optimizer and the random state go along, so that training can go on
                exactly; by default only while `fit` runs (for callbacks that back up).

        Raises:
            FileExistsError: if the file exists and `overwrite` is False.
        """
        if max_shard_size is not None:
            raise ValueError(
                f"`max_shard_size` must be None: one file is written. Received: {max_shard_size!r}"
            )
        include_optimizer = self._is_fitting if include_optimizer is None else include_optimizer
        write_weights(self, filepath, overwrite, include_optimizer)

    def load_weights(self, filepath: Any, skip_mismatch: bool = False, **kwargs: Any) -> None:
        """Load what `save_weights` wrote, or change nothing.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is damaged, or its variables are not this model's; every difference is
                named.
        """
        if skip_mismatch or kwargs:
            raise ValueError(
                f"Nothing is skipped on loading. Received: skip_mismatch={skip_mismatch}, {kwargs}"
            )
        metadata = read_weights(self, filepath)
        if not self._is_fitting:
            self.encoder.is_trained = True
            self.trained_heads = frozenset(metadata.get("trained_heads", self.heads))

    def get_config(self) -> dict[str, Any]:
        return {
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "tasks": [task.get_config() for task in self.tasks],
            "seed": self.seed,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> MultiTaskModel:
        config = dict(config)
        encoder = keras.saving.deserialize_keras_object(config.pop("encoder"), custom_objects=custom_objects)
        return cls(encoder, [TaskMetadata.from_config(task) for task in config.pop("tasks")], **config)
