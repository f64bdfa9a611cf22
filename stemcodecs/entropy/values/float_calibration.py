"""Find the counts behind floats that were corrected for gain and dark reference, or divided by a dose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from stemcodecs.entropy.values.calibration import (
    Corrections,
    FloatCalibration,
    float_parameters,
    restore_calibrated,
    special_bits,
    whole_numbers,
)
from stemcodecs.entropy.values.calibration_kernels import float_counts
from stemcodecs.entropy.values.corrected_floats import express_corrected
from stemcodecs.entropy.values.integer_calibration import sampled_positions
from stemcodecs.entropy.values.joint_calibration import joint_calibration
from stemcodecs.entropy.values.lattice_kernels import FOUND, UNKNOWN, dark_lattices, lattice_gains, least_magnitudes
from stemcodecs.entropy.values.loose_kernels import loose_gains, loose_lines
from stemcodecs.entropy.values.number_map import MAX_EXCEPTIONS, MAX_SPECIALS, PLANE_TOP, NumberMap, float_map, marks
from stemcodecs.entropy.values.pattern_scales import HALF_COUNTS, HALF_DIGITS, HALF_LEAST
from stemcodecs.entropy.values.plane import Plane, wide_bits
from stemcodecs.entropy.values.row_blocks import by_row_blocks
from stemcodecs.entropy.values.stuck_values import with_marks

__all__ = ["express_floats", "propose_alike", "propose_floats"]

Array = np.ndarray[Any, Any]
Fit = Callable[[Array, float], tuple[Array, Array, Array]]

_TRIED = 96
"""Pixels, or patterns, on which each formula is tried."""
_SEVERAL, _FEWEST_ROWS = 4, 12
"""Values other than 0 from which a row tells formulas apart, and such rows without which all are asked."""
_ENOUGH = 0.85
"""Share of them that must follow it: the others may be dead or hot."""
_PIXELS_OF_A_PATTERN = 2048
_NEGATIVES = 1024
_PATTERNS_AT_ONCE, _PIXELS_AT_ONCE = 16, 1024
_DIGITS = {2: HALF_DIGITS, 4: 24}
"""Binary digits of half and of single precision."""
_LEAST_HALVES = {2: HALF_LEAST, 4: 2.0**-150}
"""Half of the smallest number that each holds."""
_NEAR = 1e-3
"""Counts that a value may lie beside a line, where last digits are corrected."""
_MOST_COUNTS = {2: HALF_COUNTS, 4: 65536.0}
"""Counts whose products half and single precision still tell apart, for the most part."""
_RARE = 1e-3
"""Share of zeros with a sign up to which these are exceptions."""


def propose_floats(values: Array) -> tuple[NumberMap, FloatCalibration] | None:
    """The formula that gives all values but a few, bit by bit, or None.

    values : floats[n_positions, n_pixels].
    """
    n_positions, n_pixels = values.shape
    if n_positions < 8:
        return None
    single = values.dtype.itemsize == 4
    rows = sampled_positions(n_positions, n_pixels)
    columns = values[rows].T
    tried = np.ascontiguousarray(columns[:: max(1, n_pixels // _TRIED)], np.float64)
    numbers = _number_map(values, columns)
    half = values.dtype.itemsize == 2
    if not half and _share(tried, single, divide=False) > _ENOUGH:
        gains = _gains(values, columns, single)
        return numbers, FloatCalibration(gain=gains * _signs(columns), single=single)
    if values.dtype.itemsize < 8 and _loose_share(tried, values.dtype) > _ENOUGH:
        gains, status = _loose(np.ascontiguousarray(columns, np.float64), values.dtype)
        # A number that fits some values need not fit them all: many do.
        again = np.arange(n_pixels if n_positions > rows.size else 0)
        for some in np.array_split(again, -(-again.size // _PIXELS_AT_ONCE) or 1):
            columns_of = np.ascontiguousarray(values.take(some, axis=1).T, np.float64)
            gains[some], status[some] = _loose(columns_of, values.dtype)
        return numbers, FloatCalibration(gain=_filled(gains, status == FOUND) * _signs(columns), single=half)
    # Dead and hot pixels do not follow their pattern.
    alive = np.flatnonzero((columns != columns[:, :1]).any(axis=1) & np.isfinite(columns).all(axis=1))
    fixed = _with_fixed(numbers, values, alive)
    if alive.size >= 16:
        pixels = alive[:: max(1, alive.size // _PIXELS_OF_A_PATTERN)]
        patterns = np.ascontiguousarray(values[rows[:: max(1, rows.size // 32)]][:, pixels], np.float64)
        # Single counts fit both; a sum of counts divides.
        divided, times = (0.0 if half else _share(patterns, single, divide=divide) for divide in (True, False))
        if max(divided, times) > _ENOUGH:
            divide = divided >= times
            scales = _scales(values, pixels, alive, single, divide=divide)
            return fixed, FloatCalibration(scale=scales, scale_divides=divide, single=single)
        if values.dtype.itemsize < 8 and _loose_share(patterns, values.dtype) > _ENOUGH:
            scales, status = _loose(np.ascontiguousarray(values.take(alive, axis=1), np.float64), values.dtype)
            return fixed, FloatCalibration(scale=_filled(scales, status == FOUND), single=half)
    if half:
        return None
    for fit in (_fit_lattices, *((_fit_lines,) if single else ()), _fit_near) if n_positions >= 32 else ():
        corrected = _dark_corrected(values, columns, tried, numbers, fit)
        # Few values of a pixel fit many formulas: some patterns must, too.
        few = np.ascontiguousarray(values[rows[:: max(1, rows.size // _PATTERNS_AT_ONCE)]])
        if corrected is not None and (fit is _fit_near or _express(few, *corrected) is not None):
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
    # Of patterns, as they lie in memory.
    sample = columns.T.reshape(-1)
    strange = sample[~np.isfinite(sample) | ((sample == 0) & np.signbit(sample))]
    found = np.unique(strange.view(bits)).tolist()
    specials = marks(values.reshape(-1).view(bits), values.shape[1], tuple(found)) if len(found) <= MAX_SPECIALS else ()
    negative = bool((sample < 0).any())
    return NumberMap(specials=tuple(int(s) for s in specials), negatives=_NEGATIVES if negative else 0)


def _signs(columns: Array) -> Array:
    """-1 for pixels most of whose values are negative, else 1."""
    return np.where((columns < 0).sum(axis=1) > (columns > 0).sum(axis=1), -1.0, 1.0)


def _loose(rows: Array, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Gains of rows of a dtype by products in more digits, and whether they were found."""
    gains, status = np.empty(len(rows)), np.empty(len(rows), np.int64)
    width = dtype.itemsize
    loose_gains(rows, _DIGITS[width], _LEAST_HALVES[width], _MOST_COUNTS[width], gains, status)
    if width == 2:
        # The products of half precision are computed in single.
        single = gains.astype(np.float32).astype(np.float64)
        status[(single != gains) & (status == FOUND)] = UNKNOWN
    return gains, status


def _telling(rows: Array) -> Array:
    """Those rows that have several values: a single one is a multiple of anything."""
    ordered = np.sort(np.where(np.isfinite(rows), np.abs(rows), 0), axis=1)
    several = np.count_nonzero(np.diff(ordered, axis=1), axis=1) >= _SEVERAL
    return rows[several] if int(several.sum()) >= _FEWEST_ROWS else rows


def _loose_share(rows: Array, dtype: np.dtype[Any]) -> float:
    _, status = _loose(_telling(rows), dtype)
    known = status != UNKNOWN
    return float((status[known] == FOUND).mean()) if known.any() else 0.0


def _share(rows: Array, single: bool, *, divide: bool) -> float:
    rows = _telling(rows)
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
        lattice_gains(np.ascontiguousarray(values.take(again, axis=1).T, np.float64), single, False, found, better)
        gains[again], status[again] = found, better
    return _filled(gains, status == FOUND)


def _least_magnitudes(values: Array) -> Array:
    """Smallest magnitude of every pixel but 0 and NaN: float64[n_pixels], infinite where there is none."""
    least = np.full(values.shape[1], np.inf, values.dtype)
    least_magnitudes(values, least)
    return least.astype(np.float64)


def _filled(values: Array, known: Array) -> Array:
    """Unknown ones replaced by those before: dead pixels have none, and these cost the map nothing."""
    place = np.maximum.accumulate(np.where(known, np.arange(values.size), 0))
    return np.where(known[place], values[place], values[int(np.argmax(known))])


def _scales(values: Array, pixels: Array, alive: Array, single: bool, *, divide: bool) -> Array:
    scales, status = np.empty(len(values)), np.empty(len(values), np.int64)
    lattice_gains(np.ascontiguousarray(values.take(pixels, axis=1), np.float64), single, divide, scales, status)
    again = np.flatnonzero(status != FOUND)
    if again.size:
        found, better = np.empty(again.size), np.empty(again.size, np.int64)
        lattice_gains(values[again][:, alive].astype(np.float64), single, divide, found, better)
        scales[again], status[again] = found, better
    return _filled(scales, status == FOUND)


def _fit_lattices(rows: Array, pedestal: float) -> tuple[Array, Array, Array]:
    """Dark references, gains and status by operations in the precision of the rows."""
    darks, gains, status = np.empty(len(rows)), np.empty(len(rows)), np.empty(len(rows), np.int64)
    single = rows.dtype.itemsize == 4
    dark_lattices(np.ascontiguousarray(rows, np.float64), single, pedestal, darks, gains, status)
    return darks, gains, status


def _fit_lines(rows: Array, pedestal: float) -> tuple[Array, Array, Array]:
    """As :func:`_fit_lattices`, by operations in double precision of which the result was rounded to single."""
    darks, gains, status = np.empty(len(rows)), np.empty(len(rows)), np.empty(len(rows), np.int64)
    loose_lines(np.ascontiguousarray(rows, np.float64), 24, pedestal, 0.0, darks, gains, status)
    return darks, gains, status


def _fit_near(rows: Array, pedestal: float) -> tuple[Array, Array, Array]:
    """As :func:`_fit_lines`, of values that lie beside what a line gives."""
    darks, gains, status = np.empty(len(rows)), np.empty(len(rows)), np.empty(len(rows), np.int64)
    digits = 24 if rows.dtype.itemsize == 4 else 53
    loose_lines(np.ascontiguousarray(rows, np.float64), digits, pedestal, _NEAR, darks, gains, status)
    return darks, gains, status


def _dark_corrected(
    values: Array, columns: Array, tried: Array, numbers: NumberMap, fit: Fit
) -> tuple[NumberMap, FloatCalibration] | None:
    _, gains, status = fit(tried.astype(values.dtype), 0.0)
    known = status != UNKNOWN
    if not known.any() or float((status[known] == FOUND).mean()) < _ENOUGH:
        return None
    # Most values must not become negative numbers, and dark references stay small: they keep their digits then.
    lowest = np.nanmin(np.where(np.isfinite(tried), tried, np.nan)[status == FOUND], axis=1) / gains[status == FOUND]
    pedestal = float(np.clip(np.ceil(-1.5 * lowest.min()) + 8, 0, 1 << 14))
    darks, gains, status = fit(columns, pedestal)
    again = np.flatnonzero(status != FOUND)
    if fit is _fit_lines:
        # Numbers that fit some values in double precision need not fit them all: many do.
        again = np.arange(len(columns))
    if len(values) > columns.shape[1]:
        for some in np.array_split(again, -(-again.size // _PIXELS_AT_ONCE) or 1):
            darks[some], gains[some], status[some] = fit(values.take(some, axis=1).T, pedestal)
    found = status == FOUND
    # Pixels of one or two values, dead ones: a gain of the value itself, and the next whole number.
    constant = ~found & (columns[:, 0] != 0) & np.isfinite(columns[:, 0])
    gains = np.where(constant, columns[:, 0].astype(np.float64), np.where(found, gains, 1.0))
    darks = np.where(found, darks, pedestal)
    numbers = NumberMap(specials=numbers.specials)
    single = fit is _fit_lattices and values.dtype.itemsize == 4
    unknown = Corrections(first=np.zeros(0, np.int64), lengths=np.zeros(0, np.int64), steps=np.zeros(0, np.int64))
    return numbers, FloatCalibration(
        dark=darks, gain=gains, single=single, corrections=unknown if fit is _fit_near else None
    )


def propose_alike(values: Array) -> tuple[NumberMap, FloatCalibration] | None:
    """One gain of all pixels, where zeros have a sign or most values are negative, or None."""
    rows = sampled_positions(*values.shape)
    sample = values[rows]
    sign = -1 if int((sample < 0).sum()) > int((sample > 0).sum()) else 1
    # Neither sign of zero is a mark or an exception here.
    numbers = float_map((sign * sample + 0).astype(values.dtype).reshape(-1), values.shape[1])
    if numbers is None:
        return None
    gain = np.full(values.shape[1], sign * numbers.gain)
    calibration = FloatCalibration(
        gain=None if sign * numbers.gain == 1 else gain, gain_divides=numbers.divide, single=False
    )
    specials = tuple(s for s in numbers.specials if sign == 1 or not np.isfinite(_float_of(s, values.dtype)))
    return replace(numbers, specials=specials, gain=1.0, divide=False), calibration


def _float_of(bits: int, dtype: np.dtype[Any]) -> float:
    return float(np.array([bits], f"u{dtype.itemsize}").view(dtype)[0])


def express_floats(
    values: Array, numbers: NumberMap, calibration: FloatCalibration, *, fixed: bool = False,
    most: float = MAX_EXCEPTIONS,
) -> Plane | None:  # fmt: skip
    """Counts by a formula, every value proved; None if more than a share ``most`` of them have none.

    fixed : whether the plane must have the very marks and formula that are given: those of a whole scan.
    """
    if calibration.corrections is not None and fixed:
        plane = _express_slowly(values, numbers, calibration, most)
    elif calibration.corrections is not None:
        plane = express_corrected(values, numbers, calibration)
    elif calibration.signed_zeros:
        plane = _with_signed_zeros(values, numbers, calibration, most)
    elif fixed:
        plane = _express(values, numbers, calibration, most)
    else:
        plane = _with_either_zeros(values, numbers, calibration, most)
    return plane if fixed or plane is None else with_marks(plane, values.shape[1])


def _with_either_zeros(values: Array, numbers: NumberMap, calibration: FloatCalibration, most: float) -> Plane | None:
    """Counts by a formula, with two codes of zero counts if many have the other sign."""
    plane = _express(values, numbers, calibration, most)
    if plane is not None and plane.exceptions_at.size <= _RARE * values.size:
        return plane
    other_sign = int((values[_signed(values, calibration)] == 0).sum())
    if calibration.dark is not None or other_sign <= _RARE * values.size:
        return plane
    return _with_signed_zeros(values, numbers, calibration, most)


def _signed(values: Array, c: FloatCalibration) -> Array:
    """Which values do not have the sign that zero counts have by a formula without a dark reference."""
    gain = np.zeros((1, 1), bool) if c.gain is None else np.signbit(c.gain)[None]
    scale = np.zeros((1, 1), bool) if c.scale is None else np.signbit(c.scale)[:, None]
    return np.asarray(np.signbit(values) ^ (gain ^ scale))


def _with_signed_zeros(
    values: Array, numbers: NumberMap, calibration: FloatCalibration, most: float = MAX_EXCEPTIONS
) -> Plane | None:
    """As :func:`express_floats`, with a code of its own for zero counts of the other sign."""
    other = (values == 0) & _signed(values, calibration)
    plane = _express(np.where(other, -values, values), numbers, replace(calibration, signed_zeros=False), most)
    if plane is None:
        return None
    counts = plane.counts.reshape(values.shape)
    first_mark = PLANE_TOP - numbers.negatives - len(numbers.specials)
    counted = (counts > 0) & (counts < first_mark)
    # The highest code has none above it.
    if (counts == first_mark - 1).any():
        return None
    counts[counted] += 1
    counts[other & (counts == 0)] = 1
    return replace(plane, calibration=replace(calibration, signed_zeros=True))


def _express_slowly(values: Array, numbers: NumberMap, calibration: FloatCalibration, most: float) -> Plane | None:
    """As :func:`_express`, of half precision or with corrections: by what a decoder does, some patterns at a time."""
    n_positions, n_pixels = values.shape
    with np.errstate(all="ignore"):
        back, back_scale = _inverses(calibration, values.shape)
    specials = special_bits(numbers, values.dtype)
    bits = specials.dtype
    highest = PLANE_TOP - numbers.negatives - specials.size
    counts, at = np.empty(values.shape, np.uint16), []
    for first in range(0, n_positions, _PATTERNS_AT_ONCE):
        positions = np.arange(first, min(first + _PATTERNS_AT_ONCE, n_positions))
        some = values[positions]
        with np.errstate(all="ignore"):
            guess = some.astype(np.float64) * back * back_scale[positions, None]
            guess = np.rint(guess if calibration.dark is None else guess + calibration.dark)
        known = (guess >= -numbers.negatives) & (guess < highest)
        codes = (np.where(known, guess, 0).astype(np.int64) % PLANE_TOP).astype(np.uint16)
        restored = restore_calibrated(codes.copy(), numbers, calibration, values.dtype, positions)
        known &= restored.view(bits) == some.view(bits)
        for k, special in enumerate(specials):
            marked = ~known & (some.view(bits) == special)
            codes[marked] = numbers.code(k)
            known |= marked
        wrong = np.flatnonzero(~known)
        # The value before should not surprise a model.
        codes.reshape(-1)[wrong] = codes.reshape(-1)[np.maximum(wrong - 1, 0)]
        counts[positions] = codes
        at.append(wrong + first * n_pixels)
        if sum(a.size for a in at) > most * values.size + 8:
            return None
    places = np.concatenate(at)
    return Plane(
        numbers=numbers, counts=counts.reshape(-1), low=None, exceptions_at=places,
        exceptions=wide_bits(values.reshape(-1)[places]), calibration=calibration,
    )  # fmt: skip


def _inverses(c: FloatCalibration, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Factors of pixels and of patterns that turn values into counts, roughly."""
    back = np.ones(shape[1]) if c.gain is None else c.gain if c.gain_divides else 1 / c.gain
    back_scale = np.ones(shape[0]) if c.scale is None else c.scale if c.scale_divides else 1 / c.scale
    return back, back_scale


def _express(
    values: Array, numbers: NumberMap, calibration: FloatCalibration, most: float = MAX_EXCEPTIONS
) -> Plane | None:
    n_positions, n_pixels = values.shape
    c = calibration
    if values.dtype.itemsize == 2:
        return _express_slowly(values, numbers, c, most)
    whole = whole_numbers(numbers, c)
    parameters = float_parameters(c, np.arange(n_positions), n_pixels)
    bits = np.dtype(f"u{values.dtype.itemsize}")
    with np.errstate(all="ignore"):
        back, back_scale = _inverses(c, values.shape)
        counts = np.empty(values.shape, np.uint16)
        wrong = np.empty(int(most * values.size) + 8, np.int64)
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
