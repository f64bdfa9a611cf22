"""Errors of one image against another: SMSE, PSNR, SSIM."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stemcodecs.errors import ConfigurationError
from stemcodecs.metrics.arguments import image_pair, pair, support_of

__all__ = ["psnr", "smse", "ssim"]

Array = np.ndarray[Any, Any]

_RADIUS, _SIGMA = 5, 1.5
_K1, _K2 = 0.01, 0.03
"""Window of 11×11 and constants of Wang et al. (2004)."""


def smse(image: ArrayLike, reference: ArrayLike, support: ArrayLike | None = None) -> float:
    """Within-support mean-squared error: ``Σ |reference − image|² / n`` over the n pixels of the support.

    As Huang et al. judge reconstructions of compressed ptychography data (2021,
    doi:10.1107/S1600577520013326). Nothing is aligned: see `align_objects` for complex objects.

    Parameters
    ----------
    image, reference : array_like
        Of one shape, real or complex, in any unit.
    support : array_like of bool, optional
        Pixels that count; default: all.

    Returns
    -------
    float
        In the square of the images' unit.

    Raises
    ------
    ConfigurationError
        Shapes differ, a value is not finite, or the support is empty.
    """
    a, b = pair(image, reference)
    inside = support_of(support, a.shape)
    return float((np.abs(a - b)[inside] ** 2).mean())


def psnr(image: ArrayLike, reference: ArrayLike, data_range: float | None = None) -> float:
    """Peak signal-to-noise ratio ``10 lg(R² / MSE)`` in dB; infinite for equal images.

    Parameters
    ----------
    image, reference : array_like
        Of one shape, real or complex.
    data_range : float, optional
        R; default: the largest minus the smallest value of the reference (of its modulus, where it is complex).

    Raises
    ------
    ConfigurationError
        Shapes differ, a value is not finite, or the range is not positive.
    """
    a, b = pair(image, reference)
    peak = _range_of(b, data_range)
    error = float((np.abs(a - b) ** 2).mean())
    return math.inf if error == 0 else 10.0 * math.log10(peak**2 / error)


def ssim(image: ArrayLike, reference: ArrayLike, data_range: float | None = None) -> float:
    """Structural similarity, mean over all windows that lie within the image; 1 for equal images.

    In a Gaussian window of 11×11 pixels (σ = 1.5) with means μ, variances σ² and covariance σ_xy,
    ``(2 μ_x μ_y + C₁)(2 σ_xy + C₂) / ((μ_x² + μ_y² + C₁)(σ_x² + σ_y² + C₂))``, with C₁ = (0.01 R)² and C₂ = (0.03 R)²:
    Wang et al. (2004, doi:10.1109/TIP.2003.819861).

    Parameters
    ----------
    image, reference : array_like
        Real, two dimensions of at least 11 pixels.
    data_range : float, optional
        R; default: the largest minus the smallest value of the reference.

    Raises
    ------
    ConfigurationError
        Shapes differ, a value is complex or not finite, or the range is not positive.
    """
    a, b = image_pair(image, reference, 2 * _RADIUS + 1)
    if a.dtype.kind == "c" or b.dtype.kind == "c":
        raise ConfigurationError("structural similarity is defined for real images; give phases or amplitudes")
    peak = _range_of(b, data_range)
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2
    mean_a, mean_b = _windowed(a), _windowed(b)
    variance_a = _windowed(a * a) - mean_a**2
    variance_b = _windowed(b * b) - mean_b**2
    covariance = _windowed(a * b) - mean_a * mean_b
    similar = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float((similar / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))).mean())


def _range_of(reference: Array, data_range: float | None) -> float:
    values = np.abs(reference) if reference.dtype.kind == "c" else reference
    peak = float(values.max() - values.min()) if data_range is None else float(data_range)
    if not 0 < peak < math.inf:
        raise ConfigurationError(f"a range of {peak:g} cannot be; the reference is constant, so give data_range")
    return peak


def _windowed(image: Array) -> Array:
    """Mean in the Gaussian window around every pixel that has a whole one."""
    weights = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / _SIGMA) ** 2)
    weights /= weights.sum()
    for axis in range(2):
        windows = np.lib.stride_tricks.sliding_window_view(image, 2 * _RADIUS + 1, axis)
        image = windows @ weights
    return image
