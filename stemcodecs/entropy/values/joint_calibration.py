"""Find a gain of every pixel together with a scale of every pattern: counts that were corrected, then normalised.

Neither axis alone shows multiples of one number. Both are found as the best fit to the logarithms, which many values
make more exact than single precision; what is left open is one common factor, and only with the right one are all gains
floats.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.entropy.kernels.threads import run_all
from stemcodecs.entropy.values.calibration import FloatCalibration
from stemcodecs.entropy.values.joint_kernels import (
    FACTORS,
    best_scales,
    common_factor,
    fitted_scales,
    lowest_clusters,
    refined_gains,
    rough_gains,
    scaled_columns,
)

__all__ = ["joint_calibration"]

Array = np.ndarray[Any, Any]

_PIXELS = 512
_WITNESSES = 48
"""Pixels that a common factor must turn into floats."""
_ENOUGH = 0.98
_LIT = 1024
"""Values other than 0 of a pattern that choose its scale."""
_PARTS = 8
"""Of the factors, each searched by one thread."""
_SETTLED = 1e-10
"""Relative change of a scale below which another round gives nothing: far below single precision."""


def joint_calibration(values: Array, rows: Array) -> FloatCalibration | None:
    """Gains and scales of values[n_positions, n_pixels], or None; ``rows`` are sampled patterns.

    Products in double precision are found where gains and scales themselves are of single precision.
    """
    n_positions, n_pixels = values.shape
    if values.dtype.itemsize < 4 or n_positions < 64 or n_pixels < 64:
        return None
    some = values[:, :: max(1, n_pixels // _PIXELS)].astype(np.float64)
    some[~(np.isfinite(some) & (some > 0))] = 0
    scales, good = _scales(some)
    rows = rows[good[rows]]
    if good.mean() < 0.9 or rows.size < 16:
        return None
    gains, times = np.zeros(n_pixels), np.zeros(n_pixels, np.int64)
    columns = np.empty((n_pixels, rows.size))
    scaled_columns(values, rows, scales, columns)
    rough_gains(columns, gains)
    refined_gains(values, scales, gains, times)
    if not good.all():
        scales[~good] = _scales_of(values[~good], gains)
    usable = (gains > 0) & (times > 0)
    best = np.argsort(np.where(usable, times, 0))[::-1][:_WITNESSES]
    best = best[usable[best]]
    if best.size < _WITNESSES // 2:
        return None
    mantissas = 2 * np.frexp(gains[best])[0]
    factor = _common_factor(mantissas, np.clip(4 / np.sqrt(times[best]), 0.1, 0.25))
    if factor == 0:
        return None
    whole = np.where(usable, gains * factor, 1.0).astype(np.float32).astype(values.dtype)
    tried = np.linspace(0, n_positions - 1, 16).astype(np.int64)
    for divides in (True, False):
        guesses = factor / scales if divides else scales / factor
        for first in (False, True):
            found = np.empty(n_positions, values.dtype)
            if best_scales(values[tried], whole, guesses[tried], divides, first, found[: tried.size]) < _ENOUGH:
                continue
            # A few hundred values tell a float from the next: each of them is rounded otherwise by half of these.
            every = int(np.clip(float((some > 0).mean()) * n_pixels / _LIT, 1, 16))
            few = np.ascontiguousarray(values[:, ::every])
            best_scales(few, np.ascontiguousarray(whole[::every]), guesses, divides, first, found)
            return FloatCalibration(
                gain=whole.astype(np.float64), scale=found.astype(np.float64), scale_divides=divides, scale_first=first,
                single=values.dtype == np.float32,
            )  # fmt: skip
    return None


def _common_factor(gains: Array, tolerances: Array) -> float:
    """The factor with the least squares of all, or 0."""
    step = FACTORS // _PARTS
    parts = [(gains, tolerances, 2, first, first + step) for first in range(0, FACTORS, step)]
    # The first of equals, as without parts.
    return float(min(run_all(common_factor, parts), key=lambda found: found[1])[0])


def _scales_of(patterns: Array, gains: Array) -> Array:
    """Scales of patterns from the gains of all pixels."""
    some = np.flatnonzero(gains > 0)[:: max(1, gains.size // (4 * _PIXELS))]
    scales = np.zeros(len(patterns))
    rough_gains(np.ascontiguousarray(patterns[:, some] / gains[some], np.float64), scales)
    refined_gains(np.ascontiguousarray(patterns[:, some].T), gains[some], scales, np.zeros(len(patterns), np.int64))
    return np.where(scales > 0, scales, 1.0)


def _scales(some: Array) -> tuple[Array, Array]:
    """Scale of every pattern to a relative error of 1e-8, by the counts of some pixels: they are low enough to guess.

    The second array says of which patterns: float64[n], bool[n].
    """
    none = np.ones(len(some)), np.zeros(len(some), bool)
    lit = some > 0
    if float(lit.any(axis=1).mean()) < 1 or lit.sum() < 8 * sum(some.shape):
        return none
    scales = _lowest_cluster(some)
    pixels = _lowest_cluster(np.ascontiguousarray((some / scales[:, None]).T))
    known = np.flatnonzero(pixels > 0)
    # Taken, not indexed: that takes a few times as long.
    some, lit, pixels = (a.take(known, axis=-1) for a in (some, lit, pixels))
    counts = np.ones_like(some)
    for k in range(16):
        change = fitted_scales(some, scales, pixels, counts)
        if k == 3:
            # Pixels whose lowest values were not single counts never fit.
            ratio = some / (scales[:, None] * pixels)
            fits = lit & (np.abs(ratio - counts) < 0.2) & (np.abs(ratio / counts - 1) < 0.03) & (counts < 64)
            good = np.flatnonzero(fits.sum(axis=0) >= 0.97 * lit.sum(axis=0))
            if good.size < 48:
                return none
            some, lit, pixels = (a.take(good, axis=-1) for a in (some, lit, pixels))
            counts = np.ones_like(some)
        elif k > 4 and change < _SETTLED:
            break
    exact = lit & (np.abs(some / (scales[:, None] * pixels) - counts) < 1e-6 * counts)
    return scales, exact.sum(axis=1) > 0.95 * lit.sum(axis=1)


def _lowest_cluster(rows: Array) -> Array:
    """Median of the values about as large as the lowest other than 0 of every row: where most are single counts."""
    out = np.zeros(len(rows))
    lowest_clusters(np.sort(np.where(rows > 0, rows, np.inf), axis=1), out)
    return out
