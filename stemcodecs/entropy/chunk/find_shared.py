"""Find out from some patterns of a scan how the values of all of it become counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from stemcodecs.entropy.chunk.choose_calibration import calibrated_plane, plane_behind
from stemcodecs.entropy.chunk.encode import size_by_pixel
from stemcodecs.entropy.values.calibration import Calibration, FloatCalibration, IntegerCalibration, ValueTable
from stemcodecs.entropy.values.number_map import PLANE_TOP, NumberMap
from stemcodecs.entropy.values.pattern_offsets import above_stuck, with_offsets
from stemcodecs.entropy.values.pattern_parameters import signed
from stemcodecs.entropy.values.plane import Plane, to_plane

__all__ = ["find_shared"]

Array = np.ndarray[Any, Any]

_AS_SMALL = 1.05
"""Bytes by the offsets that patterns tell one by one, to those by what all of them together told."""
_BELOW = 1024
"""Codes for values below the lowest of a sample."""


def find_shared(patterns: Array) -> tuple[NumberMap, Calibration, bool] | None:
    """Marks and calibration of patterns, shape (n, det_y, det_x), if they are counts in disguise.

    The last of three says whether each pattern has a scale or an offset besides, a dose or a monitor: these are a
    chunk's. None where values are counts themselves, or where a pattern does not tell its offset.
    """
    array = np.ascontiguousarray(patterns, patterns.dtype.newbyteorder("="))
    plane, _ = calibrated_plane(array, to_plane(array), size_by_pixel)
    if plane is None:
        return None
    if plane.calibration is None:
        return _beyond_16_bits(plane)
    found, values = plane.calibration, array.reshape(len(array), -1)
    if isinstance(found, FloatCalibration) and found.scale is not None:
        return plane.numbers, _telling(values, replace(found, scale=None)), True
    if isinstance(found, IntegerCalibration) and found.shift is not None:
        telling = above_stuck(signed(values), found)
        told = plane_behind(array, plane.numbers, with_offsets(signed(values), telling))
        if told is None or size_by_pixel(array, told) > _AS_SMALL * size_by_pixel(array, plane):
            return None
        return plane.numbers, replace(telling, shift=None), True
    if isinstance(found, ValueTable):
        found = ValueTable(values=_continued(found.values, array.dtype))
    return plane.numbers, found, False


def _beyond_16_bits(plane: Plane) -> tuple[NumberMap, Calibration, bool] | None:
    """Counts from a number on that 16 bits do not hold: with a base, and room below it."""
    if plane.numbers.offset == 0 or plane.low is not None:
        return None
    counts = plane.counts
    marks = [plane.numbers.code(k) for k in range(len(plane.numbers.specials))]
    known = counts[~np.isin(counts, marks)] if marks else counts
    if not known.size:
        return None
    base = plane.numbers.offset + int(known.min())
    return NumberMap(specials=plane.numbers.specials, negatives=_BELOW), IntegerCalibration(base=base), False


def _telling(values: Array, found: FloatCalibration) -> FloatCalibration:
    """With a gain of 0 for dead pixels, so that they tell no scale of their patterns."""
    bits = values.view(f"u{values.dtype.itemsize}")
    dead = (bits == bits[:1]).all(axis=0) & (values[0] != 0)
    if not dead.any():
        return found
    return replace(found, gain=np.where(dead, 0.0, 1.0 if found.gain is None else found.gain))


def _continued(values: Array, dtype: np.dtype[Any]) -> Array:
    """An evenly spaced table to the end of the dtype: other patterns may have more counts than these."""
    steps = np.diff(values)
    if steps.size == 0 or (steps != steps[0]).any():
        return values
    step, first, limits = int(steps[0]), int(values[0]), np.iinfo(dtype)
    # Values of uint64 are taken modulo 2**64, as signed ones.
    highest = min(int(limits.max), 2**63 - 1)
    room = (highest - first) // step if step > 0 else (first - int(limits.min)) // -step
    n = max(values.size, min(room + 1, PLANE_TOP))
    return first + step * np.arange(n, dtype=np.int64)
