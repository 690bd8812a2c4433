"""Configurations of published formats, to and from ours: a table for each type."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from bert_keras.encoders.config import TransformerConfig

_EXACT_GELU = {"gelu": True, "gelu_python": True}
_TANH_GELU = {"gelu_new": False, "gelu_pytorch_tanh": False, "gelu_fast": False, "gelu_python_tanh": False}
_ONLY_AT_FIRST = ("scale_residual_init",)  # fields that matter to fresh weights only
_BERT_ACTIVATIONS = {**_EXACT_GELU, **_TANH_GELU}


@dataclasses.dataclass(frozen=True)
class ConfigTable:
    """How a `config.json` says what a `TransformerConfig` says.

    Attributes:
        names: our field and theirs.
        defaults: theirs, where the file may leave a field out.
        fixed: our fields that the type leaves no choice about.
        activation: their field of the activation, and what its values mean for `use_exact_gelu`.
        must_be: their fields that only one value of is supported, and the value that counts if it is absent.
        repeated: their further fields that repeat one of ours.
        nullable: their fields of numbers that may be null, which is None here.
        special_ids: their ids of special tokens, where the file leaves them out.
    """

    names: Mapping[str, str]
    defaults: Mapping[str, Any]
    fixed: Mapping[str, Any]
    activation: tuple[str, Mapping[str, bool]]
    must_be: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    repeated: Mapping[str, str] = dataclasses.field(default_factory=dict)
    nullable: frozenset[str] = frozenset()
    special_ids: Mapping[str, int] = dataclasses.field(default_factory=dict)


_BERT_NAMES = {
    "vocab_size": "vocab_size",
    "embedding_dim": "hidden_size",
    "max_len": "max_position_embeddings",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "d_hid": "intermediate_size",
    "num_segments": "type_vocab_size",
    "embedding_dropout": "hidden_dropout_prob",
    "residual_dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "layer_norm_epsilon": "layer_norm_eps",
    "initializer_range": "initializer_range",
}
_BERT_DEFAULTS = {
    "type_vocab_size": 2,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
    "hidden_act": "gelu",
}
_POST_NORM = {
    "is_causal": False,
    "position_embedding": "learned",
    "position_offset": 0,
    "embedding_layer_norm": True,
    "use_one_embedding_dropout": True,
    "norm_placement": "post",
    "pooler_activation": "tanh",
}
_BERT_MUST_BE = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}

CONFIG_TABLES: Mapping[str, ConfigTable] = {
    "bert": ConfigTable(
        _BERT_NAMES, _BERT_DEFAULTS, _POST_NORM, ("hidden_act", _BERT_ACTIVATIONS), _BERT_MUST_BE
    ),
    "roberta": ConfigTable(
        _BERT_NAMES,
        _BERT_DEFAULTS,
        {**_POST_NORM, "position_offset": 2},
        ("hidden_act", _BERT_ACTIVATIONS),
        {**_BERT_MUST_BE, "pad_token_id": 1},
    ),
    "electra": ConfigTable(
        {**_BERT_NAMES, "token_embedding_dim": "embedding_size"},
        {**_BERT_DEFAULTS, "embedding_size": 128},
        {**_POST_NORM, "pooler_activation": "gelu"},
        ("hidden_act", _BERT_ACTIVATIONS),
        _BERT_MUST_BE,
    ),
    "distilbert": ConfigTable(
        {
            "vocab_size": "vocab_size",
            "embedding_dim": "dim",
            "max_len": "max_position_embeddings",
            "num_layers": "n_layers",
            "num_heads": "n_heads",
            "d_hid": "hidden_dim",
            "embedding_dropout": "dropout",
            "residual_dropout": "dropout",
            "attention_dropout": "attention_dropout",
            "initializer_range": "initializer_range",
        },
        {"dropout": 0.1, "attention_dropout": 0.1, "initializer_range": 0.02, "activation": "gelu"},
        {**_POST_NORM, "num_segments": 0, "layer_norm_epsilon": 1e-12, "pooler_activation": "relu"},
        ("activation", _EXACT_GELU),
    ),
    "modernbert": ConfigTable(
        {
            "vocab_size": "vocab_size",
            "embedding_dim": "hidden_size",
            "max_len": "max_position_embeddings",
            "num_layers": "num_hidden_layers",
            "num_heads": "num_attention_heads",
            "d_hid": "intermediate_size",
            "embedding_dropout": "embedding_dropout",
            "attention_dropout": "attention_dropout",
            "residual_dropout": "mlp_dropout",  # theirs drops before the last matrix, ours after it
            "layer_norm_epsilon": "norm_eps",
            "initializer_range": "initializer_range",
            "rotary_base": "global_rope_theta",
            "local_rotary_base": "local_rope_theta",
            "local_window": "local_attention",
            "global_every": "global_attn_every_n_layers",
        },
        {
            "max_position_embeddings": 8192,
            "embedding_dropout": 0.0,
            "attention_dropout": 0.0,
            "mlp_dropout": 0.0,
            "norm_eps": 1e-5,
            "initializer_range": 0.02,
            "global_rope_theta": 160000.0,
            "local_rope_theta": 10000.0,
            "local_attention": 128,
            "global_attn_every_n_layers": 3,
            "hidden_activation": "gelu",
        },
        {
            "is_causal": False,
            "num_segments": 0,
            "position_embedding": "rotary",
            "position_offset": 0,
            "embedding_layer_norm": True,
            "use_one_embedding_dropout": True,
            "norm_placement": "pre",
            "norm_kind": "layer_no_bias",
            "skip_first_norm": True,
            "use_bias": False,
            "use_gated_feedforward": True,
            "activation": "gelu",
            "pooler_activation": "gelu",
            "pooler_norm": True,
            "pool_everywhere": True,
        },
        ("hidden_activation", {"gelu": True}),
        {
            "norm_bias": False,
            "attention_bias": False,
            "mlp_bias": False,
            "classifier_bias": False,
            "decoder_bias": True,
            "classifier_activation": "gelu",
            "rope_scaling": None,
            "rope_parameters": None,
            "layer_types": None,
        },
        nullable=frozenset({"local_rope_theta"}),
        special_ids={
            "pad_token_id": 50283,
            "eos_token_id": 50282,
            "bos_token_id": 50281,
            "cls_token_id": 50281,
            "sep_token_id": 50282,
        },
    ),
    "openai-gpt": ConfigTable(
        {
            "vocab_size": "vocab_size",
            "embedding_dim": "n_embd",
            "max_len": "n_positions",
            "num_layers": "n_layer",
            "num_heads": "n_head",
            "embedding_dropout": "embd_pdrop",
            "residual_dropout": "resid_pdrop",
            "attention_dropout": "attn_pdrop",
            "layer_norm_epsilon": "layer_norm_epsilon",
            "initializer_range": "initializer_range",
        },
        {
            "embd_pdrop": 0.1,
            "resid_pdrop": 0.1,
            "attn_pdrop": 0.1,
            "layer_norm_epsilon": 1e-5,
            "initializer_range": 0.02,
            "afn": "gelu",
        },
        {
            "is_causal": True,
            "num_segments": 0,
            "position_embedding": "learned",
            "position_offset": 0,
            "embedding_layer_norm": False,
            "use_one_embedding_dropout": False,
            "norm_placement": "post",
            "pooler_activation": "tanh",
        },
        ("afn", {"gelu": False, "gelu_new": False}),  # this model's "gelu" is the approximation by tanh
        repeated={"n_ctx": "max_len"},
    ),
}


def config_from_json(model_type: str, content: Mapping[str, Any], where: str) -> TransformerConfig:
    """Read a published configuration.

    Args:
        model_type: one of `CONFIG_TABLES`.
        content: of `config.json`.
        where: the file, for messages.

    Raises:
        ValueError: naming every field that is missing, of a wrong kind, or of an unsupported value.
    """
    table = CONFIG_TABLES[model_type]
    given = {key: value for key, value in content.items() if value is not None or key in table.nullable}
    theirs = {**table.defaults, **given}
    faults = [f"`{name}` is missing" for name in sorted({*table.names.values()}) if name not in theirs]
    numbers = {ours: theirs[name] for ours, name in table.names.items() if name in theirs}
    faults += [
        f"`{table.names[ours]}` must be a number, but is {value!r}"
        for ours, value in numbers.items()
        if isinstance(value, bool)
        or not isinstance(value, (int, float))
        and not (value is None and table.names[ours] in table.nullable)
    ]
    field, meanings = table.activation
    if not isinstance(theirs[field], str) or theirs[field] not in meanings:
        faults.append(f"`{field}` must be one of {sorted(meanings)}, but is {theirs[field]!r}")
    for name, only in table.must_be.items():
        if theirs.get(name, only) != only:
            faults.append(f"`{name}` must be {only!r}, but is {theirs[name]!r}")
    if faults:
        raise ValueError(f"{where} cannot be used: " + "; ".join(faults) + ".")
    fields = {**table.fixed, **numbers}
    fields.setdefault("d_hid", 4 * fields["embedding_dim"])
    fields.setdefault("token_embedding_dim", fields["embedding_dim"])
    fields["max_len"] -= fields["position_offset"]
    try:
        return TransformerConfig(**fields, use_exact_gelu=meanings[theirs[field]], seed=0)
    except ValueError as error:
        raise ValueError(f"{where} cannot be used: {error}") from error


def differences(model_type: str, config: TransformerConfig) -> list[str]:
    """Return what of an encoder a published type cannot express; nothing if it can be exported as it."""
    table = CONFIG_TABLES[model_type]
    plain = {
        field.name: field.default
        for field in dataclasses.fields(config)
        if field.default is not dataclasses.MISSING and field.name not in (*table.names, *_ONLY_AT_FIRST)
    }
    faults = [
        f"{field}={getattr(config, field)!r} (must be {value!r})"
        for field, value in {**plain, **table.fixed}.items()
        if getattr(config, field) != value
    ]
    if "token_embedding_dim" not in table.names and config.token_embedding_dim != config.embedding_dim:
        faults.append(f"token_embedding_dim={config.token_embedding_dim} (must be {config.embedding_dim})")
    if "d_hid" not in table.names and config.d_hid != 4 * config.embedding_dim:
        faults.append(f"d_hid={config.d_hid} (must be {4 * config.embedding_dim})")
    if "num_segments" in table.names and config.num_segments < 1:
        faults.append("num_segments=0 (must be at least 1)")
    for ours, theirs in table.names.items():
        if getattr(config, ours) is None and theirs not in table.nullable:
            faults.append(f"{ours}=None (must be a number)")
        first = next(name for name in table.names if table.names[name] == theirs)
        if getattr(config, ours) != getattr(config, first):
            faults.append(f"{ours}={getattr(config, ours)!r} (must be {first}, {getattr(config, first)!r})")
    if config.use_exact_gelu not in table.activation[1].values():
        faults.append(f"use_exact_gelu={config.use_exact_gelu}")
    return faults


def config_to_json(model_type: str, config: TransformerConfig) -> dict[str, Any]:
    """Return what `config.json` says of an encoder: the reverse of `config_from_json`."""
    table = CONFIG_TABLES[model_type]
    content = {theirs: getattr(config, ours) for ours, theirs in table.names.items()}
    content[table.names["max_len"]] += config.position_offset
    field, meanings = table.activation
    content[field] = next(name for name, exact in meanings.items() if exact == config.use_exact_gelu)
    repeated = {theirs: getattr(config, ours) for theirs, ours in table.repeated.items()}
    must_be = {name: value for name, value in table.must_be.items() if value is not None}
    # `transformers` makes an error of an id that its default says and the table of embeddings lacks.
    lacking = {name: None for name, number in table.special_ids.items() if number >= config.vocab_size}
    return {"model_type": model_type, **content, **must_be, **lacking, **repeated}
