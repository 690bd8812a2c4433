"""Batches prepared in the background, a few ahead of the one that is asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

THREAD_NAME = "bert_keras_feed"


class Prefetcher:
    """Runs a function of whole numbers ahead of those who ask for its results.

    Whoever asks for number i gets `prepare(i)`, from however many threads; meanwhile the next numbers are
    prepared. An exception in `prepare` is raised where its number is asked for. Asking for another number
    than the next begins anew from there. Threads, not processes: for batches that NumPy makes they are as
    fast or faster, as nothing has to be copied between processes.

    Args:
        prepare: what to run.
        workers: number of threads, at least 1.
        end: the number after the last that will be asked for, or None.

    Attributes:
        ahead: how many results at most wait to be asked for: two for each worker.
    """

    def __init__(self, prepare: Callable[[int], Any], workers: int, end: int | None = None) -> None:
        self.ahead = 2 * workers
        self._prepare, self._end = prepare, end
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=THREAD_NAME)
        self._waiting: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()

    def get(self, index: int) -> Any:
        """Return `prepare(index)`.

        Raises:
            Exception: what `prepare` raised.
        """
        with self._lock:
            if index not in self._waiting:
                self._cancel()
            end = index + self.ahead + 1
            end = end if self._end is None else max(index + 1, min(end, self._end))
            for number in range(index, end):
                if number not in self._waiting:
                    self._waiting[number] = self._pool.submit(self._prepare, number)
            future = self._waiting.pop(index)
        return future.result()

    def close(self) -> None:
        """Stop: wait for what is being prepared, forget the rest, end the threads."""
        with self._lock:
            self._cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _cancel(self) -> None:
        for future in self._waiting.values():
            future.cancel()
        self._waiting.clear()
