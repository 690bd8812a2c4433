"""TextCNN as an encoder: convolutions of several widths that keep one hidden state for every position."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras
from keras import ops

from bert_keras.encoders.blocks import BlockEncoder, EncoderConfig, glorot
from bert_keras.encoders.layers import SeedSequence
from bert_keras.encoders.neighbours import neighbour

# Widths 2 to 5 and two convolutions for each are those of brightmart/bert_language_understanding, and so are
# the 128 filters of "small"; the other sizes are halves and doubles of it.
TEXT_CNN_SIZES: Mapping[str, Mapping[str, int]] = {
    "tiny": {"embedding_dim": 128, "num_filters": 64},
    "small": {"embedding_dim": 256, "num_filters": 128},
    "big": {"embedding_dim": 512, "num_filters": 256},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextCNNConfig(EncoderConfig):
    """What decides a TextCNN encoder: the arguments of `create_text_cnn`."""

    num_filters: int
    filter_widths: tuple[int, ...]
    num_convolutions: int

    counts: ClassVar[dict[str, int]] = {**EncoderConfig.counts, "num_filters": 1, "num_convolutions": 1}

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.filter_widths or any(
            isinstance(width, bool) or int(width) != width or width < 1 for width in self.filter_widths
        ):
            raise ValueError(
                "`filter_widths` must be whole numbers of at least 1. "
                f"Received: filter_widths={self.filter_widths!r}"
            )


class TextCNNBlock(keras.layers.Layer):
    """For each filter width some convolutions, one after the other, each with normalisation and ReLU; then a
    dense layer over all of their features. What is beyond the sequence is zero."""

    def __init__(self, config: TextCNNConfig, seeds: SeedSequence, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.convolutions: list[list[tuple[Any, Any]]] = []
        for width in config.filter_widths:
            column = []
            for number in range(config.num_convolutions):
                rows = width * (config.num_filters if number else config.embedding_dim)
                dense = self._dense(config.num_filters, f"convolution_{width}_{number}", rows, seeds)
                norm = keras.layers.LayerNormalization(
                    epsilon=1e-6, dtype=self.dtype_policy, name=f"norm_{width}_{number}"
                )
                column.append((dense, norm))
            self.convolutions.append(column)
        joined = len(config.filter_widths) * config.num_filters
        self.projection = self._dense(config.embedding_dim, "projection", joined, seeds)

    def _dense(self, units: int, name: str, rows: int, seeds: SeedSequence) -> keras.layers.Dense:
        return keras.layers.Dense(
            units, kernel_initializer=glorot((rows, units), seeds), dtype=self.dtype_policy, name=name
        )

    def build(self, *shapes: Any) -> None:
        config = self.config
        for width, column in zip(config.filter_widths, self.convolutions, strict=True):
            for number, (dense, norm) in enumerate(column):
                dense.build((None, None, width * (config.num_filters if number else config.embedding_dim)))
                norm.build((None, None, config.num_filters))
        self.projection.build((None, None, len(config.filter_widths) * config.num_filters))
        self.built = True

    def call(self, hidden: Any, sequence_ids: Any) -> Any:
        found = []
        for width, column in zip(self.config.filter_widths, self.convolutions, strict=True):
            features = hidden
            for dense, norm in column:
                steps = range((width - 1) // 2, -(width // 2) - 1, -1)
                window = [neighbour(features, sequence_ids, step) for step in steps]
                features = ops.relu(norm(dense(ops.concatenate(window, axis=-1))))
            found.append(features)
        return self.projection(ops.concatenate(found, axis=-1))

    def compute_output_shape(self, hidden_shape: Any, sequence_ids_shape: Any) -> Any:
        return hidden_shape


@keras.saving.register_keras_serializable(package="bert_keras")
class TextCNNEncoder(BlockEncoder):
    """What `create_text_cnn` returns."""

    config_class = TextCNNConfig

    def _blocks(self, config: Any, seeds: SeedSequence, policy: Any) -> list[keras.layers.Layer]:
        return [TextCNNBlock(config, seeds, dtype=policy, name=f"cnn_{i}") for i in range(config.num_layers)]


def create_text_cnn(
    vocab_size: int,
    embedding_dim: int | None = None,
    num_layers: int = 1,
    *,
    size: str = "small",
    num_filters: int | None = None,
    filter_widths: Sequence[int] = (2, 3, 4, 5),
    num_convolutions: int = 2,
    num_segments: int = 2,
    dropout: float = 0.1,
    seed: int | None = None,
    name: str = "text_cnn",
    dtype: Any = None,
) -> TextCNNEncoder:
    """Build an encoder of convolutions: it knows of each token what is a few tokens to both sides.

    Every position keeps a hidden state, so masked language modelling works. Sentence-level tasks do best with
    `read_from="max"`, as in Kim 2014.

    Args:
        vocab_size: number of token ids, special tokens included: `text_encoder.vocab_size`.
        embedding_dim: width of embeddings and hidden states; by default the size's.
        num_layers: blocks of convolutions, each added to the hidden states it reads.
        size: `"tiny"`, `"small"` or `"big"`: width and filters where they are not given (`TEXT_CNN_SIZES`).
        num_filters: filters of each width; by default the size's.
        filter_widths: tokens that a filter covers, one entry for each kind of filter.
        num_convolutions: convolutions of each width, one after the other.
        num_segments, dropout, seed, name, dtype: as in `create_lstm`.

    Returns:
        An encoder as `create_lstm`'s. Convolutions do not reach over the ends of sequences packed into a row.

    Raises:
        ValueError: for an unknown size, or numbers out of their ranges.

    Example:

    ```python
    encoder = create_text_cnn(text_encoder.vocab_size, size="small")
    topics = TaskMetadata("topics", False, 1999, kind="multi_label", read_from="max")
    ```

    Sources: Kim 2014; widths and filters: https://github.com/brightmart/bert_language_understanding.
    """
    if size not in TEXT_CNN_SIZES:
        raise ValueError(f"`size` must be one of {sorted(TEXT_CNN_SIZES)}. Received: size={size!r}")
    shape = TEXT_CNN_SIZES[size]
    config = TextCNNConfig(
        vocab_size=vocab_size,
        embedding_dim=shape["embedding_dim"] if embedding_dim is None else embedding_dim,
        num_layers=num_layers,
        num_filters=shape["num_filters"] if num_filters is None else num_filters,
        filter_widths=tuple(filter_widths),
        num_convolutions=num_convolutions,
        num_segments=num_segments,
        dropout=dropout,
        seed=random.getrandbits(31) if seed is None else seed,
    )
    return TextCNNEncoder(config, name=name, dtype=dtype)
