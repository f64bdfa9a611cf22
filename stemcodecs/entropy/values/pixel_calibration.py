"""Propose gains and offsets of every pixel, and offsets of every pattern, of integers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from stemcodecs.entropy.values.calibration import IntegerCalibration
from stemcodecs.entropy.values.gain_kernels import gain_intervals, integer_gains, pixel_sums
from stemcodecs.entropy.values.narrow_kernels import columns_of, narrow_lows, narrow_sums
from stemcodecs.entropy.values.offset_maps import poisson_offsets, zeros_of_pixels

__all__ = ["NARROW_SHIFT", "propose_pixels", "within"]

Array = np.ndarray[Any, Any]

_LIMIT = 1 << 30
_WATCHED_POSITIONS, _RUNS, _RUN = 1024, 16, 8
"""Scan positions, and runs of neighbouring pixels, that are looked at before a whole chunk is."""
NARROW_SHIFT = 1 << 20
"""Shift of patterns up to which that of values of 16 bits and their sums fit 32 bits, and differences 24."""
_TYPICAL = 4096
"""Pixels that tell the gain that most have."""
_FEW_COUNTS = 256
_MEAN_POSITIONS = 256
"""Patterns that give the mean of pixels when there are at least twice as many."""
_FANO = 0.9
"""Variance over mean: 1 of counts, more where the sample changes, less where an offset adds to the mean."""
_FAR_OFF = 0.3
"""Counts that a guessed gain may take the highest count of its pixel wrong by."""
_ALIKE = 0.95
"""Share of the pixels that one gain must fit to be the gain of all these."""


def propose_pixels(
    values: Array,
    rows: Array,
    some: Array,
    shift: Array | None,
    bounds: tuple[int, int],
    detector: tuple[int, int],
    *,
    spaced: bool,
    backwards: bool = False,
) -> IntegerCalibration | None:
    """Gains and offsets of pixels, if some of the values look like it, and the offsets of patterns.

    Parameters
    ----------
    values : integers[n_positions, n_pixels]
        More counts are higher values, unless ``backwards``: then those of their complement, which all else is of.
    rows : int64[k]
        Sampled scan positions.
    some : int64[k, n]
        Values of some pixels there, see :func:`within`.
    shift : int64[n_positions] or None
        Offset of every pattern.
    bounds : tuple of int
        Values outside of them are marks or outliers.
    detector : tuple of int
        Rows and columns of the detector.
    spaced : bool
        Whether values have the same spacing in all pixels.
    backwards : bool
        Whether more counts are lower values.
    """
    n_positions, n_pixels = values.shape
    if n_positions < 16 or n_pixels < 16:
        return None
    if shift is not None:
        some = some - shift[rows, None]
        bounds = bounds[0] - int(shift.max()), bounds[1] - int(shift.min())
    some = np.sort(some, axis=0)
    steps = np.diff(some, axis=0)
    least = np.where(steps > 0, steps, _LIMIT).min(axis=0)
    several = (steps > 0).sum(axis=0) >= 2
    gains = not spaced and bool(several.any()) and float((least[several] >= 2).mean()) > 0.7
    # The sample sees few values of each pixel; a few pixels seen whole say no at a small part of the cost of trying.
    gains = gains and _spread_out(_watched(values, shift, bounds, backwards))
    if (
        shift is None
        and not gains
        and not (_differ(some) and _quieter_than_counts(_watched(values, shift, bounds, backwards)))
    ):
        return None
    if shift is None:
        shift = np.zeros(n_positions, np.int64)
    # A copy of all values: few arrays come this far.
    values = ~values if backwards else values
    calibration = _pixel_calibration(values, rows, shift, bounds, detector, gains=gains)
    if calibration is None:
        return None
    return _without_stuck(calibration, values[rows]) if shift.any() else replace(calibration, shift=None)


def _without_stuck(calibration: IntegerCalibration, some: Array) -> IntegerCalibration:
    """The calibration with offsets that give no value of pixels which do not follow the offsets of their patterns."""
    stuck = (some == some[0]).all(axis=0)
    if not stuck.any() or calibration.offset is None or calibration.shift is None:
        return calibration
    offset = calibration.offset.copy()
    # Above all that the pixel has: as marks these values take one code, as counts they would follow the patterns.
    above = some[0, stuck].astype(np.int64) - int(calibration.shift.min()) + 1
    if np.abs(above).max() >= _LIMIT >> calibration.fraction:
        return calibration
    offset[stuck] = (above << calibration.fraction) + ((1 << calibration.fraction) >> 1)
    gain = calibration.gain
    if gain is not None and not stuck.all():
        # The offsets of their patterns made gains of them. That of the pixel before costs the map nothing.
        before = np.maximum.accumulate(np.where(stuck, 0, np.arange(stuck.size)))
        gain = gain[np.where(stuck[before], int(np.argmin(stuck)), before)]
    return replace(calibration, gain=gain, offset=offset)


def _watched(values: Array, shift: Array | None, bounds: tuple[int, int], backwards: bool) -> Array:
    """All values, int64[positions, pixels], of a few pixels from all over the detector, less the shift of patterns."""
    n_positions, n_pixels = values.shape
    rows = np.unique(np.linspace(0, n_positions - 1, min(n_positions, _WATCHED_POSITIONS)).astype(np.int64))
    # Runs of pixels share lines of the processor's cache.
    starts = np.linspace(0, max(n_pixels - _RUN, 0), min(n_pixels // _RUN, _RUNS)).astype(np.int64)
    pixels = (starts[:, None] + np.arange(_RUN)).reshape(-1)
    # Whole columns are taken several times as fast as single values.
    watched = values.take(pixels, axis=1) if rows.size == n_positions else values[rows[:, None], pixels]
    watched = (~watched if backwards else watched).astype(np.int64)
    if shift is not None:
        watched -= shift[rows, None]
    return within(watched, bounds)


def within(values: Array, bounds: tuple[int, int]) -> Array:
    """Values, with the median in place of marks and outliers."""
    outside = (values < bounds[0]) | (values > bounds[1])
    if not outside.any():
        return values
    # The largest integers have a median, a float, that is none of 64 bits.
    return np.where(outside, int(np.clip(np.median(values), -(2.0**62), 2.0**62)), values)


def _spread_out(watched: Array) -> bool:
    """Whether most pixels leave out values between those that they have: two neighbouring integers deny a gain."""
    steps = np.diff(np.sort(watched, axis=0), axis=0)
    several = (steps > 0).sum(axis=0) >= 2
    least = np.where(steps > 0, steps, _LIMIT).min(axis=0)
    return bool(several.any()) and float((least[several] >= 2).mean()) > 0.7


def _quieter_than_counts(watched: Array) -> bool:
    """Whether the brighter pixels vary less than counts of their mean: part of it is then an offset, not counts."""
    mean = watched.mean(axis=0)
    brighter = mean >= np.median(mean)
    signal = float((mean[brighter] - watched.min()).sum())
    return signal > 0 and float(watched[:, brighter].var(axis=0).sum()) < _FANO * signal


def _differ(some: Array) -> bool:
    """Whether pixels have offsets of their own, from sorted values of each."""
    offsets, rates = poisson_offsets(some[0], some.mean(axis=0), len(some))
    common = np.median(offsets)
    tolerance = 1 + 1.5 * np.sqrt(rates)
    off = offsets - common > tolerance
    if some.min() < 0 or common > 0:
        off |= common - offsets > tolerance
    # Small offsets of a dim detector: the lowest values of its pixels differ, and there is little else.
    dim = float((some[0] != np.median(some[0])).mean()) > 0.1 and rates.mean() < 2
    return bool(off.mean() > 0.1 or dim)


def _pixel_calibration(
    values: Array, rows: Array, shift: Array, bounds: tuple[int, int], detector: tuple[int, int], *, gains: bool
) -> IntegerCalibration | None:
    n_positions, n_pixels = values.shape
    low, total, times = _statistics(values, shift, bounds)
    seen = times > 0
    if not seen.any():
        return None
    # Before the median, which is a float: that of the largest integers is none of 64 bits.
    if low[seen].max() >= _LIMIT or low[seen].min() <= -_LIMIT:
        return None
    low[~seen] = int(np.median(low[seen]))
    mean = np.where(seen, total / np.maximum(times, 1), low)
    if not gains:
        return IntegerCalibration(offset=zeros_of_pixels(low, mean, n_positions, detector), shift=shift)
    narrow = values.dtype.itemsize <= 2 and np.abs(shift).max(initial=0) < NARROW_SHIFT
    # Rows of 32 bits are sorted in vectors.
    columns: Array = np.empty((n_pixels, rows.size), np.int32 if narrow else np.int64)
    columns_of(values, rows, shift, columns)
    outside = (columns < bounds[0]) | (columns > bounds[1])
    if outside.any():
        columns = np.where(outside, low[:, None].astype(columns.dtype), columns)
    columns.sort(axis=1)
    gain = np.zeros(n_pixels)
    # What is typical some pixels tell.
    few = slice(None, None, max(1, n_pixels // _TYPICAL))
    guess = np.zeros(low[few].size)
    integer_gains(columns[few].copy(), low[few].copy(), 0.0, guess)
    typical = float(np.median(guess[guess > 0])) if (guess > 0).any() else 1.0
    zeros = zeros_of_pixels(low, mean, n_positions, detector, typical)
    # A pixel of one or two values has multiples of its gain as well: that of the others tells.
    integer_gains(columns, zeros, typical, gain)
    # Dead and hot pixels show none, or one that says nothing.
    gain[(gain == 0) | (gain > 16 * typical)] = typical
    least, most = np.maximum(gain * 0.5, 1.0), gain * 1.5
    # Bounds from counts that have few digits are apart by more than the last digit of single precision.
    dim = narrow and float((columns[:, -1] - zeros).max()) < _FEW_COUNTS * typical
    first_look = np.zeros(0, np.float32 if dim else np.float64)
    gain_intervals(values, shift, *bounds, zeros, gain, least, most, first_look)
    # A first guess far off takes high counts for their neighbours.
    better = (least + most) / 2
    highest = (columns[:, -1] - zeros) / gain
    if float((np.abs(better / gain - 1) * highest > _FAR_OFF).mean()) > 1 - _ALIKE:
        gain = better
        least, most = np.maximum(gain * 0.5, 1.0), gain * 1.5
        gain_intervals(values, shift, *bounds, zeros, gain, least, most, first_look)
    _narrow_to_one(least, most)
    for fraction in range(17):
        whole = np.ceil(least * 2.0**fraction)
        if float((whole < most * 2.0**fraction).mean()) > 0.995:
            break
    middle = np.rint((least + most) / 2 * 2.0**fraction)
    inside = (middle > least * 2.0**fraction) & (middle < most * 2.0**fraction)
    chosen = np.where(inside, middle, whole)
    if not (chosen.min() >= 1 and chosen.max() < _LIMIT):
        return None
    gain_units = chosen.astype(np.int64)
    offset = (zeros << fraction) + ((1 << fraction) >> 1)
    if np.abs(offset).max() >= 2 * _LIMIT:
        return None
    return IntegerCalibration(fraction=fraction, gain=gain_units, offset=offset, shift=shift)


def _narrow_to_one(least: Array, most: Array) -> None:
    """Narrow the intervals of the gains, where most of them share a number, to that."""
    enough = math.ceil(_ALIKE * least.size)
    # Where so many end before as many others begin, no number is in most of them: this takes a tenth of sorting all.
    if np.partition(least, enough - 1)[enough - 1] > np.partition(most, most.size - enough)[most.size - enough]:
        return
    ends = np.concatenate([least, most])
    open_ones = np.cumsum(np.repeat([1, -1], least.size)[np.argsort(ends, kind="stable")])
    best = int(np.argmax(open_ones))
    if open_ones[best] < _ALIKE * least.size:
        return
    shared = float(np.sort(ends)[best : best + 2].mean())
    inside = (least < shared) & (shared < most)
    if not inside.any():
        # Intervals that only touch share an end, which no gain may be.
        return
    least[inside], most[inside] = least[inside].max(), most[inside].min()


def _statistics(values: Array, shift: Array, bounds: tuple[int, int]) -> tuple[Array, Array, Array]:
    """Lowest of all values of every pixel, and sum and number of some, see :func:`pixel_sums`: int64[n_pixels] each."""
    # For the mean some patterns do; the lowest of all matters.
    every = max(1, len(values) // _MEAN_POSITIONS)
    n_pixels = values.shape[1]
    if values.dtype.itemsize <= 2 and np.abs(shift).max(initial=0) < NARROW_SHIFT:
        narrow, least, most = shift.astype(np.int32), *(np.int32(np.clip(b, -_LIMIT, _LIMIT)) for b in bounds)
        low = np.full(n_pixels, np.iinfo(np.int32).max, np.int32)
        total, times = np.zeros(n_pixels, np.int32), np.zeros(n_pixels, np.int32)
        narrow_lows(values, narrow, least, most, low)
        narrow_sums(values, narrow, least, most, every, total, times)
        return low.astype(np.int64), total.astype(np.int64), times.astype(np.int64)
    total, times = np.zeros(n_pixels, np.int64), np.zeros(n_pixels, np.int64)
    if not shift.any() and bounds[0] <= int(values.min()) and int(values.max()) <= bounds[1]:
        # Without marks the lowest is found in narrow vectors.
        unused = np.zeros(n_pixels, np.int64)
        pixel_sums(np.ascontiguousarray(values[::every]), shift[::every].copy(), *bounds, 1, unused, total, times)
        return values.min(axis=0).astype(np.int64), total, times
    low = np.full(n_pixels, np.iinfo(np.int64).max)
    pixel_sums(values, shift, *bounds, every, low, total, times)
    return low, total, times
