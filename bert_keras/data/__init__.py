"""Token ids to batches of examples. Needs NumPy, not Keras."""

from bert_keras.data.corpus import Corpus
from bert_keras.data.labelled import sentence_from_text, sentence_from_words
from bert_keras.data.labelled_generator import LabelledGenerator, labelled_generator
from bert_keras.data.lm_generator import LMGenerator, lm_generator
from bert_keras.data.mixing import MixedGenerator, mixed_generator
from bert_keras.data.sentence import Sentence, SentenceBatch, SentenceTaskData, TaskDataBatch, TokenTaskData
from bert_keras.data.splitting import split_sentences

__all__ = [
    "Corpus",
    "LMGenerator",
    "LabelledGenerator",
    "MixedGenerator",
    "Sentence",
    "SentenceBatch",
    "SentenceTaskData",
    "TaskDataBatch",
    "TokenTaskData",
    "labelled_generator",
    "lm_generator",
    "mixed_generator",
    "sentence_from_text",
    "sentence_from_words",
    "split_sentences",
]
