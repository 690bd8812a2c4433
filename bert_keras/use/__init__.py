"""Trained models in use, on raw texts: one, or a stream of millions."""

from bert_keras.use.attention import Attention, attention_of
from bert_keras.use.embedding import embed
from bert_keras.use.generation import generate
from bert_keras.use.labels import answer, classify, tag
from bert_keras.use.masks import MaskPrediction, fill_mask

__all__ = [
    "Attention",
    "MaskPrediction",
    "answer",
    "attention_of",
    "classify",
    "embed",
    "fill_mask",
    "generate",
    "tag",
]
