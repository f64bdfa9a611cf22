"""Marked values: what detectors write where they have no count to tell.

A detector writes a value for every pixel, also where it has a gap, where a pixel is dead, and where more arrived than
it could count. By convention these values are

- the largest of an unsigned dtype of 16 bits and more: DECTRIS detectors write 2¹⁶ − 1 or 2³² − 1 for gaps, masked and
  overflown pixels, frame cameras 2¹⁶ − 1 for saturated ones; signed dtypes have it where such files were converted;
- NaN and infinity, wherever something was computed with a pixel mask.

These are marks wherever they stand. In 8 bits the largest value is a count as others are: a bright disk reaches it here
and there. Such a value, the full scale of a counter in a wider dtype (Medipix: 2¹² − 1, 2²⁴ − 1) and the −1 and −2 of
PILATUS files tell a gap only by standing in the same pixel of every pattern, which takes a look at the whole scan:
``pixel_mask`` in a compressed store has what was found.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["FULL_SCALES", "find_marks", "mark_of"]

FULL_SCALES = tuple(2**bits - 1 for bits in (8, 12, 16, 24, 32))
"""Largest counts of the counters that detectors have."""


def mark_of(dtype: np.dtype[Any]) -> int | None:
    """The value that is a mark wherever it stands.

    Parameters
    ----------
    dtype : dtype
        Of the values.

    Returns
    -------
    int or None
        None for booleans, for integers of 8 bits, and for floats, whose marks are NaN and infinity.
    """
    return int(np.iinfo(dtype).max) if dtype.kind in "ui" and dtype.itemsize > 1 else None


def find_marks(values: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
    """Where marks stand among values.

    Parameters
    ----------
    values : ndarray
        Any real dtype.

    Returns
    -------
    ndarray of bool or None
        Shape of the values; None where there are none.
    """
    if values.dtype.kind == "f":
        found = ~np.isfinite(values)
    else:
        mark = mark_of(values.dtype)
        if mark is None:
            return None
        found = values == mark
    return found if found.any() else None
