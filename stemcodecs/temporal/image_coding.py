"""Entropy-coded measurements: what neighbours predict is taken off, and the rest goes to the engine (``FORMAT.md``).

The noise of a measurement is most of its bits, so a mean of neighbours predicts better than a gradient would. Each is
weighed by how many values it sums, so that masks and edge bins do not show.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from stemcodecs.compiled import kernel
from stemcodecs.errors import CorruptChunkError

__all__ = ["read_planes", "write_planes"]

Array = np.ndarray[Any, Any]

BLOCK = 16
"""Rows and columns of the blocks that the engine takes for patterns: a multiple of the tile of the masks, so that a
pixel of a block always sees the same masks."""
MODE = "pooled"
"""Of the engine: what is left is noise, alike everywhere. More histograms, or neighbours, would gain a part in a
thousand, and be slower than a camera."""


@kernel(forceinline=True)
def _predicted(values: Array, opened: Array, t: int, y: int, x: int) -> Any:
    here = opened[t, y, x]
    if t == 0 and y and x and x + 1 < values.shape[2]:
        before = opened[0, y - 1, x - 1] == here and opened[0, y - 1, x] == here and opened[0, y - 1, x + 1] == here
        if before and opened[0, y, x - 1] == here:
            # The same quotient as below, without a division: nearly all pixels behind balanced masks.
            above = values[0, y - 1, x - 1] + values[0, y - 1, x] + values[0, y - 1, x + 1]
            return (values[0, y, x - 1] + above + 2) >> 2
    total, weight = 0, 0
    if x:
        total += values[t, y, x - 1]
        weight += opened[t, y, x - 1]
    if y:
        total += values[t, y - 1, x]
        weight += opened[t, y - 1, x]
        if x:
            total += values[t, y - 1, x - 1]
            weight += opened[t, y - 1, x - 1]
        if x + 1 < values.shape[2]:
            total += values[t, y - 1, x + 1]
            weight += opened[t, y - 1, x + 1]
    if t:
        total += 2 * values[t - 1, y, x]
        weight += 2 * opened[t - 1, y, x]
    if weight == 0:
        return 0
    return (here * total + weight // 2) // weight


@kernel(forceinline=True)
def _alike(opened: Array, t: int, y: int) -> bool:
    """Whether a row and the one above sum as many values everywhere, but perhaps in the last column."""
    same = True
    for x in range(opened.shape[2] - 1):
        same &= (opened[t, y, x] == opened[t, y, 0]) & (opened[t, y - 1, x] == opened[t, y, 0])
    return same


@kernel
def _difference(values: Array, opened: Array, out: Array) -> None:
    """Zigzag differences of ``values`` int64 (t, y, x) from their prediction, into an array of whole blocks."""
    width = values.shape[2]
    for t in range(values.shape[0]):
        for y in range(values.shape[1]):
            first = 0
            if y and width > 3 and _alike(opened, t, y) and (t == 0 or _alike(opened, t - 1, y)):
                # As `_predicted` has it, in loops that take many pixels at once: nearly all rows come here.
                d = values[t, y, 0] - _predicted(values, opened, t, y, 0)
                out[t, y, 0] = (d << 1) ^ (d >> 63)
                row, above = values[t, y], values[t, y - 1]
                if t == 0:
                    for x in range(1, width - 2):
                        d = row[x] - ((row[x - 1] + above[x - 1] + above[x] + above[x + 1] + 2) >> 2)
                        out[t, y, x] = (d << 1) ^ (d >> 63)
                else:
                    before, here = values[t - 1, y], opened[t, y, 0]
                    weight = 4 * here + 2 * opened[t - 1, y, 0]
                    half, divisor = weight // 2, float(weight)
                    for x in range(1, width - 2):
                        total = row[x - 1] + above[x - 1] + above[x] + above[x + 1] + 2 * before[x]
                        # Sums are far below 2**50: their quotient by floating point, rounded down, is that of integers.
                        d = row[x] - np.int64((here * total + half) / divisor)
                        out[t, y, x] = (d << 1) ^ (d >> 63)
                first = width - 2
            for x in range(first, width):
                d = values[t, y, x] - _predicted(values, opened, t, y, x)
                out[t, y, x] = (d << 1) ^ (d >> 63)


@kernel
def _restore(differences: Array, opened: Array, largest: int, values: Array) -> bool:
    """Inverse of `_difference`; False where a value is none that a measurement can have."""
    for t in range(values.shape[0]):
        for y in range(values.shape[1]):
            for x in range(values.shape[2]):
                z = np.int64(differences[t, y, x])
                v = _predicted(values, opened, t, y, x) + ((z >> 1) ^ -(z & 1))
                if v < 0 or v > largest:
                    return False
                values[t, y, x] = v
    return True


def _whole_blocks(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return shape[0], -(-shape[1] // BLOCK) * BLOCK, -(-shape[2] // BLOCK) * BLOCK


def _blocked(shape: tuple[int, ...]) -> tuple[int, int, int, int, int]:
    return shape[0], -(-shape[1] // BLOCK), -(-shape[2] // BLOCK), BLOCK, BLOCK


def write_planes(steps: Array, opened: Array) -> bytes:
    """Bytes of a measurement.

    Parameters
    ----------
    steps : ndarray of unsigned integers
        Quantised sums, (planes, y, x), below 2³¹.
    opened : ndarray of int64
        How many values each of them sums.
    """
    from stemcodecs.entropy.chunk.encode import encode_array
    from stemcodecs.entropy.fit.fit_model import FitOptions

    # Zigzag of a difference takes a bit more than the values.
    wide = int(steps.max(initial=0)) >= 1 << 15
    out = np.zeros(_whole_blocks(steps.shape), np.uint32 if wide else np.uint16)
    _difference(steps.astype(np.int64), opened, out)
    planes, rows, columns = _blocked(steps.shape)[:3]
    blocks = out.reshape(planes, rows, BLOCK, columns, BLOCK).swapaxes(2, 3)
    return encode_array(np.ascontiguousarray(blocks), FitOptions(mode=MODE))


def read_planes(data: memoryview, shape: tuple[int, int, int], opened: Callable[[], Array], largest: int) -> Array:
    """Quantised sums, int64.

    Parameters
    ----------
    data : bytes
        Of :func:`write_planes`.
    shape : tuple of int
        Of the sums, (planes, y, x).
    opened : callable
        Gives what was given there; asked only when the bytes can hold so much.
    largest : int
        Largest step that there can be.

    Raises
    ------
    CorruptChunkError
        The bytes are damaged, or hold what no measurement can be.
    """
    from stemcodecs.entropy.chunk.decode import decode_parsed
    from stemcodecs.entropy.chunk.header import read_header

    # Held against what the measurement must be before anything of its size is allocated.
    header = read_header(data, _blocked(shape))
    if header.dtype not in (np.dtype("<u2"), np.dtype("<u4")):
        raise CorruptChunkError("a measurement has the wrong dtype")
    blocks = decode_parsed(header, data).swapaxes(2, 3)
    # Damaged flags may say that the values lie in memory in another order.
    differences = np.ascontiguousarray(blocks, header.dtype.newbyteorder("=")).reshape(_whole_blocks(shape))
    values = np.zeros(shape, np.int64)
    if not _restore(differences, opened(), largest, values):
        raise CorruptChunkError("a measurement holds a sum that no frames can have")
    return values
