"""Corpora to test on."""

import pydoc_data.topics

import pytest
from number_text import NumberEncoder, number_documents, random_sizes, write_documents

from bert_keras.data import Corpus
from bert_keras.text import BERTTextEncoder


@pytest.fixture(scope="session")
def numbers():
    return NumberEncoder()


@pytest.fixture
def make_corpus(tmp_path, numbers):
    """A corpus of numbers from the sizes of its sentences, and the documents it was made of."""

    def make(sizes, encoder=numbers):
        documents = number_documents(sizes)
        path = write_documents(tmp_path / "corpus.txt", documents)
        return Corpus.prepare(encoder, path, cache_dir=tmp_path / "cache"), documents

    return make


@pytest.fixture(scope="session")
def large(tmp_path_factory, numbers):
    """20,000 different tokens in 300 documents."""
    folder = tmp_path_factory.mktemp("large")
    documents = number_documents(random_sizes(1, num_documents=300, max_sentences=15, max_tokens=19))
    path = write_documents(folder / "corpus.txt", documents)
    return Corpus.prepare(numbers, path, cache_dir=folder / "cache"), documents


@pytest.fixture(scope="session")
def english_file(tmp_path_factory):
    """The language reference that comes with Python: a topic is a document, a line a sentence."""
    topics = pydoc_data.topics.topics
    documents = [
        "\n".join(line for line in topics[name].split("\n") if line.strip()) for name in sorted(topics)
    ]
    path = tmp_path_factory.mktemp("english") / "reference.txt"
    path.write_text("\n\n".join(documents), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def english_encoder(english_file):
    return BERTTextEncoder.train(english_file, vocab_size=1009)


@pytest.fixture(scope="session")
def english(english_encoder, english_file, tmp_path_factory):
    return Corpus.prepare(english_encoder, english_file, cache_dir=tmp_path_factory.mktemp("cache"))
