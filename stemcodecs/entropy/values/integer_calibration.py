"""Find the counts behind integers that were scaled, shifted, reversed or rounded, all alike or pixel by pixel."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from stemcodecs.entropy.values.calibration import (
    IntegerCalibration,
    ValueTable,
    largest_product,
    special_bits,
    whole_integers,
)
from stemcodecs.entropy.values.calibration_kernels import (
    dark_values,
    gain_intervals,
    integer_counts,
    integer_gains,
    mark_codes,
    mark_present,
    pixel_sums,
    ranks,
    ranks_of_codes,
)
from stemcodecs.entropy.values.narrow_kernels import narrow_counts, narrow_sums, spaced_counts
from stemcodecs.entropy.values.number_map import MAX_EXCEPTIONS, MAX_SPECIALS, PLANE_TOP, NumberMap, marks
from stemcodecs.entropy.values.plane import Plane, wide_bits
from stemcodecs.entropy.values.row_blocks import by_row_blocks

__all__ = ["Proposal", "express_integers", "propose_integers", "sampled_positions"]

Array = np.ndarray[Any, Any]
Proposal = tuple[NumberMap, "ValueTable | IntegerCalibration"]

_SAMPLED_VALUES = 1 << 20
_LOOKED_AT = 1 << 16
"""Values that tell whether a calibration is worth trying."""
_WINDOW = 1 << 22
"""Places of a table of values: bounds what looking them up takes."""
_FREQUENT = 8
_LIMIT = 1 << 30
_WATCHED_POSITIONS, _RUNS, _RUN = 1024, 16, 8
"""Scan positions, and runs of neighbouring pixels, that are looked at before a whole chunk is."""
_DARK_RANGE = 4096
"""Values above the lowest of a pattern among which its dark pixels are looked for in one pass."""
_NARROW_SHIFT = 1 << 20
"""Shift of patterns up to which that of values of 16 bits and their sums fit 32 bits, and differences 24."""
_PLANE_SHIFT = 1 << 16
_NARROW_FRACTION = 12
"""Digits behind the point with which 32 bits hold values of 17 bits."""
_FEW_COUNTS = 256
_MEAN_POSITIONS = 256
"""Patterns that give the mean of pixels when there are at least twice as many."""
_FANO = 0.9
"""Variance over mean: 1 of counts, more where the sample changes, less where an offset adds to the mean."""
_FAR = 1 << 62
"""Differences beyond it may not be integers of 64 bits."""


def sampled_positions(n_positions: int, n_pixels: int, most: int = 128) -> Array:
    """Scan positions spread evenly, about a million values of them."""
    n = int(np.clip(_SAMPLED_VALUES // max(n_pixels, 1), 8, most))
    return np.unique(np.linspace(0, n_positions - 1, min(n, n_positions)).round().astype(np.int64))


def propose_integers(values: Array, basic: NumberMap | None) -> list[Proposal]:
    """Calibrations worth trying, from the statistics of a sample.

    values : integers[n_positions, n_pixels]; basic : how they become counts without a calibration, or None.
    """
    n_positions, n_pixels = values.shape
    # An odd step meets every column of the detector.
    rows = sampled_positions(n_positions, n_pixels)
    some = values[rows, :: max(1, n_pixels * rows.size // _LOOKED_AT) | 1]
    distinct, times = _distinct(some)
    if distinct.size < 2:
        return []
    specials = tuple(basic.specials) if basic is not None else ()
    if not specials and int(distinct[-1]) - int(distinct[0]) > PLANE_TOP // 2:
        specials = tuple(s % 2**64 for s in marks(values.reshape(-1), n_pixels, _far_from_most(distinct, times)))
    if specials:
        keep = ~np.isin(distinct, np.array(specials, np.uint64).view(np.int64))
        distinct, times = distinct[keep], times[keep]
        if distinct.size < 2:
            return []
    hidden = basic is None or basic.low_bits > 0
    table, spaced = _propose_table(values.reshape(-1), distinct, times, hidden)
    proposals: list[Proposal] = [] if table is None else [(NumberMap(), table)]
    low, high = (int(distinct[np.searchsorted(np.cumsum(times) / times.sum(), at)]) for at in (0.005, 0.995))
    bounds = max(low - 4 * (high - low) - 64, -_FAR), min(high + 16 * (high - low) + 64, _FAR)
    # Of values that count backwards no offset of a pixel is known.
    backwards = table is not None and int(table.values[0]) > int(table.values[-1])
    pixels = None if backwards else _propose_pixels(values, some, bounds, spaced=spaced)
    if pixels is not None:
        proposals.append((NumberMap(specials=specials), pixels))
    return proposals


def _distinct(values: Array) -> tuple[Array, Array]:
    """The values that occur, sorted, and how often each does."""
    if values.dtype.itemsize > 2:
        distinct, times = np.unique(values, return_counts=True)
        return distinct.astype(np.int64), times
    # Counting codes takes a tenth of sorting values.
    times = np.bincount(values.reshape(-1).view(f"u{values.dtype.itemsize}"))
    codes = np.flatnonzero(times)
    distinct = codes.astype(f"u{values.dtype.itemsize}").view(values.dtype).astype(np.int64)
    order = np.argsort(distinct, kind="stable")
    return distinct[order], times[codes][order]


def _far_from_most(distinct: Array, times: Array) -> tuple[int, ...]:
    """The most frequent values out of all proportion to the others, which are counts if they are not marks."""
    share = np.cumsum(times) / times.sum()
    low, middle, high = (int(distinct[np.searchsorted(share, at)]) for at in (0.1, 0.5, 0.75))
    reach = PLANE_TOP // 2 + 64 * (high - low)
    # In double precision, where nothing overflows.
    far = np.flatnonzero(np.abs(distinct.astype(np.float64) - middle) > reach)
    most = far[np.argsort(times[far], kind="stable")[::-1][:MAX_SPECIALS]]
    return tuple(int(v) for v in distinct[most])


def _propose_table(flat: Array, distinct: Array, times: Array, hidden: bool) -> tuple[ValueTable | None, bool]:
    """A table, if one may help, and whether it shows that all pixels have the same spacing."""
    share = np.cumsum(times) / times.sum()
    low, high = (int(distinct[np.searchsorted(share, at)]) for at in (0.005, 0.995))
    bulk = (distinct >= low) & (distinct <= high)
    ours, weight = distinct[bulk], times[bulk]
    if ours.size < 2:
        ours, weight = distinct, times
        low, high = int(ours[0]), int(ours[-1])
    if int(ours[-1]) - int(ours[0]) >= _FAR:
        return None, False
    step = int(np.gcd.reduce(np.diff(ours)))
    frequent = (weight[1:] >= _FREQUENT) & (weight[:-1] >= _FREQUENT)
    apart = float((np.diff(ours)[frequent] > 1).mean()) if frequent.any() else 0.0
    gaps = step > 1 or apart > 0.1
    mean = float((ours * (weight / weight.sum())).sum())
    centred = (ours - mean) / max(float(high - low), 1.0)
    second, third = (float((centred**k * weight).sum() / weight.sum()) for k in (2, 3))
    backwards = third < -0.3 * second**1.5
    middle = int(distinct[np.searchsorted(share, 0.5)])
    shifted = (
        low > 0.3 * middle if low > 0 else share[max(int(np.searchsorted(distinct, 0)) - 1, 0)] > 0.005 and low < 0
    )
    if not (gaps or backwards or shifted or hidden):
        return None, False
    # Dead pixels, up to 2 % of them, are not where counts begin.
    low, high = (int(distinct[np.searchsorted(share, at)]) for at in (0.02, 0.98))
    table = _table(flat, low, high, step, gaps=gaps, backwards=backwards)
    return table, table is not None and (step > 1 or apart > 0.95)


def _table(flat: Array, low: int, high: int, step: int, *, gaps: bool, backwards: bool) -> ValueTable | None:
    """The values that occur, those of the bulk first, from the end at which counts are near zero."""
    if flat.dtype.itemsize <= 2:
        seen = np.zeros(1 << 8 * flat.dtype.itemsize, np.uint8)
        mark_codes(flat.view(f"u{flat.dtype.itemsize}"), seen)
        occurring = np.sort(np.flatnonzero(seen).astype(f"u{flat.dtype.itemsize}").view(flat.dtype).astype(np.int64))
        first, step = int(occurring[0]), max(1, int(np.gcd.reduce(np.diff(occurring))))
        places = (occurring - first) // step
    else:
        first, last = int(flat.min()), int(flat.max())
        if (last - first) // step >= _WINDOW:
            room = max(high - low, step)
            first, last = max(first, low - room // step * step), min(last, high + 3 * room)
        # In step with the bulk, which outliers need not be.
        first = low - (low - first) // step * step
        n = (last - first) // step + 1
        if n > _WINDOW or last >= 2**63 or first < -(2**63):
            return None
        present = np.zeros(n, np.uint8)
        if mark_present(flat, first, step, present) > MAX_EXCEPTIONS * flat.size / 2:
            return None
        places = np.flatnonzero(present)
    if not gaps and places.size and int(places[-1] - places[0]) < 4 * places.size:
        # Without holes the list takes nothing.
        places = np.arange(places[0], places[-1] + 1)
    # As many values as there are would be a list of the array, not of its counts.
    if not 2 <= places.size <= min(PLANE_TOP, flat.size // 8):
        return None
    if backwards:
        places = places[::-1]
    # Values far before the bulk, of dead pixels say, would make a pedestal: they come behind the others.
    begin = int(np.argmax(places <= (high - first) // step if backwards else places >= (low - first) // step))
    far = max((high - low) // step // 2, 4 * int(np.median(np.abs(np.diff(places)))))
    while begin > 0 and abs(int(places[begin] - places[begin - 1])) <= far:
        begin -= 1
    places = np.concatenate([places[begin:], places[:begin]])
    return ValueTable(values=first + step * places.astype(np.int64))


def _poisson_offsets(low: Array, mean: Array, n: int) -> tuple[Array, Array]:
    """What was added to Poisson counts of which only the mean and the lowest of ``n`` are known, and their mean."""
    rates = np.geomspace(1e-3, 1e5, 400)
    # Below the mean by so many standard deviations lies the lowest of n (square-root transform).
    reach = math.sqrt(2 * math.log(max(n, 3))) * 0.5
    lowest = np.maximum(np.sqrt(rates + 0.375) - reach * 0.85, 0) ** 2
    lowest = np.where(n * np.exp(-rates) > 1, 0.0, lowest)
    rate = np.interp(mean - low, np.maximum.accumulate(rates - lowest), rates)
    return np.rint(mean - rate), rate


def _propose_pixels(values: Array, some: Array, bounds: tuple[int, int], *, spaced: bool) -> IntegerCalibration | None:
    """Gains and offsets of pixels and patterns, if some of the values, int[k, pixels], look like it.

    Values outside the bounds are marks or outliers; ``spaced``: they have the same spacing in all pixels.
    """
    n_positions, n_pixels = values.shape
    if n_positions < 16 or n_pixels < 16:
        return None
    some = _within(some.astype(np.int64), bounds)
    shift = _shifts(values, some)
    rows = sampled_positions(n_positions, n_pixels)
    if shift is not None:
        some = some - shift[rows, None]
        bounds = bounds[0] - int(shift.max()), bounds[1] - int(shift.min())
    some = np.sort(some, axis=0)
    steps = np.diff(some, axis=0)
    least = np.where(steps > 0, steps, _LIMIT).min(axis=0)
    several = (steps > 0).sum(axis=0) >= 2
    gains = not spaced and bool(several.any()) and float((least[several] >= 2).mean()) > 0.7
    # The sample sees few values of each pixel; a few pixels seen whole say no at a small part of the cost of trying.
    gains = gains and _spread_out(_watched(values, shift, bounds))
    if shift is None and not gains and not (_differ(some) and _quieter_than_counts(_watched(values, shift, bounds))):
        return None
    if shift is None:
        shift = np.zeros(n_positions, np.int64)
    calibration = _pixel_calibration(values, rows, shift, bounds, gains=gains)
    if calibration is None or shift.any():
        return calibration
    return replace(calibration, shift=None)


def _watched(values: Array, shift: Array | None, bounds: tuple[int, int]) -> Array:
    """All values, int64[positions, pixels], of a few pixels from all over the detector, less the shift of patterns."""
    n_positions, n_pixels = values.shape
    rows = np.unique(np.linspace(0, n_positions - 1, min(n_positions, _WATCHED_POSITIONS)).astype(np.int64))
    # Runs of pixels share lines of the processor's cache.
    starts = np.linspace(0, max(n_pixels - _RUN, 0), min(n_pixels // _RUN, _RUNS)).astype(np.int64)
    pixels = (starts[:, None] + np.arange(_RUN)).reshape(-1)
    watched = values[rows[:, None], pixels].astype(np.int64)
    if shift is not None:
        watched -= shift[rows, None]
    return _within(watched, bounds)


def _within(values: Array, bounds: tuple[int, int]) -> Array:
    """Values, with the median in place of marks and outliers."""
    outside = (values < bounds[0]) | (values > bounds[1])
    return np.where(outside, int(np.median(values)), values) if outside.any() else values


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
    offsets, rates = _poisson_offsets(some[0], some.mean(axis=0), len(some))
    common = np.median(offsets)
    tolerance = 1 + 1.5 * np.sqrt(rates)
    off = offsets - common > tolerance
    if some.min() < 0 or common > 0:
        off |= common - offsets > tolerance
    # Small offsets of a dim detector: the lowest values of its pixels differ, and there is little else.
    dim = float((some[0] != np.median(some[0])).mean()) > 0.1 and rates.mean() < 2
    return bool(off.mean() > 0.1 or dim)


def _shifts(values: Array, some: Array) -> Array | None:
    """Offset of every pattern, if they differ: the value that most of its darker pixels have."""
    tenth = np.sort(some, axis=1)[:, some.shape[1] // 10].astype(np.int64)
    if np.ptp(tenth) < 2 or np.unique(tenth).size < 0.1 * tenth.size:
        return None
    pixels = np.arange(0, values.shape[1], max(1, values.shape[1] // 2048))
    shift = np.zeros(values.shape[0], np.int64)
    seldom = np.zeros(_DARK_RANGE + 1, np.int64)
    for at in np.flatnonzero(~dark_values(values, pixels, seldom, shift)):
        shift[at] = _dark_value(values[at, pixels].astype(np.int64))
    # Where the dose varies rather than an offset, the sample takes no less with it.
    return shift if shift.min() > -_LIMIT and shift.max() < _LIMIT else None


def _dark_value(row: Array) -> int:
    """As :func:`dark_values`, of a pattern whose lowest value is far from the others."""
    ordered = np.sort(row)
    dark = ordered[ordered.size // 50 : max(ordered.size // 3, ordered.size // 50 + 1)]
    distinct, times = np.unique(dark, return_counts=True)
    return int(distinct[np.argmax(times)]) if times.max() > 0.3 * dark.size else int(dark[0])


def _pixel_calibration(
    values: Array, rows: Array, shift: Array, bounds: tuple[int, int], *, gains: bool
) -> IntegerCalibration | None:
    n_positions, n_pixels = values.shape
    # For the mean some patterns do; the lowest of all matters.
    every = max(1, n_positions // _MEAN_POSITIONS)
    low = values.min(axis=0).astype(np.int64)
    if shift.any() or int(low.min()) < bounds[0] or int(values.max()) > bounds[1]:
        low, total, times = _sums(values, shift, bounds, every)
    else:
        # Without marks the lowest is found in narrow vectors.
        _, total, times = _sums(np.ascontiguousarray(values[::every]), shift[::every], bounds, 1)
    seen = times > 0
    if not seen.any():
        return None
    low[~seen] = int(np.median(low[seen]))
    if np.abs(low).max() >= _LIMIT:
        return None
    if not gains:
        offsets, rates = _poisson_offsets(low, np.where(seen, total / np.maximum(times, 1), low), n_positions)
        # Dark pixels reach zero counts: their lowest value is exact.
        zeros = np.where(n_positions * np.exp(-rates) > 3, low, np.minimum(offsets.astype(np.int64), low))
        if (zeros == zeros[0]).all():
            zeros[:] = zeros[0]
        return IntegerCalibration(offset=zeros, shift=shift)
    common = int(np.median(low))
    alike = float((low == common).mean()) > 0.3
    zeros = np.where(low >= common, common, low) if alike else low
    narrow = values.dtype.itemsize <= 2 and np.abs(shift).max(initial=0) < _NARROW_SHIFT
    # Rows of 32 bits are sorted in vectors.
    columns: Array = np.ascontiguousarray(values[rows].T, np.int32 if narrow else np.int64)
    columns -= shift[rows].astype(columns.dtype)
    outside = (columns < bounds[0]) | (columns > bounds[1])
    if outside.any():
        columns = np.where(outside, zeros[:, None].astype(columns.dtype), columns)
    columns.sort(axis=1)
    gain = np.zeros(n_pixels)
    integer_gains(columns, zeros, gain)
    typical = float(np.median(gain[gain > 0])) if (gain > 0).any() else 1.0
    # Dead and hot pixels show none, or one that says nothing.
    gain[(gain == 0) | (gain > 16 * typical)] = typical
    least, most = np.maximum(gain * 0.5, 1.0), gain * 1.5
    # Bounds from counts that have few digits are apart by more than the last digit of single precision.
    few = narrow and float((columns[:, -1] - zeros).max()) < _FEW_COUNTS * typical
    first_look = np.zeros(0, np.float32 if few else np.float64)
    gain_intervals(values, shift, *bounds, zeros, gain, least, most, first_look)
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


def _sums(values: Array, shift: Array, bounds: tuple[int, int], every: int) -> tuple[Array, Array, Array]:
    """Lowest, sum and number of the values of every pixel, see :func:`pixel_sums`: int64[n_pixels] each."""
    n_pixels = values.shape[1]
    narrow = values.dtype.itemsize <= 2 and np.abs(shift).max(initial=0) < _NARROW_SHIFT and len(values) // every < 1024
    kind: Any = np.int32 if narrow else np.int64
    low, total, times = np.full(n_pixels, np.iinfo(kind).max, kind), np.zeros(n_pixels, kind), np.zeros(n_pixels, kind)
    if narrow:
        least, most = (np.int32(np.clip(b, -_LIMIT, _LIMIT)) for b in bounds)
        narrow_sums(values, shift.astype(np.int32), least, most, every, low, total, times)
    else:
        pixel_sums(values, shift, *bounds, every, low, total, times)
    return low.astype(np.int64), total.astype(np.int64), times.astype(np.int64)


def express_integers(values: Array, numbers: NumberMap, calibration: ValueTable | IntegerCalibration) -> Plane | None:
    """Counts by a calibration, every value proved; None if more than 2 % of them have none."""
    counts = np.empty(values.shape, np.uint16)
    wrong = np.empty(int(MAX_EXCEPTIONS * values.size) + 8, np.int64)
    if isinstance(calibration, ValueTable):
        entries = calibration.values
        n = _ranked(values.reshape(-1), entries, counts.reshape(-1), wrong)
    else:
        gain, offset = whole_integers(calibration, values.shape[1])
        if largest_product(gain, offset) >= 2**52:
            return None
        shift = np.zeros(len(values), np.int64) if calibration.shift is None else calibration.shift
        kernel = integer_counts
        if values.dtype.itemsize <= 2 and _narrow(gain, offset, shift, calibration.fraction):
            kernel = narrow_counts
            gain = np.zeros(0, np.int32) if calibration.gain is None and not calibration.fraction else gain
            gain, offset, shift = (a.astype(np.int32) for a in (gain, offset, shift))
        top, specials = PLANE_TOP - numbers.negatives, special_bits(numbers, values.dtype)

        def code(part: slice, found: Array, missing: Array) -> int:
            some = values[part]
            bits = some.view(f"u{values.dtype.itemsize}")
            return int(
                kernel(
                    some, bits, top, specials, gain, offset, calibration.fraction, shift[part], found, missing
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


def _narrow(gain: Array, offset: Array, shift: Array, fraction: int) -> bool:
    """Whether 32 bits hold all that a calibration makes of narrow values, and no two counts have the same value."""
    held = fraction <= _NARROW_FRACTION and np.abs(offset).max(initial=0) < _LIMIT // 2
    # Counts between whose value and the largest of 32 bits there is room: see narrow_counts.
    held = held and gain.max(initial=1) < _LIMIT >> 8 and np.abs(shift).max(initial=0) < _PLANE_SHIFT
    return bool(held and gain.min(initial=1 << fraction) >= 1 << fraction)


def _ranked(flat: Array, entries: Array, counts: Array, wrong: Array) -> int:
    """Counts by a table of values; returns how many values are not in it."""
    if flat.dtype.itemsize <= 2:
        evenly = _evenly_spaced(flat, entries)
        if evenly is not None:
            return int(spaced_counts(flat.view(f"u{flat.dtype.itemsize}"), *evenly, counts, wrong))
        rank = np.full(1 << 8 * flat.dtype.itemsize, -1, np.int32)
        # A value stands for itself modulo the dtype.
        rank[entries & (rank.size - 1)] = np.arange(entries.size)
        return int(ranks_of_codes(flat.view(f"u{flat.dtype.itemsize}"), rank, counts, wrong))
    step = max(1, int(np.gcd.reduce(np.diff(entries))))
    lowest = int(entries.min())
    rank = np.full((int(entries.max()) - lowest) // step + 1, -1, np.int32)
    rank[(entries - lowest) // step] = np.arange(entries.size)
    return int(ranks(flat, lowest, step, rank, counts, wrong))


def _evenly_spaced(flat: Array, entries: Array) -> tuple[np.uint32, ...] | None:
    """Arguments of :func:`spaced_counts`, or None for a table of other values."""
    step = int(entries[1] - entries[0]) if entries.size > 1 else 0
    if step == 0 or (np.diff(entries) != step).any():
        return None
    width = 8 * flat.dtype.itemsize
    turn = (step & -step).bit_length() - 1
    # A count's place modulo the step's odd part must be one of all that a code can be.
    if entries.size > 1 << width - turn:
        return None
    inverse = pow(step >> turn, -1, 1 << width)
    mask = (1 << width) - 1
    return tuple(np.uint32(v) for v in (int(entries[0]) & mask, inverse, turn, mask, entries.size))
