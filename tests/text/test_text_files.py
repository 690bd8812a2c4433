"""Reading text files: line ends, encodings, compression, damage; and atomic writing."""

import gzip
import random
from pathlib import Path

import pytest

from bert_keras.text.files import list_files, read_line_batches, read_lines, write_atomic


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_list_files_sorts_a_directory_and_skips_hidden_names(tmp_path):
    for name in ("b/2.txt", "b/10.txt", "a.txt", ".hidden", ".git/config", "b.txt"):
        write(tmp_path / name, b"x")
    names = [str(p.relative_to(tmp_path)) for p in list_files(tmp_path)]
    assert names == ["a.txt", "b/10.txt", "b/2.txt", "b.txt"]
    assert list_files(str(tmp_path / "a.txt")) == [tmp_path / "a.txt"]
    assert list_files([tmp_path / "b.txt", str(tmp_path / "b")])[0] == tmp_path / "b.txt"
    assert len(list_files(p for p in [tmp_path / "b", tmp_path / "a.txt"])) == 3


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("missing.txt", FileNotFoundError, "missing.txt"),
        (["missing.txt"], FileNotFoundError, "missing.txt"),
        ([], ValueError, "empty"),
        (3, TypeError, "3"),
        ([3], TypeError, "3"),
    ],
)
def test_list_files_names_what_is_wrong(source, error, words):
    with pytest.raises(error, match=words):
        list_files(source)


def test_list_files_refuses_a_directory_without_files(tmp_path):
    write(tmp_path / ".hidden", b"x")
    with pytest.raises(ValueError, match="holds no files"):
        list_files(tmp_path)


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"one", ["one"]),
        (b"one\n", ["one"]),
        (b"one\n\ntwo\n", ["one", "", "two"]),
        (b"one\r\ntwo\r\n", ["one", "two"]),
        (b"one\r\ntwo\r", ["one", "two"]),
        (b"a\r\r\nb\rc\n", ["a\r", "b\rc"]),
        (b"\xef\xbb\xbfone\n\xef\xbb\xbftwo", ["one", "\ufefftwo"]),
        (b"\xef\xbb\xbf", []),
        ("a\u2028b\u0085c\x0bd\x0ce\n".encode(), ["a\u2028b\u0085c\x0bd\x0ce"]),
    ],
)
@pytest.mark.parametrize("num_bytes", [1, 3, 7, 1 << 20])
@pytest.mark.parametrize("compress", [False, True])
def test_lines(tmp_path, content, lines, num_bytes, compress):
    path = write(tmp_path / "text", gzip.compress(content) if compress else content)
    batches = list(read_line_batches(path, num_bytes))
    assert [line for batch in batches for line in batch] == lines
    assert all(batches)


def test_lines_of_random_text_equal_those_of_a_plain_split(tmp_path):
    generator = random.Random(3)
    text = "".join(generator.choice("aé中😀 \n") for _ in range(20011))
    path = write(tmp_path / "text", text.encode())
    expected = text.split("\n")
    for num_bytes in (11, 997, 100_003):
        assert list(sum(read_line_batches(path, num_bytes), [])) == (
            expected if expected[-1] else expected[:-1]
        )


def test_long_lines_are_cut_at_spaces_or_between_characters(tmp_path):
    words = " ".join(["word"] * 1000)
    path = write(tmp_path / "words", f"{words}\nshort\n".encode())
    lines = [line for batch in read_line_batches(path, 64, max_line_bytes=300) for line in batch]
    assert "".join(lines[:-1]) == words and lines[-1] == "short"
    assert max(map(len, lines)) <= 300 and all(line.endswith("word ") for line in lines[:-2])
    path = write(tmp_path / "characters", ("中" * 1000).encode())
    lines = [line for batch in read_line_batches(path, 50, max_line_bytes=100) for line in batch]
    assert "".join(lines) == "中" * 1000 and max(len(line.encode()) for line in lines) <= 100


def test_a_line_of_megabytes_is_read_whole(tmp_path):
    line = "word " * 600_000
    path = write(tmp_path / "long", f"{line}\nend".encode())
    assert list(read_lines(path)) == [line, "end"]


def test_bytes_that_are_not_utf8_are_named_with_byte_and_line(tmp_path):
    path = write(tmp_path / "latin1", b"one\ntwo\nthr\xe9e\n")
    for num_bytes in (2, 1 << 20):
        with pytest.raises(ValueError, match=r"latin1.*0xe9 at byte 11 \(line 3\)"):
            list(read_line_batches(path, num_bytes))
    path = write(tmp_path / "surrogate", b"\xef\xbb\xbfa\xed\xa0\x80")
    with pytest.raises(ValueError, match=r"byte 4 \(line 1\)"):
        list(read_line_batches(path))
    path = write(tmp_path / "cut", "aé".encode()[:-1])
    with pytest.raises(ValueError, match=r"byte 1 \(line 1\)"):
        list(read_line_batches(path))


def test_binary_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"not a text file.*NUL byte at byte 5 \(line 2\)"):
        list(read_line_batches(write(tmp_path / "binary", b"abc\nd\0\xff")))
    with pytest.raises(ValueError, match="UTF-16"):
        list(read_line_batches(write(tmp_path / "utf16", "a\nb".encode("utf-16-be"))))


def test_damaged_gzip_files_are_refused(tmp_path):
    content = gzip.compress(b"some text\n" * 10_000)
    damaged = bytearray(content)
    damaged[len(damaged) // 2] ^= 0xFF
    for name, data in [("cut", content[:-20]), ("header", content[:5]), ("flipped", bytes(damaged))]:
        with pytest.raises(ValueError, match="truncated or corrupt gzip"):
            list(read_line_batches(write(tmp_path / name, data)))


def test_missing_files_and_wrong_sizes(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        list(read_line_batches(tmp_path / "missing"))
    with pytest.raises(ValueError, match="num_bytes"):
        list(read_line_batches(write(tmp_path / "a", b"x"), 0))


def test_write_atomic_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
