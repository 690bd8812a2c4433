"""`create_transformer`: sizes and architectures by name, every choice open."""

from __future__ import annotations

import random
from typing import Any

from bert_keras.encoders.config import ARCHITECTURES, TRANSFORMER_SIZES, TransformerConfig
from bert_keras.encoders.transformer import Transformer


def create_transformer(
    vocab_size: int,
    embedding_dim: int | None = None,
    max_len: int = 512,
    num_layers: int | None = None,
    num_heads: int | None = None,
    d_hid: int | None = None,
    is_causal: bool = False,
    *,
    architecture: str = "bert",
    size: str = "base",
    token_embedding_dim: int | None = None,
    num_segments: int = 2,
    position_embedding: str | None = None,
    position_offset: int = 0,
    rotary_base: float = 10000.0,
    local_window: int | None = None,
    global_every: int | None = None,
    local_rotary_base: float | None = None,
    embedding_layer_norm: bool = True,
    embedding_dropout: float | None = None,
    attention_dropout: float | None = None,
    residual_dropout: float | None = None,
    use_one_embedding_dropout: bool = True,
    norm_placement: str | None = None,
    norm_kind: str | None = None,
    skip_first_norm: bool | None = None,
    layer_norm_epsilon: float | None = None,
    use_bias: bool | None = None,
    use_gated_feedforward: bool | None = None,
    activation: str | None = None,
    use_exact_gelu: bool = True,
    pooler_activation: str | None = None,
    pooler_norm: bool | None = None,
    pool_everywhere: bool = False,
    initializer_range: float = 0.02,
    scale_residual_init: bool | None = None,
    seed: int | None = None,
    name: str = "transformer",
    dtype: Any = None,
) -> Transformer:
    """Build a transformer encoder with fresh weights. The defaults are BERT-base's.

    Arguments that may be None have the `architecture`'s value by default, given here as (bert; modern). They
    combine freely.

    Args:
        vocab_size: number of token ids, special tokens included: `text_encoder.vocab_size`.
        embedding_dim: width of the hidden states; by default the size's.
        max_len: longest sequence, in tokens. With rotary positions, which need no table, it is the length the
            encoder is meant for, and longer sequences are taken too.
        num_layers: number of blocks; by default the size's.
        num_heads: attention heads a block; by default one for every 64 columns of the width.
        d_hid: inner width of the feed-forward network; by default four times the width, or, if it is gated
            and so has three matrices instead of two, two thirds of that, rounded to a multiple of 64: about
            as many parameters.
        is_causal: whether a position sees only what is before it (GPT) or the whole sequence (BERT).
        architecture: `"bert"` for the encoder of 2018, or `"modern"` for what learns faster from scratch:
            pre-norm by root mean squares, rotary positions, gated feed-forward network, no biases and no
            dropout.
        size: `"tiny"`, `"mini"`, `"small"`, `"medium"`, `"base"` or `"large"`: the published BERT shapes,
            from which width and depth come where they are not given.
        token_embedding_dim: width of the embedding tables, if it differs from that of the hidden states
            (ELECTRA); a dense layer leads from one to the other.
        num_segments: number of segment ids. With 0 (GPT, DistilBERT) or 1 (RoBERTa) they make no difference.
        position_embedding: `"learned"` (BERT, GPT), `"sinusoidal"` (fixed, Vaswani et al. 2017), or
            `"rotary"` (queries and keys turned by their positions, Su et al. 2021), with which small encoders
            learn much faster from scratch (learned; rotary).
        position_offset: rows of the position table before that of the first position (2 in RoBERTa).
        rotary_base: base of the wavelengths of rotary positions; larger ones for long texts.
        local_window: with it, only every `global_every`-th block, from the first one on, attends to the whole
            sequence; in the others a position sees those at most `local_window // 2` away. By default all see
            all.
        global_every: as said; by default 3, as in ModernBERT, if there is a `local_window`.
        local_rotary_base: the `rotary_base` of local blocks; by default that of the others.
        embedding_layer_norm: normalise the sum of the embeddings (BERT) or not (GPT).
        embedding_dropout: share of embedding features dropped in training (0.1; 0).
        attention_dropout: share of attention probabilities dropped in training (0.1; 0).
        residual_dropout: share of features dropped before they are added to a block's input (0.1; 0).
        use_one_embedding_dropout: drop from the sum of the embeddings once (BERT), or from each of the three
            (GPT).
        norm_placement: `"post"`: normalise after each addition (BERT, GPT); `"pre"`: before attention and
            feed-forward network and once at the end (Xiong et al. 2020), which bears larger learning rates
            and learns faster from scratch (post; pre).
        norm_kind: `"layer"`: layer normalisation; `"layer_no_bias"`: the same without a shift; `"rms"`:
            division by the root mean square (layer; rms).
        skip_first_norm: leave out the first block's norm before attention, since the embeddings have just
            been normalised. Needs pre-norm and `embedding_layer_norm` (False; True where these are).
        layer_norm_epsilon: added to the variance or mean square: 1e-12 in BERT, 1e-5 in GPT (1e-12; 1e-6).
        use_bias: whether dense layers have biases, those of the pooler and of the masked-LM transform
            included (True; False).
        use_gated_feedforward: activate one half of the feed-forward network's inner columns and multiply the
            other by it (Shazeer 2020): GeGLU with `"gelu"`, SwiGLU with `"silu"` (False; True).
        activation: of the feed-forward network: `"gelu"`, `"silu"` or `"relu_squared"`.
        use_exact_gelu: GELU by the error function (BERT), or its tanh approximation (GPT).
        pooler_activation: what sentence-level heads have after the pooler's dense layer: `"tanh"` (BERT,
            RoBERTa), `"relu"` (DistilBERT) or `"gelu"` (ELECTRA, ModernBERT) (tanh; gelu).
        pooler_norm: whether a norm follows in the pooler (ModernBERT) (False; True).
        pool_everywhere: whether the pooler also comes before token-level heads other than `lm`, and before
            sentence-level heads that read a mean or maximum (ModernBERT).
        initializer_range: standard deviation of the truncated normal that matrices start from.
        scale_residual_init: divide it by the square root of twice the number of layers for the matrices whose
            outputs are added to the hidden states (Radford et al. 2019), so that depth does not make these
            grow (False; True).
        seed: seed of weights and dropout. By default drawn from Python's `random`, so that
            `keras.utils.set_random_seed` decides.
        name: name of the model.
        dtype: dtype policy, for example `"mixed_bfloat16"`; by default Keras' global one.

    Returns:
        A `keras.Model` from a dictionary of `token_ids`, `segment_ids`, `position_ids` and `sequence_ids`,
        each `(batch, length)` int32, to hidden states `(batch, length, embedding_dim)`.

    Raises:
        ValueError: for an unknown size or name, numbers that do not fit together, or an option that would
            make no difference without another.

    Example:

    ```python
    encoder = create_transformer(vocab_size=8000, size="mini", max_len=128, architecture="modern")
    ids = np.ones((2, 7), "int32")
    hidden = encoder({"token_ids": ids, "segment_ids": 0 * ids, "position_ids": np.arange(7)[None] * ids,
                      "sequence_ids": ids})  # (2, 7, 256)
    ```

    Sources: Devlin et al. 2018 (BERT); Radford et al. 2018 (GPT); Warner et al. 2024 (ModernBERT);
    `bert_keras.encoders.config.ARCHITECTURES` for the rest of the modern encoder.
    """
    for argument, value, known in (
        ("size", size, TRANSFORMER_SIZES),
        ("architecture", architecture, ARCHITECTURES),
    ):
        if value not in known:
            raise ValueError(f"`{argument}` must be one of {sorted(known)}. Received: {argument}={value!r}")
    given = {
        "position_embedding": position_embedding,
        "embedding_dropout": embedding_dropout,
        "attention_dropout": attention_dropout,
        "residual_dropout": residual_dropout,
        "norm_placement": norm_placement,
        "norm_kind": norm_kind,
        "skip_first_norm": skip_first_norm,
        "layer_norm_epsilon": layer_norm_epsilon,
        "use_bias": use_bias,
        "use_gated_feedforward": use_gated_feedforward,
        "activation": activation,
        "pooler_activation": pooler_activation,
        "pooler_norm": pooler_norm,
        "scale_residual_init": scale_residual_init,
    }
    chosen: dict[str, Any] = {
        key: ARCHITECTURES[architecture][key] if value is None else value for key, value in given.items()
    }
    if skip_first_norm is None:
        chosen["skip_first_norm"] &= chosen["norm_placement"] == "pre" and embedding_layer_norm
    shape = TRANSFORMER_SIZES[size]
    embedding_dim = shape["embedding_dim"] if embedding_dim is None else embedding_dim
    if global_every is None:
        global_every = 1 if local_window is None else 3
    config = TransformerConfig(
        vocab_size=vocab_size,
        embedding_dim=embedding_dim,
        token_embedding_dim=embedding_dim if token_embedding_dim is None else token_embedding_dim,
        max_len=max_len,
        num_layers=shape["num_layers"] if num_layers is None else num_layers,
        num_heads=max(1, embedding_dim // 64) if num_heads is None else num_heads,
        d_hid=default_d_hid(embedding_dim, chosen["use_gated_feedforward"]) if d_hid is None else d_hid,
        is_causal=bool(is_causal),
        num_segments=num_segments,
        position_offset=position_offset,
        rotary_base=rotary_base,
        local_window=local_window,
        global_every=global_every,
        local_rotary_base=local_rotary_base,
        embedding_layer_norm=embedding_layer_norm,
        use_one_embedding_dropout=use_one_embedding_dropout,
        use_exact_gelu=use_exact_gelu,
        pool_everywhere=pool_everywhere,
        initializer_range=initializer_range,
        seed=random.getrandbits(31) if seed is None else seed,
        **chosen,
    )
    return Transformer(config, name=name, dtype=dtype)


def default_d_hid(embedding_dim: int, is_gated: bool) -> int:
    """Return the usual inner width of a feed-forward network.

    Example:
        >>> default_d_hid(256, False), default_d_hid(256, True), default_d_hid(768, True)
        (1024, 704, 2048)
    """
    if not is_gated:
        return 4 * embedding_dim
    return max(64, 64 * round(embedding_dim * 8 / 3 / 64))
