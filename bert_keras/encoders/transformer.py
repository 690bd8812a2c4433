"""The transformer encoder of BERT and GPT, and `create_transformer` that builds it."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
from keras import ops

from bert_keras.encoders.config import TRANSFORMER_SIZES, TransformerConfig
from bert_keras.encoders.inputs import encoder_inputs
from bert_keras.encoders.layers import (
    Embeddings,
    InitialValues,
    TransformerBlock,
    layer_norm,
    rotary_angles,
    visible_pairs,
)


class _Parts(NamedTuple):
    visible_pairs: keras.layers.Layer
    rotary_angles: keras.layers.Layer | None
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
        rotary = config.position_embedding == "rotary"
        parts = _Parts(
            VisiblePairs(config.is_causal, name="visible_pairs"),
            RotaryAngles(config.head_dim, name="rotary_angles") if rotary else None,
            Embeddings(config, initial, dtype=policy, name="embeddings"),
            [
                TransformerBlock(config, initial, dtype=policy, name=f"layer_{index}")
                for index in range(config.num_layers)
            ],
            layer_norm("final_norm", config.layer_norm_epsilon, initial, policy)
            if config.norm_placement == "pre"
            else None,
        )
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


def _hidden_states(
    parts: _Parts, inputs: Mapping[str, Any], training: bool | None, positions: Any = None
) -> Any:
    """The encoder as equations: symbolic on construction, where `training` is None, else with arrays."""
    visible = parts.visible_pairs(inputs["sequence_ids"])
    if inputs.get("attention_mask") is not None:
        visible = ops.logical_and(visible, ops.cast(inputs["attention_mask"], "bool"))
    rotation = None if parts.rotary_angles is None else parts.rotary_angles(inputs["position_ids"])
    arguments = {} if training is None else {"training": training}
    hidden = parts.embeddings(inputs["token_ids"], inputs["segment_ids"], inputs["position_ids"], **arguments)
    for block in parts.blocks[:-1]:
        hidden = block(hidden, visible, rotation, **arguments)
    hidden = parts.blocks[-1](hidden, visible, rotation, positions, **arguments)
    return hidden if parts.final_norm is None else parts.final_norm(hidden)


class VisiblePairs(keras.layers.Layer):
    """`visible_pairs` as a layer without weights."""

    def __init__(self, is_causal: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.is_causal = is_causal

    def call(self, sequence_ids: Any) -> Any:
        return visible_pairs(sequence_ids, self.is_causal)


class RotaryAngles(keras.layers.Layer):
    """`rotary_angles` as a layer without weights."""

    def __init__(self, head_dim: int, **kwargs: Any) -> None:
        super().__init__(dtype="float32", **kwargs)
        self.head_dim = head_dim

    def call(self, position_ids: Any) -> tuple[Any, Any]:
        return rotary_angles(position_ids, self.head_dim)


def create_transformer(
    vocab_size: int,
    embedding_dim: int | None = None,
    max_len: int = 512,
    num_layers: int | None = None,
    num_heads: int | None = None,
    d_hid: int | None = None,
    is_causal: bool = False,
    *,
    size: str = "base",
    token_embedding_dim: int | None = None,
    num_segments: int = 2,
    position_embedding: str = "learned",
    position_offset: int = 0,
    embedding_layer_norm: bool = True,
    embedding_dropout: float = 0.1,
    attention_dropout: float = 0.1,
    residual_dropout: float = 0.1,
    use_one_embedding_dropout: bool = True,
    norm_placement: str = "post",
    pooler_activation: str = "tanh",
    layer_norm_epsilon: float = 1e-12,
    use_exact_gelu: bool = True,
    initializer_range: float = 0.02,
    seed: int | None = None,
    name: str = "transformer",
    dtype: Any = None,
) -> Transformer:
    """Build a transformer encoder with fresh weights. The defaults are BERT-base's.

    Args:
        vocab_size: number of token ids, special tokens included: `text_encoder.vocab_size`.
        embedding_dim: width of the hidden states; by default the size's.
        max_len: longest sequence, in tokens.
        num_layers: number of blocks; by default the size's.
        num_heads: attention heads a block; by default one for every 64 columns of the width.
        d_hid: inner width of the feed-forward network; by default four times the width.
        is_causal: whether a position sees only what is before it (GPT) or the whole sequence (BERT).
        size: `"tiny"`, `"mini"`, `"small"`, `"medium"`, `"base"` or `"large"`: the published BERT shapes,
            from which width and depth come where they are not given.
        token_embedding_dim: width of the embedding tables, if it differs from that of the hidden states
            (ELECTRA); a dense layer leads from one to the other.
        num_segments: number of segment ids. With 0 (GPT, DistilBERT) or 1 (RoBERTa) they make no difference.
        position_embedding: `"learned"` (BERT, GPT), `"sinusoidal"` (fixed, Vaswani et al. 2017), or
            `"rotary"` (queries and keys turned by their positions, Su et al. 2021), with which small encoders
            learn much faster from scratch.
        position_offset: rows of the position table before that of the first position (2 in RoBERTa).
        embedding_layer_norm: normalise the sum of the embeddings (BERT) or not (GPT).
        embedding_dropout: share of embedding features dropped in training.
        attention_dropout: share of attention probabilities dropped in training.
        residual_dropout: share of features dropped before they are added to a block's input.
        use_one_embedding_dropout: drop from the sum of the embeddings once (BERT), or from each of the three
            (GPT).
        norm_placement: `"post"`: normalise after each addition (BERT, GPT); `"pre"`: before attention and
            feed-forward network and once at the end (Xiong et al. 2020), which bears larger learning rates
            and learns faster from scratch.
        pooler_activation: what sentence-level heads have after the pooler's dense layer: `"tanh"` (BERT,
            RoBERTa), `"relu"` (DistilBERT) or `"gelu"` (ELECTRA).
        layer_norm_epsilon: added to the variance in layer normalisation: 1e-12 in BERT, 1e-5 in GPT.
        use_exact_gelu: GELU by the error function (BERT), or its tanh approximation (GPT).
        initializer_range: standard deviation of the truncated normal that matrices start from.
        seed: seed of weights and dropout. By default drawn from Python's `random`, so that
            `keras.utils.set_random_seed` decides.
        name: name of the model.
        dtype: dtype policy, for example `"mixed_bfloat16"`; by default Keras' global one.

    Returns:
        A `keras.Model` from a dictionary of `token_ids`, `segment_ids`, `position_ids` and `sequence_ids`,
        each `(batch, length)` int32, to hidden states `(batch, length, embedding_dim)`.

    Raises:
        ValueError: for an unknown size or name, or numbers that do not fit together.

    Example:

    ```python
    encoder = create_transformer(vocab_size=8000, size="mini", max_len=128)
    ids = np.ones((2, 7), "int32")
    hidden = encoder({"token_ids": ids, "segment_ids": 0 * ids, "position_ids": np.arange(7)[None] * ids,
                      "sequence_ids": ids})  # (2, 7, 256)
    ```

    Sources: Devlin et al. 2018 (BERT); Radford et al. 2018 (GPT).
    """
    if size not in TRANSFORMER_SIZES:
        raise ValueError(f"`size` must be one of {sorted(TRANSFORMER_SIZES)}. Received: size={size!r}")
    shape = TRANSFORMER_SIZES[size]
    embedding_dim = shape["embedding_dim"] if embedding_dim is None else embedding_dim
    num_layers = shape["num_layers"] if num_layers is None else num_layers
    config = TransformerConfig(
        vocab_size=vocab_size,
        embedding_dim=embedding_dim,
        token_embedding_dim=embedding_dim if token_embedding_dim is None else token_embedding_dim,
        max_len=max_len,
        num_layers=num_layers,
        num_heads=max(1, embedding_dim // 64) if num_heads is None else num_heads,
        d_hid=4 * embedding_dim if d_hid is None else d_hid,
        is_causal=bool(is_causal),
        num_segments=num_segments,
        position_embedding=position_embedding,
        position_offset=position_offset,
        embedding_layer_norm=embedding_layer_norm,
        embedding_dropout=embedding_dropout,
        attention_dropout=attention_dropout,
        residual_dropout=residual_dropout,
        use_one_embedding_dropout=use_one_embedding_dropout,
        norm_placement=norm_placement,
        pooler_activation=pooler_activation,
        layer_norm_epsilon=layer_norm_epsilon,
        use_exact_gelu=use_exact_gelu,
        initializer_range=initializer_range,
        seed=random.getrandbits(31) if seed is None else seed,
    )
    return Transformer(config, name=name, dtype=dtype)
