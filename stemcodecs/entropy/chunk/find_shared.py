"""Find out from some patterns of a scan how the values of all of it become counts."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.entropy.chunk.choose_calibration import calibrated_plane
from stemcodecs.entropy.chunk.encode import size_by_pixel
from stemcodecs.entropy.chunk.shared_calibration import of_scan
from stemcodecs.entropy.values.calibration import Calibration, ValueTable
from stemcodecs.entropy.values.number_map import PLANE_TOP, NumberMap
from stemcodecs.entropy.values.plane import to_plane

__all__ = ["find_shared"]

Array = np.ndarray[Any, Any]


def find_shared(patterns: Array) -> tuple[NumberMap, Calibration] | None:
    """Marks and calibration of patterns, shape (n, det_y, det_x), if they are counts in disguise.

    None where values are counts themselves, or where patterns have parameters of their own, an offset or a dose: these
    are a chunk's.
    """
    array = np.ascontiguousarray(patterns, patterns.dtype.newbyteorder("="))
    plane, _ = calibrated_plane(array, to_plane(array), size_by_pixel)
    if plane is None or plane.calibration is None or not of_scan(plane.calibration):
        return None
    found = plane.calibration
    if isinstance(found, ValueTable):
        found = ValueTable(values=_continued(found.values, array.dtype))
    return plane.numbers, found


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
