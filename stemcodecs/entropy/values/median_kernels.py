"""Compiled medians of integers that are near each other, as differences of counts are."""

from __future__ import annotations

import numpy as np
from numba import int64

from stemcodecs.compiled import kernel

__all__ = ["lower_medians"]

_SPAN = 512
"""Different values up to which counting how often each occurs takes less time than sorting."""


@kernel
def lower_medians(rows, out):
    """Lower median of every row of integers[n, k], k > 0."""
    times = np.zeros(_SPAN, np.int32)
    middle = (rows.shape[1] - 1) // 2
    for r in range(rows.shape[0]):
        row = rows[r]
        low, high = int64(row[0]), int64(row[0])
        for v in row:
            low, high = min(low, int64(v)), max(high, int64(v))
        # A difference beyond 64 bits is negative.
        if not 0 <= high - low < _SPAN:
            out[r] = np.sort(row)[middle]
            continue
        times[: high - low + 1] = 0
        for v in row:
            times[int64(v) - low] += 1
        left, value = middle, int64(0)
        while left >= times[value]:
            left -= times[value]
            value += 1
        out[r] = low + value
