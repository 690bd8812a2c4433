"""The conversion tables: one for each published format.

Sources of the names: `modeling_*.py` of Hugging Face `transformers` 4.57, `modeling.py` and
`run_pretraining.py` of google-research/bert, `train.py` of openai/finetune-transformer-lm.
"""

from __future__ import annotations

from collections.abc import Mapping

from bert_keras.checkpoints.table import Head, Row, Table
from bert_keras.checkpoints.transforms import (
    ClassesReversed,
    Same,
    SideBySide,
    Transform,
    Transposed,
    Unstacked,
)

_TOKENS = "embeddings/token_embedding/embeddings"
_SEGMENTS = "embeddings/segment_embedding/embeddings"
_POSITIONS = "embeddings/position_embedding/embeddings"
_BUFFER = "a constant of the code, not a weight"
_OTHER_HEAD = "a head for which there is no task here"


def _dense(target: str, source: str, matrix: Transform, kernel: str, bias: str) -> tuple[Row, ...]:
    return (
        Row(f"{target}kernel", (f"{source}{kernel}",), matrix),
        Row(f"{target}bias", (f"{source}{bias}",)),
    )


def _torch_dense(target: str, source: str) -> tuple[Row, ...]:
    return _dense(target, source, Transposed(), ".weight", ".bias")


def _torch_norm(target: str, source: str) -> tuple[Row, ...]:
    return (Row(f"{target}/gamma", (f"{source}.weight",)), Row(f"{target}/beta", (f"{source}.bias",)))


def _torch_qkv(source: str, names: tuple[str, str, str]) -> tuple[Row, ...]:
    return (
        Row(
            "layer_{layer}/qkv/kernel",
            tuple(f"{source}.{name}.weight" for name in names),
            SideBySide(Transposed()),
        ),
        Row("layer_{layer}/qkv/bias", tuple(f"{source}.{name}.bias" for name in names), SideBySide(Same())),
    )


def _torch_embeddings(prefix: str, norm: str = "LayerNorm") -> tuple[Row, ...]:
    embeddings = f"{prefix}embeddings"
    return (
        Row(_TOKENS, (f"{embeddings}.word_embeddings.weight",)),
        Row(_SEGMENTS, (f"{embeddings}.token_type_embeddings.weight",)),
        Row(_POSITIONS, (f"{embeddings}.position_embeddings.weight",)),
        *_torch_norm("embeddings/norm", f"{embeddings}.{norm}"),
    )


def _torch_bert_layers(prefix: str) -> tuple[Row, ...]:
    layer = prefix + "encoder.layer.{layer}"
    return (
        *_torch_qkv(f"{layer}.attention.self", ("query", "key", "value")),
        *_torch_dense("layer_{layer}/attention_output/", f"{layer}.attention.output.dense"),
        *_torch_norm("layer_{layer}/attention_norm", f"{layer}.attention.output.LayerNorm"),
        *_torch_dense("layer_{layer}/feedforward_in/", f"{layer}.intermediate.dense"),
        *_torch_dense("layer_{layer}/feedforward_out/", f"{layer}.output.dense"),
        *_torch_norm("layer_{layer}/feedforward_norm", f"{layer}.output.LayerNorm"),
    )


def _torch_lm(dense: str, norm: str, bias: str) -> Head:
    rows = (*_torch_dense("transform/", dense), *_torch_norm("norm", norm), Row("bias", (bias,)))
    return Head("lm", rows)


def _torch_pooler(source: str) -> Head:
    return Head("pooler", _torch_dense("", source))


def _torch_classifier(source: str) -> Head:
    return Head("classifier", _torch_dense("classifier/", source))


_OLD_NORMS = {".LayerNorm.gamma": ".LayerNorm.weight", ".LayerNorm.beta": ".LayerNorm.bias"}

BERT = Table(
    "bert",
    (*_torch_embeddings("bert."), *_torch_bert_layers("bert.")),
    (
        _torch_pooler("bert.pooler.dense"),
        _torch_lm(
            "cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias"
        ),
        Head(
            "is_next",
            (
                Row("classifier/kernel", ("cls.seq_relationship.weight",), ClassesReversed(Transposed())),
                Row("classifier/bias", ("cls.seq_relationship.bias",), ClassesReversed(Same())),
            ),
        ),
        _torch_classifier("classifier"),
    ),
    prefix="bert.",
    copies={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    ignored={r"bert\.embeddings\.position_ids": _BUFFER, r"qa_outputs\..*": _OTHER_HEAD},
    spellings=_OLD_NORMS,
)

ROBERTA = Table(
    "roberta",
    (*_torch_embeddings("roberta."), *_torch_bert_layers("roberta.")),
    (
        _torch_pooler("roberta.pooler.dense"),
        _torch_pooler("classifier.dense"),
        _torch_lm("lm_head.dense", "lm_head.layer_norm", "lm_head.bias"),
        _torch_classifier("classifier.out_proj"),
        _torch_classifier("classifier"),
    ),
    prefix="roberta.",
    copies={
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    },
    ignored={r"roberta\.embeddings\.position_ids": _BUFFER, r"qa_outputs\..*": _OTHER_HEAD},
    spellings=_OLD_NORMS,
)

DISTILBERT = Table(
    "distilbert",
    (
        *_torch_embeddings("distilbert."),
        *_torch_qkv("distilbert.transformer.layer.{layer}.attention", ("q_lin", "k_lin", "v_lin")),
        *_torch_dense(
            "layer_{layer}/attention_output/", "distilbert.transformer.layer.{layer}.attention.out_lin"
        ),
        *_torch_norm("layer_{layer}/attention_norm", "distilbert.transformer.layer.{layer}.sa_layer_norm"),
        *_torch_dense("layer_{layer}/feedforward_in/", "distilbert.transformer.layer.{layer}.ffn.lin1"),
        *_torch_dense("layer_{layer}/feedforward_out/", "distilbert.transformer.layer.{layer}.ffn.lin2"),
        *_torch_norm(
            "layer_{layer}/feedforward_norm", "distilbert.transformer.layer.{layer}.output_layer_norm"
        ),
    ),
    (
        _torch_lm("vocab_transform", "vocab_layer_norm", "vocab_projector.bias"),
        _torch_pooler("pre_classifier"),
        _torch_classifier("classifier"),
    ),
    prefix="distilbert.",
    copies={"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"},
    ignored={r"distilbert\.embeddings\.position_ids": _BUFFER, r"qa_outputs\..*": _OTHER_HEAD},
    spellings=_OLD_NORMS,
)

ELECTRA = Table(
    "electra",
    (
        *_torch_embeddings("electra."),
        *_torch_dense("embeddings/projection/", "electra.embeddings_project"),
        *_torch_bert_layers("electra."),
    ),
    (
        _torch_lm("generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head.bias"),
        _torch_pooler("classifier.dense"),
        _torch_classifier("classifier.out_proj"),
        _torch_classifier("classifier"),
    ),
    prefix="electra.",
    copies={"generator_lm_head.weight": "electra.embeddings.word_embeddings.weight"},
    ignored={
        r"electra\.embeddings\.position_ids": _BUFFER,
        r"discriminator_predictions\..*": "the head that finds replaced tokens: there is no such task here",
        r"qa_outputs\..*": _OTHER_HEAD,
    },
    spellings=_OLD_NORMS,
)


def _weight(target: str, source: str) -> Row:
    """A kernel from a matrix, or anything else as it is."""
    transform = Transposed() if target.endswith("kernel") else Same()
    return Row(target, (f"{source}.weight",), transform)


_MODERN_LAYER = "model.layers.{layer}"

MODERNBERT = Table(
    "modernbert",
    (
        _weight(_TOKENS, "model.embeddings.tok_embeddings"),
        _weight("embeddings/norm/gamma", "model.embeddings.norm"),
        _weight("layer_{layer}/qkv/kernel", f"{_MODERN_LAYER}.attn.Wqkv"),
        _weight("layer_{layer}/attention_output/kernel", f"{_MODERN_LAYER}.attn.Wo"),
        _weight("layer_{layer}/attention_norm/gamma", f"{_MODERN_LAYER}.attn_norm"),
        _weight("layer_{layer}/feedforward_in/kernel", f"{_MODERN_LAYER}.mlp.Wi"),
        _weight("layer_{layer}/feedforward_out/kernel", f"{_MODERN_LAYER}.mlp.Wo"),
        _weight("layer_{layer}/feedforward_norm/gamma", f"{_MODERN_LAYER}.mlp_norm"),
        _weight("final_norm/gamma", "model.final_norm"),
    ),
    (
        Head(
            "lm",
            (
                _weight("transform/kernel", "head.dense"),
                _weight("norm/gamma", "head.norm"),
                Row("bias", ("decoder.bias",)),
            ),
            sign="decoder.bias",  # a classifier's pooler has the names of the transform
        ),
        Head(
            "pooler",
            (_weight("kernel", "head.dense"), _weight("norm/gamma", "head.norm")),
        ),
        _torch_classifier("classifier"),
    ),
    prefix="model.",
    copies={"decoder.weight": "model.embeddings.tok_embeddings.weight"},
)


def _gpt_layers(layer: str, matrix: Transform, names: Mapping[str, str]) -> tuple[Row, ...]:
    kernel, bias, scale, shift = names["kernel"], names["bias"], names["scale"], names["shift"]
    rows: list[Row] = []
    for target, source in (
        ("qkv", "attn{sep}c_attn"),
        ("attention_output", "attn{sep}c_proj"),
        ("feedforward_in", "mlp{sep}c_fc"),
        ("feedforward_out", "mlp{sep}c_proj"),
    ):
        where = layer + source.replace("{sep}", names["sep"])
        rows += _dense("layer_{layer}/" + target + "/", where, matrix, kernel, bias)
    for target, source in (("attention_norm", "ln_1"), ("feedforward_norm", "ln_2")):
        rows.append(Row("layer_{layer}/" + target + "/gamma", (layer + source + scale,)))
        rows.append(Row("layer_{layer}/" + target + "/beta", (layer + source + shift,)))
    return tuple(rows)


_NO_SEGMENTS = {_SEGMENTS: "zeros: GPT has no segments, so at first they make no difference"}

OPENAI = Table(
    "openai",
    (
        Row(_TOKENS, ("model/we",)),
        Row(_POSITIONS, ("model/pe",)),
        *_gpt_layers(
            "model/h{layer}/",
            Unstacked(),
            {"sep": "/", "kernel": "/w", "bias": "/b", "scale": "/g", "shift": "/b"},
        ),
    ),
    fresh=_NO_SEGMENTS,
)

OPENAI_GPT = Table(
    "openai-gpt",
    (
        Row(_TOKENS, ("transformer.tokens_embed.weight",)),
        Row(_POSITIONS, ("transformer.positions_embed.weight",)),
        *_gpt_layers(
            "transformer.h.{layer}.",
            Same(),
            {"sep": ".", "kernel": ".weight", "bias": ".bias", "scale": ".weight", "shift": ".bias"},
        ),
    ),
    prefix="transformer.",
    copies={"lm_head.weight": "transformer.tokens_embed.weight"},
    ignored={
        r"transformer\.h\.\d+\.attn\.bias": _BUFFER,
        r"transformer\.position_ids": _BUFFER,
        r"score\.weight": _OTHER_HEAD,
        r"multiple_choice_head\..*": _OTHER_HEAD,
    },
    fresh=_NO_SEGMENTS,
)


def _google_norm(target: str, source: str) -> tuple[Row, ...]:
    return (Row(f"{target}/gamma", (f"{source}/gamma",)), Row(f"{target}/beta", (f"{source}/beta",)))


def _google_dense(target: str, source: str) -> tuple[Row, ...]:
    return _dense(target, source, Same(), "/kernel", "/bias")


_GOOGLE_LAYER = "bert/encoder/layer_{layer}"
_GOOGLE_QKV = tuple(f"{_GOOGLE_LAYER}/attention/self/{name}" for name in ("query", "key", "value"))

GOOGLE_BERT = Table(
    "google-bert",
    (
        Row(_TOKENS, ("bert/embeddings/word_embeddings",)),
        Row(_SEGMENTS, ("bert/embeddings/token_type_embeddings",)),
        Row(_POSITIONS, ("bert/embeddings/position_embeddings",)),
        *_google_norm("embeddings/norm", "bert/embeddings/LayerNorm"),
        Row("layer_{layer}/qkv/kernel", tuple(f"{name}/kernel" for name in _GOOGLE_QKV), SideBySide(Same())),
        Row("layer_{layer}/qkv/bias", tuple(f"{name}/bias" for name in _GOOGLE_QKV), SideBySide(Same())),
        *_google_dense("layer_{layer}/attention_output/", f"{_GOOGLE_LAYER}/attention/output/dense"),
        *_google_norm("layer_{layer}/attention_norm", f"{_GOOGLE_LAYER}/attention/output/LayerNorm"),
        *_google_dense("layer_{layer}/feedforward_in/", f"{_GOOGLE_LAYER}/intermediate/dense"),
        *_google_dense("layer_{layer}/feedforward_out/", f"{_GOOGLE_LAYER}/output/dense"),
        *_google_norm("layer_{layer}/feedforward_norm", f"{_GOOGLE_LAYER}/output/LayerNorm"),
    ),
    (
        Head("pooler", _google_dense("", "bert/pooler/dense")),
        Head(
            "lm",
            (
                *_google_dense("transform/", "cls/predictions/transform/dense"),
                *_google_norm("norm", "cls/predictions/transform/LayerNorm"),
                Row("bias", ("cls/predictions/output_bias",)),
            ),
        ),
        Head(
            "is_next",
            (
                Row(
                    "classifier/kernel",
                    ("cls/seq_relationship/output_weights",),
                    ClassesReversed(Transposed()),
                ),
                Row("classifier/bias", ("cls/seq_relationship/output_bias",), ClassesReversed(Same())),
            ),
        ),
    ),
    ignored={
        r".*/adam_[mv]": "state of the optimizer",
        r"global_step": "state of the optimizer",
        r"output_(weights|bias)": _OTHER_HEAD,
    },
)

# What an exported model is: the class of `transformers` and the heads that are written, by type and kind.
# "encoder": no head; "lm", "is_next": those tasks; "sentence", "token": one classification task of that
# level.
_BERT_POOLER, _BERT_LM, _BERT_IS_NEXT, _BERT_CLASSIFIER = BERT.heads
_ROBERTA_POOLER, _ROBERTA_DENSE, _ROBERTA_LM, _ROBERTA_SENTENCE, _ROBERTA_TOKEN = ROBERTA.heads
_DISTILBERT_LM, _DISTILBERT_POOLER, _DISTILBERT_CLASSIFIER = DISTILBERT.heads
_ELECTRA_LM, _ELECTRA_POOLER, _ELECTRA_SENTENCE, _ELECTRA_TOKEN = ELECTRA.heads
_MODERN_LM, _MODERN_POOLER, _MODERN_CLASSIFIER = MODERNBERT.heads
Exports = Mapping[str, tuple[str, tuple[Head, ...]]]
EXPORTS: Mapping[str, Exports] = {
    "bert": {
        "encoder": ("BertModel", (_BERT_POOLER,)),
        "lm": ("BertForMaskedLM", (_BERT_LM,)),
        "lm and is_next": ("BertForPreTraining", (_BERT_POOLER, _BERT_LM, _BERT_IS_NEXT)),
        "is_next": ("BertForNextSentencePrediction", (_BERT_POOLER, _BERT_IS_NEXT)),
        "sentence": ("BertForSequenceClassification", (_BERT_POOLER, _BERT_CLASSIFIER)),
        "token": ("BertForTokenClassification", (_BERT_CLASSIFIER,)),
    },
    "roberta": {
        "encoder": ("RobertaModel", (_ROBERTA_POOLER,)),
        "lm": ("RobertaForMaskedLM", (_ROBERTA_LM,)),
        "sentence": ("RobertaForSequenceClassification", (_ROBERTA_DENSE, _ROBERTA_SENTENCE)),
        "token": ("RobertaForTokenClassification", (_ROBERTA_TOKEN,)),
    },
    "distilbert": {
        "encoder": ("DistilBertModel", ()),
        "lm": ("DistilBertForMaskedLM", (_DISTILBERT_LM,)),
        "sentence": ("DistilBertForSequenceClassification", (_DISTILBERT_POOLER, _DISTILBERT_CLASSIFIER)),
        "token": ("DistilBertForTokenClassification", (_DISTILBERT_CLASSIFIER,)),
    },
    "electra": {
        "encoder": ("ElectraModel", ()),
        "lm": ("ElectraForMaskedLM", (_ELECTRA_LM,)),
        "sentence": ("ElectraForSequenceClassification", (_ELECTRA_POOLER, _ELECTRA_SENTENCE)),
        "token": ("ElectraForTokenClassification", (_ELECTRA_TOKEN,)),
    },
    "modernbert": {
        "encoder": ("ModernBertModel", ()),
        "lm": ("ModernBertForMaskedLM", (_MODERN_LM,)),
        "sentence": ("ModernBertForSequenceClassification", (_MODERN_POOLER, _MODERN_CLASSIFIER)),
        "token": ("ModernBertForTokenClassification", (_MODERN_POOLER, _MODERN_CLASSIFIER)),
    },
    "openai-gpt": {
        "encoder": ("OpenAIGPTModel", ()),
        "lm": ("OpenAIGPTLMHeadModel", ()),
    },
}

HUGGINGFACE_TABLES: Mapping[str, Table] = {
    table.name: table for table in (BERT, ROBERTA, DISTILBERT, ELECTRA, MODERNBERT, OPENAI_GPT)
}
