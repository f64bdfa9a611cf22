"""Sizes that general-purpose compressors reach on the same counts, with nothing but our own dependencies."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from stemcodecs.errors import UnsupportedDtypeError
from stemcodecs_pipelines.run.plan import available_cores

__all__ = ["PEERS", "blosc_size", "gzip_size", "png_frame", "png_size"]


def gzip_size(patterns: np.ndarray[Any, Any]) -> int:
    """Size as gzip streams (level 6, the default), one per pattern."""
    return _sum_over(patterns, lambda p: len(gzip.compress(p.tobytes(), 6, mtime=0)))


def png_size(patterns: np.ndarray[Any, Any]) -> int:
    """Size as grey-scale PNG images, one per pattern."""
    return _sum_over(patterns, lambda p: len(png_frame(p)))


def blosc_size(patterns: np.ndarray[Any, Any]) -> int:
    """Size of one Blosc chunk (Zstandard level 5, bitshuffle): the usual choice in Zarr."""
    from numcodecs import Blosc

    return len(Blosc("zstd", clevel=5, shuffle=Blosc.BITSHUFFLE).encode(np.ascontiguousarray(patterns)))


PEERS: dict[str, Callable[[np.ndarray[Any, Any]], int]] = {
    "gzip -6, a file per pattern": gzip_size,
    "PNG, an image per pattern": png_size,
    "Blosc zstd-5 bitshuffle": blosc_size,
}
"""Names and size functions; each takes an array of shape (patterns, det_y, det_x)."""


def _sum_over(patterns: np.ndarray[Any, Any], size: Callable[[np.ndarray[Any, Any]], int]) -> int:
    with ThreadPoolExecutor(available_cores()) as pool:
        return sum(pool.map(size, patterns))


def png_frame(pattern: np.ndarray[Any, Any]) -> bytes:
    """One pattern as a PNG file, the way libpng writes it by default.

    Each row takes the filter with the least sum of absolute differences, then zlib level 6.

    Parameters
    ----------
    pattern : ndarray of shape (det_y, det_x)
        uint8 or uint16.

    References
    ----------
    W3C, Portable Network Graphics (PNG) Specification, 2nd edition, chapters 9 and 12.8.
    """
    if pattern.dtype not in (np.uint8, np.uint16):
        raise UnsupportedDtypeError(f"PNG stores uint8 and uint16, not {pattern.dtype}")
    height, width = pattern.shape
    depth = pattern.dtype.itemsize
    rows = np.ascontiguousarray(pattern.astype(pattern.dtype.newbyteorder(">"))).view(np.uint8)
    rows = rows.reshape(height, width * depth).astype(np.int16)
    left = np.zeros_like(rows)
    left[:, depth:] = rows[:, :-depth]
    up = np.zeros_like(rows)
    up[1:] = rows[:-1]
    corner = np.zeros_like(rows)
    corner[1:, depth:] = rows[:-1, :-depth]
    filtered = np.stack(
        [rows, rows - left, rows - up, rows - ((left + up) >> 1), rows - _paeth(left, up, corner)]
    ).astype(np.uint8)
    cost = np.abs(filtered.view(np.int8).astype(np.int16)).sum(axis=2)
    best = cost.argmin(axis=0)
    lines = np.empty((height, 1 + width * depth), np.uint8)
    lines[:, 0] = best
    lines[:, 1:] = filtered[best, np.arange(height)]
    deflate = zlib.compressobj(6, zlib.DEFLATED, 15, 8, zlib.Z_FILTERED)
    data = deflate.compress(lines.tobytes()) + deflate.flush()
    header = width.to_bytes(4) + height.to_bytes(4) + bytes([8 * depth, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + _part(b"IHDR", header) + _part(b"IDAT", data) + _part(b"IEND", b"")


def _paeth(left: np.ndarray[Any, Any], up: np.ndarray[Any, Any], corner: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    estimate = left + up - corner
    a, b, c = (np.abs(estimate - value) for value in (left, up, corner))
    return np.where((a <= b) & (a <= c), left, np.where(b <= c, up, corner))


def _part(name: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4)
