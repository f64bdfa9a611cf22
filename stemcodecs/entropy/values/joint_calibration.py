"""Find a gain of every pixel together with a scale of every pattern: counts that were corrected, then normalised.

Neither axis alone shows multiples of one number. Both are found as the best fit to the logarithms, which many values
make more exact than single precision; what is left open is one common factor, and only with the right one are all gains
floats.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.entropy.values.calibration import FloatCalibration
from stemcodecs.entropy.values.joint_kernels import best_scales, common_factor, refined_gains, rough_gains

__all__ = ["joint_calibration"]

Array = np.ndarray[Any, Any]

_PIXELS = 512
_WITNESSES = 48
"""Pixels that a common factor must turn into floats."""
_ENOUGH = 0.98


def joint_calibration(values: Array, rows: Array) -> FloatCalibration | None:
    """Formula of float32 values[n_positions, n_pixels] from gains and scales, or None; ``rows`` are sampled patterns."""
    n_positions, n_pixels = values.shape
    if values.dtype != np.float32 or n_positions < 64 or n_pixels < 64:
        return None
    some = values[:, :: max(1, n_pixels // _PIXELS)].astype(np.float64)
    some[~(np.isfinite(some) & (some > 0))] = 0
    scales = _scales(some)
    if scales is None:
        return None
    gains, times = np.zeros(n_pixels), np.zeros(n_pixels, np.int64)
    rough_gains(np.ascontiguousarray((values[rows] / scales[rows, None]).T, np.float64), gains)
    refined_gains(values, scales, gains, times)
    usable = (gains > 0) & (times > 0)
    best = np.argsort(np.where(usable, times, 0))[::-1][:_WITNESSES]
    best = best[usable[best]]
    if best.size < _WITNESSES // 2:
        return None
    mantissas = 2 * np.frexp(gains[best])[0]
    factor = common_factor(mantissas, np.clip(4 / np.sqrt(times[best]), 0.1, 0.25), 2)
    if factor == 0:
        return None
    whole = np.where(usable, gains * factor, 1.0).astype(np.float32)
    tried = np.linspace(0, n_positions - 1, 16).astype(np.int64)
    for divides in (True, False):
        guesses = factor / scales if divides else scales / factor
        for first in (False, True):
            found = np.empty(n_positions, np.float32)
            if best_scales(values[tried], whole, guesses[tried], divides, first, found[: tried.size]) < _ENOUGH:
                continue
            best_scales(values, whole, guesses, divides, first, found)
            return FloatCalibration(
                gain=whole.astype(np.float64), scale=found.astype(np.float64), scale_divides=divides, scale_first=first
            )
    return None


def _scales(some: Array) -> Array | None:
    """Scale of every pattern to a relative error of 1e-8, by the counts of some pixels: they are low enough to guess."""
    lit = some > 0
    if float(lit.any(axis=1).mean()) < 1 or lit.sum() < 8 * sum(some.shape):
        return None
    scales = _lowest_cluster(some)
    pixels = _lowest_cluster((some / scales[:, None]).T)
    known = pixels > 0
    some, lit, pixels = some[:, known], lit[:, known], pixels[known]
    counts = np.ones_like(some)
    for k in range(16):
        ratio = some / (scales[:, None] * pixels)
        counts = np.maximum(np.rint(ratio), 1)
        fits = lit & (np.abs(ratio - counts) < 0.2) & (counts < 64)
        residual = np.where(fits, ratio / counts - 1, 0)
        scales = scales * (1 + residual.sum(axis=1) / np.maximum(fits.sum(axis=1), 1))
        ratio = some / (scales[:, None] * pixels)
        residual = np.where(fits, ratio / counts - 1, 0)
        pixels = pixels * (1 + residual.sum(axis=0) / np.maximum(fits.sum(axis=0), 1))
        if k == 3:
            # Pixels whose lowest values were not single counts never fit.
            good = (fits & (np.abs(residual) < 0.03)).sum(axis=0) >= 0.97 * lit.sum(axis=0)
            if good.sum() < 64:
                return None
            some, lit, pixels = some[:, good], lit[:, good], pixels[good]
    exact = np.abs(some / (scales[:, None] * pixels) - counts) < 1e-6 * counts
    return scales if float(exact[lit].mean()) > _ENOUGH else None


def _lowest_cluster(rows: Array) -> Array:
    """Median of the values about as large as the lowest other than 0 of every row: where most are single counts."""
    out = np.zeros(len(rows))
    for i, row in enumerate(rows):
        lit = row[row > 0]
        if lit.size:
            low = np.quantile(lit, 0.05)
            out[i] = np.median(lit[(lit > 0.7 * low) & (lit < 1.4 * low)])
    return out
