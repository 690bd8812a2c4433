"""Pictures. Each function returns a Matplotlib figure; the extra `plots` brings Matplotlib."""

from bert_keras.plots.attention import attention_heads, attention_map, head_view
from bert_keras.plots.batch import batch_in_colour
from bert_keras.plots.results import confusion_matrix, embedding_map, principal_components
from bert_keras.plots.scores import score_against_labels
from bert_keras.plots.training import training_curves

__all__ = [
    "attention_heads",
    "attention_map",
    "batch_in_colour",
    "confusion_matrix",
    "embedding_map",
    "head_view",
    "principal_components",
    "score_against_labels",
    "training_curves",
]
