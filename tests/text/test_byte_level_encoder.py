"""Byte-level BPE against `transformers`, and the contract of every text encoder."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from bert_keras.text import ByteLevelBPETextEncoder, TextEncoder

ODD = [
    *("", " ", "a", "  two  spaces ", "don't", "naïve café", "日本語", "🙂🏽 ok", "\u200bzero\u200d"),
    *("tab\tnew\nline", "א ב", "<mask> </s> <s>", "e\u0301", "\x00\x01", "1234567890", "x" * 5000),
]


@pytest.fixture(scope="module")
def text_encoder(byte_level_files):
    return ByteLevelBPETextEncoder(byte_level_files / "vocab.json", byte_level_files / "merges.txt")


def real_lines(count):
    data = os.environ.get("BERT_KERAS_DATA")
    if data is None:
        pytest.skip("needs BERT_KERAS_DATA/gutenberg")
    with open(Path(data) / "gutenberg/train.txt", encoding="utf-8") as file:
        return [line.rstrip("\n") for line, _ in zip(file, range(count), strict=False)]


@pytest.mark.parametrize("name", ["RobertaTokenizer", "RobertaTokenizerFast"])
@pytest.mark.parametrize("add_prefix_space", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_ids_are_those_of_transformers(byte_level_files, name, add_prefix_space):
    transformers = pytest.importorskip("transformers")
    arguments = {"add_prefix_space": add_prefix_space}
    ours = ByteLevelBPETextEncoder(
        byte_level_files / "vocab.json", byte_level_files / "merges.txt", **arguments
    )
    theirs = getattr(transformers, name)(
        str(byte_level_files / "vocab.json"), str(byte_level_files / "merges.txt"), **arguments
    )
    lines = [*(text for text in ODD if "<s>" not in text), *real_lines(10_000)]
    expected = theirs(lines, add_special_tokens=False)["input_ids"]
    for line, found, wanted in zip(lines, ours.encode_batch(lines), expected, strict=True):
        assert found == wanted, line


def test_every_text_comes_back(text_encoder):
    for text in ODD:
        assert text_encoder.decode(text_encoder.encode(text)) == text


def test_no_text_gives_a_special_token(text_encoder):
    assert not set(text_encoder.encode("<mask><s></s><pad><unk> <mask>")) & text_encoder.special_ids
    assert text_encoder.del_id == text_encoder.eos_id
    assert len(text_encoder.special_ids) == 5


def test_words_carry_the_space_before_them(text_encoder):
    words = ["The", "quick", "", "fox's", "jump"]
    ids, word_of = text_encoder.encode_words(words)
    assert ids == text_encoder.encode("The quick fox's jump")
    assert sorted(set(word_of)) == [0, 1, 3, 4]
    starts = text_encoder.starts_word(np.array([ids]))[0]
    assert [word_of[i] for i in np.flatnonzero(starts)] == [0, 1, 3, 4]


def test_it_comes_back_from_disk_and_from_pickle(text_encoder, tmp_path):
    text_encoder.save(tmp_path)
    for again in (TextEncoder.load(tmp_path), pickle.loads(pickle.dumps(text_encoder))):
        assert again.fingerprint == text_encoder.fingerprint
        assert again.encode_batch(ODD) == text_encoder.encode_batch(ODD)


def test_missing_special_tokens_follow_the_vocabulary(byte_level_files, tmp_path):
    vocab = json.loads((byte_level_files / "vocab.json").read_text())
    tokens = sorted(vocab, key=vocab.__getitem__)
    tokens.remove("<mask>")
    (tmp_path / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    text_encoder = ByteLevelBPETextEncoder(tmp_path / "vocab.json", byte_level_files / "merges.txt")
    assert text_encoder.msk_id == len(tokens) == text_encoder.vocab_size - 1


@pytest.mark.parametrize(
    ("vocab", "merges", "problem"),
    [
        ("{", None, "not JSON, or it is damaged"),
        ("[1]", None, "ids from 0 without gaps"),
        ('{"a": 0, "b": 2}', None, "ids from 0 without gaps"),
        ('{"a": 0, "b": 1.0}', None, "ids from 0 without gaps"),
        (None, "#version: 0.2\nĠ t x\n", "merge 1 is 'Ġ t x'"),
        (None, "#version: 0.2\nĠ ¡¡\n", "merge 1 is 'Ġ ¡¡'.*belong together"),
    ],
)
def test_damaged_files(byte_level_files, tmp_path, vocab, merges, problem):
    (tmp_path / "vocab.json").write_text(vocab or (byte_level_files / "vocab.json").read_text())
    (tmp_path / "merges.txt").write_text(merges or (byte_level_files / "merges.txt").read_text())
    with pytest.raises(ValueError, match=problem):
        ByteLevelBPETextEncoder(tmp_path / "vocab.json", tmp_path / "merges.txt")
    with pytest.raises(FileNotFoundError, match="merges_file: no file"):
        ByteLevelBPETextEncoder(byte_level_files / "vocab.json", tmp_path / "none.txt")


def test_lone_surrogates_and_other_types(text_encoder):
    with pytest.raises(ValueError, match="lone surrogate"):
        text_encoder.encode("a\ud800")
    with pytest.raises(TypeError, match="expected a string, got 3"):
        text_encoder.encode_words(["a", 3])
