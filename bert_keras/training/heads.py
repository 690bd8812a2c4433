"""The layers between hidden states and logits."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import keras
from keras import ops

from bert_keras.encoders.dense import Dense
from bert_keras.encoders.dropout import Dropout
from bert_keras.encoders.layers import gather_positions, within
from bert_keras.encoders.norms import make_norm
from bert_keras.encoders.torch_kernels import is_torch, linear
from bert_keras.training.losses import OUT_OF_REACH


class ClassificationHead(keras.layers.Layer):
    """Dropout and one dense layer: `(..., width)` to logits `(..., num_classes)`.

    Args:
        num_classes: number of classes.
        dropout: share of features dropped in training.
        seeds: seeds of the initialiser and of the dropout.
        first_bias: what all biases start from.
    """

    def __init__(
        self,
        num_classes: int,
        dropout: float,
        seeds: tuple[int, int],
        first_bias: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dropout = Dropout(dropout, seed=seeds[0], dtype=self.dtype_policy, name="dropout")
        self.classifier = Dense(
            num_classes,
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02, seed=seeds[1]),
            bias_initializer=keras.initializers.Constant(first_bias),
            dtype=self.dtype_policy,
            name="classifier",
        )

    def build(self, shape: Any) -> None:
        self.classifier.build(shape)
        self.built = True

    def call(self, features: Any, training: bool = False) -> Any:
        return within(self.classifier, within(self.dropout, features, training=training))

    def own_variables(self) -> list[Any]:
        """Return the variables that belong to this head alone."""
        return list(self.classifier.weights)

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:-1], self.classifier.units)


class Transform(NamedTuple):
    """What comes before the decoder of a masked language model: a dense layer, GELU, a normalisation."""

    layer_norm_epsilon: float
    use_exact_gelu: bool
    norm_kind: str = "layer"
    use_bias: bool = True


class NormedDense(Dense):
    """A dense layer, its activation, and a normalisation: ModernBERT's pooler.

    Args:
        units: width of what it gives.
        norm_kind, layer_norm_epsilon: of the normalisation.
    """

    def __init__(self, units: int, norm_kind: str, layer_norm_epsilon: float, **kwargs: Any) -> None:
        super().__init__(units, **kwargs)
        self.norm = make_norm(norm_kind, layer_norm_epsilon, "norm", self.dtype_policy)

    def build(self, shape: Any) -> None:
        self.norm.build((*shape[:-1], self.units))
        super().build(shape)

    def call(self, features: Any, training: bool | None = None) -> Any:
        return within(self.norm, super().call(features, training=training))


class LanguageModelHead(keras.layers.Layer):
    """Logits over the vocabulary from a decoder tied to the token embedding.

    As in BERT a transform comes first and a bias last, the transform of the encoder's kind of norm, and with
    biases if the encoder has any; a causal encoder is decoded directly, as in GPT,
    unless its width differs from the embedding's.

    Args:
        token_embedding: the encoder's embedding layer; its matrix is used, not copied.
        dropout: share of features dropped in training.
        transform: what comes before the decoder, or None for the bare decoder.
        seeds: seeds of the initialiser and of the dropout.
    """

    def __init__(
        self,
        token_embedding: Any,
        dropout: float,
        transform: Transform | None,
        seeds: tuple[int, int],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        policy = self.dtype_policy
        self.token_embedding = token_embedding
        self.dropout = Dropout(dropout, seed=seeds[0], dtype=policy, name="dropout")
        self.transform: Any = None
        self.norm: Any = None
        self.bias: Any = None
        if transform is not None:
            self.transform = Dense(
                token_embedding.output_dim,
                use_bias=transform.use_bias,
                activation=partial(ops.gelu, approximate=not transform.use_exact_gelu),
                kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02, seed=seeds[1]),
                dtype=policy,
                name="transform",
            )
            self.norm = make_norm(transform.norm_kind, transform.layer_norm_epsilon, "norm", policy)

    def build(self, shape: Any) -> None:
        if self.transform is not None:
            self.transform.build(shape)
            self.norm.build((*shape[:-1], self.token_embedding.output_dim))
            self.bias = self.add_weight(
                shape=(self.token_embedding.input_dim,), initializer="zeros", name="bias"
            )
        self.built = True

    def call(self, features: Any, training: bool = False) -> Any:
        if self.transform is not None:
            features = within(self.norm, within(self.transform, features))
        features = within(self.dropout, features, training=training)
        table = ops.cast(self.token_embedding.embeddings, features.dtype)  # (vocabulary, width)
        if is_torch() and self.token_embedding.quantization_mode is None:
            bias = None if self.bias is None else ops.cast(self.bias, features.dtype)
            return linear(features, table.t(), bias)
        logits = ops.matmul(features, ops.transpose(table))
        if self.token_embedding.quantization_mode is not None:  # rows times their scales, as integers
            logits = logits / ops.cast(self.token_embedding.embeddings_scale, features.dtype)
        return logits if self.bias is None else logits + ops.cast(self.bias, features.dtype)

    def own_variables(self) -> list[Any]:
        """Return the variables that belong to this head alone: all but the token embedding."""
        shared = {id(variable) for variable in self.token_embedding.weights}
        return [variable for variable in self.weights if id(variable) not in shared]

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:-1], self.token_embedding.input_dim)


class ReadSequence(keras.layers.Layer):
    """The features that sentences are read from: hidden states `(batch, length, width)` to `(n, width)`.

    Args:
        how: `"token"`: the hidden state at one position; `"mean"` or `"max"`: over the sequence that the
            position is in.
        from_last: whether, where no positions are given, it is the row's last real token, as in a causal
            encoder, or the first one.
    """

    def __init__(self, how: str, from_last: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.how, self.from_last = how, from_last
        self.built = True  # has no weights; while a layer is not built, Keras traces the model at every batch

    def call(self, hidden: Any, sequence_ids: Any, positions: Any = None) -> Any:
        """Read at `positions`, int32 `(n,)` (row times length plus column), or once in every row."""
        if self.how == "token":
            if positions is not None:
                return gather_positions(hidden, positions)
            if not self.from_last:
                return hidden[:, 0]
            last = ops.sum(ops.cast(ops.greater(sequence_ids, 0), "int32"), axis=1) - 1
            last = ops.expand_dims(ops.maximum(last, 0), (1, 2))
            return ops.take_along_axis(hidden, last, axis=1)[:, 0]
        is_in = ops.expand_dims(sequence_members(sequence_ids, positions), 2)  # (n, length, 1)
        states = hidden if positions is None else rows_of(hidden, positions)
        if self.how == "max":
            return ops.max(ops.where(is_in, states, ops.cast(OUT_OF_REACH, states.dtype)), axis=1)
        is_in, states = ops.cast(is_in, "float32"), ops.cast(states, "float32")
        mean = ops.sum(states * is_in, axis=1) / ops.maximum(ops.sum(is_in, axis=1), 1.0)
        return ops.cast(mean, hidden.dtype)

    def compute_output_spec(self, hidden: Any, sequence_ids: Any, positions: Any = None) -> Any:
        return keras.KerasTensor((hidden.shape[0], hidden.shape[2]), dtype=hidden.dtype)


class SpanScores(keras.layers.Layer):
    """Scores of first and last tokens, `(batch, length, 2)`, with those outside the sequence out of reach:
    `(n, length, 2)`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.built = True  # as of `ReadSequence`

    def call(self, scores: Any, sequence_ids: Any, positions: Any = None) -> Any:
        """Take the sequences that `positions` are in, or the first one of every row."""
        is_in = ops.expand_dims(sequence_members(sequence_ids, positions), 2)
        scores = ops.cast(scores if positions is None else rows_of(scores, positions), "float32")
        return ops.where(is_in, scores, OUT_OF_REACH)

    def compute_output_spec(self, scores: Any, sequence_ids: Any, positions: Any = None) -> Any:
        return keras.KerasTensor(scores.shape, dtype="float32")


def sequence_members(sequence_ids: Any, positions: Any = None) -> Any:
    """Return which tokens are in the sequence of a position, bool `(n, length)`; without positions, in the
    first sequence of each row."""
    if positions is None:
        return ops.equal(sequence_ids, sequence_ids[:, :1])
    own = ops.take(ops.reshape(sequence_ids, (-1,)), positions)
    return ops.equal(rows_of(sequence_ids, positions), ops.expand_dims(own, 1))


def rows_of(array: Any, positions: Any) -> Any:
    """Return the row of each position."""
    return ops.take(array, ops.floor_divide(positions, ops.shape(array)[1]), axis=0)


def adopt_heads(
    pretrained: Mapping[str, Mapping[str, Any]], pooler: Any, heads: Mapping[str, keras.layers.Layer]
) -> set[str]:
    """Give the pooler and heads the weights that came with a checkpoint under their names.

    A head of another shape, as of a task `classifier` with other classes, stays fresh, with a warning.

    Args:
        pretrained: arrays by path within a head, by name of the head.
        pooler: the pooler's layer, or None.
        heads: the heads by task name.

    Returns:
        The names of what got weights.
    """
    adopted: set[str] = set()
    layers = {**heads} if pooler is None else {**heads, "pooler": pooler}
    for name, arrays in pretrained.items():
        if name not in layers:
            continue
        own = layers[name].own_variables() if name in heads else layers[name].weights
        variables = {variable.path.split("/", 1)[1]: variable for variable in own}
        expected = {path: tuple(variable.shape) for path, variable in variables.items()}
        found = {path: tuple(array.shape) for path, array in arrays.items()}
        if expected != found:
            warnings.warn(
                f"The head '{name}' of the checkpoint has another shape than the task's and is left out: "
                f"{found} there, {expected} here. To say so yourself, load with use_heads=False.",
                stacklevel=3,
            )
            continue
        for path, variable in variables.items():
            variable.assign(arrays[path])
        adopted.add(name)
    return adopted
