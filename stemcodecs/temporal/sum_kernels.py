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
            for x in range(width):
                out[t, y, x // space] += sums[x]


@kernel
def quantise(total: Array, step: int, out: Array) -> None:
    """``out = (total + step // 2) // step`` of flat sums below 2³²."""
    half, divisor = step // 2, float(step)
    for i in range(total.size):
        # The quotient of such numbers by floating point, rounded down, is that of integers, and takes many at once.
        out[i] = np.int64((np.int64(total[i]) + half) / divisor)
