"""Maps of the detector that tell the network how a pixel's counts scatter: measured on a sample, stored as integers."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.compiled import kernel
from stemcodecs.entropy.kernels.borrowed import borrowed
from stemcodecs.learned.training_kernels import TrainingData, residual

__all__ = ["scatter_maps"]

Array = np.ndarray[Any, Any]

_MOST_POSITIONS = 2048
"""Positions that the maps are measured on."""
_FEATURE = 16
"""A step of a map as a feature: a quarter, with six fraction bits."""
_VARIANCE_FLOOR = 0.01


@kernel
def _moments(data, positions, out):
    """Sums of the residuals, their squares, and their products with the left and the upper neighbour's."""
    data = borrowed(data)
    for i in range(positions.shape[0]):
        f = positions[i]
        for p in range(data.roots.shape[0]):
            if data.roots[p] < 0:
                continue
            e = residual(data, f, p) / 64.0
            out[0, p] += e
            out[1, p] += e * e
            if p % data.width > 0 and data.roots[p - 1] >= 0:
                out[2, p] += e * residual(data, f, p - 1) / 64.0
            if p >= data.width and data.roots[p - data.width] >= 0:
                out[3, p] += e * residual(data, f, p - data.width) / 64.0


def scatter_maps(data: TrainingData) -> tuple[Array, ...]:
    """Correlation of a pixel's residual with that of its left and upper neighbour, and the logarithm of its variance.

    Each in steps of about two and a half standard errors, int64[det_y, det_x]: finer ones would store noise.
    """
    n_positions, n = data.plane.shape
    chosen = np.unique(np.linspace(0, n_positions - 1, min(n_positions, _MOST_POSITIONS)).round().astype(np.int64))
    sums = np.zeros((4, n))
    _moments(data, chosen, sums)
    mean, square, left, upper = sums / chosen.size
    variance = np.maximum(square - mean * mean, 0) + _VARIANCE_FLOOR
    live = data.roots >= 0
    error = chosen.size**-0.5
    maps = []
    for product, distance in ((left, 1), (upper, data.width)):
        correlation = np.zeros(n)
        covariance = product[distance:] - mean[distance:] * mean[:-distance]
        correlation[distance:] = covariance / np.sqrt(variance[distance:] * variance[:-distance])
        maps.append(_steps(np.where(product != 0, correlation, 0), max(0.1, 2.5 * error)))
    maps.append(_steps(np.log(variance), max(0.25, 6 * error)))
    return tuple((np.where(live, m, 0) * _FEATURE).reshape(-1, data.width) for m in maps)


def _steps(values: Array, step: float) -> Array:
    return np.clip(np.rint(values / step), -1000, 1000).astype(np.int64)
