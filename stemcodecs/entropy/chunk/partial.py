"""Decode a selection of a chunk, as Zarr asks for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.entropy.chunk.decode import DecodePositions, decode_positions
from stemcodecs.entropy.chunk.header import Header, read_header
from stemcodecs.entropy.model.shared_model import SharedModel
from stemcodecs.errors import CorruptChunkError
from stemcodecs.last_used import LastUsed

__all__ = ["cached_header", "decode_selection", "positions_of", "select"]

Array = np.ndarray[Any, Any]


KEPT_BYTES = 16 << 20
"""What the headers kept may take: those of 64 chunks of 32 MB."""
_PARSED = 4
"""Bytes that a header takes in memory for each of its bytes, about: its groups are tuples."""
_headers: LastUsed[tuple[bytes, tuple[int, ...]], Header] = LastUsed(KEPT_BYTES)


def cached_header(head: bytes, declared: tuple[int, ...]) -> Header:
    """Header of a chunk of a declared shape from its bytes, kept for the next read from the same chunk."""
    key = (head, declared)
    return _headers.get(key) or _headers.put(key, read_header(head, declared), _PARSED * len(head))


def _scan_axes(shape: tuple[int, ...]) -> int:
    return max(len(shape) - 2, min(len(shape), 1))


def _is_basic(selection: tuple[Any, ...]) -> bool:
    return all(isinstance(s, slice | int | np.integer) for s in selection)


def positions_of(selection: tuple[Any, ...], shape: tuple[int, ...]) -> Array:
    """Flat scan positions that a selection of a chunk touches: int64, increasing."""
    k = _scan_axes(shape)
    scan = shape[:k]
    index = np.arange(int(np.prod(scan, dtype=np.int64))).reshape(scan)
    # Slices and integers: the positions follow from the scan axes alone.
    if _is_basic(selection):
        return np.unique(index[selection[:k]])
    # Places in the scan, as arrays, with whole patterns.
    if len(selection) <= k and all(isinstance(s, np.ndarray) and s.dtype.kind in "iu" for s in selection):
        return np.unique(index[selection])
    spread = np.broadcast_to(index.reshape(scan + (1,) * (len(shape) - k)), shape)
    return np.unique(spread[selection])


def decode_selection(
    header: Header,
    parts: dict[tuple[int, int], bytes],
    positions: Array,
    selection: tuple[Any, ...],
    shared: SharedModel | None,
    decode: DecodePositions = decode_positions,
) -> Array:
    """``chunk[selection]`` from the byte ranges of the chains that hold it; NumPy's indexing rules."""

    def fetch(start: int, stop: int) -> memoryview:
        for (first, last), data in parts.items():
            if first <= start and stop <= last:
                return memoryview(data)[start - first : stop - first]
        raise CorruptChunkError("a group is missing")

    patterns = decode(header, fetch, positions, shared)
    return select(patterns, positions, selection, header.shape)


def select(patterns: Array, positions: Array, selection: tuple[Any, ...], shape: tuple[int, ...]) -> Array:
    """``chunk[selection]`` of a chunk of this shape, of which there are the patterns[k, pixels] of these positions."""
    k = _scan_axes(shape)
    n_positions = int(np.prod(shape[:k], dtype=np.int64))
    if _is_basic(selection):
        index = np.arange(n_positions).reshape(shape[:k])[selection[:k]]
        # Only the rows that were decoded exist; the selection counts in positions of the chunk.
        rows = np.searchsorted(positions, index)
        block = patterns[rows].reshape(np.shape(rows) + shape[k:])
        # Not an ellipsis: a selection may leave out the last axes.
        scan_axes = (slice(None),) * np.ndim(rows)
        return np.asarray(block[(*scan_axes, *selection[k:])], order="C")
    # Untouched pages of zeros cost nothing, and NumPy's own rules then apply.
    whole = np.zeros((n_positions, *shape[k:]), patterns.dtype)
    whole[positions] = patterns.reshape(-1, *shape[k:])
    return np.asarray(whole.reshape(shape)[selection], order="C")
