"""Choose how the values of an array become counts, by what a sample of it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from stemcodecs.entropy.chunk.calibration_bytes import write_calibration
from stemcodecs.entropy.model.group_layout import GroupLayout
from stemcodecs.entropy.values.calibration import Calibration, FloatCalibration, IntegerCalibration
from stemcodecs.entropy.values.float_calibration import express_floats, propose_floats
from stemcodecs.entropy.values.integer_calibration import express_integers, propose_integers, sampled_positions
from stemcodecs.entropy.values.number_map import NumberMap
from stemcodecs.entropy.values.plane import Plane, to_plane

__all__ = ["calibrated_plane", "plane_behind"]

Array = np.ndarray[Any, Any]
Size = Callable[[Array, Plane], int]

LEAST_GAIN = 0.003
"""Share of the bytes that a calibration must save on the sample: without one, decoding is faster."""


def calibrated_plane(array: Array, basic: Plane | None, size: Size) -> Plane | None:
    """The plane of counts that takes least: ``basic``, or one behind a calibration.

    Parameters
    ----------
    array : ndarray
        C-contiguous and native, not empty.
    basic : Plane or None
        Its counts without a calibration, if it has any.
    size : callable
        Bytes of an array and its plane.
    """
    if array.dtype.kind not in "iuf":
        return basic
    layout = GroupLayout.of_shape(array.shape)
    values = array.reshape(layout.n_positions, layout.n_pixels)
    if array.dtype.kind == "f":
        # Signalling NaNs raise a flag when they are cast; whatever is computed from them is compared bit by bit.
        with np.errstate(all="ignore"):
            formula = propose_floats(values) if basic is None else None
            return basic if formula is None else express_floats(values, *formula)
    values = _signed(values)
    proposals = propose_integers(values, None if basic is None else basic.numbers)
    if not proposals:
        return basic
    positions = sampled_positions(layout.n_positions, layout.n_pixels, min(max(24, layout.n_positions // 24), 64))
    sample = np.ascontiguousarray(values[positions])
    best, least = None, float("inf")
    as_it_is = to_plane(sample.view(array.dtype).reshape(-1, *layout.detector))
    if as_it_is is not None:
        least = size(sample.reshape(-1, *layout.detector), as_it_is) * (1 - LEAST_GAIN)
    share = layout.n_positions / positions.size
    for numbers, calibration in proposals:
        part = _part(calibration, positions)
        plane = express_integers(sample, numbers, part)
        if plane is None:
            continue
        # The map is paid once, however long the scan.
        fixed = len(write_calibration(calibration, layout))
        bytes_taken = size(sample.reshape(-1, *layout.detector), replace(plane, calibration=None)) + fixed / share
        if bytes_taken < least:
            best, least = (numbers, calibration), bytes_taken
    if best is None:
        return basic
    return express_integers(values, *best) or basic


def plane_behind(array: Array, numbers: NumberMap, calibration: Calibration) -> Plane | None:
    """Counts of a contiguous native array by the calibration that a chunk of it has."""
    layout = GroupLayout.of_shape(array.shape)
    values = array.reshape(layout.n_positions, layout.n_pixels)
    if isinstance(calibration, FloatCalibration):
        with np.errstate(all="ignore"):
            return express_floats(values, numbers, calibration)
    return express_integers(_signed(values), numbers, calibration)


def _signed(values: Array) -> Array:
    """Integers that fit in 64 bits with a sign: calibrations are modulo 2**64."""
    return values.view(np.int64) if values.dtype == np.uint64 else values


def _part(calibration: Calibration, positions: Array) -> Any:
    """Calibration of some scan positions."""
    if isinstance(calibration, IntegerCalibration) and calibration.shift is not None:
        return replace(calibration, shift=calibration.shift[positions])
    if isinstance(calibration, FloatCalibration) and calibration.scale is not None:
        return replace(calibration, scale=calibration.scale[positions])
    return calibration
