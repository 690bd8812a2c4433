"""The transformer encoder: BERT's, GPT's and the modern one are different choices of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
from keras import ops

from bert_keras.encoders.attention import near_pairs, rotary_angles, visible_pairs
from bert_keras.encoders.config import TransformerConfig
from bert_keras.encoders.inputs import encoder_inputs
from bert_keras.encoders.layers import (
    Embeddings,
    InitialValues,
    TransformerBlock,
    norm_at,
)


class _Parts(NamedTuple):
    visible_pairs: keras.layers.Layer
    near_pairs: keras.layers.Layer | None
    rotary_angles: keras.layers.Layer | None
    local_rotary_angles: keras.layers.Layer | None
    embeddings: Embeddings
    blocks: list[TransformerBlock]
    final_norm: keras.layers.Layer | None


@keras.saving.register_keras_serializable(package="bert_keras")
class Transformer(keras.Model):
    """Transformer encoder: from the four inputs of `encoder_inputs` to hidden states.

    Use `create_transformer`, which explains the arguments and fills in sizes. A call may also pass
    `attention_mask` in the dictionary of inputs: bool, broadcastable to `(batch, heads, length, length)`,
    True where attention may go; it narrows what `sequence_ids` and causality leave visible.

    Args:
        config: all that decides it; its fields become attributes of the model.
        initial: what the variables start from, if not from fresh values.
        name: name of the model.
        dtype: dtype policy; by default Keras' global one.
    """

    supports_packing = True

    def __init__(
        self,
        config: TransformerConfig,
        initial: InitialValues | None = None,
        name: str = "transformer",
        dtype: Any = None,
    ) -> None:
        policy = keras.dtype_policies.get(dtype)
        initial = InitialValues(config) if initial is None else initial
        parts = _parts(config, initial, policy)
        inputs = encoder_inputs()
        super().__init__(inputs, _hidden_states(parts, inputs, None), name=name)
        self.dtype_policy = policy  # a functional model takes no `dtype`; the heads follow this
        self._parts, self.config = parts, config
        for key, value in dataclasses.asdict(config).items():
            setattr(self, key, value)

    @property
    def token_embedding(self) -> keras.layers.Embedding:
        """The table of token embeddings, to which the `lm` decoder is tied."""
        return self._parts.embeddings.token_embedding

    @property
    def rematerialize(self) -> bool:
        """Whether training keeps only what goes from block to block, and computes the rest once more in the
        backward pass; to be set before the model is compiled."""
        return all(block.rematerialize for block in self._parts.blocks)

    @rematerialize.setter
    def rematerialize(self, value: bool) -> None:
        for block in self._parts.blocks:
            block.rematerialize = value

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if isinstance(inputs, dict) and inputs.get("attention_mask") is not None:
            return _hidden_states(self._parts, inputs, bool(training))
        return super().call(inputs, training=training)

    def states_at(self, inputs: Mapping[str, Any], positions: Any, training: bool = False) -> Any:
        """Return the hidden states of some positions, without the part of the last block that only others
        would need.

        Args:
            inputs: the four arrays by name.
            positions: int32, of n entries: row times length plus column.
            training: whether dropout is on.

        Returns:
            float, `(n, embedding_dim)`.
        """
        return _hidden_states(self._parts, inputs, training, positions)

    def get_config(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self.config), "name": self.name, "dtype": self.dtype_policy.name}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Transformer:
        config = dict(config)
        name, dtype = config.pop("name"), config.pop("dtype")
        config.setdefault("token_embedding_dim", config["embedding_dim"])  # absent before version 0.2
        return cls(TransformerConfig(**config), name=name, dtype=dtype)


def _parts(config: TransformerConfig, initial: InitialValues, policy: Any) -> _Parts:
    def angles(base: float, name: str) -> keras.layers.Layer:
        return RotaryAngles(config.head_dim, base, name=name)

    rotary, local_base = config.position_embedding == "rotary", config.local_rotary_base
    return _Parts(
        VisiblePairs(config.is_causal, name="visible_pairs"),
        None if config.local_window is None else NearPairs(config.local_window, name="near_pairs"),
        angles(config.rotary_base, "rotary_angles") if rotary else None,
        None if local_base is None else angles(local_base, "local_rotary_angles"),
        Embeddings(config, initial, dtype=policy, name="embeddings"),
        [
            TransformerBlock(config, initial, index, dtype=policy, name=f"layer_{index}")
            for index in range(config.num_layers)
        ],
        norm_at("final_norm", config, initial, policy) if config.norm_placement == "pre" else None,
    )


def _hidden_states(
    parts: _Parts, inputs: Mapping[str, Any], training: bool | None, positions: Any = None
) -> Any:
    """The encoder as equations: symbolic on construction, where `training` is None, else with arrays."""
    visible = parts.visible_pairs(inputs["sequence_ids"])
    if inputs.get("attention_mask") is not None:
        visible = ops.logical_and(visible, ops.cast(inputs["attention_mask"], "bool"))
    rotation = None if parts.rotary_angles is None else parts.rotary_angles(inputs["position_ids"])
    far = near = (visible, rotation)
    if parts.near_pairs is not None:
        near = (ops.logical_and(visible, parts.near_pairs(inputs["position_ids"])), rotation)
    if parts.local_rotary_angles is not None:
        near = (near[0], parts.local_rotary_angles(inputs["position_ids"]))
    arguments = {} if training is None else {"training": training}
    hidden = parts.embeddings(inputs["token_ids"], inputs["segment_ids"], inputs["position_ids"], **arguments)
    for block in parts.blocks[:-1]:
        hidden = block(hidden, *(near if block.is_local else far), **arguments)
    last = parts.blocks[-1]
    hidden = last(hidden, *(near if last.is_local else far), positions, **arguments)
    return hidden if parts.final_norm is None else parts.final_norm(hidden)


class VisiblePairs(keras.layers.Layer):
    """`visible_pairs` as a layer without weights."""

    def __init__(self, is_causal: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.is_causal = is_causal

    def call(self, sequence_ids: Any) -> Any:
        return visible_pairs(sequence_ids, self.is_causal)


class NearPairs(keras.layers.Layer):
    """`near_pairs` as a layer without weights."""

    def __init__(self, window: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.window = window

    def call(self, position_ids: Any) -> Any:
        return near_pairs(position_ids, self.window)


class RotaryAngles(keras.layers.Layer):
    """`rotary_angles` as a layer without weights."""

    def __init__(self, head_dim: int, base: float, **kwargs: Any) -> None:
        super().__init__(dtype="float32", **kwargs)
        self.head_dim, self.base = head_dim, base

    def call(self, position_ids: Any) -> tuple[Any, Any]:
        return rotary_angles(position_ids, self.head_dim, self.base)
