"""Find the counts behind floats that were corrected for gain and dark reference, or divided by a dose."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from stemcodecs.entropy.values.calibration import FloatCalibration, float_parameters, special_bits, whole_numbers
from stemcodecs.entropy.values.calibration_kernels import float_counts
from stemcodecs.entropy.values.integer_calibration import sampled_positions
from stemcodecs.entropy.values.joint_calibration import joint_calibration
from stemcodecs.entropy.values.lattice_kernels import FOUND, UNKNOWN, dark_lattices, lattice_gains
from stemcodecs.entropy.values.number_map import MAX_EXCEPTIONS, MAX_SPECIALS, PLANE_TOP, NumberMap, marks
from stemcodecs.entropy.values.plane import Plane, wide_bits
from stemcodecs.entropy.values.row_blocks import by_row_blocks

__all__ = ["express_floats", "propose_floats"]

Array = np.ndarray[Any, Any]

_TRIED = 96
"""Pixels, or patterns, on which each formula is tried."""
_ENOUGH = 0.85
"""Share of them that must follow it: the others may be dead or hot."""
_PIXELS_OF_A_PATTERN = 2048
_NEGATIVES = 1024
_PATTERNS_AT_ONCE = 16


def propose_floats(values: Array) -> tuple[NumberMap, FloatCalibration] | None:
    """The formula that gives all values but a few, bit by bit, or None.

    values : float32 or float64[n_positions, n_pixels].
    """
    n_positions, n_pixels = values.shape
    if values.dtype.itemsize == 2 or n_positions < 8:
        return None
    single = values.dtype.itemsize == 4
    rows = sampled_positions(n_positions, n_pixels)
    columns = values[rows].T
    tried = np.ascontiguousarray(columns[:: max(1, n_pixels // _TRIED)], np.float64)
    numbers = _number_map(values, columns)
    if _share(tried, single, divide=False) > _ENOUGH:
        gains = _gains(values, columns, single)
        return numbers, FloatCalibration(gain=gains, single=single)
    # Dead and hot pixels do not follow their pattern.
    alive = np.flatnonzero((columns != columns[:, :1]).any(axis=1) & np.isfinite(columns).all(axis=1))
    fixed = _with_fixed(numbers, values, alive)
    if alive.size >= 16:
        pixels = alive[:: max(1, alive.size // _PIXELS_OF_A_PATTERN)]
        patterns = np.ascontiguousarray(values[rows[:: max(1, rows.size // 32)]][:, pixels], np.float64)
        # Single counts fit both; a sum of counts divides.
        divided, times = (_share(patterns, single, divide=divide) for divide in (True, False))
        if max(divided, times) > _ENOUGH:
            divide = divided >= times
            scales = _scales(values, pixels, alive, single, divide=divide)
            return fixed, FloatCalibration(scale=scales, scale_divides=divide, single=single)
    corrected = _dark_corrected(values, columns, tried, numbers, single=single) if n_positions >= 32 else None
    if corrected is not None:
        return corrected
    joint = joint_calibration(values, rows)
    return None if joint is None else (fixed, joint)


def _with_fixed(numbers: NumberMap, values: Array, alive: Array) -> NumberMap:
    """Marks, and among them values other than 0 that pixels always have."""
    dead = np.ones(values.shape[1], bool)
    dead[alive] = False
    always = np.unique(values[0, dead & (values[0] != 0)].view(f"u{values.dtype.itemsize}"))
    more = [int(v) for v in always if int(v) not in numbers.specials]
    return replace(numbers, specials=(*numbers.specials, *more)[:MAX_SPECIALS])


def _number_map(values: Array, columns: Array) -> NumberMap:
    """Marks, and room for negative values if there are any."""
    bits = np.dtype(f"u{values.dtype.itemsize}")
    sample = np.ascontiguousarray(columns).reshape(-1)
    strange = sample[~np.isfinite(sample) | ((sample == 0) & np.signbit(sample))]
    found = np.unique(strange.view(bits)).tolist()
    specials = marks(values.reshape(-1).view(bits), values.shape[1], tuple(found)) if len(found) <= MAX_SPECIALS else ()
    negative = bool((sample < 0).any())
    return NumberMap(specials=tuple(int(s) for s in specials), negatives=_NEGATIVES if negative else 0)


def _share(rows: Array, single: bool, *, divide: bool) -> float:
    gains, status = np.empty(len(rows)), np.empty(len(rows), np.int64)
    lattice_gains(rows, single, divide, gains, status)
    known = status != UNKNOWN
    return float((status[known] == FOUND).mean()) if known.any() else 0.0


def _gains(values: Array, columns: Array, single: bool) -> Array:
    """Gain of every pixel; those that its sample does not tell are sought among all its values."""
    gains, status = np.empty(len(columns)), np.empty(len(columns), np.int64)
    lattice_gains(np.ascontiguousarray(columns, np.float64), single, False, gains, status)
    # A gain from two counts does not give one: a dim pixel has few values in the sample, and its least elsewhere.
    again = np.flatnonzero((status != FOUND) | (_least_magnitudes(values) < 0.75 * gains))
    if again.size and len(values) > columns.shape[1]:
        found, better = np.empty(again.size), np.empty(again.size, np.int64)
        lattice_gains(np.ascontiguousarray(values[:, again].T, np.float64), single, False, found, better)
        gains[again], status[again] = found, better
    return _filled(gains, status == FOUND)


def _least_magnitudes(values: Array) -> Array:
    """Smallest magnitude of every pixel but 0 and NaN: float64[n_pixels], infinite where there is none."""
    least = np.full(values.shape[1], np.inf)
    for first in range(0, len(values), _PATTERNS_AT_ONCE):
        part = np.abs(values[first : first + _PATTERNS_AT_ONCE])
        part[part == 0] = np.inf
        np.fmin(least, np.fmin.reduce(part, axis=0), out=least)
    return least


def _filled(values: Array, known: Array) -> Array:
    """Unknown ones replaced by those before: dead pixels have none, and these cost the map nothing."""
    place = np.maximum.accumulate(np.where(known, np.arange(values.size), 0))
    return np.where(known[place], values[place], values[int(np.argmax(known))])


def _scales(values: Array, pixels: Array, alive: Array, single: bool, *, divide: bool) -> Array:
    scales, status = np.empty(len(values)), np.empty(len(values), np.int64)
    lattice_gains(np.ascontiguousarray(values[:, pixels], np.float64), single, divide, scales, status)
    again = np.flatnonzero(status != FOUND)
    if again.size:
        found, better = np.empty(again.size), np.empty(again.size, np.int64)
        lattice_gains(values[again][:, alive].astype(np.float64), single, divide, found, better)
        scales[again], status[again] = found, better
    return _filled(scales, status == FOUND)


def _dark_corrected(
    values: Array, columns: Array, tried: Array, numbers: NumberMap, *, single: bool
) -> tuple[NumberMap, FloatCalibration] | None:
    def fit(rows: Array, pedestal: float) -> tuple[Array, Array, Array]:
        darks, gains, status = np.empty(len(rows)), np.empty(len(rows)), np.empty(len(rows), np.int64)
        dark_lattices(np.ascontiguousarray(rows, np.float64), single, pedestal, darks, gains, status)
        return darks, gains, status

    _, gains, status = fit(tried, 0.0)
    known = status != UNKNOWN
    if not known.any() or float((status[known] == FOUND).mean()) < _ENOUGH:
        return None
    # Most values must not become negative numbers, and dark references stay small: they keep their digits then.
    lowest = np.nanmin(np.where(np.isfinite(tried), tried, np.nan)[status == FOUND], axis=1) / gains[status == FOUND]
    pedestal = float(np.clip(np.ceil(-1.5 * lowest.min()) + 8, 0, 1 << 14))
    darks, gains, status = fit(columns, pedestal)
    again = np.flatnonzero(status != FOUND)
    if again.size and len(values) > columns.shape[1]:
        darks[again], gains[again], status[again] = fit(values[:, again].T, pedestal)
    found = status == FOUND
    # Pixels of one or two values, dead ones: a gain of the value itself, and the next whole number.
    constant = ~found & (columns[:, 0] != 0) & np.isfinite(columns[:, 0])
    gains = np.where(constant, columns[:, 0].astype(np.float64), np.where(found, gains, 1.0))
    darks = np.where(found, darks, pedestal)
    numbers = NumberMap(specials=numbers.specials)
    return numbers, FloatCalibration(dark=darks, gain=gains, single=single)


def express_floats(values: Array, numbers: NumberMap, calibration: FloatCalibration) -> Plane | None:
    """Counts by a formula, every value proved; None if more than 2 % of them have none."""
    n_positions, n_pixels = values.shape
    c = calibration
    whole = whole_numbers(numbers, c)
    parameters = float_parameters(c, np.arange(n_positions), n_pixels)
    bits = np.dtype(f"u{values.dtype.itemsize}")
    with np.errstate(all="ignore"):
        back = np.ones(n_pixels) if c.gain is None else c.gain if c.gain_divides else 1 / c.gain
        back_scale = np.ones(n_positions) if c.scale is None else c.scale if c.scale_divides else 1 / c.scale
        counts = np.empty(values.shape, np.uint16)
        wrong = np.empty(int(MAX_EXCEPTIONS * values.size) + 8, np.int64)
        top, specials = PLANE_TOP - numbers.negatives, special_bits(numbers, values.dtype)
        dark, gain, scale, *divides = parameters

        def code(part: slice, found: Array, missing: Array) -> int:
            some = values[part]
            of_patterns = scale[part] if scale.size else scale
            return int(
                float_counts(
                    some, some.view(bits), top, specials, whole, dark, gain, of_patterns, *divides, back,
                    back_scale[part], found, missing,
                )
            )  # fmt: skip

        n = by_row_blocks(code, counts, wrong)
    if n > wrong.size:
        return None
    at = wrong[:n].copy()
    return Plane(
        numbers=numbers, counts=counts.reshape(-1), low=None, exceptions_at=at,
        exceptions=wide_bits(values.reshape(-1)[at]), calibration=calibration,
    )  # fmt: skip
