"""Small text encoders, one of each kind."""

import json
from collections import Counter
from pathlib import Path

import pytest
from gpt_reference import learn_merges
from samples import python_lines

from bert_keras.text import BERTTextEncoder, OpenAITextEncoder, SentencePieceTextEncoder


@pytest.fixture(scope="session")
def gpt_files(tmp_path_factory) -> tuple[Path, Path]:
    """A small vocabulary in the format of the published one."""
    words = Counter(word for line in python_lines(2000) for word in line.lower().split())
    vocab, merges = learn_merges(dict(words.most_common(700)), 300)
    folder = tmp_path_factory.mktemp("gpt")
    encoder_path, bpe_path = folder / "encoder.json", folder / "vocab.bpe"
    encoder_path.write_text(json.dumps(vocab), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    bpe_path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return encoder_path, bpe_path


def _openai(request):
    pytest.importorskip("spacy")
    pytest.importorskip("ftfy")
    return OpenAITextEncoder(*request.getfixturevalue("gpt_files"))


BUILDERS = {
    "unigram": lambda _: SentencePieceTextEncoder.train(python_lines(2000), 1009),
    "bpe": lambda _: SentencePieceTextEncoder.train(python_lines(2000), 1013, "bpe", lower_case=True),
    "bert": lambda _: BERTTextEncoder.train(python_lines(2000), 1019),
    "bert_cased": lambda _: BERTTextEncoder.train(python_lines(2000), 1021, lower_case=False),
    "openai": _openai,
}


@pytest.fixture(scope="session", params=BUILDERS)
def any_encoder(request):
    return BUILDERS[request.param](request)
