"""The forward model in NumPy: the reference for the reconstructions, and what simulates patterns for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["diffraction_patterns", "shift_ramp", "thick_patterns"]

Array = np.ndarray[Any, Any]


def shift_ramp(fraction: Array, side: int) -> Array:
    """Phase ramp in Fourier space that moves a wave by a fraction (y, x) of a pixel; complex64, (side, side)."""
    k = np.fft.fftfreq(side)
    y, x = (np.exp(-2j * np.pi * k * f) for f in fraction)
    return np.asarray(y[:, None] * x, np.complex64)


def diffraction_patterns(transmission: Array, probe: Array, positions: Array) -> Array:
    """Noise-free far-field intensities of a thin object.

    Parameters
    ----------
    transmission : ndarray of complex, (object_y, object_x)
        Object transmission function.
    probe : ndarray of complex, (n, n) or (mode, n, n)
        Probe in the object plane; the intensities of several modes add up.
    positions : ndarray, (positions, 2)
        Upper left corner (y, x) of the probe's window in the object, in pixels; fractions move the probe in its window.

    Returns
    -------
    ndarray, float32, (positions, n, n)
        Intensities with the zero frequency in pixel n // 2; each sums to the energy of its exit waves.
    """
    return thick_patterns(transmission[None], probe, positions, np.ones(probe.shape[-2:]))


def thick_patterns(slices: Array, probe: Array, positions: Array, flight: Array) -> Array:
    """Noise-free far-field intensities of an object of several slices (multislice: Cowley and Moodie 1957,
    doi:10.1107/S0365110X57002194).

    Parameters
    ----------
    slices : ndarray of complex, (slice, object_y, object_x)
        Transmission functions, in the order in which the beam meets them.
    probe, positions
        As in `diffraction_patterns`.
    flight : ndarray of complex, (n, n)
        Propagator between slices, zero frequency in the corner.
    """
    waves = probe[None] if probe.ndim == 2 else probe
    side = waves.shape[-1]
    intensities = np.empty((len(positions), side, side), np.float32)
    for intensity, position in zip(intensities, np.asarray(positions), strict=True):
        y, x = np.floor(position).astype(int)
        fraction = position - np.floor(position)
        exit_wave = np.fft.ifft2(np.fft.fft2(waves) * shift_ramp(fraction, side)) if fraction.any() else waves
        for number, layer in enumerate(slices):
            if number:
                exit_wave = np.fft.ifft2(np.fft.fft2(exit_wave) * flight)
            exit_wave = exit_wave * layer[y : y + side, x : x + side]
        far = np.abs(np.fft.fft2(exit_wave, norm="ortho")) ** 2
        intensity[:] = np.fft.fftshift(far.sum(axis=0))
    return intensities
