"""Compiled loops of the quantiser: table look-ups, and the level of a wide value."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.compiled import kernel
from stemcodecs.entropy.values.plane_kernels import look_up

__all__ = ["OUTSIDE", "compare", "encode_floats", "encode_integers", "histogram", "look_up", "pack", "span", "unpack"]

OUTSIDE = np.uint32(0xFFFFFFFF)
"""Mark of a value that has no level; real codes stay below it."""

_Array = np.ndarray[Any, Any]


@kernel
def histogram(indices: _Array, counts: _Array) -> None:
    """Count each index; the caller has checked that every index is in the table."""
    for i in range(indices.size):
        counts[indices[i]] += 1


@kernel
def span(values: _Array, lowest: int, highest: int) -> tuple[Any, int]:
    """Largest value within lowest..highest (lowest if there is none), and how many are outside."""
    largest: Any = np.int64(lowest)
    outside = 0
    for i in range(values.size):
        value = np.int64(values[i])
        inside = lowest <= value <= highest
        largest = max(largest, value if inside else lowest)
        outside += 0 if inside else 1
    return largest, outside


@kernel
def _level(x: Any, direct: _Array, blocks: _Array, lows: _Array) -> Any:
    """Level of x: by table below 2¹⁶, else by bisection among the levels of x's block of 2¹⁶."""
    if x < direct.size:
        return np.int64(direct[x])
    # Counts beyond 65535 are rare: a table of all would not fit the cache, bisection among all would take 22 steps.
    block = x >> 16
    first = np.int64(blocks[block])
    last = np.int64(blocks[block + 1])
    while first < last:
        middle = (first + last + 1) >> 1
        if lows[middle] <= x:
            first = middle
        else:
            last = middle - 1
    return first


@kernel
def encode_integers(
    values: _Array, offset: int, top: int, direct: _Array, blocks: _Array, lows: _Array, out: _Array
) -> int:
    """Level of every value, OUTSIDE where ``value - offset`` is not in 0..top; counts these."""
    outside = 0
    for i in range(values.size):
        x = np.int64(values[i]) - offset
        # Neither clamped nor wrapped: what has no level gets an escape, or is refused.
        if 0 <= x <= top:
            out[i] = _level(x, direct, blocks, lows)
        else:
            out[i] = OUTSIDE
            outside += 1
    return outside


@kernel
def encode_floats(
    values: _Array, offset: int, top: int, direct: _Array, blocks: _Array, lows: _Array, out: _Array
) -> int:
    """As :func:`encode_integers`, for floats: what is not a whole number is OUTSIDE as well."""
    outside = 0
    for i in range(values.size):
        # float64 holds every float32 and every integer concerned exactly; NaN fails each
        # comparison.
        value = np.float64(values[i])
        shifted = value - np.float64(offset)
        if shifted >= 0 and shifted <= top and np.floor(value) == value:
            out[i] = _level(np.int64(shifted), direct, blocks, lows)
        else:
            out[i] = OUTSIDE
            outside += 1
    return outside


@kernel
def pack(values: _Array, bits: int, out: _Array) -> None:
    """Values in so many bits each, lowest bit first; ``out`` has room for all bits."""
    waiting = np.uint64(0)
    n = 0
    position = 0
    for i in range(values.size):
        waiting |= np.uint64(values[i]) << np.uint64(n)
        n += bits
        while n >= 8:
            out[position] = np.uint8(waiting & np.uint64(0xFF))
            position += 1
            waiting >>= np.uint64(8)
            n -= 8
    if n > 0:
        out[position] = np.uint8(waiting & np.uint64(0xFF))


@kernel
def unpack(stream: _Array, bits: int, out: _Array) -> None:
    """Inverse of :func:`pack`; the caller has checked that the stream holds all of ``out``."""
    mask = np.uint64((1 << bits) - 1)
    waiting = np.uint64(0)
    n = 0
    position = 0
    for i in range(out.size):
        while n < bits:
            waiting |= np.uint64(stream[position]) << np.uint64(n)
            position += 1
            n += 8
        out[i] = waiting & mask
        waiting >>= np.uint64(bits)
        n -= bits


@kernel
def compare(
    source: _Array, decoded: _Array, offset: int, top: int, p: int, q: int
) -> tuple[int, int, int, int, int, int, float]:
    """Hold decoded integers against (d² · q ≤ p · x); x = source − offset, d the error.

    The caller sees to p < 2³¹, q < 2²³ and p/q < 2⁸: then products fit 64 bits for every |d| < 2²⁰,
    and larger errors break the bound.

    Returns
    -------
    exact, violations, first, adu, difference, squares, worst
        How many values must be exact; how many values break their promise, and the index of the
        first; sums of x, d and d² over quantised values within the bound; the largest d²/x.
    """
    exact = 0
    violations = 0
    first = -1
    adu: Any = 0
    difference: Any = 0
    squares: Any = 0
    worst = 0.0
    for i in range(source.size):
        x = np.int64(source[i]) - offset
        d = np.int64(decoded[i]) - offset - x
        if not 0 <= x <= top:
            exact += 1
            broken = d != 0
        else:
            broken = abs(d) >= 1 << 20 or d * d * q > p * x
            if d != 0:
                worst = max(worst, np.float64(d) * d / x if x > 0 else np.inf)
            if not broken:
                adu += x
                difference += d
                squares += d * d
        if broken:
            if first < 0:
                first = i
            violations += 1
    return exact, violations, first, adu, difference, squares, worst
