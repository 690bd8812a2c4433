"""Models to share: folders with everything in them, model cards, and files for other runtimes."""

from bert_keras.sharing.exporting import export_model
from bert_keras.sharing.pretrained import Pretrained
from bert_keras.sharing.reading import load_pretrained
from bert_keras.sharing.writing import save_pretrained

__all__ = ["Pretrained", "export_model", "load_pretrained", "save_pretrained"]
