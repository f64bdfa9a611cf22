"""Find the counts behind integers that were scaled, shifted, reversed or rounded, all alike or pixel by pixel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from stemcodecs.entropy.values.calibration import (
    IntegerCalibration,
    ValueTable,
    largest_product,
    special_bits,
    whole_integers,
    without_base,
)
from stemcodecs.entropy.values.calibration_kernels import integer_counts, ranks, ranks_of_codes
from stemcodecs.entropy.values.narrow_kernels import narrow_counts, spaced_counts
from stemcodecs.entropy.values.number_map import MAX_EXCEPTIONS, MAX_SPECIALS, PLANE_TOP, NumberMap, marks
from stemcodecs.entropy.values.pattern_offsets import forwards
from stemcodecs.entropy.values.pixel_calibration import propose_pixels, within
from stemcodecs.entropy.values.plane import Plane, wide_bits
from stemcodecs.entropy.values.residual_statistics import median_residuals, pattern_shifts
from stemcodecs.entropy.values.row_blocks import by_row_blocks
from stemcodecs.entropy.values.stuck_values import with_marks
from stemcodecs.entropy.values.value_tables import FAR, propose_table

__all__ = ["Proposal", "express_integers", "propose_integers", "sampled_positions"]

Array = np.ndarray[Any, Any]
Proposal = tuple[NumberMap, "ValueTable | IntegerCalibration"]

_SAMPLED_VALUES = 1 << 20
_LOOKED_AT = 1 << 16
"""Values that tell whether a calibration is worth trying."""
_JUDGED = 1 << 14
"""Those that tell the direction of counts, and whether patterns have offsets."""
_CERTAIN = 4.0
"""Times its error by chance that a skewness tells a direction."""
_PLANE_SHIFT = 1 << 16
_LIMIT = 1 << 30
_WIDEST = FAR >> 5
"""Spread of values from which there are no gains and offsets: with room for outliers, differences pass 64 bits."""
_NARROW_FRACTION = 12
"""Digits behind the point with which 32 bits hold values of 17 bits."""


def sampled_positions(n_positions: int, n_pixels: int, most: int = 128) -> Array:
    """Scan positions spread evenly, about a million values of them."""
    n = int(np.clip(_SAMPLED_VALUES // max(n_pixels, 1), 8, most))
    return np.unique(np.linspace(0, n_positions - 1, min(n, n_positions)).round().astype(np.int64))


def propose_integers(values: Array, basic: NumberMap | None, detector: tuple[int, int]) -> list[Proposal]:
    """Calibrations worth trying, from the statistics of a sample.

    Parameters
    ----------
    values : integers[n_positions, n_pixels]
        With a sign, if they have 64 bits.
    basic : NumberMap or None
        How they become counts without a calibration.
    detector : tuple of int
        Rows and columns of the detector.
    """
    n_positions, n_pixels = values.shape
    bits = np.dtype(f"u{values.dtype.itemsize}")
    rows = sampled_positions(n_positions, n_pixels)
    some = values[rows, :: _step_of(n_pixels, rows.size)]
    # Dead and hot pixels are no counts.
    alive = (some != some[0]).any(axis=0)
    stuck = some[0, ~alive]
    if not alive.any():
        return []
    distinct, times = _distinct(some[:, alive])
    if distinct.size < 2:
        return []
    specials = tuple(basic.specials) if basic is not None else ()
    if not specials and int(some.max()) - int(some.min()) > PLANE_TOP // 2:
        specials = tuple(s % 2**64 for s in marks(values.reshape(-1), n_pixels, _far_from_most(*_distinct(some))))
    if specials:
        keep = ~np.isin(distinct, np.array(specials, np.uint64).view(np.int64))
        distinct, times = distinct[keep], times[keep]
        if distinct.size < 2:
            return []
    low, high = (int(distinct[np.searchsorted(np.cumsum(times) / times.sum(), at)]) for at in (0.005, 0.995))
    bounds = max(low - 4 * (high - low) - 64, -FAR), min(high + 16 * (high - low) + 64, FAR)
    some = within(some.astype(np.int64), bounds)
    judged = np.flatnonzero(alive)[:: max(1, int(alive.sum()) * rows.size // _JUDGED) | 1]
    residuals = median_residuals(some[:, judged])
    skewness, chance = residuals.skewness()
    backwards = skewness < -_CERTAIN * chance
    hidden = basic is None or basic.low_bits > 0
    table, spaced = propose_table(values.reshape(-1), distinct, times, hidden=hidden, backwards=backwards)
    proposals: list[Proposal] = [] if table is None else [(NumberMap(), table)]
    if high - low >= _WIDEST:
        return proposals
    shift, certain = pattern_shifts(values, judged * _step_of(n_pixels, rows.size), residuals)
    if shift is not None and not -_LIMIT < int(shift.min()) <= int(shift.max()) < _LIMIT:
        shift = None
    base = 0
    if values.dtype.itemsize > 2 and (abs(low) > _LIMIT >> 1 or (backwards and values.dtype.kind == "u")):
        # Maps have 32 bits.
        base = low
        values = (values.view(bits) - bits.type(base % 2 ** (8 * bits.itemsize))).view(f"i{bits.itemsize}")
        some, bounds = some - base, (bounds[0] - base, bounds[1] - base)
    if backwards:
        # The complement counts forwards, in the same dtype.
        limits = np.iinfo(values.dtype)
        top = int(limits.min) + int(limits.max)
        shift = None if shift is None else -shift
        some, bounds = top - some, (top - bounds[1], top - bounds[0])
    # What looks like offsets of patterns may be their doses.
    for of_patterns in (shift,) if certain or shift is None else (shift, None):
        pixels = propose_pixels(
            values, rows, some, of_patterns, bounds, detector, spaced=spaced, backwards=backwards
        )  # fmt: skip
        if pixels is not None:
            numbers = NumberMap(specials=specials if of_patterns is None else _with_stuck(specials, stuck))
            proposals.append((numbers, replace(pixels, reversed=backwards, base=base)))
    return proposals


def _with_stuck(specials: tuple[int, ...], stuck: Array) -> tuple[int, ...]:
    """Marks, and among them what pixels always have although their patterns have offsets."""
    values, times = np.unique(stuck, return_counts=True)
    most = [int(v) % 2**64 for v in values[np.argsort(times, kind="stable")[::-1]]]
    return (*specials, *(v for v in most if v not in specials))[:MAX_SPECIALS]


def _step_of(n_pixels: int, n_rows: int) -> int:
    """Every so many pixels one is looked at: an odd step meets every column of the detector."""
    return max(1, n_pixels * n_rows // _LOOKED_AT) | 1


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


def express_integers(
    values: Array, numbers: NumberMap, calibration: ValueTable | IntegerCalibration, *, fixed: bool = False,
    most: float = MAX_EXCEPTIONS,
) -> Plane | None:  # fmt: skip
    """Counts by a calibration, every value proved; None if more than a share ``most`` of them have none.

    fixed : whether the plane must have the very marks that are given: those of a whole scan.
    """
    counts = np.empty(values.shape, np.uint16)
    wrong = np.empty(int(most * values.size) + 8, np.int64)
    if isinstance(calibration, ValueTable):
        entries = calibration.values
        if entries.size <= 256:
            # Bytes are read faster, and half as many pages of memory are new.
            counts = np.empty(values.shape, np.uint8)
        n = _ranked(values.reshape(-1), entries, counts.reshape(-1), wrong)
    else:
        gain, offset = whole_integers(calibration, values.shape[1])
        if largest_product(gain, offset) >= 2**52:
            return None
        specials = special_bits(numbers, values.dtype)
        base = specials.dtype.type(calibration.base % 2 ** (8 * values.dtype.itemsize))
        specials = without_base(specials, base, calibration)
        upwards = forwards(values, calibration)
        shift = np.zeros(len(values), np.int64) if calibration.shift is None else calibration.shift
        kernel = integer_counts
        if values.dtype.itemsize <= 2 and _narrow(gain, offset, shift, calibration.fraction):
            kernel = narrow_counts
            gain = np.zeros(0, np.int32) if calibration.gain is None and not calibration.fraction else gain
            gain, offset, shift = (a.astype(np.int32) for a in (gain, offset, shift))
        top = PLANE_TOP - numbers.negatives
        if not specials.size and top == PLANE_TOP and _fit_bytes(upwards, calibration):
            counts = np.empty(values.shape, np.uint8)

        def code(part: slice, found: Array, missing: Array) -> int:
            some = upwards[part]
            unsigned = some.view(f"u{values.dtype.itemsize}")
            return int(
                kernel(
                    some, unsigned, top, specials, gain, offset, calibration.fraction, shift[part], found, missing
                )
            )  # fmt: skip

        n = by_row_blocks(code, counts, wrong)
    if n > wrong.size:
        return None
    at = wrong[:n].copy()
    plane = Plane(
        numbers=numbers, counts=counts.reshape(-1), low=None, exceptions_at=at,
        exceptions=wide_bits(values.reshape(-1)[at]), calibration=calibration,
    )  # fmt: skip
    return plane if fixed else with_marks(plane, values.shape[1])


def _fit_bytes(upwards: Array, calibration: IntegerCalibration) -> bool:
    """Whether no value is as high as that of 256 counts: bytes are read faster, and fewer pages of memory are new."""
    if upwards.size == 0:
        return True
    gain, offset = (int(a.min()) for a in whole_integers(calibration, upwards.shape[1]))
    least = ((256 * gain + offset) >> calibration.fraction) + (
        0 if calibration.shift is None else int(calibration.shift.min())
    )
    return int(upwards.max()) < least


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
