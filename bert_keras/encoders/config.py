"""What a transformer encoder is made of: sizes and choices, checked together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from bert_keras.encoders.norms import ACTIVATIONS, NORM_KINDS

TRANSFORMER_SIZES: Mapping[str, Mapping[str, int]] = {
    # Turc et al. 2019, "Well-Read Students Learn Better"; base and large: Devlin et al. 2018.
    "tiny": {"num_layers": 2, "embedding_dim": 128, "num_heads": 2, "d_hid": 512},
    "mini": {"num_layers": 4, "embedding_dim": 256, "num_heads": 4, "d_hid": 1024},
    "small": {"num_layers": 4, "embedding_dim": 512, "num_heads": 8, "d_hid": 2048},
    "medium": {"num_layers": 8, "embedding_dim": 512, "num_heads": 8, "d_hid": 2048},
    "base": {"num_layers": 12, "embedding_dim": 768, "num_heads": 12, "d_hid": 3072},
    "large": {"num_layers": 24, "embedding_dim": 1024, "num_heads": 16, "d_hid": 4096},
}

# Named sets of choices: what `create_transformer` takes where it is told nothing else.
ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    # Devlin et al. 2018.
    "bert": {
        "position_embedding": "learned",
        "embedding_dropout": 0.1,
        "attention_dropout": 0.1,
        "residual_dropout": 0.1,
        "norm_placement": "post",
        "norm_kind": "layer",
        "layer_norm_epsilon": 1e-12,
        "use_bias": True,
        "use_gated_feedforward": False,
        "activation": "gelu",
        "skip_first_norm": False,
        "scale_residual_init": False,
        "pooler_activation": "tanh",
        "pooler_norm": False,
    },
    # Pre-norm: Xiong et al. 2020; RMS: Zhang and Sennrich 2019; rotary positions: Su et al. 2021; GeGLU:
    # Shazeer 2020; no biases, no dropout, one norm after the embeddings instead of the first block's, pooler:
    # Warner et al. 2024 (ModernBERT); smaller output projections: Radford et al. 2019 (GPT-2).
    "modern": {
        "position_embedding": "rotary",
        "embedding_dropout": 0.0,
        "attention_dropout": 0.0,
        "residual_dropout": 0.0,
        "norm_placement": "pre",
        "norm_kind": "rms",
        "layer_norm_epsilon": 1e-6,
        "use_bias": False,
        "use_gated_feedforward": True,
        "activation": "gelu",
        "skip_first_norm": True,
        "scale_residual_init": True,
        "pooler_activation": "gelu",
        "pooler_norm": True,
    },
}

_CHOICES = {
    "position_embedding": ("learned", "sinusoidal", "rotary"),
    "norm_placement": ("post", "pre"),
    "norm_kind": NORM_KINDS,
    "activation": ACTIVATIONS,
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
    "global_every": 1,
}
_OPTIONS = (
    "use_exact_gelu",
    "activation",
    "position_embedding",
    "local_rotary_base",
    "rotary_base",
    "local_window",
    "global_every",
    "skip_first_norm",
    "norm_placement",
    "embedding_layer_norm",
)
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
    norm_kind: str = "layer"
    pooler_activation: str = "tanh"
    pooler_norm: bool = False
    pool_everywhere: bool = False
    layer_norm_epsilon: float
    use_exact_gelu: bool
    use_bias: bool = True
    use_gated_feedforward: bool = False
    activation: str = "gelu"
    skip_first_norm: bool = False
    scale_residual_init: bool = False
    rotary_base: float = 10000.0
    local_rotary_base: float | None = None
    local_window: int | None = None
    global_every: int = 1
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
        for argument in ("layer_norm_epsilon", "initializer_range", "rotary_base", "local_rotary_base"):
            number = getattr(self, argument)
            if number is not None and not 0.0 < number < float("inf"):
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
        self._check_what_needs_another()

    def _check_what_needs_another(self) -> None:
        """Refuse options that would be accepted and then make no difference."""
        is_rotary, window = self.position_embedding == "rotary", self.local_window
        if window is not None and (isinstance(window, bool) or int(window) != window or window < 1):
            raise ValueError(
                f"`local_window` must be a whole number of at least 1, or None. "
                f"Received: local_window={window!r}"
            )
        needs = {
            "use_exact_gelu=False needs activation='gelu'": (
                not self.use_exact_gelu and self.activation != "gelu"
            ),
            "`rotary_base` needs position_embedding='rotary'": self.rotary_base != 10000.0 and not is_rotary,
            "`local_rotary_base` needs position_embedding='rotary' and a `local_window`": (
                self.local_rotary_base is not None and not (is_rotary and window)
            ),
            "`local_window` and a `global_every` of at least 2 need each other": (
                (window is None) != (self.global_every == 1)
            ),
            "`skip_first_norm` needs norm_placement='pre' and embedding_layer_norm=True": (
                self.skip_first_norm and not (self.norm_placement == "pre" and self.embedding_layer_norm)
            ),
        }
        for problem, is_broken in needs.items():
            if is_broken:
                names = [name for name in _OPTIONS if name in problem]
                received = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
                raise ValueError(f"{problem}. Received: {received}")

    @property
    def head_dim(self) -> int:
        """Features of one attention head."""
        return self.embedding_dim // self.num_heads

    def is_local(self, layer: int) -> bool:
        """Whether a layer, counted from 0, attends only to what is near."""
        return layer % self.global_every != 0

    def variable_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every variable of the encoder by its path, in the order of the model."""
        width, narrow = self.embedding_dim, self.token_embedding_dim
        shapes: dict[str, tuple[int, ...]] = {
            "embeddings/token_embedding/embeddings": (self.vocab_size, narrow)
        }
        if self.num_segments:
            shapes["embeddings/segment_embedding/embeddings"] = (self.num_segments, narrow)
        if self.position_embedding == "learned":
            rows = self.max_len + self.position_offset
            shapes["embeddings/position_embedding/embeddings"] = (rows, narrow)
        if self.embedding_layer_norm:
            shapes |= self.norm_shapes("embeddings/norm", narrow)
        if narrow != width:
            shapes |= self.dense_shapes("embeddings/projection", narrow, width)
        for layer in range(self.num_layers):
            shapes |= self._block_shapes(layer)
        if self.norm_placement == "pre":
            shapes |= self.norm_shapes("final_norm", width)
        return shapes

    def _block_shapes(self, layer: int) -> dict[str, tuple[int, ...]]:
        width, inner, path = self.embedding_dim, self.d_hid, f"layer_{layer}"
        shapes = self.dense_shapes(f"{path}/qkv", width, 3 * width)
        shapes |= self.dense_shapes(f"{path}/attention_output", width, width)
        if layer > 0 or not self.skip_first_norm:
            shapes |= self.norm_shapes(f"{path}/attention_norm", width)
        shapes |= self.dense_shapes(
            f"{path}/feedforward_in", width, 2 * inner if self.use_gated_feedforward else inner
        )
        shapes |= self.dense_shapes(f"{path}/feedforward_out", inner, width)
        return shapes | self.norm_shapes(f"{path}/feedforward_norm", width)

    def dense_shapes(self, path: str, inputs: int, units: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of a dense layer's variables."""
        bias = {f"{path}/bias": (units,)} if self.use_bias else {}
        return {f"{path}/kernel": (inputs, units), **bias}

    def norm_shapes(self, path: str, width: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of a normalisation's variables."""
        beta = {f"{path}/beta": (width,)} if self.norm_kind == "layer" else {}
        return {f"{path}/gamma": (width,), **beta}
