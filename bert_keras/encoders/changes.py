"""What was done to an encoder's layers after it was built: LoRA and int8. Written with the weights, and made
again before they are read."""

from __future__ import annotations

import contextlib
import gc
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
from keras import ops

from bert_keras.encoders.dense import JoinedDense

# Paths of the variables that come with LoRA or int8.
ADDED = re.compile(r"(^|/)(lora_[^/]+|kernel_scale|embeddings_scale)$")


def adaptable_layers(encoder: keras.Model) -> list[Any]:
    """Return the layers that LoRA can adapt, in a fixed order: dense ones and embedding tables."""
    found = {id(layer): layer for layer in encoder._flatten_layers() if hasattr(layer, "enable_lora")}
    return list(found.values())


def lora_layers(encoder: keras.Model) -> list[Any]:
    """Return the layers that have LoRA."""
    return [layer for layer in adaptable_layers(encoder) if layer.lora_enabled]


def quantized_layers(encoder: keras.Model) -> list[Any]:
    """Return the layers whose weights are integers."""
    return [layer for layer in adaptable_layers(encoder) if layer.quantization_mode == "int8"]


def changes_of(encoder: keras.Model) -> dict[str, Any]:
    """Return what was done to an encoder's layers, as plain values; nothing was if it is empty.

    Layers are named by their number among `adaptable_layers`, since Keras numbers nameless layers differently
    in every process.
    """
    changes: dict[str, Any] = {}
    layers = adaptable_layers(encoder)
    lora = [
        {
            "layer": number,
            "rank": layer.lora_rank,
            "alpha": layer.lora_alpha,
            "parts": list(layer.lora_parts) if isinstance(layer, JoinedDense) else None,
        }
        for number, layer in enumerate(layers)
        if layer.lora_enabled
    ]
    if lora:
        changes["lora"] = lora
    integer = [number for number, layer in enumerate(layers) if layer.quantization_mode == "int8"]
    if integer:
        dense = [layers[number] for number in integer if hasattr(layers[number], "inputs_quantizer")]
        changes["int8"] = {
            "layers": integer,
            "activations": any(layer.inputs_quantizer is not None for layer in dense),
        }
    return changes


def make_changes(encoder: keras.Model, changes: Mapping[str, Any]) -> None:
    """Do to an encoder what `changes_of` told of another of the same shape; its numbers come afterwards.

    Raises:
        ValueError: if something else was done to it already.
    """
    if changes_of(encoder) == changes:
        return
    check_plain(encoder, "load a file into it that was changed in another way")
    layers = adaptable_layers(encoder)
    for entry in changes.get("lora", ()):
        give_lora(layers[entry["layer"]], entry["rank"], entry["alpha"], entry["parts"])
    if "lora" in changes:
        train_lora_only(encoder)
    if "int8" in changes:
        numbers = changes["int8"]["layers"]
        make_int8(encoder, [layers[number] for number in numbers], changes["int8"]["activations"])


def give_lora(
    layer: Any, rank: int, alpha: float, parts: Iterable[str] | None = None, initializer: Any = "he_uniform"
) -> None:
    """Enable LoRA on one layer, or on some matrices of a `JoinedDense`."""
    more = {"parts": parts} if isinstance(layer, JoinedDense) else {}
    layer.enable_lora(rank, lora_alpha=alpha, a_initializer=initializer, **more)


def train_lora_only(encoder: keras.Model) -> None:
    """Freeze all of an encoder but what LoRA added."""
    added = {id(variable) for layer in lora_layers(encoder) for variable in lora_variables(layer).values()}
    for variable in encoder.weights:
        variable.trainable = id(variable) in added


def lora_variables(layer: Any) -> dict[str, Any]:
    """Return what LoRA added to a layer, by the attribute that holds it."""
    if isinstance(layer, JoinedDense):
        names = [f"lora_{part}_{factor}" for part in layer.lora_parts for factor in "ab"]
    elif isinstance(layer, keras.layers.Embedding):
        names = ["lora_embeddings_a", "lora_embeddings_b"]
    else:
        names = ["lora_kernel_a", "lora_kernel_b"]
    return {name: getattr(layer, name) for name in names}


def kept_variable(layer: Any) -> Any:
    """Return the matrix that LoRA adds to."""
    return layer._embeddings if isinstance(layer, keras.layers.Embedding) else layer._kernel


def made_to_train(model: keras.Model) -> list[Any]:
    """Return the variables that training may change: not those that were never meant to, such as moving
    means."""
    found = {id(v): v for layer in model._flatten_layers() for v in layer._trainable_variables}
    return list(found.values())


def fold_lora(layer: Any) -> None:
    """Add to the matrix what LoRA adds to it in each call, in float32, and take LoRA off."""
    variable = kept_variable(layer)
    if isinstance(layer, JoinedDense):
        changed = ops.add(
            variable.value, ops.concatenate([layer._change(part) for part in layer.parts], axis=1)
        )
    else:
        a, b = lora_variables(layer).values()
        changed = ops.add(variable.value, (layer.lora_alpha / layer.lora_rank) * ops.matmul(a, b))
    variable.assign(changed)
    for name, added in lora_variables(layer).items():
        layer._untrack_variable(added)
        layer.__dict__.pop(name)  # `del` would collect garbage for each
    layer.lora_enabled, layer.lora_rank, layer.lora_alpha = False, None, None
    if isinstance(layer, JoinedDense):
        layer.lora_parts = ()


def make_int8(encoder: keras.Model, layers: Iterable[Any], activations: bool) -> None:
    """Turn the matrices of some layers into int8 with a scale for each column (row, of an embedding table).

    Args:
        encoder: whose layers they are.
        layers: dense layers and embedding tables.
        activations: whether inputs of dense layers are rounded too, so that products are of integers.
    """
    chosen = {id(layer) for layer in layers}
    inputs = "default" if activations else None
    with _little_garbage():
        encoder.quantize(
            config=keras.quantizers.Int8QuantizationConfig(activation_quantizer=inputs),
            filters=lambda layer: id(layer) in chosen,
            type_check=False,  # `JoinedDense` is as good as its base
        )


@contextlib.contextmanager
def _little_garbage() -> Iterator[None]:
    """Keep what there is out of the collections of garbage within this context: Keras makes a full one for
    each layer, a quarter of a second each."""
    is_own = gc.get_freeze_count() == 0
    if is_own:
        gc.freeze()
    try:
        yield
    finally:
        if is_own:
            gc.unfreeze()


def check_plain(encoder: keras.Model, purpose: str) -> None:
    """Refuse an encoder with LoRA or int8.

    Raises:
        ValueError: saying what to do before.
    """
    if lora_layers(encoder):
        raise ValueError(f"The encoder has LoRA. To {purpose}, fold it into the weights first: `merge_lora`.")
    if quantized_layers(encoder):
        raise ValueError(
            f"The encoder was quantised to int8, so it only predicts. To {purpose}, take the model as it was "
            "before `quantize`: load the file that was saved then."
        )


def forget_functions(model: keras.Model) -> None:
    """Let Keras make its compiled functions anew: the present ones know the layers as they were."""
    for each in {id(m): m for m in (model, getattr(model, "encoder", model))}.values():
        each.train_function = each.test_function = each.predict_function = None
        if keras.backend.backend() == "torch":  # which keeps lists of its own
            for layer in each._flatten_layers():
                layer._track_variables()
