"""Resolution by Fourier ring correlation of two images with independent noise."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from stemcodecs.errors import ConfigurationError
from stemcodecs.metrics.arguments import image_pair

__all__ = ["FourierRingCorrelation", "fourier_ring_correlation", "half_bit_resolution"]

Array = np.ndarray[Any, Any]

_HALF_BIT_SNR = (math.sqrt(2.0) - 1.0) / 2.0
"""Signal-to-noise ratio of each of two images whose mean carries half a bit a pixel: log2(1 + 2 SNR) = 1/2."""


class FourierRingCorrelation(NamedTuple):
    """Correlation of two images ring by ring; all arrays have one entry for each ring, from zero to Nyquist.

    Attributes
    ----------
    frequencies : ndarray of float64
        Spatial frequency in the middle of each ring, in cycles per unit of the pixel size.
    correlation : ndarray of float64
        Real part of the normalised correlation, −1 to 1.
    half_bit : ndarray of float64
        Threshold above which the two images together carry at least half a bit of information per pixel.
    n_pixels : ndarray of int64
        Fourier pixels in each ring.
    """

    frequencies: Array
    correlation: Array
    half_bit: Array
    n_pixels: Array


def fourier_ring_correlation(a: ArrayLike, b: ArrayLike, pixel_size: float = 1.0) -> FourierRingCorrelation:
    """Correlate two images of the same object ring by ring of spatial frequency.

    ``FRC(k) = Re Σ F_a F_b* / √(Σ |F_a|² Σ |F_b|²)``, sums over the n Fourier pixels of the ring k, and the half-bit
    threshold ``(s + 2 √s/√n + 1/√n) / (s + 2 √s/√n + 1)`` with s = (√2 − 1)/2, that is
    (0.2071 + 1.9102/√n) / (1.2071 + 0.9102/√n): van Heel and Schatz (2005, doi:10.1016/j.jsb.2005.05.009).

    The images are neither aligned nor windowed: shift them onto each other first (`align_objects`), and multiply both
    with a window that falls off smoothly where the object is not periodic, or their edges correlate.

    Parameters
    ----------
    a, b : array_like, (y, x)
        Real or complex, from independent noise: two halves of a scan, or two measurements.
    pixel_size : float
        Size of a pixel, in the unit in which frequencies are wanted.

    Returns
    -------
    FourierRingCorrelation
        A ring without signal in either image has correlation 0.

    Raises
    ------
    ConfigurationError
        No two images of one shape, values that are not finite, or a pixel size that cannot be.
    """
    first, second = image_pair(a, b)
    if not 0 < pixel_size < math.inf:
        raise ConfigurationError(f"a pixel size of {pixel_size} cannot be; give a positive number")
    fourier_a, fourier_b = np.fft.fft2(first), np.fft.fft2(second)
    # Rings as wide as the coarser of the two frequency steps, so that each has pixels along both axes.
    side = min(first.shape)
    y, x = (np.fft.fftfreq(n) for n in first.shape)
    ring = np.rint(np.hypot(y[:, None], x) * side).astype(np.int64).ravel()
    rings = side // 2 + 1

    def total(values: Array) -> Array:
        return np.bincount(ring, values.ravel(), rings)[:rings]

    cross = total((fourier_a * fourier_b.conj()).real)
    power = np.sqrt(total(np.abs(fourier_a) ** 2) * total(np.abs(fourier_b) ** 2))
    correlation = np.divide(cross, power, out=np.zeros(rings), where=power > 0)
    pixels = np.bincount(ring, minlength=rings)[:rings]
    noise = 1.0 / np.sqrt(pixels)
    signal = _HALF_BIT_SNR + 2.0 * math.sqrt(_HALF_BIT_SNR) * noise
    frequencies = np.arange(rings) / (side * pixel_size)
    return FourierRingCorrelation(frequencies, correlation, (signal + noise) / (signal + 1.0), pixels)


def half_bit_resolution(frc: FourierRingCorrelation) -> float:
    """Resolution: the period at which the correlation first falls below the half-bit threshold.

    Between two rings both curves are taken as straight. The full period is given; its half is what is often quoted as
    the size of the smallest feature.

    Parameters
    ----------
    frc : FourierRingCorrelation
        From `fourier_ring_correlation`.

    Returns
    -------
    float
        In the unit of the pixel size. Two pixels (the period at Nyquist) where the correlation never falls below the
        threshold: the pixels limit the resolution then. Infinite where it lies below from the first ring on.
    """
    above = frc.correlation - frc.half_bit
    # Ring 0 is the mean of the images, and its threshold is 1: it says nothing.
    below = np.flatnonzero(above[1:] < 0) + 1
    if not below.size:
        return float(1.0 / frc.frequencies[-1])
    ring = int(below[0])
    if ring == 1:
        return math.inf
    part = above[ring - 1] / (above[ring - 1] - above[ring])
    frequency = frc.frequencies[ring - 1] + part * (frc.frequencies[ring] - frc.frequencies[ring - 1])
    return float(1.0 / frequency)
