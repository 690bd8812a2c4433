"""What every text encoder promises, and what training does whatever the kind."""

import gzip
import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from samples import STRANGE, python_lines, random_texts

from bert_keras.text import (
    BERTTextEncoder,
    ByteLevelBPETextEncoder,
    OpenAITextEncoder,
    SentencePieceTextEncoder,
    TextEncoder,
)
from bert_keras.text.sampling import sample_sentences

ROLES = ("pad", "unk", "bos", "eos", "del", "msk")
TRAINED = (SentencePieceTextEncoder, BERTTextEncoder)


def test_empty_input(any_encoder):
    assert any_encoder.encode("") == [] and any_encoder.encode_batch([]) == []
    assert any_encoder.encode_batch(["", "", ""]) == [[], [], []] and any_encoder.encode_words([]) == ([], [])
    for texts in ([], ["", ""]):
        ids, lengths = any_encoder.encode_flat(texts)
        assert ids.shape == (0,) and ids.dtype == np.int32
        assert lengths.tolist() == [0] * len(texts) and lengths.dtype == np.int64
    assert any_encoder.decode([]) == ""
    assert any_encoder.starts_word(np.zeros((3, 0), np.int32)).shape == (3, 0)


def test_all_ways_of_encoding_agree(any_encoder):
    texts = tuple(STRANGE + random_texts(200, seed=1) + python_lines(500))
    lists = any_encoder.encode_batch(texts)
    assert lists == [any_encoder.encode(text) for text in texts]
    ids, lengths = any_encoder.encode_flat(texts)
    assert ids.dtype == np.int32 and lengths.dtype == np.int64
    assert ids.tolist() == sum(lists, []) and lengths.tolist() == list(map(len, lists))
    word_ids, indices = any_encoder.encode_words(texts)
    if isinstance(any_encoder, ByteLevelBPETextEncoder):  # whose words begin with the space before them
        lists = any_encoder.encode_batch(
            [
                f" {text}" if i and text.strip() else text if text.strip() else ""
                for i, text in enumerate(texts)
            ]
        )
    assert word_ids == sum(lists, []) and indices == [i for i, piece in enumerate(lists) for _ in piece]


def test_ids_and_tokens_are_one_to_one(any_encoder):
    tokens = [any_encoder.id_to_token(i) for i in range(any_encoder.vocab_size)]
    assert [any_encoder.token_to_id(token) for token in tokens] == list(range(any_encoder.vocab_size))
    for i in (-1, any_encoder.vocab_size):
        with pytest.raises(ValueError, match=rf"got {i}\b"):
            any_encoder.id_to_token(i)
        with pytest.raises(ValueError, match=rf"got {i}\b"):
            any_encoder.decode([1, i])
        with pytest.raises(ValueError, match="another text encoder"):
            any_encoder.starts_word(np.array([1, i]))
    with pytest.raises(ValueError, match="no such piece"):
        any_encoder.token_to_id("no such piece")


def test_special_ids(any_encoder):
    ids = [getattr(any_encoder, f"{role}_id") for role in ROLES]
    assert all(0 <= i < any_encoder.vocab_size for i in ids)
    assert len(set(ids)) == (5 if isinstance(any_encoder, (BERTTextEncoder, ByteLevelBPETextEncoder)) else 6)
    assert any_encoder.special_ids >= set(ids)


def test_no_text_encodes_to_a_special_id(any_encoder):
    names = [any_encoder.id_to_token(i) for i in any_encoder.special_ids]
    texts = [
        *names,
        " ".join(names),
        "".join(names),
        *(f"x{name}y" for name in names),
        *STRANGE,
        *random_texts(300),
    ]
    found = {i for ids in any_encoder.encode_batch(texts) for i in ids} & any_encoder.special_ids
    assert found <= {any_encoder.unk_id}


def test_decoding_gives_the_text_back(any_encoder):
    special = [getattr(any_encoder, f"{role}_id") for role in ROLES]
    for line in python_lines(500):
        ids = any_encoder.encode(line)
        text = any_encoder.decode([special[2], *ids, special[3], special[0]])
        if any_encoder.unk_id not in ids:
            assert any_encoder.encode(text) == ids, line
        assert any_encoder.decode(np.array(ids, np.int32)) == text
    text = "the value of the object is set, then the function returns it."
    assert any_encoder.decode(any_encoder.encode(text)).replace(" ,", ",").replace(" .", ".") == text


def test_words_begin_where_encode_words_says(any_encoder):
    words = "the methods of a class statement are called when bewildering ostriches misbehave".split()
    ids, indices = any_encoder.encode_words(words)
    assert sorted(set(indices)) == list(range(len(words))) and len(ids) > len(words)
    starts = [True, *(a != b for a, b in zip(indices, indices[1:], strict=False))]
    row = np.array([any_encoder.bos_id, *ids, any_encoder.eos_id, any_encoder.pad_id])
    expected = [True, *starts, True, True]
    assert any_encoder.starts_word(row).tolist() == expected
    assert any_encoder.starts_word(np.stack([row, row[::-1]])[None])[0, 0].tolist() == expected
    assert ids == any_encoder.encode(" ".join(words))


@pytest.mark.parametrize("bad", ["a\ud800b", "ab\udfff", "\ud83d\ude00", "é中\udc80"])
def test_lone_surrogates_are_named(any_encoder, bad):
    position = next(i for i, c in enumerate(bad) if 0xD800 <= ord(c) < 0xE000)
    words = rf"character {position} is the lone surrogate U\+{ord(bad[position]):04X}"
    with pytest.raises(ValueError, match=words):
        any_encoder.encode(bad)
    for method in (any_encoder.encode_batch, any_encoder.encode_flat, any_encoder.encode_words):
        with pytest.raises(ValueError, match=rf"\[2\]: {words}"):
            method(["fine", "日本 😀", bad])


@pytest.mark.parametrize("bad", [None, 3, b"bytes", ["list"], float("nan")])
def test_what_is_not_a_string_is_named(any_encoder, bad):
    with pytest.raises(TypeError, match="expected a string"):
        any_encoder.encode(bad)
    for method in (any_encoder.encode_batch, any_encoder.encode_flat, any_encoder.encode_words):
        with pytest.raises(TypeError, match=r"texts\[1\]: expected a string"):
            method(["fine", bad])
        with pytest.raises(TypeError, match="one string"):
            method("one string")


def test_saved_and_pickled_encoders_are_the_same(any_encoder, tmp_path):
    any_encoder.save(tmp_path / "new" / "folder")
    copies = [
        TextEncoder.load(tmp_path / "new" / "folder"),
        type(any_encoder).load(str(tmp_path / "new" / "folder")),
        pickle.loads(pickle.dumps(any_encoder)),
    ]
    texts = STRANGE + python_lines(300)
    for copy in copies:
        assert type(copy) is type(any_encoder) and copy.fingerprint == any_encoder.fingerprint
        assert copy.vocab_size == any_encoder.vocab_size and copy.special_ids == any_encoder.special_ids
        assert [getattr(copy, f"{r}_id") for r in ROLES] == [getattr(any_encoder, f"{r}_id") for r in ROLES]
        assert copy.encode_batch(texts) == any_encoder.encode_batch(texts)
    assert str(any_encoder.vocab_size) in repr(any_encoder)


def test_different_encoders_have_different_fingerprints():
    lines = python_lines(300)
    encoders = [
        BERTTextEncoder.train(lines, 400),
        BERTTextEncoder.train(lines, 401),
        BERTTextEncoder.train([line.lower() for line in lines], 400, lower_case=False),
        SentencePieceTextEncoder.train(lines, 400),
        SentencePieceTextEncoder.train(lines, 400, lower_case=True),
    ]
    assert len({encoder.fingerprint for encoder in encoders}) == len(encoders)


def test_loading_what_is_missing_damaged_or_of_another_kind(any_encoder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no saved text encoder"):
        TextEncoder.load(tmp_path)
    any_encoder.save(tmp_path)
    path = tmp_path / "text_encoder.json"
    others = {SentencePieceTextEncoder, BERTTextEncoder, OpenAITextEncoder} - {type(any_encoder)}
    for other in others:
        with pytest.raises(ValueError, match=f"{any_encoder.kind}.*expected.*{other.kind}"):
            other.load(tmp_path)
    content = path.read_bytes()
    state = json.loads(content)
    damaged = [b"", content[: len(content) // 2], b"[]", b"{}", b"\xff\x00"]
    damaged += [
        json.dumps(state | change).encode() for change in ({"state": {}}, {"kind": "X"}, {"format": 9})
    ]
    damaged += [json.dumps(state | {"state": dict.fromkeys(state["state"], 3)}).encode()]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(ValueError):
            TextEncoder.load(tmp_path)


def test_an_interrupted_save_leaves_the_old_one(any_encoder, tmp_path, monkeypatch):
    any_encoder.save(tmp_path)
    before = (tmp_path / "text_encoder.json").read_bytes()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("os.replace", "os.fsync"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(name, interrupt)
            any_encoder.save(tmp_path)
        assert (tmp_path / "text_encoder.json").read_bytes() == before
        assert len(list(tmp_path.iterdir())) == 1


# Training.


@pytest.mark.parametrize("cls", TRAINED)
def test_training_takes_files_directories_gzip_and_lines(cls, tmp_path):
    lines = python_lines(600)
    (tmp_path / "d" / "deep").mkdir(parents=True)
    text = "\ufeff" + "\r\n".join(lines[:300]) + "\r\n"
    (tmp_path / "d" / "a.txt").write_bytes(text.encode())
    (tmp_path / "d" / "deep" / "b.gz").write_bytes(gzip.compress("\n".join(lines[300:]).encode()))
    files = [tmp_path / "d" / "a.txt", tmp_path / "d" / "deep" / "b.gz"]
    expected = cls.train(lines, 500).fingerprint
    sources = [tmp_path / "d", files, list(map(str, files)), iter(files), iter(lines), tuple(lines)]
    assert {cls.train(source, 500).fingerprint for source in sources} == {expected}


@pytest.mark.parametrize("cls", TRAINED)
def test_training_on_what_is_no_text(cls, tmp_path):
    empty, binary, cut = tmp_path / "empty", tmp_path / "binary", tmp_path / "cut.gz"
    empty.write_bytes(b"\n \n\n")
    binary.write_bytes(b"\x7fELF\x00\x01")
    cut.write_bytes(gzip.compress(b"some text\n" * 1000)[:-9])
    for source, error, words in [
        (empty, ValueError, "nothing but blank lines"),
        ([], ValueError, "nothing but blank lines"),
        (iter([]), ValueError, "nothing but blank lines"),
        (binary, ValueError, "NUL"),
        (cut, ValueError, "truncated"),
        (tmp_path / "missing", FileNotFoundError, "missing"),
        ([str(empty), str(tmp_path / "missing")], FileNotFoundError, "missing"),
        (["a line", "a \udc80 surrogate"], ValueError, r"lone surrogate U\+DC80"),
        (["a line", 3], TypeError, "3"),
        (3, TypeError, "3"),
    ]:
        with pytest.raises(error, match=words):
            cls.train(source, 500)
    with pytest.raises(ValueError, match="max_sentences"):
        cls.train(["text"], 500, max_sentences=0)


REPRODUCE = """
import sys
from bert_keras.text import BERTTextEncoder, SentencePieceTextEncoder
for kind in ("unigram", "bpe", "char", "word"):
    size = 60 if kind == "char" else 600
    print(SentencePieceTextEncoder.train(sys.argv[1], size, kind, max_sentences=1500).fingerprint)
print(BERTTextEncoder.train(sys.argv[1], 900, max_sentences=1500).fingerprint)
"""


def test_training_is_the_same_in_every_process(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(python_lines(4000)), encoding="utf-8")
    outputs = [
        run(
            REPRODUCE,
            str(path),
            PYTHONHASHSEED=seed,
            RAYON_NUM_THREADS=threads,
            TOKENIZERS_PARALLELISM=parallel,
        )
        for seed, threads, parallel in [("1", "1", "false"), ("2", "3", "true")]
    ]
    assert outputs[0] == outputs[1] and len(outputs[0].split()) == 5


def run(script: str, *arguments: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        env={**os.environ, **environment},
    ).stdout


MEMORY = """
import resource, sys
from bert_keras.text import BERTTextEncoder, SentencePieceTextEncoder
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
cls = BERTTextEncoder if sys.argv[2] == "bert" else SentencePieceTextEncoder
text_encoder = cls.train(sys.argv[1], 700, max_characters=500_000)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux only")
@pytest.mark.parametrize("kind", ["bert", "sentencepiece"])
def test_training_memory_is_bounded_by_the_sample(tmp_path, kind):
    """80 MB of text, a good part of it in lines of megabytes: the text alone would pass the bound."""
    path = tmp_path / "text.txt"
    lines = python_lines(5000)
    with open(path, "w", encoding="utf-8") as file:
        for _ in range(200):
            file.write("\n".join(lines) + "\n")
            file.write(" ".join(lines) * 2 + "\n")
    assert path.stat().st_size > 80_000_000
    assert int(run(MEMORY, str(path), kind)) < 80


def test_sampling_is_even_and_decided_by_the_seed():
    lines = [f"{i:05d}" for i in range(20_000)]
    sample = sample_sentences(lines, 2000, 10**9, 0)
    assert sample == sorted(sample) and 1000 <= len(sample) <= 2000
    assert sample == sample_sentences(iter(lines), 2000, 10**9, 0) != sample_sentences(lines, 2000, 10**9, 1)
    counts = np.histogram([int(line) for line in sample], bins=10, range=(0, 20_000))[0]
    expected = len(sample) / 10
    assert (abs(counts - expected) < 5 * expected**0.5).all()
    assert sum(map(len, sample_sentences(lines, 10**9, 1000, 0))) <= 1000
    assert sample_sentences(lines, 10**9, 10**9, 0) == lines


def test_long_lines_are_cut_not_lost():
    generator = random.Random(5)
    line = " ".join("".join(generator.choices("abc", k=generator.randint(1, 9))) for _ in range(5000))
    sentences = sample_sentences([line, "x" * 2500], 10**9, 10**9, 0)
    assert max(map(len, sentences)) <= 1000
    assert " ".join(sentences[:-3]) == line and "".join(sentences[-3:]) == "x" * 2500


def test_importing_text_encoders_imports_no_framework():
    script = "import sys, bert_keras.text; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    imported = set(run(script).split())
    assert not imported & {"keras", "tensorflow", "jax", "torch", "spacy", "ftfy", "transformers", "h5py"}
    assert "tokenizers" in imported and Path(sys.executable).exists()
