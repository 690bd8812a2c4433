"""Worker processes for OpenAITextEncoder: spaCy holds Python's lock, so one process uses one core."""

import json
import os
import queue
import subprocess
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

import numpy as np

_HEADER_BYTES = 8


def write_message(stream: IO[bytes], content: bytes) -> None:
    """Writes the length, then the content."""
    stream.write(len(content).to_bytes(_HEADER_BYTES, "little"))
    stream.write(content)
    stream.flush()


def read_message(stream: IO[bytes]) -> bytes | None:
    """Reads what `write_message` wrote; None at the end of the stream."""
    header = stream.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES:
        return None
    size = int.from_bytes(header, "little")
    content = stream.read(size)
    return content if len(content) == size else None


class OpenAIPool:
    """Processes that tokenise, each `python -m bert_keras.text._openai_worker`, fed through pipes.

    They are new Python processes, neither forks (unsafe beside the threads of TensorFlow and JAX) nor
    children of `multiprocessing` (which import the user's main script again). They end when the pool is
    closed or collected, and by themselves when this process ends, however it ends.

    Args:
        setup: the arguments of `OpenAITokenizer`, as JSON values.
        num_workers: how many processes.

    Raises:
        OSError: a process cannot be started.
    """

    def __init__(self, setup: Mapping[str, Any], num_workers: int) -> None:
        self.num_workers = num_workers
        self._setup = json.dumps(dict(setup)).encode()
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        workers: list[subprocess.Popen[bytes]] = []
        self.close: Callable[[], object] = weakref.finalize(self, _end, workers, os.getpid())
        self._owner = os.getpid()
        for _ in range(num_workers):
            workers.append(_start_worker())
            self._idle.put(workers[-1])
        self._new = set(map(id, workers))

    @property
    def is_usable(self) -> bool:
        """False once closed, and in a fork of the owner, which must leave the owner's pipes alone."""
        return self._owner == os.getpid() and bool(getattr(self.close, "alive", False))

    def encode(self, chunks: Sequence[Sequence[str]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Ids and lengths of each chunk of texts. On any error, an interrupt included, the pool closes.

        Raises:
            RuntimeError: a process failed or was ended from outside.
        """
        executor = ThreadPoolExecutor(self.num_workers)
        try:
            return list(executor.map(self._encode_chunk, chunks))
        except BaseException:
            self.close()
            raise
        finally:
            executor.shutdown(cancel_futures=True)

    def _encode_chunk(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        worker = self._idle.get()
        try:
            if id(worker) in self._new:
                self._new.discard(id(worker))
                _send(worker, self._setup)
            _send(worker, json.dumps(list(texts)).encode())
            return _receive(worker, len(texts))
        finally:
            self._idle.put(worker)


def _start_worker() -> subprocess.Popen[bytes]:
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "bert_keras.text._openai_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
    )


def _send(worker: subprocess.Popen[bytes], content: bytes) -> None:
    if worker.stdin is None:
        raise RuntimeError("the tokenizer process has no input pipe.")
    try:
        write_message(worker.stdin, content)
    except (OSError, ValueError) as error:
        raise RuntimeError(_ended(worker)) from error


def _receive(worker: subprocess.Popen[bytes], num_texts: int) -> tuple[np.ndarray, np.ndarray]:
    reply = read_message(worker.stdout) if worker.stdout is not None else None
    if reply is None:
        raise RuntimeError(_ended(worker))
    if reply[:1] != b"+":
        raise RuntimeError(f"a tokenizer process failed: {reply[1:].decode()}")
    lengths = np.frombuffer(reply, np.int64, num_texts, offset=1)
    return np.frombuffer(reply, np.int32, offset=1 + lengths.nbytes), lengths


def _ended(worker: subprocess.Popen[bytes]) -> str:
    return (
        f"a tokenizer process ended before its work was done (exit code {worker.poll()}). Its messages, if "
        "any, are on standard error; num_workers=1 tokenises without further processes."
    )


def _end(workers: list[subprocess.Popen[bytes]], owner: int) -> None:
    if os.getpid() != owner:  # A fork of the owner: these are not its children.
        return
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.wait()
        for pipe in (worker.stdin, worker.stdout):
            if pipe is not None:
                _close(pipe)


def _close(pipe: IO[bytes]) -> None:
    try:
        pipe.close()
    except OSError:  # What was still to be flushed has no reader any more.
        return
