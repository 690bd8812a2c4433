"""Learning rates by depth: heads fastest, embeddings slowest, and layers that begin to learn later."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from bert_keras.encoders import ENCODER_CLASSES
from bert_keras.encoders.torch_kernels import is_torch
from bert_keras.training.adam_kernel import apply_adam
from bert_keras.training.heads import ClassificationHead
from bert_keras.training.torch_updates import adam_by_kernel, clipped, decay, has_one_kernel, values_of

_CLASSIFIER = re.compile(r"(^|/)task_[^/]+/classifier/")
_OUTSIDE = re.compile(r"(^|/)(task_[^/]+|pooler)/")
_BLOCK = re.compile(r"[a-z]+_(\d+)$")


@dataclasses.dataclass(frozen=True)
class Depths:
    """How deep variables lie.

    Attributes:
        of: depth of a variable by its `id`: 0 for embeddings, k + 1 for block k, num_blocks + 1 for all that
            comes after the blocks.
        heads: `id`s of the variables of fresh classifiers.
        num_blocks: blocks of the encoder.
    """

    of: Mapping[int, int]
    heads: frozenset[int]
    num_blocks: int


def model_depths(model: keras.Model) -> Depths:
    """Return how deep the variables of a model lie.

    The blocks of an encoder of this library are its layers. Of any other encoder each layer with weights is a
    block, in the order of `encoder.layers`, and embedding layers are the embeddings. The pooler and
    heads lie after the blocks.

    Args:
        model: an encoder, or a model with heads on one.
    """
    encoder = getattr(model, "encoder", model)
    if type(encoder) in ENCODER_CLASSES.values():
        depths = {id(v): path_depth(v.path) for v in encoder.weights}
    else:
        depths = _depths_by_layer(encoder)
    num_blocks = max([0, *(depth for depth in depths.values() if depth is not None)])
    top = num_blocks + 1
    trained = getattr(model, "trained_heads", None)
    fresh = [] if trained is None else [head for name, head in model.heads.items() if name not in trained]
    heads = frozenset(id(v) for head in fresh if isinstance(head, ClassificationHead) for v in head.weights)
    of = {id(variable): depths.get(id(variable)) for variable in model.weights}
    return Depths({key: top if depth is None else depth for key, depth in of.items()}, heads, num_blocks)


def path_depth(path: str) -> int | None:
    """Return how deep a variable of one of the library's encoders lies, or None for what comes after the
    blocks."""
    first = path.split("/", 1)[0]
    if first == "embeddings":
        return 0
    block = _BLOCK.match(first)
    return None if block is None else int(block[1]) + 1


def _depths_by_layer(encoder: keras.Model) -> dict[int, int | None]:
    depths: dict[int, int | None] = {}
    number = 0
    for layer in encoder.layers:
        if not layer.weights:
            continue
        is_embedding = isinstance(layer, keras.layers.Embedding) or "embedding" in layer.name
        number += not is_embedding
        depths |= {id(variable): 0 if is_embedding else number for variable in layer.weights}
    return depths


def _depths_by_path(variables: Sequence[Any]) -> Depths:
    """Return depths where only paths are known: in an optimizer that was built without `place`."""
    heads = frozenset(id(v) for v in variables if _CLASSIFIER.search(v.path))
    found = {id(v): path_depth(v.path) for v in variables if not _OUTSIDE.search(v.path)}
    unknown = [v.path for v in variables if found.get(id(v), 0) is None and "final_norm" not in v.path]
    if unknown:
        raise ValueError(
            "Learning rates by depth need to know how deep variables lie, and these do not say: "
            f"{unknown[:5]}. Train by `train_model`, or call `optimizer.place(model)` before `compile`."
        )
    num_blocks = max([0, *(depth for depth in found.values() if depth is not None)])
    of = {id(v): found.get(id(v)) for v in variables}
    return Depths({key: num_blocks + 1 if d is None else d for key, d in of.items()}, heads, num_blocks)


def check_rates(layer_decay: float, head_rate: float) -> None:
    """Refuse figures out of their ranges.

    Raises:
        ValueError: naming the figure.
    """
    if not 0.0 < layer_decay <= 1.0:
        raise ValueError(
            "`layer_decay` is the learning rate of a block as a multiple of that of the block above, above 0 "
            f"and at most 1. Received: layer_decay={layer_decay!r}"
        )
    if not 0.0 < head_rate < float("inf"):
        raise ValueError(f"`head_rate` must be above 0. Received: head_rate={head_rate!r}")


class LayerRates:
    """What an optimizer needs to give each variable a learning rate of its own. It comes before the
    optimizer's class among the bases.

    With n blocks, block k (from 0) learns at layer_decay ** (n - k) times the learning rate, the embeddings
    at layer_decay ** (n + 1), and fresh classifiers at head_rate times it; what else comes after the blocks
    (the pooler, the head of language modelling, classifiers that have learned) at all of it. Adam does not
    feel the scale of a gradient, so it is the step that is scaled, its weight decay with it.

    A variable that is not open yet (`open_at`) does not move, does not decay, has no part in the norm by
    which gradients are clipped, and keeps moments of zero; from its opening on it is treated as by a fresh
    optimizer.

    Attributes:
        layer_decay, head_rate: as said.

    Sources: Howard and Ruder 2018 (ULMFiT), section 3.2, discriminative fine-tuning; Clark et al. 2020
    (ELECTRA), appendix B, and Bao et al. 2021 (BEiT) for one factor from block to block.
    """

    layer_decay: float
    head_rate: float
    _depths: Depths | None = None
    _opens: tuple[int, ...] | None = None  # by depth: the first update
    _since: int = 0

    def place(self, model: keras.Model) -> None:
        """Learn how deep the variables of a model lie. `train_model` does this.

        Args:
            model: an encoder, or a model with heads on one.
        """
        self._depths = model_depths(model)

    def open_at(self, updates: Sequence[int]) -> None:
        """Say when variables begin to learn.

        Args:
            updates: for each depth, from the embeddings (0) to the heads, the optimizer's update from which
                on it learns.

        Raises:
            ValueError: if the optimizer has learnt by other numbers already.
        """
        if self._opens is not None and self._opens != tuple(updates):
            raise ValueError(
                f"This optimizer opens layers at {list(self._opens)} already. Compile the model with a new "
                f"one. Received: updates={list(updates)}"
            )
        self._opens = tuple(updates)

    @property
    def is_plain(self) -> bool:
        """Whether all variables have the same learning rate all the time."""
        return self.layer_decay == self.head_rate == 1.0 and self._opens is None

    def rate_factor(self, variable: Any) -> Any:
        """Return the learning rate of a variable as a multiple of the optimizer's: a number, or a tensor."""
        depth, is_head = self._place_of(variable)
        factor = self.layer_decay ** (self._known_depths().num_blocks + 1 - depth)
        return self._openness(depth) * factor * (self.head_rate if is_head else 1.0)

    def _known_depths(self) -> Depths:
        if self._depths is None:
            self._depths = _depths_by_path(self._trainable_variables)  # type: ignore[attr-defined]
        return self._depths

    def _place_of(self, variable: Any) -> tuple[int, bool]:
        depths = self._known_depths()
        if id(variable) not in depths.of:
            raise ValueError(
                "The optimizer was told of another model and does not know "
                f"{getattr(variable, 'path', variable)}. Call `optimizer.place(model)` before `compile`."
            )
        return depths.of[id(variable)], id(variable) in depths.heads

    def _openness(self, depth: int) -> Any:
        opens = 0 if self._opens is None else self._opens[depth]
        if opens <= 0:
            return 1.0
        return ops.cast(ops.greater_equal(super().iterations, opens), "float32")  # type: ignore[misc]

    @property
    def iterations(self) -> Any:
        """Updates that were made; within `_counting` since the opening of a variable."""
        made = super().iterations  # type: ignore[misc]
        return ops.maximum(made - self._since, 0) if self._since else made

    @contextlib.contextmanager
    def _counting(self, variable: Any) -> Iterator[None]:
        """Within this context updates count from the opening of a variable, so that moments which began with
        zeros there are corrected for it."""
        self._since = 0 if self._opens is None else self._opens[self._place_of(variable)[0]]
        try:
            yield
        finally:
            self._since = 0

    def apply(self, grads: Sequence[Any], trainable_variables: Any = None) -> None:
        """As in Keras, without the gradients of what is not open yet."""
        if self._opens is not None:
            variables = self._trainable_variables if trainable_variables is None else trainable_variables  # type: ignore[attr-defined]
            trainable_variables = None if trainable_variables is None else list(variables)
            grads = [
                _times(gradient, self._openness(self._place_of(variable)[0]))
                for gradient, variable in zip(grads, variables, strict=True)
            ]
        super().apply(grads, trainable_variables)  # type: ignore[misc]

    def _clip_gradients(self, grads: Sequence[Any]) -> Sequence[Any]:
        if is_torch() and not self.clipnorm and self.global_clipnorm:  # type: ignore[attr-defined]
            return clipped(grads, self.global_clipnorm)  # type: ignore[attr-defined]
        return super()._clip_gradients(grads)  # type: ignore[misc]


def _times(gradient: Any, factor: Any) -> Any:
    if gradient is None or isinstance(factor, float):
        return gradient
    if hasattr(gradient, "dense_shape"):  # rows of a table, TensorFlow's IndexedSlices
        values = gradient.values * ops.cast(factor, gradient.values.dtype)
        return type(gradient)(values, gradient.indices, gradient.dense_shape)
    return gradient * ops.cast(factor, gradient.dtype)


# On torch Keras has a class of its own, which updates all variables in one call.
_KerasAdamW: Any = type(keras.optimizers.AdamW.__new__(keras.optimizers.AdamW))


@keras.saving.register_keras_serializable(package="bert_keras")
class AdamW(LayerRates, _KerasAdamW):
    """Keras' AdamW, with learning rates by depth.

    Args:
        learning_rate: a number or a schedule.
        layer_decay: learning rate of a block as a multiple of that of the block above it.
        head_rate: learning rate of fresh classifiers as a multiple of `learning_rate`.
        kwargs: as of `keras.optimizers.AdamW`.

    Raises:
        ValueError: for figures out of their ranges.

    Example:

    ```python
    optimizer = AdamW(1e-4, layer_decay=0.8, weight_decay=0.01)
    model = train_model(encoder, [sentiment], finetune_generator=reviews, finetune_optimizer=optimizer)
    ```
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        layer_decay: float = 1.0,
        head_rate: float = 1.0,
        name: str = "adamw",
        **kwargs: Any,
    ) -> None:
        check_rates(layer_decay, head_rate)
        super().__init__(learning_rate, name=name, **kwargs)
        self.layer_decay, self.head_rate = layer_decay, head_rate

    def _backend_update_step(
        self, grads: Sequence[Any], variables: Sequence[Any], learning_rate: Any
    ) -> None:
        if self.is_plain:
            super()._backend_update_step(grads, variables, learning_rate)
            return
        groups: dict[tuple[int, bool], list[tuple[Any, Any]]] = {}
        for gradient, variable in zip(grads, variables, strict=True):
            groups.setdefault(self._place_of(variable), []).append((gradient, variable))
        for members in groups.values():
            gradients, some = map(list, zip(*members, strict=True))
            with self._counting(some[0]):
                super()._backend_update_step(gradients, some, learning_rate * self.rate_factor(some[0]))

    def _parallel_update_step(
        self, grads: Sequence[Any], variables: Sequence[Any], learning_rate: Any
    ) -> None:
        """All variables by PyTorch's own kernel, where it has one; Keras' way goes through memory a dozen
        times. Of Keras' class for torch."""
        indices = [self._get_variable_index(variable) for variable in variables]
        momenta, velocities = (
            values_of([moments[i] for i in indices]) for moments in (self._momentums, self._velocities)
        )
        values = values_of(variables)
        if self.amsgrad or not has_one_kernel([*values, *momenta, *velocities, *grads]):
            super()._parallel_update_step(grads, variables, learning_rate)
            return
        step = float(self.iterations) + 1.0
        adam_by_kernel(
            values,
            momenta,
            velocities,
            grads,
            rate=learning_rate,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            # Keras adds epsilon before the root's bias is corrected.
            epsilon=self.epsilon / math.sqrt(1.0 - self.beta_2**step),
            step=step,
        )

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        done = not self.amsgrad and apply_adam(
            variable,
            self._momentums[index],
            self._velocities[index],
            gradient,
            learning_rate=learning_rate,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=self.epsilon,
            step=self.iterations + 1,
        )
        if not done:
            super().update_step(gradient, variable, learning_rate)

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        if self.weight_decay is None or (self.is_plain and not is_torch()):
            super()._apply_weight_decay(variables)
            return
        for factor, some in self._by_rate(variables):
            share = self.weight_decay * self.learning_rate * factor
            if is_torch():
                decay(values_of(some), share)
                continue
            for variable in some:
                variable.assign(variable - variable * ops.cast(share, variable.dtype))

    def _by_rate(self, variables: Sequence[Any]) -> Iterator[tuple[Any, list[Any]]]:
        """Yield the variables that decay, those of one rate together, after that rate's factor."""
        groups: dict[Any, list[Any]] = {}
        for variable in filter(self._use_weight_decay, variables):
            groups.setdefault(None if self.is_plain else self._place_of(variable), []).append(variable)
        for some in groups.values():
            yield 1.0 if self.is_plain else self.rate_factor(some[0]), some

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "layer_decay": self.layer_decay, "head_rate": self.head_rate}


def rates_of(model: keras.Model) -> LayerRates | None:
    """Return the optimizer that a model was compiled with, if it can give rates by depth."""
    optimizer = getattr(model, "optimizer", None)
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return optimizer if isinstance(optimizer, LayerRates) else None


def updates_for(batches: int, accumulation_steps: int | None) -> int:
    """Return the first update whose batches all come after some number of batches."""
    return math.ceil(batches / (accumulation_steps or 1))
