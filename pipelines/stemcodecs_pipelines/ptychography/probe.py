"""First guesses of the probe: from aperture and defocus, from the patterns themselves, and several modes of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.errors import ConfigurationError

__all__ = ["aperture_probe", "probe_from_patterns", "probe_modes", "propagate"]

Array = np.ndarray[Any, Any]


def propagate(wave: Array, distance: float, pixel_size: float, wavelength: float) -> Array:
    """A wave after a free flight, by the paraxial propagator exp(−iπλ Δz k²).

    Parameters
    ----------
    wave : ndarray of complex, (…, n, n)
        Wave in its window.
    distance : float
        Δz in metres, positive downstream.
    pixel_size, wavelength : float
        In metres.
    """
    return np.fft.ifft2(np.fft.fft2(wave) * free_flight(wave.shape[-1], distance, pixel_size, wavelength))


def free_flight(side: int, distance: float, pixel_size: float, wavelength: float) -> Array:
    """The propagator in Fourier space, zero frequency in the corner; complex128, (side, side)."""
    k = np.fft.fftfreq(side, pixel_size)
    return np.asarray(np.exp(-1j * np.pi * wavelength * distance * (k[:, None] ** 2 + k**2)))


def aperture_probe(side: int, *, semi_angle: float, defocus: float, pixel_size: float, wavelength: float) -> Array:
    """Probe of a round aperture, of unit energy, in the middle of its window.

    Parameters
    ----------
    side : int
        Pixels of the window.
    semi_angle : float
        Convergence semi-angle in radians.
    defocus : float
        Distance from the focus down to the specimen in metres: positive where the beam diverges at the specimen.
    pixel_size, wavelength : float
        In metres.

    Returns
    -------
    ndarray, complex64, (side, side)

    Raises
    ------
    ConfigurationError
        The aperture is larger than the detector, or smaller than a pixel of it.
    """
    k = np.fft.fftfreq(side, pixel_size)
    radius, step = semi_angle / wavelength, 1.0 / (side * pixel_size)
    if not step <= radius <= side / 2 * step:
        raise ConfigurationError(
            f"an aperture of {1e3 * semi_angle:g} mrad has a radius of {radius / step:.3g} detector pixels of {side}; "
            "check the convergence angle and the angle of a pixel"
        )
    # An edge of one pixel keeps the aperture round on a coarse detector.
    edge = np.clip((radius - np.hypot(k[:, None], k)) / step + 0.5, 0.0, 1.0)
    return _centred(edge * free_flight(side, defocus, pixel_size, wavelength))


def probe_from_patterns(mean_pattern: Array, *, defocus: float, pixel_size: float, wavelength: float) -> Array:
    """Probe whose aperture is what the detector saw: the root of the mean pattern, with the phase of the defocus.

    Parameters
    ----------
    mean_pattern : ndarray, (n, n)
        Mean of the patterns in the frame of the object, zero frequency in pixel n // 2.
    defocus, pixel_size, wavelength : float
        As in `aperture_probe`.

    Raises
    ------
    ConfigurationError
        The mean pattern is empty.
    """
    if not (np.isfinite(mean_pattern).all() and mean_pattern.max() > 0):
        raise ConfigurationError("the mean pattern is empty or not a number; give the probe, or a mask")
    # What lies far below the disc was scattered by the specimen and is no part of the aperture.
    aperture = np.sqrt(np.where(mean_pattern >= 0.05 * np.quantile(mean_pattern, 0.99), mean_pattern, 0.0))
    side = mean_pattern.shape[-1]
    return _centred(np.fft.ifftshift(aperture) * free_flight(side, defocus, pixel_size, wavelength))


def probe_modes(probe: Array, modes: int, share: float = 0.3) -> Array:
    """Modes of a partly coherent beam to start from: the probe, and polynomials in (y, x) times it.

    Parameters
    ----------
    probe : ndarray of complex, (given, n, n)
        Modes that are known; they are kept.
    modes : int
        How many there shall be.
    share : float
        Norm of each new mode over that of the first.

    Returns
    -------
    ndarray, complex64, (modes, n, n)

    Raises
    ------
    ConfigurationError
        More modes than 10, or fewer than are given.
    """
    if not len(probe) <= modes <= max(len(probe), 10):
        raise ConfigurationError(f"{modes} modes for a probe of {len(probe)} cannot be made; choose {len(probe)} to 10")
    first = probe[0]
    weight = np.abs(first) ** 2
    y, x = np.mgrid[: first.shape[0], : first.shape[1]].astype(np.float64)
    y, x = (a - (weight * a).sum() / weight.sum() for a in (y, x))
    width = np.sqrt((weight * (x * x + y * y)).sum() / weight.sum())
    y, x = y / width, x / width
    polynomials = [x, y, x * y, x * x - y * y, x * x + y * y - 1, x**3, y**3, x * x * y, x * y * y]
    waves = [*probe]
    for polynomial in polynomials[len(probe) - 1 : modes - 1]:
        wave = first * polynomial
        waves.append(share * wave * np.linalg.norm(first) / np.linalg.norm(wave))
    return np.asarray(waves, np.complex64)


def _centred(aperture: Array) -> Array:
    wave = np.fft.fftshift(np.fft.ifft2(aperture))
    return np.asarray(wave / np.linalg.norm(wave), np.complex64)
