"""What is downloaded is whole and as published, whatever the server and the network do."""

import contextlib
import hashlib
import http.server
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from bert_keras.checkpoints import download as module
from bert_keras.checkpoints.download import (
    OPENAI_FILES,
    OPENAI_URL,
    PublishedFile,
    cache_directory,
    download,
    git_blob_sha1,
    openai_directory,
)

CONTENT = np.random.default_rng(0).bytes(300_007)


def published(name, content=CONTENT):
    return PublishedFile(name, hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest())


class Server(http.server.ThreadingHTTPServer):
    """Serves `content`; misbehaves as `faults` say, one for each request, in order."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = {"a.bin": CONTENT}
        self.faults = []
        self.requests = []  # (name, Range)
        self.lock = threading.Lock()
        self.is_over = threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/files"

    def handle_error(self, request, client_address):
        pass  # clients that go away


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        name, asked = self.path.rpartition("/")[2], self.headers.get("Range")
        with self.server.lock:
            self.server.requests.append((name, asked))
            fault = self.server.faults.pop(0) if self.server.faults else None
        content = self.server.content.get(name)
        if content is None:
            return self.send_error(404)
        if isinstance(fault, int):
            return self.send_error(fault)
        if fault == "drop":
            return self.connection.close()
        if fault == "flip":
            content = content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and fault != "ignore range" else 0
        if start and start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            shown = start + 7 if fault == "wrong range" else start
            self.send_header("Content-Range", f"bytes {shown}-{len(content) - 1}/{len(content)}")
        if fault != "no length":
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if fault in ("cut", "stall"):
            self.wfile.write(content[start : start + 100_003])
            self.wfile.flush()
            if fault == "stall":
                self.server.is_over.wait(20)
            return None
        if fault == "slow":
            for begin in range(start, len(content), 1 << 14):
                time.sleep(0.02)
                self.wfile.write(content[begin : begin + (1 << 14)])
            return None
        self.wfile.write(content[start:])


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(module, "_BACK_OFF", 0.001)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.is_over.set()
        server.shutdown()
        thread.join()


def fetch(server, directory, names=("a.bin",), **arguments):
    files = [published(name, server.content.get(name, CONTENT)) for name in names]
    download(files, directory, base_url=server.url, **{"timeout": 5, **arguments})


def names_in(directory):
    return sorted(path.name for path in directory.iterdir() if path.name != ".lock")


def test_git_names_content_as_git_does(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    assert git_blob_sha1(tmp_path / "a") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    (tmp_path / "a").write_bytes(b"what is up, doc?")
    assert git_blob_sha1(tmp_path / "a") == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"


def test_files_are_fetched_once(server, tmp_path):
    server.content |= {"b.json": b"{}", "empty": b""}
    directory = tmp_path / "new" / "folder"
    for _ in range(2):
        fetch(server, directory, ["a.bin", "b.json", "empty"])
        assert names_in(directory) == ["a.bin", "b.json", "empty"]
        assert [(directory / name).read_bytes() for name in names_in(directory)] == [CONTENT, b"{}", b""]
    assert server.requests == [("a.bin", None), ("b.json", None), ("empty", None)]


def test_whole_files_need_neither_network_nor_permission(tmp_path):
    (tmp_path / "a.bin").write_bytes(CONTENT)
    os.chmod(tmp_path, 0o500)
    try:
        download([published("a.bin")], tmp_path, base_url="http://127.0.0.1:9/")
        assert names_in(tmp_path) == ["a.bin"] and not (tmp_path / ".lock").exists()
    finally:
        os.chmod(tmp_path, 0o700)


@pytest.mark.parametrize("damaged", [b"", CONTENT[:-1], CONTENT + b"x", CONTENT[::-1]])
def test_a_damaged_file_is_fetched_again(server, tmp_path, damaged):
    (tmp_path / "a.bin").write_bytes(damaged)
    fetch(server, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT and names_in(tmp_path) == ["a.bin"]


@pytest.mark.parametrize(
    "faults",
    [
        ["cut"],
        ["cut", "cut"],
        ["drop", "cut", "drop"],
        [500, 503, "cut", 502],
        ["cut", "ignore range"],
        ["cut", "wrong range"],
        ["cut", "wrong range", "cut", "ignore range"],
        ["no length"],
        ["slow"],
        ["cut", "slow"],
        ["flip"],
        ["flip", "cut"],
    ],
    ids=str,
)
def test_it_arrives_whole_over_a_bad_connection(server, tmp_path, faults):
    server.faults = list(faults)
    fetch(server, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert names_in(tmp_path) == ["a.bin"] and server.faults == []


def test_a_cut_connection_goes_on_where_it_was(server, tmp_path):
    server.faults = ["cut", "cut"]
    fetch(server, tmp_path)
    assert server.requests == [("a.bin", None), ("a.bin", "bytes=100003-"), ("a.bin", "bytes=200006-")]


def test_a_body_without_length_that_ends_early_is_noticed(server, tmp_path):
    whole, server.content["a.bin"] = CONTENT, CONTENT[:1234]
    server.faults = ["no length", "no length"]
    with pytest.raises(ValueError, match="twice"):
        download([published("a.bin", whole)], tmp_path, base_url=server.url)
    assert names_in(tmp_path) == []


def test_a_stalled_connection_times_out(server, tmp_path):
    server.faults = ["stall"]
    start = time.monotonic()
    fetch(server, tmp_path, timeout=0.3)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT and time.monotonic() - start < 15
    server.faults = ["stall", "stall"]
    (tmp_path / "a.bin").unlink()
    with pytest.raises(ConnectionError, match="timed out"):
        fetch(server, tmp_path, timeout=0.1, retries=1)


@pytest.mark.parametrize(
    "part, asked",
    [
        (CONTENT[:5], ["bytes=5-"]),
        (CONTENT, [f"bytes={len(CONTENT)}-"]),
        (CONTENT + b"more", [f"bytes={len(CONTENT) + 4}-", None]),
        (b"something else", ["bytes=14-", None]),
        (b"", [None]),
    ],
    ids=["begun", "whole", "too long", "another", "empty"],
)
def test_a_part_of_an_earlier_call_is_continued_if_it_fits(server, tmp_path, part, asked):
    (tmp_path / "a.bin.part").write_bytes(part)
    fetch(server, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT and names_in(tmp_path) == ["a.bin"]
    assert [header for _, header in server.requests] == asked


def test_after_the_last_attempt_the_part_is_kept(server, tmp_path):
    server.faults = ["cut", 503, "drop"]
    with pytest.raises(ConnectionError, match=r"/files/a\.bin could not be downloaded: .*Tried 3 times"):
        fetch(server, tmp_path, retries=2)
    assert names_in(tmp_path) == ["a.bin.part"]
    fetch(server, tmp_path)
    assert server.requests[-1] == ("a.bin", "bytes=100003-")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_retries_wait_longer_and_longer(server, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(module, "_BACK_OFF", 1.0)
    monkeypatch.setattr(module.time, "sleep", waits.append)
    server.faults = [503] * 9
    with pytest.raises(ConnectionError, match="the server answered 503"):
        fetch(server, tmp_path, retries=4)
    assert waits == [1, 2, 4, 8] and len(server.requests) == 5


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_refusal_fails_at_once(server, tmp_path, status):
    server.faults = [status]
    with pytest.raises(ConnectionError, match=f"a.bin could not be downloaded: the server answered {status}"):
        fetch(server, tmp_path)
    assert len(server.requests) == 1 and names_in(tmp_path) == []


def test_wrong_content_fails_after_a_second_try_from_the_start(server, tmp_path):
    expected, found = published("a.bin", b"expected").git_blob_sha1, published("a.bin").git_blob_sha1
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:77])
    (tmp_path / "a.bin").write_bytes(b"what was there")
    with pytest.raises(ValueError, match=f"^a.bin: expected .*{expected}, got {found}"):
        download([PublishedFile("a.bin", expected)], tmp_path, base_url=server.url)
    assert [header for _, header in server.requests] == ["bytes=77-", None]
    assert names_in(tmp_path) == ["a.bin"] and (tmp_path / "a.bin").read_bytes() == b"what was there"


def test_an_unreachable_server(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_BACK_OFF", 0.001)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(ConnectionError, match="refused"):
        download([published("a.bin")], tmp_path, base_url="http://127.0.0.1:9", retries=1)


@pytest.mark.parametrize(
    "call",
    [
        lambda path: PublishedFile("../a", "0" * 40),
        lambda path: PublishedFile("/a", "0" * 40),
        lambda path: PublishedFile("..", "0" * 40),
        lambda path: PublishedFile("", "0" * 40),
        lambda path: PublishedFile("a", "0" * 39),
        lambda path: PublishedFile("a", "g" * 40),
        lambda path: download([published("a")], path, base_url="file:///etc"),
        lambda path: download([published("a")], path, base_url="http://127.0.0.1", timeout=0),
        lambda path: download([published("a")], path, base_url="http://127.0.0.1", retries=-1),
    ],
)
def test_wrong_arguments(tmp_path, call):
    with pytest.raises(ValueError, match="expected"):
        call(tmp_path)
    assert names_in(tmp_path) == []


SCRIPT = """
    import sys
    from pathlib import Path
    from bert_keras.checkpoints.download import PublishedFile, download
    print("ready", flush=True)
    download([PublishedFile("a.bin", sys.argv[1])], Path(sys.argv[2]), base_url=sys.argv[3])
"""


@contextlib.contextmanager
def other_process(server, directory):
    arguments = [published("a.bin").git_blob_sha1, str(directory), server.url]
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


def test_two_processes_at_once(server, tmp_path):
    server.faults = ["slow"] * 4
    with other_process(server, tmp_path) as one, other_process(server, tmp_path) as other:
        assert one.wait(60) == 0 and other.wait(60) == 0
    assert (tmp_path / "a.bin").read_bytes() == CONTENT and names_in(tmp_path) == ["a.bin"]
    assert server.requests == [("a.bin", None)]  # the second one found it there


def test_two_threads_at_once(server, tmp_path):
    server.faults = ["slow", "cut"]
    threads = [threading.Thread(target=fetch, args=(server, tmp_path)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a.bin").read_bytes() == CONTENT and len(server.requests) == 1


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_a_killed_process_leaves_a_part_and_no_lock(server, tmp_path):
    server.faults = ["slow"]
    part = tmp_path / "a.bin.part"
    with other_process(server, tmp_path) as process:
        while not (part.exists() and part.stat().st_size):
            time.sleep(0.01)
        process.kill()
        process.wait(60)
    assert names_in(tmp_path) == ["a.bin.part"]
    size = part.stat().st_size
    fetch(server, tmp_path)
    assert server.requests[-1] == ("a.bin", f"bytes={size}-")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("is_terminal, progress", [(True, True), (True, False), (False, True)])
def test_progress_is_for_terminals(server, tmp_path, monkeypatch, capsys, is_terminal, progress):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    fetch(server, tmp_path, progress=progress)
    shown = capsys.readouterr()
    assert shown.out == ""
    if is_terminal and progress:
        assert re.search(rf"a\.bin: 100%.*{len(CONTENT) // 1000}k/{len(CONTENT) // 1000}k ", shown.err)
    else:
        assert shown.err == ""


def test_where_the_cache_is(monkeypatch, tmp_path):
    for name in ("BERT_KERAS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "bert_keras"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_directory() == tmp_path / ".cache" / "bert_keras"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "xdg" / "bert_keras"
    monkeypatch.setenv("BERT_KERAS_CACHE", "~/mine")
    assert cache_directory() == tmp_path / "mine"


def test_a_directory_of_ones_own_is_left_alone(tmp_path):
    assert openai_directory(tmp_path) == openai_directory(str(tmp_path)) == tmp_path
    assert names_in(tmp_path) == []
    with pytest.raises(FileNotFoundError, match="Expected"):
        openai_directory(tmp_path / "none")


def test_openai_files_come_into_the_cache(server, tmp_path, monkeypatch):
    server.content |= {"b.bin": b"123"}
    monkeypatch.setenv("BERT_KERAS_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "OPENAI_URL", server.url)
    monkeypatch.setattr(module, "OPENAI_FILES", (published("a.bin"), published("b.bin", b"123")))
    for _ in range(2):
        assert openai_directory() == tmp_path / "openai-gpt"
    assert names_in(tmp_path / "openai-gpt") == ["a.bin", "b.bin"] and len(server.requests) == 2


def test_without_a_network_the_error_says_how_to_do_it_by_hand(server, tmp_path, monkeypatch):
    server.content["b.bin"] = b"123"
    server.faults = [None, *["drop"] * 99]
    monkeypatch.setenv("BERT_KERAS_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "OPENAI_URL", server.url)
    names = ("a.bin", "b.bin", "c.bin")
    monkeypatch.setattr(module, "OPENAI_FILES", tuple(published(name) for name in names))
    with pytest.raises(ConnectionError) as caught:
        openai_directory()
    by_hand = f"by hand, download b.bin, c.bin from {server.url}/ into the folder '{tmp_path}/openai-gpt'."
    assert str(caught.value).endswith(by_hand)


def test_the_published_files_are_those_of_the_repository():
    names = {f"params_{number}.npy" for number in range(10)}
    names |= {"params_shapes.json", "encoder_bpe_40000.json", "vocab_40000.bpe"}
    assert {file.name for file in OPENAI_FILES} == names and len(OPENAI_FILES) == 13
    assert len({file.git_blob_sha1 for file in OPENAI_FILES}) == 13
    assert re.fullmatch(r"https://raw\.githubusercontent\.com/.*/[0-9a-f]{40}/model", OPENAI_URL)


DATA = os.environ.get("BERT_KERAS_DATA", "")


@pytest.mark.skipif(not os.path.isdir(f"{DATA}/openai-gpt"), reason="needs $BERT_KERAS_DATA")
def test_the_blob_ids_are_those_of_the_real_files():
    ids = {file.name: file.git_blob_sha1 for file in OPENAI_FILES}
    for name in ("params_shapes.json", "encoder_bpe_40000.json", "vocab_40000.bpe"):
        assert git_blob_sha1(f"{DATA}/openai-gpt/{name}") == ids[name]
