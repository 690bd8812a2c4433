"""What a transformer encoder is made of: sizes and choices, checked together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

TRANSFORMER_SIZES: Mapping[str, Mapping[str, int]] = {
    # Turc et al. 2019, "Well-Read Students Learn Better"; base and large: Devlin et al. 2018.
    "tiny": {"num_layers": 2, "embedding_dim": 128, "num_heads": 2, "d_hid": 512},
    "mini": {"num_layers": 4, "embedding_dim": 256, "num_heads": 4, "d_hid": 1024},
    "small": {"num_layers": 4, "embedding_dim": 512, "num_heads": 8, "d_hid": 2048},
    "medium": {"num_layers": 8, "embedding_dim": 512, "num_heads": 8, "d_hid": 2048},
    "base": {"num_layers": 12, "embedding_dim": 768, "num_heads": 12, "d_hid": 3072},
    "large": {"num_layers": 24, "embedding_dim": 1024, "num_heads": 16, "d_hid": 4096},
}

_CHOICES = {
    "position_embedding": ("learned", "sinusoidal", "rotary"),
    "norm_placement": ("post", "pre"),
    "pooler_activation": ("tanh", "relu", "gelu"),
}
_COUNTS = {  # and the least that each may be
    "vocab_size": 1,
    "embedding_dim": 1,
    "token_embedding_dim": 1,
    "max_len": 1,
    "num_layers": 1,
    "num_heads": 1,
    "d_hid": 1,
    "num_segments": 0,
    "position_offset": 0,
}
_RATES = ("embedding_dropout", "attention_dropout", "residual_dropout")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """All that decides the shape, the equations and the initial weights of a transformer encoder.

    The attributes are the arguments of `create_transformer`, which explains them, without the defaults that
    depend on one another.

    Raises:
        ValueError: for an unknown choice, or numbers that do not fit together.
    """

    vocab_size: int
    embedding_dim: int
    token_embedding_dim: int
    max_len: int
    num_layers: int
    num_heads: int
    d_hid: int
    is_causal: bool
    num_segments: int
    position_embedding: str
    position_offset: int = 0
    embedding_layer_norm: bool
    embedding_dropout: float
    attention_dropout: float
    residual_dropout: float
    use_one_embedding_dropout: bool
    norm_placement: str
    pooler_activation: str = "tanh"
    layer_norm_epsilon: float
    use_exact_gelu: bool
    initializer_range: float
    seed: int

    def __post_init__(self) -> None:
        for argument, least in _COUNTS.items():
            count = getattr(self, argument)
            if isinstance(count, bool) or int(count) != count or count < least:
                raise ValueError(
                    f"`{argument}` must be a whole number of at least {least}. Received: {argument}={count!r}"
                )
        for argument in _RATES:
            rate = getattr(self, argument)
            if not 0.0 <= rate < 1.0:
                raise ValueError(
                    f"`{argument}` must be at least 0 and below 1. Received: {argument}={rate!r}"
                )
        for argument in ("layer_norm_epsilon", "initializer_range"):
            number = getattr(self, argument)
            if not 0.0 < number < float("inf"):
                raise ValueError(
                    f"`{argument}` must be a finite number above 0. Received: {argument}={number!r}"
                )
        for argument, choices in _CHOICES.items():
            if getattr(self, argument) not in choices:
                raise ValueError(
                    f"`{argument}` must be one of {list(choices)}. Received: {getattr(self, argument)!r}"
                )
        if self.embedding_dim % self.num_heads:
            raise ValueError(
                "`num_heads` must divide `embedding_dim`. "
                f"Received: num_heads={self.num_heads}, embedding_dim={self.embedding_dim}"
            )
        if self.position_embedding == "rotary" and self.head_dim % 2:
            raise ValueError(
                "Rotary positions need heads of even width. "
                f"Received: embedding_dim={self.embedding_dim}, num_heads={self.num_heads}"
            )

    @property
    def head_dim(self) -> int:
        """Features of one attention head."""
        return self.embedding_dim // self.num_heads

    def variable_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every variable of the encoder by its path, in the order of the model."""
        width, narrow, inner = self.embedding_dim, self.token_embedding_dim, self.d_hid
        shapes: dict[str, tuple[int, ...]] = {
            "embeddings/token_embedding/embeddings": (self.vocab_size, narrow)
        }
        if self.num_segments:
            shapes["embeddings/segment_embedding/embeddings"] = (self.num_segments, narrow)
        if self.position_embedding == "learned":
            rows = self.max_len + self.position_offset
            shapes["embeddings/position_embedding/embeddings"] = (rows, narrow)
        if self.embedding_layer_norm:
            shapes |= {"embeddings/norm/gamma": (narrow,), "embeddings/norm/beta": (narrow,)}
        if narrow != width:
            shapes |= {
                "embeddings/projection/kernel": (narrow, width),
                "embeddings/projection/bias": (width,),
            }
        for layer in range(self.num_layers):
            dense = {
                "qkv": (width, 3 * width),
                "attention_output": (width, width),
                "feedforward_in": (width, inner),
                "feedforward_out": (inner, width),
            }
            for name, shape in dense.items():
                shapes |= {f"layer_{layer}/{name}/kernel": shape, f"layer_{layer}/{name}/bias": shape[1:]}
                if name in ("attention_output", "feedforward_out"):
                    norm = f"layer_{layer}/{name.split('_')[0]}_norm"
                    shapes |= {f"{norm}/gamma": (width,), f"{norm}/beta": (width,)}
        if self.norm_placement == "pre":
            shapes |= {"final_norm/gamma": (width,), "final_norm/beta": (width,)}
        return shapes
