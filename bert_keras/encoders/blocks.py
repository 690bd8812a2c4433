"""What LSTM, QRNN and TextCNN encoders share: embeddings, then blocks that add to the hidden states."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import keras

from bert_keras.encoders.dropout import Dropout
from bert_keras.encoders.inputs import encoder_inputs
from bert_keras.encoders.layers import SeedSequence


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """What decides shape, equations and initial weights; subclasses add their own.

    Raises:
        ValueError: for a number out of its range.
    """

    vocab_size: int
    embedding_dim: int
    num_layers: int
    num_segments: int
    dropout: float
    seed: int

    counts: ClassVar[dict[str, int]] = {
        "vocab_size": 1,
        "embedding_dim": 1,
        "num_layers": 1,
        "num_segments": 0,
    }

    def __post_init__(self) -> None:
        for argument, least in self.counts.items():
            count = getattr(self, argument)
            if isinstance(count, bool) or int(count) != count or count < least:
                raise ValueError(
                    f"`{argument}` must be a whole number of at least {least}. Received: {argument}={count!r}"
                )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"`dropout` must be at least 0 and below 1. Received: dropout={self.dropout!r}")

    @property
    def is_causal(self) -> bool:
        """Whether a position sees only itself and what is before it."""
        return False


class BlockEncoder(keras.Model):
    """Encoder of token and segment embeddings, normalised; blocks, each of which adds what it makes of the
    normalised hidden states to them; and a last normalisation. No position sees another sequence of its row.

    Args:
        config: all that decides it.
        name: name of the model.
        dtype: dtype policy; by default Keras' global one.
    """

    config_class: ClassVar[type[EncoderConfig]] = EncoderConfig
    supports_packing = True
    max_len = None
    pooler_activation = "tanh"

    def __init__(self, config: EncoderConfig, name: str, dtype: Any = None) -> None:
        policy = keras.dtype_policies.get(dtype)
        seeds = SeedSequence(config.seed)
        embeddings = TokenEmbeddings(config, seeds, dtype=policy, name="embeddings")
        blocks = self._blocks(config, seeds, policy)
        inputs = encoder_inputs()
        hidden = embeddings(inputs["token_ids"], inputs["segment_ids"])
        for number, block in enumerate(blocks):
            norm = keras.layers.LayerNormalization(epsilon=1e-6, dtype=policy, name=f"norm_{number}")
            drop = Dropout(config.dropout, seed=seeds.next(), dtype=policy, name=f"drop_{number}")
            hidden = hidden + drop(block(norm(hidden), inputs["sequence_ids"]))
        hidden = keras.layers.LayerNormalization(epsilon=1e-6, dtype=policy, name="final_norm")(hidden)
        super().__init__(inputs, hidden, name=name)
        self.dtype_policy = policy  # a functional model takes no `dtype`; the heads follow this
        self.config, self.token_embedding = config, embeddings.token_embedding
        self.vocab_size, self.num_segments = config.vocab_size, config.num_segments
        self.is_causal = config.is_causal

    def _blocks(self, config: Any, seeds: SeedSequence, policy: Any) -> list[keras.layers.Layer]:
        """Make the blocks: layers from `(batch, length, embedding_dim)` and sequence ids to the like."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self.config), "name": self.name, "dtype": self.dtype_policy.name}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        config = dict(config)
        name, dtype = config.pop("name"), config.pop("dtype")
        config = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
        return cls(cls.config_class(**config), name=name, dtype=dtype)


class TokenEmbeddings(keras.layers.Layer):
    """Sum of token and segment embeddings, with dropout: `(batch, length)` to `(batch, length, width)`."""

    def __init__(self, config: EncoderConfig, seeds: SeedSequence, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = config.embedding_dim
        self.token_embedding = self._table(config.vocab_size, "token_embedding", seeds)
        self.segment_embedding: Any = None
        if config.num_segments:
            self.segment_embedding = self._table(config.num_segments, "segment_embedding", seeds)
        self.dropout = Dropout(config.dropout, seed=seeds.next(), dtype=self.dtype_policy, name="dropout")

    def _table(self, rows: int, name: str, seeds: SeedSequence) -> keras.layers.Embedding:
        initializer = keras.initializers.TruncatedNormal(stddev=0.02, seed=seeds.next())
        return keras.layers.Embedding(
            rows, self.width, embeddings_initializer=initializer, dtype=self.dtype_policy, name=name
        )

    def build(self, *shapes: Any) -> None:
        self.token_embedding.build(None)
        if self.segment_embedding is not None:
            self.segment_embedding.build(None)
        self.built = True

    def call(self, token_ids: Any, segment_ids: Any, training: bool = False) -> Any:
        hidden = self.token_embedding(token_ids)
        if self.segment_embedding is not None:
            hidden = hidden + self.segment_embedding(segment_ids)
        return self.dropout(hidden, training=training)

    def compute_output_shape(self, token_ids_shape: Any, segment_ids_shape: Any) -> Any:
        return (*token_ids_shape, self.width)


def glorot(shape: tuple[int, int], seeds: SeedSequence) -> Any:
    """Return an initialiser for matrices of a shape, whatever they are part of."""
    limit = (6.0 / sum(shape)) ** 0.5
    return keras.initializers.RandomUniform(-limit, limit, seed=seeds.next())
