"""Floats that no formula comes near, but of which each pixel has few: ranks among the values of the pixel.

Where software linearised or resampled what a camera handed out, each of a pixel's counts is still one value, however
that was computed. The values of a pixel in order are kept as what lacks to a line through them, in last digits; what
is coded is the rank.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.entropy.values.calibration import Corrections, FloatCalibration, restore_calibrated
from stemcodecs.entropy.values.corrected_floats import ordered_bits
from stemcodecs.entropy.values.number_map import PLANE_TOP, NumberMap
from stemcodecs.entropy.values.plane import Plane

__all__ = ["ranked_plane"]

Array = np.ndarray[Any, Any]

_PIXELS_AT_ONCE, _PATTERNS_AT_ONCE = 256, 16
_TRIED = 64
"""Pixels that are looked at first."""
_MOST_VALUES = 0.4
"""Values of a pixel, as a share of the patterns, up to which a list of them can pay: one takes some twenty bits."""
_FEWEST_PATTERNS = 32


def ranked_plane(values: Array) -> Plane | None:
    """Counts that are ranks of float32[n_positions, n_pixels], every value proved; None if pixels have many values.

    Whether they take less than the values is for the caller to find out.
    """
    # Signalling NaNs raise a flag when they are cast; every value is compared bit by bit.
    with np.errstate(all="ignore"):
        return _ranked(values)


def _ranked(values: Array) -> Plane | None:
    n_positions, n_pixels = values.shape
    if values.dtype != np.float32 or not n_positions >= _FEWEST_PATTERNS:
        return None
    tried = ordered_bits(values[:, :: max(1, n_pixels // _TRIED)].view(np.int32))
    if _distinct(np.sort(tried, axis=0)).sum() > _MOST_VALUES * tried.size:
        return None
    counts, lengths = np.empty(values.shape, np.uint16), np.empty(n_pixels, np.int64)
    lines, steps, listed = np.empty((2, n_pixels)), [], 0
    for first in range(0, n_pixels, _PIXELS_AT_ONCE):
        some = slice(first, min(first + _PIXELS_AT_ONCE, n_pixels))
        ranks, entries, lengths[some] = _ranks(ordered_bits(values[:, some].view(np.int32)))
        listed += entries.size
        if lengths[some].max() > PLANE_TOP or listed > _MOST_VALUES * values.size:
            return None
        counts[:, some], lines[:, some] = ranks, _lines(entries, lengths[some])
        steps.append(entries - _on_lines(lines[0, some], lines[1, some], lengths[some]))
    # A plane of ranks has no marks: what is not finite has a rank as well.
    numbers = NumberMap()
    corrections = Corrections(first=np.zeros(n_pixels, np.int64), lengths=lengths, steps=np.concatenate(steps))
    found = FloatCalibration(dark=lines[0], gain=lines[1], single=True, corrections=corrections)
    for k in range(0, n_positions, _PATTERNS_AT_ONCE):
        at = np.arange(k, min(k + _PATTERNS_AT_ONCE, n_positions))
        restored = restore_calibrated(counts[at], numbers, found, values.dtype, at)
        if not np.array_equal(restored.view(np.int32), values[at].view(np.int32)):
            return None
    nothing = np.zeros(0, np.int64)
    return Plane(
        numbers=numbers, counts=counts.reshape(-1), low=None, exceptions_at=nothing,
        exceptions=nothing.astype(np.uint64), calibration=found,
    )  # fmt: skip


def _distinct(columns: Array) -> Array:
    """Where a value differs from the one before, in sorted columns."""
    new = np.ones(columns.shape, bool)
    new[1:] = columns[1:] != columns[:-1]
    return new


def _ranks(columns: Array) -> tuple[Array, Array, Array]:
    """Ranks in each column, the values of one column after the other, and how many each has."""
    order = np.argsort(columns, axis=0, kind="stable")
    ascending = np.take_along_axis(columns, order, axis=0)
    new = _distinct(ascending)
    ranks = np.empty(columns.shape, np.int64)
    np.put_along_axis(ranks, order, np.cumsum(new, axis=0) - 1, axis=0)
    return ranks, ascending.T[new.T], new.sum(axis=0)


def _lines(listed: Array, lengths: Array) -> Array:
    """Dark reference and gain of the line through the values of each pixel, of single precision: float64[2, pixels]."""
    # Ordered bits are their own inverse.
    values = ordered_bits(listed.astype(np.int32)).astype(np.int32).view(np.float32).astype(np.float64)
    pixel = np.repeat(np.arange(lengths.size), lengths)
    rank = np.arange(listed.size) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    finite = np.isfinite(values)
    weight, values = finite.astype(np.float64), np.where(finite, values, 0.0)

    def mean(of: Array) -> Array:
        return np.bincount(pixel, of * weight, lengths.size) / np.maximum(np.bincount(pixel, weight, lengths.size), 1)

    middle, level = mean(rank), mean(values)
    spread = mean(rank**2) - middle**2
    gain = np.where(spread > 0, (mean(rank * values) - middle * level) / np.where(spread > 0, spread, 1), level)
    single = gain.astype(np.float32).astype(np.float64)
    # Where nothing can be a gain, corrections are all there is.
    single = np.where(np.isfinite(single) & (single != 0), single, 1.0)
    dark = (middle - level / single).astype(np.float32).astype(np.float64)
    return np.stack([np.where(np.abs(dark) < PLANE_TOP, dark, 0.0), single])


def _on_lines(dark: Array, gain: Array, lengths: Array) -> Array:
    """Ordered bits of what the lines of some pixels give at all of their ranks."""
    most = int(lengths.max())
    codes = np.repeat(np.arange(most, dtype=np.uint16)[:, None], lengths.size, axis=1)
    near = FloatCalibration(dark=dark, gain=gain, single=True)
    on_lines = restore_calibrated(codes, NumberMap(), near, np.dtype(np.float32), np.zeros(most, np.int64))
    return ordered_bits(on_lines.view(np.int32)).T[np.arange(most) < lengths[:, None]]
