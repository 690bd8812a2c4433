"""Published weights in, our weights out: one engine, and a conversion table for each format."""

from bert_keras.checkpoints.download import openai_directory
from bert_keras.checkpoints.export import save_huggingface, verify
from bert_keras.checkpoints.loading import load_bert, load_huggingface, load_openai

__all__ = ["load_bert", "load_huggingface", "load_openai", "openai_directory", "save_huggingface", "verify"]
