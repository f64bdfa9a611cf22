"""Find the scale of each pattern, a dose or a monitor, where the gains of pixels are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from stemcodecs.entropy.values.calibration import FloatCalibration
from stemcodecs.entropy.values.lattice_kernels import FOUND
from stemcodecs.entropy.values.loose_kernels import loose_gains
from stemcodecs.entropy.values.scale_kernels import exact_scales, pattern_spacings

__all__ = ["HALF_COUNTS", "HALF_DIGITS", "HALF_LEAST", "pattern_scales", "with_scales"]

Array = np.ndarray[Any, Any]

HALF_DIGITS, HALF_LEAST, HALF_COUNTS = 11, 2.0**-25, 256.0
"""Binary digits of half precision, half of its smallest number, and counts whose products it still tells apart."""
_MOST_LIT = 512
_ENOUGH = 0.9
"""Share of a pattern's values that its scale must give bit by bit: dead and hot pixels are others."""


def pattern_scales(values: Array, calibration: FloatCalibration) -> tuple[Array, Array]:
    """Scale of every pattern with which its values are whole numbers times the gains of their pixels.

    What a pattern's scale is depends on nothing but its own values.

    Parameters
    ----------
    values : floats[k, n_pixels]
        Native.
    calibration : FloatCalibration
        Its gains, and how a scale is applied; its own scales are not looked at.

    Returns
    -------
    scales : float64[k]
        0 where there is none.
    lit : int64[k]
        How many values of the pattern told the scale, at most 512.
    """
    c = calibration
    n, n_pixels = values.shape
    if values.dtype.itemsize == 2:
        return _of_half(values, c)
    spacings, lit, shares = np.empty(n), np.empty(n, np.int64), np.empty(n)
    kind = np.float32 if c.single else np.float64
    scales = np.empty(n, kind)
    with np.errstate(all="ignore"):
        gains = np.ones(n_pixels) if c.gain is None else c.gain
        back = gains if c.gain_divides else 1 / gains
        back = np.where(np.isfinite(back) & (back > 0), back, 0.0)
        pattern_spacings(values, back, spacings, lit)
        guesses = 1 / spacings if c.scale_divides else spacings
        exact_scales(
            values, gains.astype(kind), back, guesses, c.gain_divides, c.scale_divides, c.scale_first, scales, shares
        )
    return np.where(shares >= _ENOUGH, scales, 0).astype(np.float64), lit


def _of_half(values: Array, c: FloatCalibration) -> tuple[Array, Array]:
    """As :func:`pattern_scales`, of half precision, whose products were computed in single and divide nothing."""
    gains = np.ones(values.shape[1]) if c.gain is None else c.gain
    if c.scale_divides or (gains[gains > 0] != 1).any():
        return np.zeros(len(values)), np.zeros(len(values), np.int64)
    telling = np.ascontiguousarray(values[:, gains > 0], np.float64)
    lit = np.minimum(np.count_nonzero(telling, axis=1), _MOST_LIT)
    scales, status = np.empty(len(values)), np.empty(len(values), np.int64)
    loose_gains(telling, HALF_DIGITS, HALF_LEAST, HALF_COUNTS, scales, status)
    # The products are computed in single precision, which must hold the scale.
    single = scales.astype(np.float32).astype(np.float64)
    return np.where((status == FOUND) & (single == scales), scales, 0.0), lit


def with_scales(values: Array, calibration: FloatCalibration) -> FloatCalibration:
    """The calibration with the scales of some patterns, as :func:`pattern_scales` finds them; 1 where there is none."""
    scales = pattern_scales(values, calibration)[0]
    return replace(calibration, scale=np.where(scales > 0, scales, 1.0))
