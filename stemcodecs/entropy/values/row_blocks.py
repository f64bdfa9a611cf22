"""Patterns turned into counts on all threads, as one kernel would do it from the first to the last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from stemcodecs.entropy.kernels.threads import run_all

__all__ = ["by_row_blocks"]

Array = np.ndarray[Any, Any]

_VALUES = 1 << 20
"""Of a block: enough for the threads, and few enough that all of them have work."""


def by_row_blocks(code: Callable[[slice, Array, Array], int], counts: Array, wrong: Array) -> int:
    """Code all patterns; returns how many values have no count.

    Parameters
    ----------
    code : callable
        Given some patterns, their ``counts`` and room for flat indices of values without a count, codes these, and
        returns how many there are. In the place of a value without a count stands the count before it, 0 at the start.
    counts : uint16[n_positions, n_pixels]
        The result.
    wrong : int64
        Flat indices of values without a count, as many as there is room for; the result.
    """
    n_positions, n_pixels = counts.shape
    rows = max(1, _VALUES // max(n_pixels, 1))

    def one(first: int) -> tuple[int, Array]:
        part = slice(first, min(first + rows, n_positions))
        here = np.empty(min(wrong.size, counts[part].size), np.int64)
        n = int(code(part, counts[part], here))
        return n, here[:n] + first * n_pixels

    total = 0
    flat = counts.reshape(-1)
    starts = range(0, n_positions, rows)
    for first, (n, here) in zip(starts, run_all(one, [(first,) for first in starts]), strict=True):
        # The count before the first value of a block is one of the block before.
        start = first * n_pixels
        leading = int(np.argmin(np.append(here == start + np.arange(here.size), False)))
        if first and leading:
            flat[start : start + leading] = flat[start - 1]
        end = min(total + here.size, wrong.size)
        if total < wrong.size:
            wrong[total:end] = here[: end - total]
        total += n
    return total
