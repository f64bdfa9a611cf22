"""An encoded group of a chunk: its words, and the parts that are coded beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numcodecs
import numpy as np

from stemcodecs.entropy.chunk.header import checksum
from stemcodecs.entropy.kernels.rans import LANES
from stemcodecs.entropy.model.group_layout import GroupLayout
from stemcodecs.entropy.model.model_bytes import Writer
from stemcodecs.entropy.values.plane import Plane

__all__ = ["EncodedGroup", "blocks_for", "exceptions_by_group", "low_bits", "patch_bytes"]

Array = np.ndarray[Any, Any]

FOUR_BLOCKS_FROM, TWO_BLOCKS_FROM = 60_000, 15_000
"""Estimated bytes of a group from which its steps take four, or two, blocks of states in turn. A state costs about two
bytes beyond the bits it holds, a block of sixteen 34: so the states of a group stay below 0.5 % of it."""


@dataclass(frozen=True)
class EncodedGroup:
    """An encoded group: its bytes, how many of them are words, low bits, patches and exceptions, and their CRC-32."""

    payload: bytes | memoryview
    sizes: tuple[int, ...]
    crc: int

    @classmethod
    def of(cls, *parts: bytes | memoryview) -> EncodedGroup:
        """Words, low bits, patches and exceptions put together."""
        # Most groups have words only: what need not be copied is not.
        payload = b"".join(parts) if any(map(len, parts[1:])) else parts[0]
        return cls(payload, tuple(map(len, parts)), checksum(payload))


def blocks_for(bits_per_position: float) -> int:
    """Blocks of lanes to use where a pattern takes about so many bits: all four are fastest, but their states would
    weigh too much in a group of few bytes.
    """
    per_group = bits_per_position / 8 * LANES
    return 4 if per_group > FOUR_BLOCKS_FROM else 2 if per_group > TWO_BLOCKS_FROM else 1


def patch_bytes(at: Array, values: Array) -> bytes:
    """Patches of a group: places in increasing order, and values."""
    w = Writer()
    if at.size:
        w.numbers(np.concatenate([np.diff(at, prepend=0), values.astype(np.int64)]), np.repeat([0, 1], at.size))
    return w.getvalue()


def low_bits(plane: Plane, positions: Array, n_pixels: int) -> bytes:
    """Raw low bits of a group, one bit plane after the other."""
    if plane.low is None:
        return b""
    low = plane.low.reshape(-1, n_pixels)[positions[positions >= 0]].ravel()
    planes = [np.packbits((low >> b) & 1, bitorder="little") for b in range(plane.numbers.low_bits)]
    return np.concatenate(planes).tobytes()


def exceptions_by_group(plane: Plane, layout: GroupLayout) -> dict[tuple[int, int], bytes]:
    """Exceptions of every group: index = lane * n_pixels + pixel, then the bits of the value."""
    out: dict[tuple[int, int], bytes] = {}
    if plane.exceptions_at.size == 0:
        return out
    position, pixel = np.divmod(plane.exceptions_at, layout.n_pixels)
    # The inverse of the layout, once for all exceptions.
    group_of = np.empty(layout.n_positions, np.int64)
    lane_of = np.empty(layout.n_positions, np.int64)
    flat = layout.chains.reshape(-1, LANES)
    group, lane = np.nonzero(flat >= 0)
    group_of[flat[group, lane]] = group
    lane_of[flat[group, lane]] = lane
    index = lane_of[position] * layout.n_pixels + pixel
    for g in np.unique(group_of[position]):
        here = np.flatnonzero(group_of[position] == g)
        here = here[np.argsort(index[here])]
        w = Writer()
        w.numbers(np.diff(index[here], prepend=0))
        w.section(bytes(numcodecs.Zstd(5).encode(plane.exceptions[here].astype("<u8").view(np.uint8))))
        out[divmod(int(g), layout.chain_length)] = w.getvalue()
    return out
