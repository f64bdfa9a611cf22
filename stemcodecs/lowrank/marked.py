"""What a low-rank model of counts leaves out: marks of gaps, dead and saturated pixels, and what else is no count.

These values are no part of the fit, stand for what the model expects while a chunk is coded, and are kept beside the
coefficients bit by bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.marks import mark_of

__all__ = ["LARGEST_COUNT", "expected_counts", "marked"]

Array = np.ndarray[Any, Any]

LARGEST_COUNT = 1 << 31
"""Values from here on are marks in every dtype: 2³² − 1 is written to 64-bit integers and floats too."""


def marked(values: Array, largest: int = LARGEST_COUNT, *, whole: bool = False) -> Array | None:
    """Where values are no counts.

    Parameters
    ----------
    values : ndarray
        Any real dtype.
    largest : int
        Values from here on are none.
    whole : bool
        Neither are floats that are no whole numbers, nor −0.0.

    Returns
    -------
    ndarray of bool or None
        None where all are counts, as those of most blocks are.
    """
    kind = values.dtype.kind
    if kind == "b" or values.size == 0:
        return None
    mark = mark_of(values.dtype)
    end = largest if mark is None else min(mark, largest)
    # Two numbers tell it of most blocks. False for NaN.
    if values.min().item() >= 0 and values.max().item() < end and (kind != "f" or not whole):
        return None
    with np.errstate(invalid="ignore"):
        none = ~((values >= 0) & (values < end)) if values.dtype.itemsize > 4 or kind == "f" else _outside(values, end)
        if whole and kind == "f":
            none |= (values != np.floor(values)) | ((values == 0) & np.signbit(values))
    return none if none.any() else None


def _outside(values: Array, end: int) -> Array:
    none = values < 0 if values.dtype.kind == "i" else np.zeros(values.shape, bool)
    # Beyond the dtype there is nothing to compare with.
    if end <= np.iinfo(values.dtype).max:
        none |= values >= values.dtype.type(end)
    return none


def expected_counts(patterns: Array) -> Array:
    """Rounded mean of every pixel over patterns[k, pixels] without marks, 0 where there are only these: float64[pixels]."""
    none = marked(patterns)
    if none is None:
        return np.rint(patterns.mean(axis=0, dtype=np.float64)) if len(patterns) else np.zeros(patterns.shape[1])
    counts = (~none).sum(axis=0)
    total = np.where(none, 0, patterns).sum(axis=0, dtype=np.float64)
    result: Array = np.rint(total / np.maximum(counts, 1))
    return result
