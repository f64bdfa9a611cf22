"""Find the offset of each pattern of integers, where the gains and offsets of its pixels are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from stemcodecs.compiled import kernel
from stemcodecs.entropy.values.calibration import IntegerCalibration, without_base

__all__ = ["STUCK", "above_stuck", "forwards", "pattern_offsets", "with_offsets"]

Array = np.ndarray[Any, Any]

_PIXELS = 2048
"""Pixels that tell the offset of a pattern."""
_DEAD, _FAR = 3, 8
"""Per cent of the pixels that may lie farther below, and how many times as far as these lie below the median."""
_NOWHERE = np.iinfo(np.int64).max
_LIMIT = 1 << 31
STUCK = 1 << 16
"""Lies above a stuck pixel, so that the offsets of other chunks' patterns do not reach it."""
_FAR_OFF = (1 << 30) + (1 << 17)


def forwards(values: Array, calibration: IntegerCalibration) -> Array:
    """Integers of which more counts are higher ones: without the base and the complement of a calibration."""
    bits = values.view(f"u{values.dtype.itemsize}")
    base = bits.dtype.type(calibration.base % 2 ** (8 * values.dtype.itemsize))
    found = without_base(bits, base, calibration).view(values.dtype)
    # Around the base, values have a sign.
    return found.view(f"i{values.dtype.itemsize}") if calibration.base else found


def pattern_offsets(values: Array, calibration: IntegerCalibration) -> Array:
    """What was added to each pattern: the lowest value that several of its pixels have above their own offset.

    Pixels without counts have no more than that, whatever the dose; a few dead ones may have less.

    It depends on nothing but the pattern's own values, so that it does not matter which others are in its chunk.

    Parameters
    ----------
    values : integers[k, n_pixels]
        With a sign, if they have 64 bits.
    calibration : IntegerCalibration
        Of pixels; its own shift is not looked at.

    Returns
    -------
    int64[k]
        0 for patterns that tell none within 32 bits.
    """
    n_pixels = values.shape[1]
    # An odd step meets every column of the detector.
    step = max(1, n_pixels // _PIXELS) | 1 if n_pixels > _PIXELS else 1
    some = np.ascontiguousarray(values[:, ::step])
    offset = np.zeros(n_pixels, np.int64) if calibration.offset is None else calibration.offset
    upwards = forwards(some, calibration)
    # Marks are that far off, or the offset of their pixels is; the largest integers of 64 bits overflow, and are.
    near = (upwards > -_FAR_OFF) & (upwards < _FAR_OFF)
    above = np.where(near, upwards, 0).astype(np.int64) - (offset[::step] >> calibration.fraction)
    above[~near] = _NOWHERE
    above.sort(axis=1)
    found = np.empty(len(values), np.int64)
    lowest_of_many(above, found)
    return np.where(np.abs(found) < _LIMIT, found, 0)


def with_offsets(values: Array, calibration: IntegerCalibration) -> IntegerCalibration:
    """The calibration with the offsets of some patterns, as :func:`pattern_offsets` finds them."""
    return replace(calibration, shift=pattern_offsets(values, calibration))


def above_stuck(values: Array, found: IntegerCalibration) -> IntegerCalibration:
    """With far higher offsets for stuck pixels, so that they tell no offset of a pattern, nor follow it."""
    stuck = (values == values[:1]).all(axis=0)
    if not stuck.any() or stuck.all():
        return found
    offset = np.zeros(stuck.size, np.int64) if found.offset is None else found.offset.copy()
    above = forwards(values[:1], found)[0, stuck].astype(np.int64) + STUCK
    if np.abs(above).max() >= _FAR_OFF >> found.fraction:
        return found
    offset[stuck] = (above << found.fraction) + ((1 << found.fraction) >> 1)
    return replace(found, offset=offset)


@kernel
def lowest_of_many(rows, found):
    """Of every sorted row the lowest number that occurs twice, and is not far below nearly all; marks are last."""
    for i in range(rows.shape[0]):
        row = rows[i]
        n = row.shape[0]
        while n > 0 and row[n - 1] == _NOWHERE:
            n -= 1
        found[i] = 0
        if n == 0:
            continue
        low = row[n * _DEAD // 100]
        least = low - _FAR * (row[n // 2] - low + 1)
        found[i] = low
        for k in range(1, n):
            if row[k] >= low:
                break
            if row[k] == row[k - 1] and row[k] >= least:
                found[i] = row[k]
                break
