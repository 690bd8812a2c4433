"""What every encoder reads: four int32 arrays of shape `(batch, length)`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

ENCODER_INPUTS = ("token_ids", "segment_ids", "position_ids", "sequence_ids")


def encoder_inputs() -> dict[str, Any]:
    """Return the four symbolic inputs of an encoder, each `(batch, length)` int32, both dimensions open.

    `token_ids` are the text, `segment_ids` tell sentence A (0) from B (1), `position_ids` count from 0 within
    a sequence, `sequence_ids` are 0 at padding and k in the k-th sequence of the row.

    Example:

    ```python
    inputs = encoder_inputs()
    hidden = keras.layers.Embedding(8000, 64)(inputs["token_ids"])
    hidden = keras.layers.Bidirectional(keras.layers.LSTM(32, return_sequences=True))(hidden)
    encoder = keras.Model(inputs, hidden)
    ```
    """
    return {name: keras.Input((None,), dtype="int32", name=name) for name in ENCODER_INPUTS}


def select_inputs(encoder: keras.Model, arrays: Mapping[str, Any]) -> Any:
    """Return those of the four arrays that the encoder takes, in the structure it was built with.

    Args:
        encoder: any `keras.Model` over some or all of the four inputs, called by name or in their order.
        arrays: the arrays by name.
    """
    structure = getattr(encoder, "_inputs_struct", None)
    if structure is None:
        return {name: arrays[name] for name in ENCODER_INPUTS}
    if isinstance(structure, dict):
        return {name: arrays[name] for name in structure}
    if isinstance(structure, (list, tuple)):
        return [arrays[name] for name in input_names(encoder)]
    return arrays[input_names(encoder)[0]]


def input_names(encoder: keras.Model) -> list[str]:
    """Return the names of the encoder's inputs.

    Raises:
        ValueError: if it has inputs that are not among the four.
    """
    structure = getattr(encoder, "_inputs_struct", None)
    if structure is None:
        return list(ENCODER_INPUTS)
    if isinstance(structure, dict):
        names = list(structure)
    else:
        names = [tensor.name for tensor in encoder.inputs]
        if len(names) == len(ENCODER_INPUTS) and not set(names) <= set(ENCODER_INPUTS):
            names = list(ENCODER_INPUTS)  # four nameless inputs: taken in their order
    unknown = [name for name in names if name not in ENCODER_INPUTS]
    if unknown:
        raise ValueError(
            f"The encoder's inputs must be named after {list(ENCODER_INPUTS)}, each (batch, length) int32. "
            f"Received an encoder with inputs {names}. `encoder_inputs()` makes the four."
        )
    return names
