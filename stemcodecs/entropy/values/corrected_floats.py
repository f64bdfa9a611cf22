"""Floats that no order of rounding reproduces: a formula that comes near, and what lacks in last digits.

A pixel that hands out calibrated counts has as many values as it has counts. How many last digits each of them lies
beside a formula is kept once for each pixel and count, however often it occurs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from stemcodecs.entropy.values.calibration import (
    MAX_CORRECTIONS,
    Corrections,
    FloatCalibration,
    restore_calibrated,
    special_bits,
)
from stemcodecs.entropy.values.number_map import MAX_EXCEPTIONS, PLANE_TOP, NumberMap
from stemcodecs.entropy.values.plane import Plane, wide_bits

__all__ = ["FARTHEST", "express_corrected", "ordered_bits"]

Array = np.ndarray[Any, Any]

_PATTERNS_AT_ONCE = 16
FARTHEST = 1 << 16
"""Last digits that a value may lie beside the formula: farther, it is none of its counts."""


def express_corrected(values: Array, numbers: NumberMap, calibration: FloatCalibration) -> Plane | None:
    """Counts by a formula of single or double precision floats[n_positions, n_pixels] and its corrections.

    None if more than 2 % of the values have no count, or if corrections are as many as values.
    """
    n_positions, n_pixels = values.shape
    near = replace(calibration, corrections=None)
    specials = special_bits(numbers, values.dtype)
    given = values.view(f"u{values.dtype.itemsize}")
    highest = PLANE_TOP - numbers.negatives - specials.size
    counts, known = np.empty(values.shape, np.uint16), np.empty(values.shape, bool)
    lowest, most = np.full(n_pixels, PLANE_TOP), np.full(n_pixels, -1)
    for at in _blocks(n_positions):
        x = values[at].astype(np.float64) if near.gain is None else values[at].astype(np.float64) / near.gain
        x = np.rint(x if near.dark is None else x + near.dark)
        known[at] = (x >= 0) & (x < highest) & ~np.isin(given[at], specials)
        counts[at] = np.where(known[at], x, 0)
        lowest = np.minimum(lowest, np.where(known[at], x, PLANE_TOP).min(axis=0).astype(np.int64))
        most = np.maximum(most, np.where(known[at], x, -1).max(axis=0).astype(np.int64))
    lengths = np.maximum(most - lowest + 1, 0)
    lowest[lengths == 0] = 0
    if int(lengths.sum()) > MAX_CORRECTIONS * values.size:
        return None
    begins = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    steps = np.zeros(int(lengths.sum()), np.int64)
    for at in _blocks(n_positions):
        lacking = _lacking(values[at], counts[at], numbers, near, np.arange(n_positions)[at])
        good = known[at] & (np.abs(lacking) < FARTHEST)
        steps[(begins + counts[at] - lowest)[good]] = lacking[good]
    found = replace(near, corrections=Corrections(first=lowest, lengths=lengths, steps=steps))
    places: list[Array] = []
    for at in _blocks(n_positions):
        restored = restore_calibrated(counts[at].copy(), numbers, found, values.dtype, np.arange(n_positions)[at])
        good = known[at] & (restored.view(given.dtype) == given[at])
        for k, special in enumerate(specials):
            marked = ~good & (given[at] == special)
            counts[at][marked] = numbers.code(k)
            good |= marked
        places.append(np.flatnonzero(~good) + at.start * n_pixels)
    wrong = np.concatenate(places)
    if wrong.size > MAX_EXCEPTIONS * values.size + 8:
        return None
    flat = counts.reshape(-1)
    # The value before should not surprise a model.
    flat[wrong] = flat[np.maximum(wrong - 1, 0)]
    exceptions = wide_bits(values.reshape(-1)[wrong])
    return Plane(
        numbers=numbers, counts=flat, low=None, exceptions_at=wrong, exceptions=exceptions, calibration=found
    )  # fmt: skip


def _blocks(n_positions: int) -> list[slice]:
    return [slice(k, min(k + _PATTERNS_AT_ONCE, n_positions)) for k in range(0, n_positions, _PATTERNS_AT_ONCE)]


def _lacking(values: Array, counts: Array, numbers: NumberMap, near: FloatCalibration, positions: Array) -> Array:
    """Last digits between what a formula gives and what there is: int64."""
    kind = f"i{values.dtype.itemsize}"
    formula = restore_calibrated(counts.copy(), replace(numbers, specials=()), near, values.dtype, positions)
    return ordered_bits(values.view(kind)) - ordered_bits(formula.view(kind))


def ordered_bits(bits: Array) -> Array:
    """Signed bits of floats as integers in the order of the floats."""
    width = 8 * bits.dtype.itemsize
    wide = bits.astype(np.int64)
    return np.where(wide < 0, ~wide ^ (-(1 << (width - 1))), wide)
