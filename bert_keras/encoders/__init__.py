"""Encoders: from token ids to hidden states."""

from bert_keras.encoders.config import TRANSFORMER_SIZES
from bert_keras.encoders.inputs import ENCODER_INPUTS, encoder_inputs
from bert_keras.encoders.transformer import Transformer, create_transformer

# Encoders that saved weights can rebuild from their configuration.
ENCODER_CLASSES = {"Transformer": Transformer}

__all__ = [
    "ENCODER_CLASSES",
    "ENCODER_INPUTS",
    "TRANSFORMER_SIZES",
    "Transformer",
    "create_transformer",
    "encoder_inputs",
]
