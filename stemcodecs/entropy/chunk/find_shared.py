"""Find out from some patterns of a scan how the values of all of it become counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from stemcodecs.entropy.chunk.choose_calibration import calibrated_plane
from stemcodecs.entropy.chunk.encode import size_by_pixel
from stemcodecs.entropy.chunk.shared_calibration import of_scan
from stemcodecs.entropy.values.calibration import Calibration, FloatCalibration, ValueTable
from stemcodecs.entropy.values.number_map import PLANE_TOP, NumberMap
from stemcodecs.entropy.values.plane import to_plane

__all__ = ["find_shared"]

Array = np.ndarray[Any, Any]


def find_shared(patterns: Array) -> tuple[NumberMap, Calibration, bool] | None:
    """Marks and calibration of patterns, shape (n, det_y, det_x), if they are counts in disguise.

    The last of three says whether each pattern has a scale besides, a dose or a monitor: these are a chunk's. None
    where values are counts themselves, or where patterns have an offset of their own.
    """
    array = np.ascontiguousarray(patterns, patterns.dtype.newbyteorder("="))
    plane, _ = calibrated_plane(array, to_plane(array), size_by_pixel)
    if plane is None or plane.calibration is None:
        return None
    found = plane.calibration
    # What only chunks of version 4 have is no map of a scan.
    if isinstance(found, FloatCalibration) and (found.signed_zeros or found.corrections is not None):
        return None
    if isinstance(found, FloatCalibration) and found.scale is not None:
        return plane.numbers, _telling(array.reshape(len(array), -1), replace(found, scale=None)), True
    if not of_scan(found):
        return None
    if isinstance(found, ValueTable):
        found = ValueTable(values=_continued(found.values, array.dtype))
    return plane.numbers, found, False


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
