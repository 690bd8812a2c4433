"""Text to token ids and back. Needs no Keras."""

from bert_keras.text.base import TextEncoder
from bert_keras.text.bert_encoder import BERTTextEncoder
from bert_keras.text.files import list_files, read_line_batches, read_lines
from bert_keras.text.openai_encoder import OpenAITextEncoder
from bert_keras.text.sentencepiece_encoder import SentencePieceTextEncoder

__all__ = [
    "BERTTextEncoder",
    "OpenAITextEncoder",
    "SentencePieceTextEncoder",
    "TextEncoder",
    "list_files",
    "read_line_batches",
    "read_lines",
]
