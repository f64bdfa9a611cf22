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
    if kind != "f":
        none = _outside(values, end)
    else:
        with np.errstate(invalid="ignore"):
            # No half float is that large.
            half = values.dtype.itemsize == 2
            few = np.isfinite(values) if half else values < values.dtype.type(end)
            none = ~((values >= 0) & few)
            if whole:
                none |= (values != np.floor(values)) | ((values == 0) & np.signbit(values))
    return none if none.any() else None


def _outside(values: Array, end: int) -> Array:
    none = values < 0 if values.dtype.kind == "i" else np.zeros(values.shape, bool)
    # Beyond the dtype there is nothing to compare with.
    if end <= np.iinfo(values.dtype).max:
        none |= values >= values.dtype.type(end)
    return none


def expected_counts(patterns: Array, none: Array) -> Array:
    """Rounded mean of every pixel over patterns[k, pixels] but for what is none, 0 where there is nothing else:
    float64[pixels].
    """
    counts = (~none).sum(axis=0)
    total = np.sum(patterns, axis=0, dtype=np.float64, where=~none)
    result: Array = np.rint(total / np.maximum(counts, 1))
    return result
