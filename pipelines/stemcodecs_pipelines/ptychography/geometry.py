"""From what the instrument says (energy, distance, steps, angles) to pixels of the object.

The conventions, drawn in docs/reconstruction.md: arrays are indexed (y, x), y downward. Object and probe lie in the
frame of the detector as it is seen after `Orientation`: a wave that is tilted towards larger x arrives at larger
``det_x``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from stemcodecs.errors import ConfigurationError

__all__ = ["AS_STORED", "Optics", "Orientation", "Particle", "raster_positions", "rotate_positions", "wavelength_of"]

Array = np.ndarray[Any, Any]
Particle = Literal["electron", "photon"]

# CODATA 2022: Planck constant × speed of light in eV·m, and the rest energy of the electron in eV.
_HC = 1.239841984e-6
_REST = 510_998.95069


def wavelength_of(energy_ev: float, particle: Particle) -> float:
    """Wavelength in metres of photons, or of electrons with the relativistic correction.

    Parameters
    ----------
    energy_ev : float
        Energy in eV; of electrons the kinetic one.
    particle : {"electron", "photon"}
        What is diffracted.

    Raises
    ------
    ConfigurationError
        The energy is not positive, or there is no such particle.
    """
    if not (math.isfinite(energy_ev) and energy_ev > 0):
        raise ConfigurationError(f"an energy of {energy_ev:g} eV cannot be; give a positive one")
    if particle == "photon":
        return _HC / energy_ev
    if particle == "electron":
        return _HC / math.sqrt(energy_ev * (energy_ev + 2 * _REST))
    raise ConfigurationError(f"no particle {particle!r}; choose electron or photon")


@dataclass(frozen=True, kw_only=True)
class Optics:
    """Wavelength and the angle that a detector pixel takes in.

    Attributes
    ----------
    wavelength : float
        In metres.
    detector_angle : float
        Angle between neighbouring detector pixels, in radians.
    """

    wavelength: float
    detector_angle: float

    @classmethod
    def of(
        cls,
        *,
        energy_ev: float,
        particle: Particle,
        distance: float | None = None,
        detector_pixel: float | None = None,
        detector_angle: float | None = None,
    ) -> Optics:
        """Optics from energy and either distance and detector pixel (metres), or the angle of a pixel (radians).

        Raises
        ------
        ConfigurationError
            Both, or neither, or a value that is not positive.
        """
        wavelength = wavelength_of(energy_ev, particle)
        if detector_angle is None:
            if distance is None or detector_pixel is None:
                raise ConfigurationError(
                    "the object pixel is not known; give the distance to the detector and its pixel, or the angle of a "
                    "detector pixel"
                )
            if not (distance > 0 and detector_pixel > 0):
                raise ConfigurationError("the distance to the detector and its pixel must be positive")
            detector_angle = detector_pixel / distance
        elif distance is not None or detector_pixel is not None:
            raise ConfigurationError("give the angle of a detector pixel, or distance and pixel, but not both")
        if not (math.isfinite(detector_angle) and detector_angle > 0):
            raise ConfigurationError(f"a detector pixel of {detector_angle:g} rad cannot be; give a positive angle")
        return cls(wavelength=wavelength, detector_angle=detector_angle)

    def object_pixel(self, side: int) -> float:
        """Pixel of object and probe in metres, λ / (n θ), for patterns of `side` pixels."""
        return self.wavelength / (side * self.detector_angle)


@dataclass(frozen=True, kw_only=True)
class Orientation:
    """How patterns are turned into the frame of the object when they are read: transposed first, then flipped."""

    transpose: bool = False
    flip_y: bool = False
    flip_x: bool = False

    def apply(self, patterns: Array) -> Array:
        """A view of patterns, or of a mask, of shape (…, y, x)."""
        if self.transpose:
            patterns = patterns.swapaxes(-1, -2)
        if self.flip_y:
            patterns = patterns[..., ::-1, :]
        if self.flip_x:
            patterns = patterns[..., ::-1]
        return patterns


AS_STORED = Orientation()
"""Patterns that lie in the frame of the object already."""


def raster_positions(shape: tuple[int, int], step: tuple[float, float], rotation_deg: float = 0.0) -> Array:
    """Positions (y, x) of a regular scan, line by line from left to right, in the units of the step.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns.
    step : tuple of float
        Distance of rows and of columns.
    rotation_deg : float
        See `rotate_positions`.

    Raises
    ------
    ConfigurationError
        A size or a step is zero, or not a number.
    """
    if min(shape) < 1 or not all(math.isfinite(s) and s != 0 for s in step):
        raise ConfigurationError(f"a scan of {shape} positions with steps {step} cannot be; give sizes and steps")
    y, x = np.meshgrid(np.arange(shape[0]) * step[0], np.arange(shape[1]) * step[1], indexing="ij")
    return rotate_positions(np.stack([y.ravel(), x.ravel()], axis=1), rotation_deg)


def rotate_positions(positions: Array, rotation_deg: float) -> Array:
    """Turn positions (y, x) by an angle from the x axis towards the y axis: clockwise as arrays are shown.

    A scan whose fast axis points along the detector's +y has a rotation of 90°.
    """
    angle = math.radians(rotation_deg)
    y, x = positions[:, 0], positions[:, 1]
    cos, sin = math.cos(angle), math.sin(angle)
    return np.stack([x * sin + y * cos, x * cos - y * sin], axis=1)
