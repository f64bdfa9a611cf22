"""Sources that tasks read: opened once in each process, closed when their run has ended.

A task carries the pickled scan. What it opens stays open for the tasks after it, under the digest of those bytes: they
hold the identity of every file, so that a source that was replaced under its name is another source.
"""

from __future__ import annotations

import hashlib
import pickle
import threading
from collections import OrderedDict

from stemcodecs.readers.scan import Scan

__all__ = ["close_source", "source_key", "source_of"]

_KEPT = 4
"""Sources open at once in a process; a run reads one, its fit the same one."""
_open: OrderedDict[str, Scan] = OrderedDict()
_lock = threading.Lock()


def source_key(pickled: bytes) -> str:
    """Name of a source in this module: it differs when any of its files does."""
    return hashlib.sha256(pickled).hexdigest()


def source_of(pickled: bytes) -> Scan:
    """The scan that a task carries; its file is opened at the first read in this process.

    Raises
    ------
    SourceError
        When it is read: the source is not the one that was pickled.
    """
    key = source_key(pickled)
    with _lock:
        scan = _open.pop(key, None) or pickle.loads(pickled)
        _open[key] = scan
        # A task may still read from the oldest: it opens its file again then.
        released = [_open.popitem(last=False)[1] for _ in range(len(_open) - _KEPT)]
    for old in released:
        old.release()
    return scan


def close_source(key: str) -> None:
    """Close a source in this process; `Engine.tell` calls it where the tasks of a run were."""
    with _lock:
        scan = _open.pop(key, None)
    if scan is not None:
        scan.release()
