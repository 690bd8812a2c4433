"""Small text encoders, one of each kind."""

import json
from collections import Counter
from pathlib import Path

import pytest
from gpt_reference import learn_merges
from samples import python_lines
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from bert_keras.text import (
    BERTTextEncoder,
    ByteLevelBPETextEncoder,
    ModernBERTTextEncoder,
    OpenAITextEncoder,
    SentencePieceTextEncoder,
)


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


@pytest.fixture(scope="session")
def byte_level_files(tmp_path_factory):
    """A small vocabulary in the published form, trained on text that every Python has."""
    directory = tmp_path_factory.mktemp("byte_level")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(python_lines(2000), trainer)
    tokenizer.model.save(str(directory))
    return directory


def _openai(request):
    pytest.importorskip("spacy")
    pytest.importorskip("ftfy")
    return OpenAITextEncoder(*request.getfixturevalue("gpt_files"))


def _byte_level(request):
    directory = request.getfixturevalue("byte_level_files")
    return ByteLevelBPETextEncoder(directory / "vocab.json", directory / "merges.txt")


def _modernbert(request):
    directory = request.getfixturevalue("byte_level_files")
    return modernbert_from(directory)


def modernbert_from(directory):
    """The small byte-level vocabulary in ModernBERT's form, runs of spaces included."""
    roberta = ByteLevelBPETextEncoder(directory / "vocab.json", directory / "merges.txt").get_state()
    pieces = [piece for piece in roberta["vocab"] if piece not in ByteLevelBPETextEncoder.special_tokens]
    runs = [" " * n for n in range(9, 1, -1)]
    tokens = [*pieces, *runs, "|||MAIL|||", "[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "[unused0]"]
    return ModernBERTTextEncoder.from_vocabulary(
        tokens, roberta["merges"], plain_tokens=[*runs, "|||MAIL|||", "[unused0]"]
    )


BUILDERS = {
    "unigram": lambda _: SentencePieceTextEncoder.train(python_lines(2000), 1009),
    "bpe": lambda _: SentencePieceTextEncoder.train(python_lines(2000), 1013, "bpe", lower_case=True),
    "bert": lambda _: BERTTextEncoder.train(python_lines(2000), 1019),
    "bert_cased": lambda _: BERTTextEncoder.train(python_lines(2000), 1021, lower_case=False),
    "openai": _openai,
    "byte_level": _byte_level,
    "modernbert": _modernbert,
}


@pytest.fixture(scope="session", params=BUILDERS)
def any_encoder(request):
    return BUILDERS[request.param](request)
