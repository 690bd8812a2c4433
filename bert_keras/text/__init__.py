"""Text to token ids and back. Needs no Keras."""

from bert_keras.text.base import TextEncoder
from bert_keras.text.bert_encoder import BERTTextEncoder
from bert_keras.text.byte_level_encoder import ByteLevelBPETextEncoder
from bert_keras.text.files import list_files, read_line_batches, read_lines
from bert_keras.text.modernbert_encoder import ModernBERTTextEncoder
from bert_keras.text.openai_encoder import OpenAITextEncoder
from bert_keras.text.published import load_text_encoder
from bert_keras.text.publishing import save_tokenizer_files
from bert_keras.text.sentencepiece_encoder import SentencePieceTextEncoder
from bert_keras.text.words import split_words

__all__ = [
    "BERTTextEncoder",
    "ByteLevelBPETextEncoder",
    "ModernBERTTextEncoder",
    "OpenAITextEncoder",
    "SentencePieceTextEncoder",
    "TextEncoder",
    "list_files",
    "read_line_batches",
    "load_text_encoder",
    "read_lines",
    "save_tokenizer_files",
    "split_words",
]
