"""Keep the memory of freed blocks from piling up in every thread."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

__all__ = ["share_freed_blocks"]

_M_ARENA_MAX = -8


@cache
def share_freed_blocks() -> bool:
    """Make the threads of this process take memory from one pool, from now on (glibc only).

    By default glibc keeps freed arrays of up to 32 MB for the thread that freed them, and Zarr encodes in
    threads of its own: on chunks of 8 MB, compression then holds 100 MB more than it uses. Giving
    freed arrays back to the system instead would cost a quarter of the encoding speed.

    Returns
    -------
    bool
        Whether this C library has the setting.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1))
    except AttributeError:  # musl
        return False
