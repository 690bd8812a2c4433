"""Training fewer parameters: LoRA, and frozen layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import keras

from bert_keras.encoders.changes import (
    adaptable_layers,
    check_plain,
    fold_lora,
    forget_functions,
    give_lora,
    kept_variable,
    lora_layers,
    made_to_train,
    quantized_layers,
    train_lora_only,
)
from bert_keras.training.layer_rates import model_depths

# Kinds of matrix, and where they are: names of layers, and which of the matrices side by side in them.
LORA_LAYERS: dict[str, tuple[tuple[str, str | None], ...]] = {
    "query": (("qkv", "query"),),
    "key": (("qkv", "key"),),
    "value": (("qkv", "value"),),
    "output": (("attention_output", None),),
    "feedforward": (("feedforward_in", None), ("feedforward_out", None)),
    "embeddings": (("token_embedding", None),),
}
Layers: TypeAlias = "str | int | Callable[[Any], bool]"


class TrainedShare(NamedTuple):
    """How many parameters are trained; as text, in words.

    Attributes:
        trained: parameters that training changes.
        total: all parameters.
    """

    trained: int
    total: int

    def __str__(self) -> str:
        share = 100 * self.trained / max(1, self.total)
        return f"{self.trained:,} of {self.total:,} parameters are trained ({share:.3g} %)"


def trained_share(model: keras.Model) -> TrainedShare:
    """Return how many parameters of a model are trained.

    Example:

    ```python
    freeze(model)
    print(trained_share(model))  # those of the heads alone
    ```
    """
    trained, every = (
        sum(math.prod(v.shape) for v in some) for some in (model.trainable_weights, model.weights)
    )
    return TrainedShare(trained, every)


def add_lora(
    model: keras.Model,
    rank: int = 8,
    *,
    alpha: float | None = None,
    layers: Sequence[str] | Callable[[Any], bool] = ("query", "value"),
    seed: int = 0,
) -> TrainedShare:
    """Add small trainable matrices to chosen matrices of an encoder, and freeze everything else in it.

    A matrix `W` of `(in, out)` becomes `W + alpha / rank * A B` with `A` of `(in, rank)` and `B` of
    `(rank, out)`, which starts from zero: at first the encoder gives what it gave. Heads are trained as
    before. The change is made in place, by `enable_lora` of Keras' layers; saved files have it, and
    `load_model` makes it again.

    Args:
        model: an encoder, or a model of `train_model` or `load_model`.
        rank: of what is added.
        alpha: its weight; by default the rank, so that the weight is 1.
        layers: kinds of matrix: `"query"`, `"key"`, `"value"`, `"output"` (of attention), `"feedforward"`
            and `"embeddings"` (of tokens: the whole table is computed anew at each step, which costs). Or,
            for any encoder, a function that says of a Keras layer with `enable_lora` whether it is meant.
        seed: of `A`'s first values.

    Returns:
        How many parameters are trained now, of how many; print it.

    Raises:
        ValueError: if the encoder has LoRA already or was quantised, has no such layers, or a number is out
            of its range.

    Example:

    ```python
    encoder = load_huggingface("all-MiniLM-L6-v2")
    print(add_lora(encoder, rank=8))
    recipe = create_recipe("gentle", learning_rate=5e-4)  # LoRA wants larger rates
    model = train_model(encoder, [sentiment], finetune_generator=reviews, recipe=recipe)
    merge_lora(model)
    ```

    Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models".
    """
    encoder = getattr(model, "encoder", model)
    if isinstance(rank, bool) or int(rank) != rank or rank < 1 or (alpha is not None and alpha <= 0):
        raise ValueError(
            "`rank` must be a whole number of at least 1, and `alpha` above 0. "
            f"Received: rank={rank!r}, alpha={alpha!r}"
        )
    check_plain(encoder, "add LoRA")
    if callable(layers):
        chosen: list[tuple[Any, Sequence[str] | None]]
        chosen = [(layer, None) for layer in adaptable_layers(encoder) if layers(layer)]
        if not chosen:
            raise ValueError(
                "`layers` chose none of the encoder's layers that can have LoRA, which are "
                f"{[layer.path for layer in adaptable_layers(encoder)]}."
            )
    else:
        chosen = _layers_of_kinds(encoder, layers)
    initializer = keras.initializers.HeUniform(seed=keras.random.SeedGenerator(seed))
    for layer, parts in chosen:
        give_lora(layer, rank, rank if alpha is None else alpha, parts, initializer)
    train_lora_only(encoder)
    forget_functions(model)
    return trained_share(model)


def _layers_of_kinds(encoder: keras.Model, kinds: Sequence[str]) -> list[tuple[Any, Sequence[str] | None]]:
    """Return the layers of some kinds, in order, each with the matrices in it, or None for all of it."""
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    found: dict[int, tuple[Any, list[str]]] = {}
    there = adaptable_layers(encoder)
    names = {layer.name for layer in there}
    known = [kind for kind, places in LORA_LAYERS.items() if {name for name, _ in places} & names]
    if not kinds or not set(kinds) <= set(known):
        raise ValueError(
            f"`layers` must be some of {known}, which this encoder has, or a function that chooses among its "
            f"layers {sorted(names)}. Received: layers={kinds}"
        )
    for layer in there:
        for kind in kinds:
            for name, part in LORA_LAYERS[kind]:
                if layer.name == name:
                    parts = found.setdefault(id(layer), (layer, []))[1]
                    parts += [] if part is None else [part]
    return [(layer, parts or None) for layer, parts in found.values()]


def merge_lora(model: keras.Model) -> TrainedShare:
    """Fold what LoRA learnt into the matrices, so that the encoder is as fast and as plain as before.

    The sums are those that each call made, so outputs stay what they were: to the rounding of a compiler, and
    with mixed precision to that of its smaller type, since the sum is then rounded once and not in parts. All
    of the encoder is trainable afterwards.

    Args:
        model: an encoder, or a model with heads on one, that has LoRA.

    Returns:
        How many parameters are trained now, of how many.

    Raises:
        ValueError: if there is no LoRA.

    Example:

    ```python
    add_lora(model)
    model = train_model(model, [sentiment], finetune_generator=reviews)
    merge_lora(model)
    save_huggingface(model, "my_sentiment", text_encoder=text_encoder)
    ```
    """
    encoder = getattr(model, "encoder", model)
    layers = lora_layers(encoder)
    if not layers:
        raise ValueError("The encoder has no LoRA to merge: `add_lora` was not called, or it was merged.")
    for layer in layers:
        fold_lora(layer)
    for variable in made_to_train(encoder):
        variable.trainable = True
    forget_functions(model)
    return trained_share(model)


def freeze(model: keras.Model, layers: Layers = "encoder") -> TrainedShare:
    """Keep some weights as they are in the training that follows.

    Frozen weights cost no gradient and no state of the optimizer, and do not decay. Calls add up. This is a
    matter of training and not of the model: files do not keep it, so a loaded model has nothing frozen but
    what is under LoRA. A model that you compiled yourself has to be compiled anew.

    Args:
        model: an encoder, or a model of `train_model` or `load_model`.
        layers: `"encoder"`: all but the heads; `"embeddings"`; a number n: the embeddings and the first n
            blocks; or a function that says of a variable, by its `path` (`layer_0/qkv/kernel`), whether it is
            meant. Dropout goes on where the encoder has any.

    Returns:
        How many parameters are trained now, of how many; print it.

    Raises:
        ValueError: if `layers` is none of these, or means nothing.

    Example:

    ```python
    print(freeze(encoder, layers=1))  # embeddings and the first block
    freeze(encoder, layers=lambda variable: not variable.path.endswith("bias"))  # BitFit
    model = train_model(encoder, [sentiment], finetune_generator=reviews)
    ```
    """
    return _set_trainable(model, layers, False)


def unfreeze(model: keras.Model, layers: Layers = "encoder") -> TrainedShare:
    """Let frozen weights be trained again.

    Matrices under LoRA stay frozen until `merge_lora`.

    Args:
        model: an encoder, or a model of `train_model` or `load_model`.
        layers: as in `freeze`.

    Returns:
        How many parameters are trained now, of how many.

    Raises:
        ValueError: as in `freeze`; and if the encoder was quantised.

    Example:

    ```python
    unfreeze(model)
    ```
    """
    if quantized_layers(getattr(model, "encoder", model)):
        check_plain(getattr(model, "encoder", model), "train it")
    return _set_trainable(model, layers, True)


def _set_trainable(model: keras.Model, layers: Layers, is_trained: bool) -> TrainedShare:
    encoder = getattr(model, "encoder", model)
    never = {id(kept_variable(layer)) for layer in lora_layers(encoder)}
    can_train = {id(variable) for variable in made_to_train(model)} - never
    for variable in _chosen(model, encoder, layers):
        variable.trainable = is_trained and id(variable) in can_train
    forget_functions(model)
    return trained_share(model)


def _chosen(model: keras.Model, encoder: keras.Model, layers: Layers) -> list[Any]:
    depths = model_depths(encoder)
    if callable(layers):
        chosen = [variable for variable in model.weights if layers(variable)]
    elif layers == "encoder":
        chosen = list(encoder.weights)
    elif layers == "embeddings" or (isinstance(layers, int) and not isinstance(layers, bool)):
        last = 0 if layers == "embeddings" else int(layers)
        if not 0 <= last <= depths.num_blocks:
            raise ValueError(
                f"`layers` must be from 0 to the {depths.num_blocks} blocks of the encoder. "
                f"Received: layers={layers}"
            )
        chosen = [variable for variable in encoder.weights if depths.of[id(variable)] <= last]
    else:
        raise ValueError(
            "`layers` must be 'encoder', 'embeddings', a number of blocks, or a function of a variable. "
            f"Received: layers={layers!r}"
        )
    if not chosen:
        raise ValueError(f"`layers` means no weights of this model. Received: layers={layers!r}")
    return chosen
