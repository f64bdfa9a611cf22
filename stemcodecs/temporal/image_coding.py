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


@kernel
def _difference(steps: Array, opened: Array, rows: Array, constants: Array, out: Array) -> None:
    """Zigzag differences of ``steps`` (t, y, x) from their prediction, into blocks (t, rows, columns, BLOCK, BLOCK).

    ``rows`` (6, x) is to work in, of float32 or float64, whichever holds all sums and products exactly: the quotient of
    such numbers, rounded down, is that of integers, and many pixels are predicted at once. ``constants`` are ½, 1 and 2
    of that type.
    """
    width = steps.shape[2]
    line = np.zeros(out.shape[2] * BLOCK, np.uint32)
    here, above, before = rows[0:2], rows[2:4], rows[4:6]
    for t in range(steps.shape[0]):
        for y in range(steps.shape[1]):
            here, above = above, here
            _copy_row(steps[t, y], opened[t, y], here)
            # Pixels at the left and the right edge, and of the first row, lack neighbours.
            stride = max(width - 1, 1) if y else 1
            for x in range(0, width, stride):
                d = np.int64(steps[t, y, x]) - _predicted(steps, opened, t, y, x)
                line[x] = (d << 1) ^ (d >> 63)
            if y:
                if t:
                    _copy_row(steps[t - 1, y], opened[t - 1, y], before)
                _inner_pixels(here, above, before, t > 0, constants, line)
            for c in range(out.shape[2]):
                block = out[t, y // BLOCK, c, y % BLOCK]
                for i in range(BLOCK):
                    block[i] = line[c * BLOCK + i]


@kernel
def _copy_row(values: Array, numbers: Array, row: Array) -> None:
    for x in range(values.size):
        row[0, x] = values[x]
        row[1, x] = numbers[x]


@kernel
def _inner_pixels(here: Array, above: Array, before: Array, has_before: bool, constants: Array, line: Array) -> None:
    """All pixels of a row but the first and the last: as `_predicted` has it.

    Each row is of values, and of how many are summed in each.
    """
    half, one, two = constants[0], constants[1], constants[2]
    twice = two if has_before else two - two
    value, number = here[0], here[1]
    value_above, number_above = above[0], above[1]
    value_before, number_before = before[0], before[1]
    for x in range(1, value.size - 1):
        total = value[x - 1] + value_above[x - 1] + value_above[x] + value_above[x + 1] + twice * value_before[x]
        weight = number[x - 1] + number_above[x - 1] + number_above[x] + number_above[x + 1]
        weight += twice * number_before[x]
        # Where no neighbour sums anything, their total is 0 as well.
        expected = np.floor((number[x] * total + np.floor(half * weight)) / max(weight, one))
        d = value[x] - expected
        line[x] = np.uint32(max(two * d, -two * d - one))


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


def write_planes(steps: Array, opened: Array, weight: int) -> bytes:
    """Bytes of a measurement.

    Parameters
    ----------
    steps : ndarray of unsigned integers
        Quantised sums, (planes, y, x), below 2³¹.
    opened : ndarray of int64
        How many values each of them sums.
    weight : int
        None sums more values than that.
    """
    from stemcodecs.entropy.chunk.encode import encode_array
    from stemcodecs.entropy.chunk.encode_pooled import encode_pooled

    most = int(steps.max(initial=0))
    # The largest of all sums and products: below 2**24 they are exact in float32, and twice as many are taken at once.
    exact = np.float32 if 6 * weight * (most + 1) < 1 << 24 else np.float64
    # Zigzag of a difference takes a bit more than the values.
    out = np.zeros(_blocked(steps.shape), np.uint32 if most >= 1 << 15 else np.uint16)
    _difference(steps, opened, np.zeros((6, steps.shape[2]), exact), np.array([0.5, 1, 2], exact), out)
    if out.dtype == np.uint32 and int(out.max()) < 1 << 16:
        out = out.astype(np.uint16)
    # What is left is noise, alike everywhere: more histograms, or neighbours, would gain a part in a thousand, and be
    # slower than a camera.
    return encode_pooled(out) if out.dtype == np.uint16 else encode_array(out)


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
