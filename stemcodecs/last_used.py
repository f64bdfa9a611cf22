"""Values that are costly to make, kept for the next use up to a number of bytes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["LastUsed"]

K = TypeVar("K")
V = TypeVar("V")


@dataclass
class _Entry(Generic[V]):
    value: V
    nbytes: int
    used: int


class LastUsed(Generic[K, V]):
    """A cache of the values used last: as many as fit, and the last one put in whatever its size.

    Counting entries, as :func:`functools.lru_cache` does, would bound nothing here: models take from kilobytes to
    hundreds of megabytes. It has no lock, which a fork could copy locked: every step on the dictionary is atomic, and
    of two threads that make the same value one wins.

    Parameters
    ----------
    most_bytes : int
        What the values may take together.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._entries: dict[K, _Entry[V]] = {}
        self._clock = itertools.count()

    @property
    def nbytes(self) -> int:
        """What is kept now."""
        return sum(entry.nbytes for entry in list(self._entries.values()))

    def get(self, key: K) -> V | None:
        """The value put in under this key, if it is still there."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        entry.used = next(self._clock)
        return entry.value

    def put(self, key: K, value: V, nbytes: int) -> V:
        """Keep a value, and let those go that were not used for longest; returns the one that is kept."""
        kept = self._entries.setdefault(key, _Entry(value, nbytes, 0))
        kept.used = next(self._clock)
        excess = self.nbytes - self.most_bytes
        for other, entry in sorted(self._entries.items(), key=lambda item: item[1].used):
            if excess <= 0:
                break
            if other != key:
                self._entries.pop(other, None)
                excess -= entry.nbytes
        return kept.value
