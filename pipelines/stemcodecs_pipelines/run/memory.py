"""Keep the memory of freed blocks from piling up in every thread and between small objects.

What the C library is told holds for the whole process and cannot be taken back. So only processes that are ours are
told: the command's, and workers that we start. A call of the library from a user's own process leaves its allocator
alone; whoever wants it there calls :func:`share_freed_blocks` first.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["keep_freed_blocks", "share_freed_blocks"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_SETTINGS = {
    # By default glibc keeps freed arrays for the thread that freed them, and Zarr encodes in threads of its own.
    _M_ARENA_MAX: 1,
    # Left alone, it serves blocks of up to 32 MB from the heap after the first was freed, where small objects that
    # live longer pin the gaps that they leave.
    _M_MMAP_THRESHOLD: 4 << 20,
    # The default, 128 kB, returns and fetches the top of the heap for every temporary array: two fifths more time.
    _M_TRIM_THRESHOLD: 8 << 20,
}
_KEEPING = {_M_MMAP_THRESHOLD: 32 << 20, _M_TRIM_THRESHOLD: 256 << 20}


_shared = False


def share_freed_blocks() -> bool:
    """Make the threads of this process take memory from one pool, and large blocks from the system (glibc only).

    On chunks of 8 MB, two workers would otherwise hold 50 MB more.

    Returns
    -------
    bool
        Whether this C library has the settings.
    """
    global _shared
    _shared = _shared or _tell(_SETTINGS)
    return _shared


@contextmanager
def keep_freed_blocks() -> Iterator[None]:
    """Keep freed blocks for the next ones until the end of the context, where :func:`share_freed_blocks` was called.

    For work that asks for the same blocks again and again: clearing fresh ones is a quarter of the time of a PCA.
    """
    if not _shared:
        yield
        return
    _tell(_KEEPING)
    try:
        yield
    finally:
        if _tell({name: _SETTINGS[name] for name in _KEEPING}):
            ctypes.CDLL(None).malloc_trim(0)


def _tell(settings: dict[int, int]) -> bool:
    """Give glibc some settings; False for other libraries."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        library = ctypes.CDLL(None)
        answers = [library.mallopt(name, value) for name, value in settings.items()]  # all of them, also after a 0
        return all(answers)
    except AttributeError:  # musl
        return False
