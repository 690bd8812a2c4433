"""Damaged JSON and vocabularies beside weights: a clear error or a legal change, never anything else."""

import json

import keras
import numpy as np
import pytest

from bert_keras import (
    BERTTextEncoder,
    create_transformer,
    load_huggingface,
    load_text_encoder,
    save_huggingface,
)

ROUNDS = 400


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    directory = tmp_path_factory.mktemp("exported")
    text_encoder = BERTTextEncoder.train(["a bird in the hand is worth two in the bush"] * 9, vocab_size=43)
    encoder = create_transformer(43, 6, 17, 1, 3, 10, seed=1)
    save_huggingface(encoder, directory, text_encoder=text_encoder, verbose=0)
    (directory / "text_encoder.json").unlink()
    return directory


def damaged(content, rng):
    """One to three bytes flipped, cut out, doubled or replaced, or the end cut off."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(len(content)))
        kind = rng.integers(5)
        if kind == 0:
            content[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del content[place : place + int(rng.integers(1, 20))]
        elif kind == 2:
            content[place:place] = content[place : place + int(rng.integers(1, 20))]
        elif kind == 3:
            content[place : place + 1] = rng.choice(
                [b"9", b"-", b"e9", b"null", b'"', b"{", b"[", b"1e999", b"NaN"]
            )
        else:
            del content[place:]
        content = content or bytearray(b" ")
    return bytes(content)


def test_configurations(exported, tmp_path):
    rng = np.random.default_rng(11)
    original = (exported / "config.json").read_bytes()
    (tmp_path / "model.safetensors").write_bytes((exported / "model.safetensors").read_bytes())
    refused = 0
    for _ in range(ROUNDS):
        (tmp_path / "config.json").write_bytes(damaged(original, rng))
        try:
            encoder = load_huggingface(tmp_path, verbose=0)
        except ValueError as error:
            assert str(tmp_path) in str(error)
            refused += 1
        else:
            ids = np.ones((1, 3), "int32")
            names = ("token_ids", "segment_ids", "position_ids", "sequence_ids")
            hidden = keras.ops.convert_to_numpy(encoder(dict.fromkeys(names, ids)))
            assert np.isfinite(hidden).all()
    assert ROUNDS // 4 < refused < ROUNDS


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "vocab.txt"])
def test_tokenizer_files(exported, tmp_path, name):
    rng = np.random.default_rng(12)
    for path in exported.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    original = (exported / name).read_bytes()
    refused = 0
    for _ in range(ROUNDS):
        (tmp_path / name).write_bytes(damaged(original, rng))
        try:
            text_encoder = load_text_encoder(tmp_path)
        except (ValueError, FileNotFoundError):
            refused += 1
        else:
            assert max(text_encoder.encode("a bird in the bush"), default=0) < text_encoder.vocab_size
    assert refused > ROUNDS // 8
    assert json.loads((exported / "config.json").read_text())["vocab_size"] == 43
