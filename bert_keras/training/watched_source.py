"""A source of batches with someone who looks on."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from bert_keras.data import SentenceBatch
from bert_keras.training import budget

_KEPT = 32


class WatchedSource:
    """Batches of a source, noting how long each took to make and keeping the last 32.

    Batches that are made in other processes stay unnoticed.

    Args:
        source: anything that can be indexed.

    Attributes:
        is_in_line: whether the training waits while a batch is made, as it is made in the same thread.
    """

    def __init__(self, source: Any) -> None:
        self.source = source
        self._lock: Any = threading.Lock()
        self._kept: OrderedDict[int, SentenceBatch] = OrderedDict()
        self._uncounted: OrderedDict[int, SentenceBatch] = OrderedDict()
        self._highest, self.is_in_line = -1, False
        self._seconds, self._made = 0.0, 0

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "source":
            raise AttributeError(name)
        return getattr(self.source, name)

    def __getitem__(self, index: int) -> SentenceBatch:
        start = budget.now()
        batch = self.source[index]
        seconds = budget.now() - start
        with self._lock:
            self.is_in_line = threading.current_thread() is threading.main_thread()
            self._seconds, self._made = self._seconds + seconds, self._made + 1
            self._kept[index] = batch
            if index > self._highest:
                self._highest = index
                self._uncounted[index] = batch
            for batches in (self._kept, self._uncounted):
                while len(batches) > _KEPT:
                    batches.popitem(last=False)
        return batch

    def restart(self) -> None:
        """Begin to time anew."""
        self._seconds, self._made = 0.0, 0

    def making(self) -> tuple[float, int]:
        """Return the seconds that batches took, and their number."""
        return self._seconds, self._made

    def uncounted(self) -> list[SentenceBatch]:
        """Return what came since the last call for the first time."""
        with self._lock:
            batches = list(self._uncounted.values())
            self._uncounted.clear()
        return batches

    def kept(self, index: int) -> SentenceBatch | None:
        """Return a batch, if it is still there."""
        return self._kept.get(index)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())


class SizedWatchedSource(WatchedSource):
    """The same, of a source that has a length."""

    def __len__(self) -> int:
        return len(self.source)

    def kept(self, index: int) -> SentenceBatch | None:
        found = super().kept(index)
        return super().kept(index % len(self)) if found is None else found


def watched(source: Any) -> WatchedSource:
    """Put someone beside a source, in the place of whoever was there before."""
    source = source.source if isinstance(source, WatchedSource) else source
    return SizedWatchedSource(source) if hasattr(source, "__len__") else WatchedSource(source)
