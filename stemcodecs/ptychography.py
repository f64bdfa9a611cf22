"""A small ptychographic reconstruction, to judge what compression does to the image that users
want.

The extended ptychographical iterative engine of Maiden and Rodenburg (2009,
doi:10.1016/j.ultramic.2009.05.012) and its forward model, in plain NumPy: seconds for a few hundred
patterns. Not a tool for real reconstructions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["diffraction_patterns", "epie", "phase_error"]

Array = np.ndarray[Any, Any]


def diffraction_patterns(transmission: Array, probe: Array, positions: Array) -> Array:
    """Noise-free far-field intensities of a thin object.

    Parameters
    ----------
    transmission : ndarray of complex, (object_y, object_x)
        Object transmission function.
    probe : ndarray of complex, (n, n)
        Probe in the object plane.
    positions : ndarray of int, (positions, 2)
        Upper left corner (y, x) of the probe in the object, in pixels.

    Returns
    -------
    ndarray, float32, (positions, n, n)
        Intensities with the zero frequency in the middle; each sums to the energy of its exit wave.
    """
    n = probe.shape[0]
    waves = np.stack([probe * transmission[y : y + n, x : x + n] for y, x in positions])
    return (np.abs(np.fft.fftshift(np.fft.fft2(waves, norm="ortho"), axes=(1, 2))) ** 2).astype(np.float32)


def epie(
    patterns: Array,
    probe: Array,
    positions: Array,
    shape: tuple[int, int],
    *,
    iterations: int = 12,
    seed: int = 0,
) -> tuple[Array, Array]:
    """Reconstruct object and probe.

    Parameters
    ----------
    patterns : ndarray, (positions, n, n)
        Counts, zero frequency in the middle.
    probe : ndarray of complex, (n, n)
        First guess; refined from the third iteration on.
    positions : ndarray of int, (positions, 2)
        As in :func:`diffraction_patterns`.
    shape : tuple of int
        Shape of the object.
    iterations : int
        Passes over all patterns, each in a random order that ``seed`` fixes.

    Returns
    -------
    transmission, probe : ndarray of complex64
    """
    n = probe.shape[0]
    amplitudes = np.sqrt(np.maximum(np.fft.ifftshift(patterns, axes=(1, 2)), 0)).astype(np.float32)
    # The probe carries the mean energy of a pattern, so that the object is of order one.
    energy = float((amplitudes**2).sum(dtype=np.float64)) / len(amplitudes)
    probe = (probe * np.sqrt(energy / (np.abs(probe) ** 2).sum())).astype(np.complex64)
    transmission = np.ones(shape, np.complex64)
    generator = np.random.default_rng(seed)
    for iteration in range(iterations):
        for j in generator.permutation(len(positions)):
            y, x = positions[j]
            window = transmission[y : y + n, x : x + n]
            exit_wave = probe * window
            far = np.fft.fft2(exit_wave, norm="ortho")
            corrected = np.fft.ifft2(far * (amplitudes[j] / (np.abs(far) + 1e-8)), norm="ortho")
            change = (corrected - exit_wave).astype(np.complex64)
            before = window.copy()
            window += np.conj(probe) * change / (np.abs(probe) ** 2).max()
            if iteration > 1:
                probe = probe + 0.5 * np.conj(before) * change / (np.abs(before) ** 2).max()
    return transmission, probe


def phase_error(reconstruction: Array, truth: Array, margin: int) -> float:
    """Mean squared phase difference in rad², inside ``margin`` pixels of the border, up to a
    constant phase.
    """
    inside = (slice(margin, -margin), slice(margin, -margin))
    ratio = reconstruction[inside] * np.conj(truth[inside])
    # Weighted by the amplitudes: the phase of an opaque pixel means nothing.
    difference = np.angle(ratio * np.exp(-1j * np.angle(ratio.sum())))
    return float(((difference - difference.mean()) ** 2).mean())
