"""A ptychographic scan whose object is known: what a detector would count, but for the noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from stemcodecs_pipelines.ptychography.forward import diffraction_patterns
from stemcodecs_pipelines.ptychography.geometry import raster_positions
from stemcodecs_pipelines.ptychography.probe import aperture_probe
from stemcodecs_pipelines.ptychography.problem import PtychographyProblem

__all__ = ["SimulatedScan", "rough_phase", "simulate_ptychography"]

Array = np.ndarray[Any, Any]


class SimulatedScan(NamedTuple):
    """What was simulated.

    Attributes
    ----------
    problem : PtychographyProblem
        Positions and probe; its patterns are zeros, for ``problem.with_patterns``.
    truth : ndarray of complex, (y, x)
        The object, in the frame of the problem.
    rate : ndarray of float32, (n, det_y, det_x)
        Expected patterns of a beam of one count: multiply with the counts of a pattern, and draw Poisson counts.
    """

    problem: PtychographyProblem
    truth: Array
    rate: Array


def simulate_ptychography(
    specimen: Callable[[tuple[int, int]], Array],
    *,
    rows: int,
    side: int,
    step: float,
    semi_angle: float,
    defocus: float,
    pixel_size: float,
    wavelength: float,
    jitter: float = 1.0,
    seed: int = 0,
) -> SimulatedScan:
    """Scan a thin object with the defocused image of a round aperture.

    Parameters
    ----------
    specimen : callable
        From the shape of the object to its transmission, complex.
    rows : int
        Rows and columns of the scan.
    side : int
        Rows and columns of the detector.
    step : float
        Between neighbouring positions, in object pixels.
    semi_angle : float
        Of the aperture, rad.
    defocus, pixel_size, wavelength : float
        In metres; the pixel is that of the object.
    jitter : float
        Positions are off the raster by up to so many pixels: a perfect raster cannot tell an object from one that has
        the period of the raster.
    seed : int
        Of the jitter.
    """
    optics: dict[str, Any] = {"pixel_size": pixel_size, "wavelength": wavelength}
    probe = aperture_probe(side, semi_angle=semi_angle, defocus=defocus, **optics)
    positions = raster_positions((rows, rows), (step, step))
    positions = positions + np.random.default_rng(seed).uniform(-jitter, jitter, positions.shape)
    empty = np.zeros((len(positions), side, side), np.uint16)
    problem = PtychographyProblem.of(empty, positions, probe, **optics)
    truth = specimen(problem.object_shape)
    return SimulatedScan(problem, truth, diffraction_patterns(truth, probe, problem.positions))


def rough_phase(shape: tuple[int, int], width: float, seed: int = 0) -> Array:
    """Random structure of unit standard deviation, smoothed by a Gaussian of `width` pixels."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    ky, kx = (np.fft.fftfreq(n) for n in shape)
    smooth = np.fft.ifft2(np.fft.fft2(noise) * np.exp(-2 * (np.pi * width) ** 2 * (ky[:, None] ** 2 + kx**2))).real
    return np.asarray(smooth / smooth.std())
