"""Encoders: from token ids to hidden states."""

from bert_keras.encoders.config import ARCHITECTURES, TRANSFORMER_SIZES
from bert_keras.encoders.create import create_transformer
from bert_keras.encoders.inputs import ENCODER_INPUTS, encoder_inputs
from bert_keras.encoders.recurrent import LSTMEncoder, QRNNEncoder, create_lstm, create_qrnn
from bert_keras.encoders.text_cnn import TEXT_CNN_SIZES, TextCNNEncoder, create_text_cnn
from bert_keras.encoders.transformer import Transformer

# Encoders that saved weights can rebuild from their configuration.
ENCODER_CLASSES = {cls.__name__: cls for cls in (Transformer, LSTMEncoder, QRNNEncoder, TextCNNEncoder)}

__all__ = [
    "ARCHITECTURES",
    "ENCODER_CLASSES",
    "ENCODER_INPUTS",
    "TEXT_CNN_SIZES",
    "TRANSFORMER_SIZES",
    "LSTMEncoder",
    "QRNNEncoder",
    "TextCNNEncoder",
    "Transformer",
    "create_lstm",
    "create_qrnn",
    "create_text_cnn",
    "create_transformer",
    "encoder_inputs",
]
