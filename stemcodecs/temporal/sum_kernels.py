"""Sums of frames behind masks and in bins. They run beside a camera: rows stay in the cache, and loops are plain enough
for the compiler to take many pixels at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.compiled import kernel

__all__ = ["add_binned", "add_masked", "quantise"]

Array = np.ndarray[Any, Any]


@kernel
def add_masked(frames: Array, masks: Array, out: Array) -> None:
    """``out += Σ masks[b] * frames[min(b, last)]``; ``masks`` uint8 (B, y, x), ``out`` (y, x)."""
    last = frames.shape[0] - 1
    for y in range(out.shape[0]):
        row = out[y]
        for b in range(masks.shape[0]):
            frame, mask = frames[min(b, last), y], masks[b, y]
            for x in range(row.size):
                row[x] += frame[x] * mask[x]


@kernel
def add_binned(frames: Array, edges: Array, space: int, sums: Array, out: Array) -> None:
    """Sums over the frames from one edge to the next, and over ``space`` rows and columns; ``sums`` uint32 (x)."""
    last = frames.shape[0] - 1
    height, width = frames.shape[1], frames.shape[2]
    for t in range(out.shape[0]):
        for y in range(out.shape[1]):
            sums[:] = 0
            for b in range(edges[t], edges[t + 1]):
                for j in range(y * space, min(height, (y + 1) * space)):
                    frame = frames[min(b, last), j]
                    for x in range(width):
                        sums[x] += frame[x]
            row = out[t, y]
            whole = width // space
            if space == 2:
                for x in range(whole):
                    row[x] += sums[2 * x] + sums[2 * x + 1]
            else:
                for x in range(whole):
                    for i in range(space):
                        row[x] += sums[x * space + i]
            for x in range(whole * space, width):
                row[whole] += sums[x]


@kernel
def quantise(total: Array, step: int, out: Array) -> None:
    """``out = (total + step // 2) // step`` of flat uint16 or uint32 sums."""
    half = step // 2
    # The quotient of such numbers by floating point, rounded down, is that of integers, and takes many at once: where a
    # sum and a step are below 2**24 together, a quotient below a whole number is so by more than it is rounded.
    if total.itemsize == 2:
        offset, divisor = np.float32(half), np.float32(step)
        for i in range(total.size):
            out[i] = np.int32((np.float32(total[i]) + offset) / divisor)
    else:
        wide_offset, wide_divisor = np.float64(half), np.float64(step)
        for i in range(total.size):
            out[i] = np.int64((np.float64(total[i]) + wide_offset) / wide_divisor)
