"""Token ids to batches of examples. Needs NumPy, not Keras."""

from bert_keras.data.corpus import Corpus
from bert_keras.data.example import Example
from bert_keras.data.examples import encode_examples, label_names
from bert_keras.data.labelled import sentence_from_text, sentence_from_words
from bert_keras.data.labelled_generator import LabelledGenerator, labelled_generator
from bert_keras.data.lm_generator import LMGenerator, lm_generator
from bert_keras.data.mixing import MixedGenerator, mixed_generator
from bert_keras.data.readers import (
    read_conll,
    read_delimited,
    read_fasttext,
    read_jsonl,
    read_records,
    read_squad,
)
from bert_keras.data.sentence import Sentence, SentenceBatch, SentenceTaskData, TaskDataBatch, TokenTaskData
from bert_keras.data.splitting import split_sentences

__all__ = [
    "Corpus",
    "Example",
    "LMGenerator",
    "LabelledGenerator",
    "MixedGenerator",
    "Sentence",
    "SentenceBatch",
    "SentenceTaskData",
    "TaskDataBatch",
    "TokenTaskData",
    "encode_examples",
    "label_names",
    "labelled_generator",
    "lm_generator",
    "mixed_generator",
    "read_conll",
    "read_delimited",
    "read_fasttext",
    "read_jsonl",
    "read_records",
    "read_squad",
    "sentence_from_text",
    "sentence_from_words",
    "split_sentences",
]
