"""Choose how the values of an array become counts, by what a sample of it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from stemcodecs.entropy.chunk.calibration_bytes import write_calibration
from stemcodecs.entropy.kernels.rans import LANES
from stemcodecs.entropy.model.group_layout import GroupLayout
from stemcodecs.entropy.values.calibration import Calibration, FloatCalibration, IntegerCalibration, ValueTable
from stemcodecs.entropy.values.float_calibration import express_floats, propose_alike, propose_floats
from stemcodecs.entropy.values.integer_calibration import (
    Proposal,
    express_integers,
    propose_integers,
    sampled_positions,
)
from stemcodecs.entropy.values.listed_floats import plane_by_list
from stemcodecs.entropy.values.number_map import PLANE_TOP, NumberMap
from stemcodecs.entropy.values.pattern_parameters import signed
from stemcodecs.entropy.values.plane import Plane, to_plane

__all__ = ["calibrated_plane", "plane_behind"]

Array = np.ndarray[Any, Any]
Size = Callable[[Array, Plane], int]

LEAST_GAIN = 0.003
"""Share of the bytes that a calibration must save on the sample: without one, decoding is faster."""
_SPARSEST, _LOOKED_AT, _LEAST_ROWS = 8, 1 << 19, 16
"""Detector rows of which at least one is looked at first, values from which it is, and rows that remain if possible."""
_CLEARLY = 0.9
"""Size relative to all others below which that look is enough, and nothing else need be tried."""
_MANY = 1e-3
"""Share of exceptions among floats from which zeros may have a sign."""
_SEEN_WHOLE = 1 << 18
"""Values up to which the sample is the array: the parameters of a small one weigh too much to be estimated."""


def calibrated_plane(array: Array, basic: Plane | None, size: Size) -> tuple[Plane | None, Plane | None]:
    """The plane of counts that takes least: ``basic``, or one behind a calibration.

    Parameters
    ----------
    array : ndarray
        C-contiguous and native, not empty.
    basic : Plane or None
        Its counts without a calibration, if it has any.
    size : callable
        Bytes of an array and its plane.

    Returns
    -------
    Plane or None
        The best, by a sample.
    Plane or None
        Another that may take less, where the sample leaves a doubt.
    """
    if array.dtype.kind not in "iuf":
        return basic, None
    layout = GroupLayout.of_shape(array.shape)
    values = array.reshape(layout.n_positions, layout.n_pixels)
    if array.dtype.kind == "f":
        # Signalling NaNs raise a flag when they are cast; whatever is computed from them is compared bit by bit.
        with np.errstate(all="ignore"):
            return _float_plane(values, basic), None
    values = signed(values)
    proposals = propose_integers(values, None if basic is None else basic.numbers, layout.detector)
    proposals = [proposal for proposal in proposals if _is_stored(proposal[1])]
    if not proposals:
        return basic, None
    best, clear = _smallest(values, array.dtype, layout, proposals, size)
    plane = None if best is None else express_integers(values, *best)
    return (basic, None) if plane is None else (plane, None if clear else basic)


def _float_plane(values: Array, basic: Plane | None) -> Plane | None:
    if basic is None or basic.exceptions_at.size > _MANY * values.size or basic.numbers.negatives == PLANE_TOP // 2:
        alike = propose_alike(values)
        plane = None if alike is None else express_floats(values, *alike)
        if plane is not None and (basic is None or plane.exceptions_at.size <= basic.exceptions_at.size):
            return plane
    formula = propose_floats(values) if basic is None else None
    return basic if formula is None else express_floats(values, *formula)


def _smallest(
    values: Array, dtype: np.dtype[Any], layout: GroupLayout, proposals: list[Proposal], size: Size
) -> tuple[Proposal | None, bool]:
    """What takes least on some patterns, if it is less than without a calibration, and whether that is clear."""
    positions = sampled_positions(layout.n_positions, layout.n_pixels, min(max(24, layout.n_positions // 24), 64))
    if values.size <= _SEEN_WHOLE:
        positions = np.arange(layout.n_positions)
    sample = np.ascontiguousarray(values[positions]).reshape(-1, *layout.detector)
    share = positions.size / layout.n_positions
    # A few rows of the detector tell most cases at a third of the time.
    every = int(np.clip(layout.detector[0] // _LEAST_ROWS, _SPARSEST // 2, _SPARSEST))
    if sample.size > _LOOKED_AT and layout.detector[0] > _LEAST_ROWS:
        most = [share * _most_bytes(calibration) / every for _, calibration in proposals]
        few = np.ascontiguousarray(sample[:, ::every])
        sizes = _sizes(few, dtype, [_of_rows(p, layout, positions, every) for p in proposals], size)
        together = [n + m for n, m in zip(sizes[1:], most, strict=True)]
        first = int(np.argmin(together))
        if all(together[first] < _CLEARLY * n for k, n in enumerate((sizes[0], *together)) if k != first + 1):
            return proposals[first], True
    fixed = [share * len(write_calibration(calibration, layout, extended=True)) for _, calibration in proposals]
    sizes = _sizes(sample, dtype, [(numbers, _part(c, positions)) for numbers, c in proposals], size)
    # The map is paid once, however long the scan.
    together = [n + m for n, m in zip(sizes[1:], fixed, strict=True)]
    first = int(np.argmin(together))
    if together[first] >= sizes[0] * (1 - LEAST_GAIN):
        # Counts are packed by lanes that a short sample leaves empty: it tells little less than a tenth.
        doubtful = positions.size < min(LANES, layout.n_positions) and _CLEARLY * together[first] < sizes[0]
        return (proposals[first], False) if doubtful else (None, True)
    return proposals[first], together[first] < _CLEARLY * sizes[0]


def _is_stored(calibration: Calibration) -> bool:
    """Whether the maps of a calibration have 32 bits: more, the coder of maps has no room for."""
    if isinstance(calibration, ValueTable):
        return True
    maps = (getattr(calibration, name) for name in ("gain", "offset", "shift"))
    return all(m is None or (int(m.min()) >= -(2**31) and int(m.max()) < 2**31) for m in maps)


def _sizes(sample: Array, dtype: np.dtype[Any], proposals: list[Proposal], size: Size) -> list[float]:
    """Bytes of some patterns as they are, and by each calibration; infinite where it does not give them."""
    out = []
    as_it_is = to_plane(sample.view(dtype))
    planes = [express_integers(sample.reshape(len(sample), -1), *proposal) for proposal in proposals]
    for plane in (as_it_is, *planes):
        out.append(float("inf") if plane is None else float(size(sample, replace(plane, calibration=None))))
    return out


def _most_bytes(calibration: Calibration) -> float:
    """Bytes that the maps of a calibration take at most, roughly."""
    if isinstance(calibration, ValueTable):
        return 2.0 * calibration.values.size
    maps = (getattr(calibration, name) for name in ("gain", "offset", "shift"))
    return sum(m.size * (np.log2(float(np.ptp(m)) + 1) + 2) / 8 for m in maps if m is not None)


def plane_behind(array: Array, numbers: NumberMap, calibration: Calibration) -> Plane | None:
    """Counts of a contiguous native array by the calibration that a chunk of it has."""
    layout = GroupLayout.of_shape(array.shape)
    values = array.reshape(layout.n_positions, layout.n_pixels)
    if isinstance(calibration, FloatCalibration):
        with np.errstate(all="ignore"):
            return express_floats(values, numbers, calibration, fixed=True)
    if isinstance(calibration, ValueTable) and calibration.width:
        return plane_by_list(values, numbers, calibration)
    return express_integers(signed(values), numbers, calibration, fixed=True)


def _of_rows(proposal: Proposal, layout: GroupLayout, positions: Array, every: int) -> Proposal:
    """A proposal for the rows of the detector that are looked at first: one in so many."""
    numbers, calibration = proposal
    if isinstance(calibration, ValueTable):
        return proposal
    gain, offset = (
        None if m is None else np.ascontiguousarray(m.reshape(layout.detector)[::every]).reshape(-1)
        for m in (calibration.gain, calibration.offset)
    )
    return numbers, replace(_part(calibration, positions), gain=gain, offset=offset)


def _part(calibration: Calibration, positions: Array) -> Any:
    """Calibration of some scan positions."""
    if isinstance(calibration, IntegerCalibration) and calibration.shift is not None:
        return replace(calibration, shift=calibration.shift[positions])
    if isinstance(calibration, FloatCalibration) and calibration.scale is not None:
        return replace(calibration, scale=calibration.scale[positions])
    return calibration
