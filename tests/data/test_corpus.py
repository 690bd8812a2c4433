"""Text files to a corpus on disk."""

import gzip
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from number_text import NumberEncoder, number_documents, random_sizes, write_documents

from bert_keras.data import Corpus, corpus_build
from bert_keras.text import SentencePieceTextEncoder


def content(corpus):
    """The corpus as lists of lists of lists."""
    return [[s.tolist() for s in corpus.document(d)] for d in range(corpus.num_documents)]


def ids(documents):
    return [[[6 + n for n in s] for s in document] for document in documents]


@pytest.fixture
def prepare(tmp_path, numbers):
    def prepare(source, encoder=numbers, **options):
        return Corpus.prepare(encoder, source, cache_dir=tmp_path / "cache", **options)

    return prepare


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


@pytest.mark.parametrize("seed", range(5))
def test_random_corpora(tmp_path, prepare, monkeypatch, seed):
    """Whatever the size of the blocks that are read, the documents come out as they went in."""
    documents = number_documents(random_sizes(seed, num_documents=17))
    path = write_documents(tmp_path / "text", documents)
    monkeypatch.setattr(corpus_build, "_READ_BYTES", (7, 64, 999, 4096, 1 << 21)[seed])
    corpus = prepare(path)
    assert content(corpus) == ids(documents)
    assert corpus.num_sentences == sum(map(len, documents)) and corpus.num_documents == 17
    assert corpus.num_tokens == sum(len(s) for d in documents for s in d)
    assert (corpus.tokens.dtype, corpus.sentence_offsets.dtype) == (np.uint16, np.int64)
    assert not corpus.tokens.flags.writeable


def test_all_kinds_of_lines(tmp_path, prepare):
    data = b"\xef\xbb\xbf\r\n \t \r\n1 2\r\n3\r\n\r\n\r\n  \n4 5 6\n\n\n7\n \x0c \n\n8"
    assert content(prepare(write(tmp_path / "a", data))) == ids([[[1, 2], [3]], [[4, 5, 6]], [[7]], [[8]]])


def test_many_files(tmp_path, prepare):
    folder = tmp_path / "folder"
    write(folder / "b.txt", "1 2\n3")
    write(folder / "a" / "z.gz", gzip.compress(b"4\n\n5"))
    write(folder / ".hidden", "99")
    assert content(prepare(folder)) == ids([[[4]], [[5]], [[1, 2], [3]]])
    assert content(prepare([folder / "b.txt", str(folder / "a")])) == ids([[[1, 2], [3]], [[4]], [[5]]])


class SilentEncoder(NumberEncoder):
    """Comes to no ids for numbers above 100."""

    def _encode_chunk(self, texts):
        return [[i for i in ids if i <= 106] for ids in super()._encode_chunk(texts)]


def test_sentences_without_ids_are_dropped(tmp_path, prepare):
    text = "200\n\n1\n300 400\n2\n500\n\n600\n700\n\n\n3\n\n800"
    assert content(prepare(write(tmp_path / "a", text), SilentEncoder())) == ids([[[1], [2]], [[3]]])


@pytest.mark.parametrize("text", [b"", b"\n \n\r\n", b"\xef\xbb\xbf", b"200 300\n\n400"])
def test_text_without_tokens(tmp_path, prepare, text):
    with pytest.raises(ValueError, match="no tokens at all.*empty.txt"):
        prepare(write(tmp_path / "empty.txt", text), SilentEncoder())
    assert list((tmp_path / "cache").iterdir()) == []


def test_bad_files(tmp_path, prepare):
    with pytest.raises(FileNotFoundError, match="missing.txt"):
        prepare(tmp_path / "missing.txt")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match="no files"):
        prepare(tmp_path / "nothing")
    good = write(tmp_path / "good.txt", "1 2\n" * 1000)
    packed = gzip.compress(np.random.default_rng(0).integers(48, 58, 9999, np.uint8).tobytes())
    bad = {"latin.txt": "1\né".encode("latin-1"), "binary": b"1\n\0\0\0", "cut.gz": packed[:-99]}
    for name, data in bad.items():
        with pytest.raises(ValueError, match=name):
            prepare([good, write(tmp_path / name, data)])
    assert list((tmp_path / "cache").iterdir()) == []


def test_one_document_per_line(tmp_path, prepare):
    path = write(tmp_path / "a", "1 2\n\n3 4 5 6\r\n7")
    in_twos = lambda line: [" ".join(line.split()[i : i + 2]) for i in range(0, len(line.split()), 2)]  # noqa: E731
    split = prepare(path, one_document_per_line=True, sentence_splitter=in_twos)
    assert content(split) == ids([[[1, 2]], [[3, 4], [5, 6]], [[7]]])
    assert content(prepare(path, one_document_per_line=True)) == ids([[[1, 2]], [[3, 4, 5, 6]], [[7]]])
    in_ones = lambda line: line.split()  # noqa: E731
    other = prepare(path, one_document_per_line=True, sentence_splitter=in_ones)
    assert content(other) == ids([[[1], [2]], [[3], [4], [5], [6]], [[7]]])
    assert len({c.directory for c in (split, other)}) == 2
    with pytest.raises(ValueError, match="one_document_per_line=True"):
        prepare(path, sentence_splitter=in_ones)


@pytest.mark.parametrize("options", [{}, {"one_document_per_line": True}])
def test_long_lines(tmp_path, prepare, options):
    """A sentence of a megabyte is tokenised in pieces and stays one sentence."""
    sizes = [[3], [200_000], [1, 2]] if options else [[3, 200_000, 5], [100_000, 1]]
    documents = number_documents(sizes)
    if options:
        documents = [[sum(d, [])] for d in documents]
        path = write(tmp_path / "a", "\n".join(" ".join(map(str, d[0])) for d in documents))
    else:
        path = write_documents(tmp_path / "a", documents)
    assert path.stat().st_size > 1_200_000
    found = content(prepare(path, NumberEncoder(400_000), **options))
    assert found == ids(documents)


def test_long_lines_of_real_text(tmp_path, prepare, english_encoder, english_file):
    text = english_file.read_text(encoding="utf-8")
    line = " ".join(text.split())
    chinese = "学而时习之不亦说乎" * 40_000
    corpus = prepare(write(tmp_path / "a", f"{line}\n{chinese}\n"), english_encoder)
    assert corpus.num_sentences == 2
    assert corpus.sentence(0).tolist() == english_encoder.encode(line)
    assert corpus.sentence(1).tolist() == english_encoder.encode(chinese)


def test_equal_to_encoding_line_by_line(english, english_encoder, english_file):
    documents = english_file.read_text(encoding="utf-8").split("\n\n")
    expected = [[s for s in english_encoder.encode_batch(d.split("\n")) if s] for d in documents]
    assert content(english) == [d for d in expected if d]


def test_wide_vocabulary(tmp_path, prepare):
    corpus = prepare(write(tmp_path / "a", "65529\n65530\n"), NumberEncoder(65_537))
    assert corpus.tokens.dtype == np.int32 and corpus.tokens.tolist() == [65_535, 65_536]
    assert prepare(write(tmp_path / "b", "65529\n"), NumberEncoder(65_536)).tokens.tolist() == [65_535]


def test_made_once(tmp_path, prepare, monkeypatch):
    path = write(tmp_path / "a", "1 2\n3\n\n4")
    first = prepare(path)
    shutil.move(path, tmp_path / "renamed")
    monkeypatch.setattr(NumberEncoder, "_encode_chunk", None)
    assert prepare(tmp_path / "renamed").directory == first.directory
    monkeypatch.undo()
    others = [
        prepare(write(tmp_path / "a", "1 2\n3\n\n5")),
        prepare(tmp_path / "renamed", NumberEncoder(77)),
        prepare(tmp_path / "renamed", one_document_per_line=True),
    ]
    assert len({c.directory for c in (first, *others)}) == 4


def test_default_cache(tmp_path, numbers, monkeypatch):
    path = write(tmp_path / "a", "1")
    monkeypatch.delenv("BERT_KERAS_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    expected = [tmp_path / "home" / ".cache" / "bert_keras" / "corpora"]
    assert Corpus.prepare(numbers, path).directory.parent == expected[0]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert Corpus.prepare(numbers, path).directory.parent == tmp_path / "xdg" / "bert_keras" / "corpora"
    monkeypatch.setenv("BERT_KERAS_CACHE", str(tmp_path / "own"))
    assert Corpus.prepare(numbers, path).directory.parent == tmp_path / "own"


def test_open_and_pickle(tmp_path, prepare, monkeypatch):
    corpus = prepare(write(tmp_path / "a", "1 2\n3\n\n4"))
    for again in (Corpus.open(corpus.directory), pickle.loads(pickle.dumps(corpus))):
        assert content(again) == content(corpus) and again.fingerprint == corpus.fingerprint
    monkeypatch.chdir(corpus.directory.parent)
    assert Corpus.open(corpus.directory.name).directory == corpus.directory
    assert "2 documents, 3 sentences, 4 tokens" in repr(corpus)
    for number in (-1, 3):
        with pytest.raises(IndexError, match="from 0 to 2"):
            corpus.sentence(number)
    with pytest.raises(IndexError, match="from 0 to 1"):
        corpus.document(2)
    with pytest.raises(FileNotFoundError, match="no prepared corpus"):
        Corpus.open(tmp_path)


def _cut(path):
    os.truncate(path, path.stat().st_size - 1)


def _format_2(path):
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 2'))


DAMAGES = {
    "tokens.npy": _cut,
    "sentence_offsets.npy": _cut,
    "document_offsets.npy": lambda path: path.unlink(),
    "meta.json": _cut,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_corpus(tmp_path, prepare, name):
    path = write(tmp_path / "a", "1 2\n3\n\n4")
    corpus = prepare(path)
    expected = content(corpus)
    DAMAGES[name](corpus.directory / name)
    with pytest.raises(ValueError, match=f"damaged: {name}.*Corpus.prepare"):
        Corpus.open(corpus.directory)
    again = prepare(path)
    assert again.directory == corpus.directory and content(again) == expected
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [corpus.directory.name]


def test_damage_that_keeps_the_size(tmp_path, prepare):
    corpus = prepare(write(tmp_path / "a", "1 2\n3\n\n4"))
    offsets = corpus.directory / "sentence_offsets.npy"
    data = bytearray(offsets.read_bytes())
    data[-8] += 1
    offsets.write_bytes(data)
    with pytest.raises(ValueError, match="damaged: sentence_offsets"):
        Corpus.open(corpus.directory)
    meta = corpus.directory / "meta.json"
    for text in ("[]", "{}", json.dumps({"arrays": {}, "format_version": 1})):
        meta.write_text(text)
        with pytest.raises(ValueError, match="damaged"):
            Corpus.open(corpus.directory)


def test_other_format(tmp_path, prepare):
    corpus = prepare(write(tmp_path / "a", "1 2\n3\n\n4"))
    _format_2(corpus.directory / "meta.json")
    with pytest.raises(ValueError, match="format 2, expected 1"):
        Corpus.open(corpus.directory)
    assert content(prepare(tmp_path / "a")) == ids([[[1, 2], [3]], [[4]]])


class FailingEncoder(NumberEncoder):
    def _encode_chunk(self, texts):
        if any("999" in text for text in texts):
            raise KeyboardInterrupt
        return super()._encode_chunk(texts)


def test_interrupted_preparation_leaves_nothing(tmp_path, prepare, monkeypatch):
    monkeypatch.setattr(corpus_build, "_READ_BYTES", 64)
    path = write(tmp_path / "a", "1 2\n" * 500 + "999\n" + "3\n" * 500)
    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        prepare(path, FailingEncoder())
    assert list((tmp_path / "cache").iterdir()) == [] and threading.active_count() == threads


KILLED = """
import sys, os
sys.path.insert(0, sys.argv[1])
from number_text import NumberEncoder
from bert_keras.data import Corpus, corpus_build
corpus_build._READ_BYTES = 64
class Slow(NumberEncoder):
    count = 0
    def _encode_chunk(self, texts):
        Slow.count += 1
        if Slow.count == 20:
            os._exit(9)
        return super()._encode_chunk(texts)
Corpus.prepare(Slow(), sys.argv[2], cache_dir=sys.argv[3])
"""


def test_killed_preparation(tmp_path, prepare):
    path = write(tmp_path / "a", "1 2\n" * 900)
    here = os.path.dirname(__file__)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, here, str(path), str(tmp_path / "cache")], check=False
    )
    assert done.returncode == 9
    left = list((tmp_path / "cache").iterdir())
    assert len(left) == 1 and left[0].name.startswith(".")
    corpus = prepare(path)
    assert corpus.num_sentences == 900
    assert left[0].exists()  # It could be at work still.
    long_ago = time.time() - 90_000
    for entry in left[0].iterdir():
        os.utime(entry, (long_ago, long_ago))
    prepare(write(tmp_path / "b", "1"))
    assert not left[0].exists() and corpus.directory.exists()


def test_two_at_once(tmp_path, prepare):
    path = write_documents(tmp_path / "a", number_documents(random_sizes(3, 200)))
    found, errors = [], []

    def work():
        try:
            found.append(content(prepare(path)))
        except (OSError, ValueError) as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and len(found) == 6 and all(c == found[0] for c in found)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_whole_corpus_is_not_replaced(tmp_path, prepare):
    corpus = prepare(write(tmp_path / "a", "1 2"))
    late = tmp_path / "cache" / ".late"
    late.mkdir()
    corpus_build.publish(late, corpus.directory)
    assert content(Corpus.open(corpus.directory)) == ids([[[1, 2]]])


def test_progress_only_if_asked(tmp_path, prepare, capsys, monkeypatch):
    monkeypatch.setattr(corpus_build, "_REPORT_SECONDS", 0.0)
    prepare(write(tmp_path / "a", "1 2"))
    assert capsys.readouterr() == ("", "")
    prepare(write(tmp_path / "b", "1 2 3"), verbose=True)
    assert "3 tokens" in capsys.readouterr().err


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="measured as Linux does")
def test_memory_is_bounded(tmp_path):
    """30 MB of text, among it lines of megabytes, in far less memory than a multiple of it."""
    encoder_file = tmp_path / "model"
    lines = ["the quick brown fox jumps over the lazy dog", "pack my box with five dozen liquor jugs"]
    SentencePieceTextEncoder.train(lines * 9, vocab_size=60, model_type="bpe", model_file=encoder_file)
    text = ("\n".join(lines) + "\n") * 8 + "\n"
    long_line = " ".join(lines) * 30_000
    write(tmp_path / "small", text * 9)
    write(tmp_path / "large", text * 30_000 + long_line + "\n" + "中" * 900_000 + "\n" + text * 9)
    peaks = {}
    for name in ("small", "large"):
        code = (
            "import sys\nfrom pathlib import Path\nfrom bert_keras.data import Corpus\n"
            "from bert_keras.text import SentencePieceTextEncoder\n"
            "Corpus.prepare(SentencePieceTextEncoder(sys.argv[1]), sys.argv[2], cache_dir=sys.argv[3])\n"
            "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
        )
        arguments = [str(encoder_file), str(tmp_path / name), str(tmp_path / "cache")]
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True
        )
        peaks[name] = int(done.stdout) / 1024
    assert peaks["large"] - peaks["small"] < 200, peaks
