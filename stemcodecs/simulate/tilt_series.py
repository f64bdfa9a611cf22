"""Simulated tilt series of a scanning electron microscope's annular dark-field detector whose clean images are known.

Particles of different brightness lie on and in a support film of uneven thickness. The stage turns them about the
vertical axis, so that the film grows thicker along the beam with the angle. Electrons arrive as Poisson counts, the
detector glows on for a fraction of a pixel along the fast axis, its amplifier adds noise, and its converter an offset,
as those of real instruments do. Everything follows from the seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.errors import ConfigurationError

__all__ = ["TiltSeries", "simulate_tilt_series"]

Array = np.ndarray[Any, Any]

OFFSET = -31_900
"""Value of a pixel that no electron reached: converters of 16 bits begin far below 0."""
_GAIN = 1.7
"""Units of the converter an electron."""
_READ_NOISE = 3.0
"""Standard deviation of the amplifier, in units of the converter."""
_AFTERGLOW = 0.25
"""Share of a pixel's signal that reaches the next one of the line."""
_PARTICLES = 40
_FILM = 0.12
"""Brightness of the film at no tilt; 1 is about the brightest particle's."""
_MOST_ANGLE = 75.0


@dataclass(frozen=True, kw_only=True, eq=False)
class TiltSeries:
    """Images of a specimen at many angles, and what they would be without noise.

    Attributes
    ----------
    images : int16[angle, y, x]
        What the detector gives.
    clean : float32[angle, y, x]
        Expected values of the images, in the same units.
    angles : float64[angle]
        Of the stage, in degrees.
    """

    images: Array
    clean: Array
    angles: Array


def simulate_tilt_series(
    shape: tuple[int, int, int] = (61, 128, 128), *, dose: float = 150.0, most_angle: float = 70.0, seed: int = 0
) -> TiltSeries:
    """Simulate a tilt series.

    Parameters
    ----------
    shape : tuple of int
        Angles, rows, columns.
    dose : float
        Electrons that a pixel of brightness 1 scatters onto the detector; the film has an eighth of that.
    most_angle : float
        Angles go from minus this to this, in degrees; at most 75.
    seed : int
        Chooses specimen and noise.

    Returns
    -------
    TiltSeries

    Raises
    ------
    ConfigurationError
        Values that cannot be.

    Examples
    --------
    >>> series = simulate_tilt_series((5, 32, 32), seed=1)
    >>> series.images.shape, series.images.dtype
    ((5, 32, 32), dtype('int16'))
    """
    if len(shape) != 3 or min(shape) < 1 or min(shape[1:]) < 8:
        raise ConfigurationError(f"shape {tuple(shape)} must be angles, rows and columns, of at least 8 by 8 pixels")
    if not 0 < dose <= 5000 or not 0 <= most_angle <= _MOST_ANGLE:
        raise ConfigurationError(f"dose {dose} must be above 0 and at most 5000, most_angle {most_angle} from 0 to 75")
    rng = np.random.default_rng(seed)
    angles = np.linspace(-most_angle, most_angle, shape[0])
    specimen = _Specimen(rng, (shape[1], shape[2]))
    bright = np.stack([specimen.projection(math.radians(angle)) for angle in angles])
    electrons = _glow(bright * dose)
    counted = _glow(rng.poisson(bright * dose).astype(np.float64))
    values = OFFSET + _GAIN * counted + rng.normal(0, _READ_NOISE, bright.shape)
    images = np.clip(np.rint(values), -32768, 32767).astype(np.int16)
    return TiltSeries(images=images, clean=(OFFSET + _GAIN * electrons).astype(np.float32), angles=angles)


def _glow(signal: Array) -> Array:
    """The detector's answer: it has not quite forgotten the last pixel of the line."""
    out = (1 - _AFTERGLOW) * signal
    out[..., 1:] += _AFTERGLOW * signal[..., :-1]
    return out


class _Specimen:
    """Round particles in and on a film."""

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        height, width = size
        self._y, self._x = np.mgrid[:height, :width] - np.array([(height - 1) / 2, (width - 1) / 2])[:, None, None]
        half = min(size) / 2
        self._centres = rng.uniform(-1, 1, (_PARTICLES, 3)) * (0.45 * width, 0.48 * height, 0.15 * half)
        self._radii = half * 10 ** rng.uniform(-1.5, -0.6, _PARTICLES)
        self._densities = rng.choice([0.25, 0.5, 1.0], _PARTICLES) / (0.4 * half)
        # Unevenness of the film: waves of a few lengths.
        self._waves = rng.normal(0, 1, (24, 2)) * 2 * math.pi / (0.25 * half)
        self._phases = rng.uniform(0, 2 * math.pi, 24)

    def projection(self, angle: float) -> Array:
        """Brightness of every pixel with the stage at an angle in radians: float64[y, x]."""
        cosine, sine = math.cos(angle), math.sin(angle)
        film = np.zeros_like(self._x)
        for (ky, kx), phase in zip(self._waves, self._phases, strict=True):
            film += np.cos(ky * self._y + kx * self._x / cosine + phase)
        image: Array = _FILM / cosine * (1 + 0.03 * film)
        for (x, y, z), radius, density in zip(self._centres, self._radii, self._densities, strict=True):
            distance = (self._x - (x * cosine + z * sine)) ** 2 + (self._y - y) ** 2
            # A probe of one pixel softens the rim.
            chord = np.sqrt(np.maximum(radius**2 - distance, 0)) * np.minimum(radius, 1.0)
            image += 2 * density * chord
        return np.maximum(image, 0.01)
