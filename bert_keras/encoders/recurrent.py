"""LSTM and QRNN encoders, in both directions, that keep packed sequences apart."""

from __future__ import annotations

import dataclasses
import random
from typing import Any, ClassVar

import keras
from keras import ops

from bert_keras.encoders.blocks import BlockEncoder, EncoderConfig, glorot
from bert_keras.encoders.layers import SeedSequence
from bert_keras.encoders.neighbours import goes_on, linear_recurrence, neighbour


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecurrentConfig(EncoderConfig):
    """What decides an LSTM or QRNN encoder: the arguments of `create_lstm` and `create_qrnn`."""

    bidirectional: bool
    window: int = 1

    counts: ClassVar[dict[str, int]] = {**EncoderConfig.counts, "window": 1}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bidirectional and self.embedding_dim % 2:
            raise ValueError(
                "`embedding_dim` must be even, half of it for each direction. "
                f"Received: embedding_dim={self.embedding_dim}"
            )

    @property
    def is_causal(self) -> bool:
        return not self.bidirectional

    @property
    def units(self) -> int:
        """Features of one direction."""
        return self.embedding_dim // 2 if self.bidirectional else self.embedding_dim


class _Directions(keras.layers.Layer):
    """Reads sequences forwards and, if asked, backwards, and joins what it finds."""

    def __init__(self, config: RecurrentConfig, seeds: SeedSequence, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width, self.units, self.num_directions = (
            config.embedding_dim,
            config.units,
            1 + config.bidirectional,
        )
        self.window = config.window
        self.input_init = [
            glorot((config.embedding_dim, config.units), seeds) for _ in range(self.num_directions)
        ]

    def _inputs(self, num_gates: int, biases: list[float]) -> None:
        rows, columns = self.window * self.width, num_gates * self.units
        self.kernels, self.biases = [], []
        for number, initializer in enumerate(self.input_init):
            self.kernels.append(
                self.add_weight((rows, columns), initializer=initializer, name=f"kernel_{number}")
            )
            self.biases.append(
                self.add_weight((columns,), initializer=self._by_gate(biases), name=f"bias_{number}")
            )

    def _by_gate(self, values: list[float]) -> Any:
        """Return an initialiser with one value for each gate."""

        def initializer(shape: Any, dtype: Any = None) -> Any:
            return ops.repeat(ops.convert_to_tensor(values, dtype), self.units)

        return initializer

    def call(self, hidden: Any, sequence_ids: Any) -> Any:
        outputs = []
        for number in range(self.num_directions):
            features, ids = (hidden, sequence_ids) if number == 0 else (_flip(hidden), _flip(sequence_ids))
            windows = [neighbour(features, ids, back) for back in range(self.window)]
            joined = windows[0] if self.window == 1 else ops.concatenate(windows, axis=-1)
            kernel, bias = (ops.cast(v, joined.dtype) for v in (self.kernels[number], self.biases[number]))
            gates = ops.matmul(joined, kernel) + bias
            found = self._read(gates, goes_on(ids), number)
            outputs.append(found if number == 0 else _flip(found))
        return ops.concatenate(outputs, axis=-1) if len(outputs) > 1 else outputs[0]

    def _read(self, gates: Any, keeps: Any, direction: int) -> Any:
        """From `(batch, length, gates * units)`, and where sequences go on, to `(batch, length, units)`."""
        raise NotImplementedError

    def compute_output_shape(self, hidden_shape: Any, sequence_ids_shape: Any) -> Any:
        return hidden_shape


class LSTMBlock(_Directions):
    """Long short-term memory (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000, the
    bias of which starts from 1). The state begins anew with every sequence of a row.

    Gates, in the columns of the kernels: input, forget, candidate, output.
    """

    def __init__(self, config: RecurrentConfig, seeds: SeedSequence, **kwargs: Any) -> None:
        super().__init__(config, seeds, **kwargs)
        self.recurrent_init = [
            keras.initializers.Orthogonal(seed=seeds.next()) for _ in range(self.num_directions)
        ]

    def build(self, *shapes: Any) -> None:
        self._inputs(4, [0.0, 1.0, 0.0, 0.0])
        self.recurrent_kernels = [
            self.add_weight((self.units, 4 * self.units), initializer=init, name=f"recurrent_kernel_{number}")
            for number, init in enumerate(self.recurrent_init)
        ]
        self.built = True

    def _read(self, gates: Any, keeps: Any, direction: int) -> Any:
        kernel = ops.cast(self.recurrent_kernels[direction], gates.dtype)

        # One array for state and output, one for the input: TensorFlow's scan takes nothing else.
        def step(state: Any, now: Any) -> Any:
            output, cell = ops.split(state * now[:, -1:], 2, axis=-1)
            recurrent = ops.matmul(ops.cast(output, kernel.dtype), kernel)
            values = now[:, :-1] + ops.cast(recurrent, "float32")
            enter, forget, candidate, leave = ops.split(values, 4, axis=-1)
            cell = ops.sigmoid(forget) * cell + ops.sigmoid(enter) * ops.tanh(candidate)
            output = ops.sigmoid(leave) * ops.tanh(cell)
            state = ops.concatenate([output, cell], axis=-1)
            return state, state

        inputs = ops.concatenate([ops.cast(gates, "float32"), ops.expand_dims(keeps, 2)], axis=-1)
        nothing = ops.zeros_like(inputs[:, 0, : 2 * self.units])
        _, states = ops.scan(step, nothing, ops.transpose(inputs, (1, 0, 2)))
        return ops.cast(ops.transpose(states[:, :, : self.units], (1, 0, 2)), gates.dtype)


class QRNNBlock(_Directions):
    """Quasi-recurrent layer with fo-pooling (Bradbury et al. 2016): gates from a convolution over the last
    `window` tokens, then a recurrence without matrices.

    Gates, in the columns of the kernels: candidate, forget, output.
    """

    def build(self, *shapes: Any) -> None:
        self._inputs(3, [0.0, 1.0, 0.0])
        self.built = True

    def _read(self, gates: Any, keeps: Any, direction: int) -> Any:
        candidate, forget, leave = ops.split(ops.cast(gates, "float32"), 3, axis=-1)
        forget = ops.sigmoid(forget)
        cell = linear_recurrence(forget * ops.expand_dims(keeps, 2), (1.0 - forget) * ops.tanh(candidate))
        return ops.cast(ops.sigmoid(leave) * cell, gates.dtype)


@keras.saving.register_keras_serializable(package="bert_keras")
class LSTMEncoder(BlockEncoder):
    """What `create_lstm` returns."""

    config_class = RecurrentConfig

    def _blocks(self, config: Any, seeds: SeedSequence, policy: Any) -> list[keras.layers.Layer]:
        return [LSTMBlock(config, seeds, dtype=policy, name=f"lstm_{i}") for i in range(config.num_layers)]


@keras.saving.register_keras_serializable(package="bert_keras")
class QRNNEncoder(BlockEncoder):
    """What `create_qrnn` returns."""

    config_class = RecurrentConfig

    def _blocks(self, config: Any, seeds: SeedSequence, policy: Any) -> list[keras.layers.Layer]:
        return [QRNNBlock(config, seeds, dtype=policy, name=f"qrnn_{i}") for i in range(config.num_layers)]


def create_lstm(
    vocab_size: int,
    embedding_dim: int = 256,
    num_layers: int = 2,
    *,
    bidirectional: bool = True,
    num_segments: int = 2,
    dropout: float = 0.1,
    seed: int | None = None,
    name: str = "lstm",
    dtype: Any = None,
) -> LSTMEncoder:
    """Build an encoder of LSTM layers, each added to the hidden states it reads.

    Args:
        vocab_size: number of token ids, special tokens included: `text_encoder.vocab_size`.
        embedding_dim: width of embeddings and hidden states; each direction has half of it.
        num_layers: number of layers.
        bidirectional: read in both directions, or only forwards; then the encoder is causal.
        num_segments: number of segment ids; with 0 they make no difference.
        dropout: share of the features of embeddings and layers dropped in training.
        seed: seed of weights and dropout. By default drawn from Python's `random`.
        name: name of the model.
        dtype: dtype policy, for example `"mixed_bfloat16"`; by default Keras' global one.

    Returns:
        A `keras.Model` from `token_ids`, `segment_ids`, `position_ids` and `sequence_ids`, each
        `(batch, length)` int32, to hidden states `(batch, length, embedding_dim)`. Any length will do. The
        state begins anew with each sequence packed into a row.

    Raises:
        ValueError: for numbers out of their ranges.

    Example:

    ```python
    encoder = create_lstm(text_encoder.vocab_size, embedding_dim=256)
    model = train_model(encoder, [lm, is_next], generator, pretrain_steps=1000)
    ```

    Sources: Hochreiter and Schmidhuber 1997; in both directions: Graves and Schmidhuber 2005; layers that add
    to what they read: Wu et al. 2016.
    """
    config = RecurrentConfig(
        vocab_size=vocab_size,
        embedding_dim=embedding_dim,
        num_layers=num_layers,
        bidirectional=bool(bidirectional),
        num_segments=num_segments,
        dropout=dropout,
        seed=random.getrandbits(31) if seed is None else seed,
    )
    return LSTMEncoder(config, name=name, dtype=dtype)


def create_qrnn(
    vocab_size: int,
    embedding_dim: int = 256,
    num_layers: int = 2,
    *,
    window: int = 2,
    bidirectional: bool = True,
    num_segments: int = 2,
    dropout: float = 0.1,
    seed: int | None = None,
    name: str = "qrnn",
    dtype: Any = None,
) -> QRNNEncoder:
    """Build an encoder of quasi-recurrent layers, which are parallel over time.

    Args:
        vocab_size, embedding_dim, num_layers, bidirectional, num_segments, dropout, seed, name, dtype: as in
            `create_lstm`.
        window: how many tokens, up to the present one in its direction, the gates are made of.

    Returns:
        An encoder as `create_lstm`'s.

    Raises:
        ValueError: for numbers out of their ranges.

    Example:

    ```python
    encoder = create_qrnn(text_encoder.vocab_size, embedding_dim=256, num_layers=3)
    ```

    Source: Bradbury et al. 2016, "Quasi-Recurrent Neural Networks".
    """
    config = RecurrentConfig(
        vocab_size=vocab_size,
        embedding_dim=embedding_dim,
        num_layers=num_layers,
        window=window,
        bidirectional=bool(bidirectional),
        num_segments=num_segments,
        dropout=dropout,
        seed=random.getrandbits(31) if seed is None else seed,
    )
    return QRNNEncoder(config, name=name, dtype=dtype)


def _flip(array: Any) -> Any:
    return ops.flip(array, axis=1)
