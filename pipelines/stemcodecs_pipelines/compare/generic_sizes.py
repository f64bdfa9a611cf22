"""Sizes that general-purpose compressors reach on the same counts."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from stemcodecs.errors import UnsupportedDtypeError
from stemcodecs_pipelines.run.plan import available_cores

__all__ = ["GENERIC_CODERS", "blosc_size", "gzip_size", "png_size"]


def gzip_size(patterns: np.ndarray[Any, Any]) -> int:
    """Size as gzip streams (level 6, the default), one per pattern."""
    return _sum_over(patterns, lambda p: len(gzip.compress(p.tobytes(), 6, mtime=0)))


def png_size(patterns: np.ndarray[Any, Any]) -> int | None:
    """Size as grey-scale PNG images, one per pattern, as Pillow writes them; None where it is not installed.

    Raises
    ------
    UnsupportedDtypeError
        The patterns are neither uint8 nor uint16.
    """
    try:
        from PIL import Image
    except ImportError:
        return None
    if patterns.dtype not in (np.uint8, np.uint16):
        raise UnsupportedDtypeError(f"PNG stores uint8 and uint16, not {patterns.dtype}")

    def size(pattern: np.ndarray[Any, Any]) -> int:
        file = io.BytesIO()
        Image.fromarray(pattern).save(file, "PNG")
        return len(file.getvalue())

    return _sum_over(patterns, size)


def blosc_size(patterns: np.ndarray[Any, Any]) -> int:
    """Size of one Blosc chunk (Zstandard level 5, bitshuffle): the usual choice in Zarr."""
    from numcodecs import Blosc

    return len(Blosc("zstd", clevel=5, shuffle=Blosc.BITSHUFFLE).encode(np.ascontiguousarray(patterns)))


GENERIC_CODERS: dict[str, Callable[[np.ndarray[Any, Any]], int | None]] = {
    "gzip -6, a file per pattern": gzip_size,
    "PNG, an image per pattern": png_size,
    "Blosc zstd-5 bitshuffle": blosc_size,
}
"""Names and size functions of arrays of shape (patterns, det_y, det_x); one gives None where its package is missing."""


def _sum_over(patterns: np.ndarray[Any, Any], size: Callable[[np.ndarray[Any, Any]], int]) -> int:
    with ThreadPoolExecutor(available_cores()) as pool:
        return sum(pool.map(size, patterns))
