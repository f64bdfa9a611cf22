"""A Zstandard frame of known content size, checked before it is decompressed."""

from __future__ import annotations

from typing import Any

import numcodecs
import numpy as np

__all__ = ["check_content", "decompress"]

Array = np.ndarray[Any, Any]


def check_content(frame: memoryview, size: int) -> None:
    """Refuse a frame that does not state ``size`` as its content: a shorter one would leave the rest unwritten.

    Raises
    ------
    ValueError
        It states another size, or none.
    """
    n = {0: 1, 1: 2, 2: 4, 3: 8}[frame[4] >> 6] if len(frame) > 4 else 0
    # Single-segment frames, which ours are, have the size right behind the descriptor; else a window byte comes first.
    start = 5 if n and frame[4] & 0x20 else 6
    if n == 0 or frame[4] & 3 or (n == 1 and start == 6):
        raise ValueError("no content size")
    stated = int.from_bytes(frame[start : start + n], "little") + (256 if n == 2 else 0)
    if stated != size:
        raise ValueError(f"{stated} bytes instead of {size}")


def decompress(frame: memoryview, size: int) -> Array:
    """Bytes of a frame that states ``size`` as its content."""
    check_content(frame, size)
    out = np.empty(size, np.uint8)
    numcodecs.Zstd().decode(frame, out=out)
    return out
