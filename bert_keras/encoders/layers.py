"""The layers of the transformer: embeddings and blocks."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from bert_keras.encoders.attention import AttentionDropout, attend, rotate, sinusoidal_positions
from bert_keras.encoders.config import TransformerConfig
from bert_keras.encoders.dense import Dense, JoinedDense
from bert_keras.encoders.dropout import Dropout, draw, drop_features
from bert_keras.encoders.norms import activation, make_norm
from bert_keras.encoders.torch_kernels import is_torch


def gather_positions(hidden: Any, positions: Any) -> Any:
    """Return the hidden states at some positions.

    Args:
        hidden: float, `(batch, length, width)`.
        positions: int32, any shape, of n entries: row times length plus column.

    Returns:
        float, `(n, width)`.
    """
    return ops.take(ops.reshape(hidden, (-1, hidden.shape[-1])), ops.reshape(positions, (-1,)), axis=0)


def within(layer: keras.layers.Layer, features: Any, **arguments: Any) -> Any:
    """Call a layer that was built, from within the call of a layer of the same dtype policy.

    On torch without what Keras does around it: for a small layer that takes longer than the layer.
    """
    is_quantized = layer.dtype_policy.quantization_mode is not None
    if not is_torch() or is_quantized or layer._forward_hooks or layer._forward_pre_hooks:
        return layer(features, **arguments)
    return layer.call(features, **arguments)


class SeedSequence:
    """Widely spaced integer seeds for the initialisers and dropouts of one model, drawn from one seed."""

    def __init__(self, seed: int) -> None:
        self._sequence = np.random.SeedSequence(seed)

    def next(self) -> int:
        return int(self._sequence.spawn(1)[0].generate_state(1)[0] >> 1)


class InitialValues:
    """What the variables of one encoder start from, by their paths; and the seeds of its dropouts.

    Args:
        config: its `seed`, `initializer_range` and `scale_residual_init` decide matrices; biases start from
            0, scales from 1.
    """

    def __init__(self, config: TransformerConfig) -> None:
        self._stddev = self._residual_stddev = config.initializer_range
        if config.scale_residual_init:  # two additions a layer: Radford et al. 2019, section 2.3
            self._residual_stddev /= (2.0 * config.num_layers) ** 0.5
        self.seeds = SeedSequence(config.seed)

    def matrix(self, path: str) -> Any:
        is_residual = path.endswith(("attention_output/kernel", "feedforward_out/kernel"))
        stddev = self._residual_stddev if is_residual else self._stddev
        return keras.initializers.TruncatedNormal(stddev=stddev, seed=self.seeds.next())

    def zeros(self, path: str) -> Any:
        return "zeros"

    def ones(self, path: str) -> Any:
        return "ones"


class _SubLayers:
    """Makes the sub-layers of one layer: named, with their initial values, dtype and seeds."""

    def __init__(self, layer: keras.layers.Layer, config: TransformerConfig, initial: InitialValues) -> None:
        self._path, self._policy = layer.name, layer.dtype_policy
        self._initial, self._config = initial, config

    def table(self, rows: int, width: int, name: str) -> keras.layers.Embedding:
        initializer = self._initial.matrix(f"{self._path}/{name}/embeddings")
        return keras.layers.Embedding(
            rows, width, embeddings_initializer=initializer, dtype=self._policy, name=name
        )

    def dense(self, units: int, name: str, parts: tuple[str, ...] = ()) -> keras.layers.Dense:
        """Return a dense layer; with `parts`, of matrices of these names side by side."""
        arguments: dict[str, Any] = {
            "use_bias": self._config.use_bias,
            "kernel_initializer": self._initial.matrix(f"{self._path}/{name}/kernel"),
            "bias_initializer": self._initial.zeros(f"{self._path}/{name}/bias"),
            "dtype": self._policy,
            "name": name,
        }
        return JoinedDense(units, parts, **arguments) if parts else Dense(units, **arguments)

    def norm(self, name: str) -> keras.layers.Layer:
        return norm_at(f"{self._path}/{name}", self._config, self._initial, self._policy)

    def dropout(self, rate: float, name: str) -> Dropout:
        return Dropout(rate, seed=self._initial.seeds.next(), dtype=self._policy, name=name)


def norm_at(path: str, config: TransformerConfig, initial: InitialValues, policy: Any) -> keras.layers.Layer:
    """Return a normalisation of the configuration's kind, named by the end of its path."""
    return make_norm(
        config.norm_kind,
        config.layer_norm_epsilon,
        path.rsplit("/", 1)[-1],
        policy,
        initial.ones(f"{path}/gamma"),
        initial.zeros(f"{path}/beta"),
    )


class Embeddings(keras.layers.Layer):
    """Sum of token, position and segment embeddings, then layer normalisation, dropout, and a projection to
    the encoder's width if the tables are narrower.

    Args:
        config: sizes and choices; rotary positions add nothing here.
        initial: what variables start from.
    """

    def __init__(self, config: TransformerConfig, initial: InitialValues, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        make, width = _SubLayers(self, config, initial), config.token_embedding_dim
        self.num_segments, self.position_offset = config.num_segments, config.position_offset
        rows = config.max_len + config.position_offset
        self.token_embedding = make.table(config.vocab_size, width, "token_embedding")
        self.segment_embedding = self.position_embedding = self.norm = self.projection = None
        if config.num_segments:
            self.segment_embedding = make.table(config.num_segments, width, "segment_embedding")
        if config.position_embedding == "learned":
            self.position_embedding = make.table(rows, width, "position_embedding")
        self._position_table = None
        if config.position_embedding == "sinusoidal":
            self._position_table = sinusoidal_positions(rows, width)
        if config.embedding_layer_norm:
            self.norm = make.norm("norm")
        if width != config.embedding_dim:
            self.projection = make.dense(config.embedding_dim, "projection")
        self.dropouts = [
            make.dropout(config.embedding_dropout, f"dropout_{k}")
            for k in range(1 if config.use_one_embedding_dropout else 3)
        ]
        self._width, self._output_dim = width, config.embedding_dim

    def build(self, token_ids_shape: Any = None, **shapes: Any) -> None:
        for table in (self.token_embedding, self.segment_embedding, self.position_embedding):
            if table is not None:
                table.build((None, None))
        for layer in (self.norm, self.projection):
            if layer is not None:
                layer.build((None, None, self._width))
        self.built = True

    def call(self, token_ids: Any, segment_ids: Any, position_ids: Any, training: bool = False) -> Any:
        parts = [within(self.token_embedding, token_ids)]  # (batch, length, width)
        if self.segment_embedding is not None:
            # A single segment is everyone's, whatever its number (RoBERTa).
            ids = segment_ids if self.num_segments > 1 else ops.zeros_like(segment_ids)
            parts.append(within(self.segment_embedding, ids))
        if self.position_embedding is not None:
            parts.append(within(self.position_embedding, position_ids + self.position_offset))
        elif self._position_table is not None:
            table = ops.convert_to_tensor(self._position_table, parts[0].dtype)
            parts.append(ops.take(table, position_ids + self.position_offset, axis=0))
        if len(self.dropouts) == 3:
            parts = [
                within(dropout, part, training=training)
                for dropout, part in zip(self.dropouts, parts, strict=False)
            ]
        hidden = parts[0]
        for part in parts[1:]:
            hidden = hidden + part
        if self.norm is not None:
            hidden = within(self.norm, hidden)
        if len(self.dropouts) == 1:
            hidden = within(self.dropouts[0], hidden, training=training)
        return hidden if self.projection is None else within(self.projection, hidden)

    def compute_output_shape(self, token_ids_shape: Any, *shapes: Any, **more: Any) -> tuple:
        return (*token_ids_shape, self._output_dim)


class TransformerBlock(keras.layers.Layer):
    """Self-attention and feed-forward network, each added to its input.

    Normalised after each addition (BERT, GPT), or before attention and network (pre-norm, Xiong et al. 2020).
    The network has one hidden layer, or a product of two of which one is activated (gated, Shazeer 2020):
    `feedforward_in` then makes both side by side, the activated one first.

    Args:
        config: sizes and choices.
        initial: what variables start from.
        index: number of the block, from 0.

    Attributes:
        rematerialize: whether training computes the block once more in the backward pass in place of keeping
            what is within it (Chen et al. 2016, "Training deep nets with sublinear memory cost").
    """

    rematerialize = False

    def __init__(self, config: TransformerConfig, initial: InitialValues, index: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        make = _SubLayers(self, config, initial)
        self.num_heads, self.embedding_dim, self.d_hid = config.num_heads, config.embedding_dim, config.d_hid
        self.is_pre_norm, self.is_gated = config.norm_placement == "pre", config.use_gated_feedforward
        self.is_local = config.is_local(index)
        self.activation, self.activation_in_training = (
            activation(config.activation, config.use_exact_gelu, training) for training in (False, True)
        )
        self.qkv = make.dense(3 * self.embedding_dim, "qkv", ("query", "key", "value"))
        self.attention_output = make.dense(self.embedding_dim, "attention_output")
        self.attention_norm: Any = None
        if index > 0 or not config.skip_first_norm:
            self.attention_norm = make.norm("attention_norm")
        inner = 2 * self.d_hid if self.is_gated else self.d_hid
        self.feedforward_in = make.dense(inner, "feedforward_in")
        self.feedforward_out = make.dense(self.embedding_dim, "feedforward_out")
        self.feedforward_norm = make.norm("feedforward_norm")
        self.attention_dropout = make.dropout(config.attention_dropout, "attention_dropout")
        self.residual_dropout_1 = make.dropout(config.residual_dropout, "residual_dropout_1")
        self.residual_dropout_2 = make.dropout(config.residual_dropout, "residual_dropout_2")

    def build(self, hidden_shape: Any, **shapes: Any) -> None:
        width, inner = (None, None, self.embedding_dim), (None, None, self.d_hid)
        for layer in (
            self.qkv,
            self.attention_output,
            self.attention_norm,
            self.feedforward_in,
            self.feedforward_norm,
        ):
            if layer is not None:
                layer.build(width)
        self.feedforward_out.build(inner)
        self.built = True

    def call(
        self,
        hidden: Any,
        visible: Any,
        rotation: tuple[Any, Any] | None = None,
        positions: Any = None,
        training: bool = False,
    ) -> Any:
        """Return new hidden states: of all positions, or `(n, width)` of n, each given as row times length
        plus column."""
        if not (training and self.rematerialize):
            return self._new_states(hidden, visible, rotation, positions, training, {})
        # Drawn outside, so that both times the same is dropped and no state changes within.
        seeds = {layer.name: draw(layer.seed_generator) for layer in self._dropouts if layer.rate > 0}

        def new_states(hidden: Any) -> Any:
            return self._new_states(hidden, visible, rotation, positions, True, seeds)

        return keras.remat(new_states)(hidden)

    def _new_states(
        self, hidden: Any, visible: Any, rotation: Any, positions: Any, training: bool, seeds: dict[str, Any]
    ) -> Any:
        def drop(layer: Dropout, features: Any) -> Any:
            if not training or layer.rate == 0:
                return features
            return drop_features(features, layer.rate, seeds.get(layer.name, layer.seed_generator))

        normed = hidden
        if self.is_pre_norm and self.attention_norm is not None:
            normed = within(self.attention_norm, hidden)
        dropout, layer = None, self.attention_dropout
        if training and layer.rate > 0:
            dropout = AttentionDropout(layer.rate, seeds.get(layer.name, layer.seed_generator))
        context = self.attention(normed, visible, rotation, dropout)
        if positions is not None:
            context, hidden = gather_positions(context, positions), gather_positions(hidden, positions)
        hidden = hidden + drop(self.residual_dropout_1, within(self.attention_output, context))
        if self.is_pre_norm:
            inner = self.feedforward(within(self.feedforward_norm, hidden), training)
            return hidden + drop(self.residual_dropout_2, inner)
        hidden = within(self.attention_norm, hidden)
        inner = self.feedforward(hidden, training)
        return within(self.feedforward_norm, hidden + drop(self.residual_dropout_2, inner))

    @property
    def _dropouts(self) -> tuple[Dropout, ...]:
        return self.attention_dropout, self.residual_dropout_1, self.residual_dropout_2

    def feedforward(self, hidden: Any, training: bool = False) -> Any:
        """Return what the feed-forward network makes of hidden states, before it is added to them."""
        inner, function = within(self.feedforward_in, hidden), self.activation
        if training:
            function = self.activation_in_training
        if self.is_gated:
            activated, gate = ops.split(inner, 2, axis=-1)
            return within(self.feedforward_out, function(activated) * gate)
        return within(self.feedforward_out, function(inner))

    def split_heads(self, hidden: Any, rotation: tuple[Any, Any] | None) -> tuple[Any, Any, Any]:
        """Return query, key and value, each `(batch, length, heads, head_dim)`."""
        batch, length = ops.shape(hidden)[0], ops.shape(hidden)[1]
        heads = (batch, length, self.num_heads, self.embedding_dim // self.num_heads)
        joined = within(self.qkv, hidden)
        if is_torch():
            query, key, value = joined.unflatten(-1, (3, *heads[2:])).unbind(2)
        else:
            query, key, value = (ops.reshape(part, heads) for part in ops.split(joined, 3, axis=-1))
        if rotation is not None:
            query, key = rotate(query, *rotation), rotate(key, *rotation)
        return query, key, value

    def attention(self, hidden: Any, visible: Any, rotation: Any, dropout: Any = None) -> Any:
        """Return what every position gathers, `(batch, length, width)`, before the output projection."""
        query, key, value = self.split_heads(hidden, rotation)
        return ops.reshape(attend(query, key, value, visible, dropout), ops.shape(hidden))

    def compute_output_shape(self, hidden_shape: Any, **shapes: Any) -> Any:
        return hidden_shape
