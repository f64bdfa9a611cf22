"""A small scan of a known object."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs_pipelines.ptychography.forward import diffraction_patterns
from stemcodecs_pipelines.ptychography.probe import aperture_probe
from stemcodecs_pipelines.ptychography.problem import PtychographyProblem

Array = np.ndarray[Any, Any]

SIDE = 24
PIXEL, WAVELENGTH = 2e-11, 2e-12


def phantom(shape: tuple[int, int], contrast: float = 0.5, seed: int = 0, width: float = 1.7) -> Array:
    """A smooth phase object of known standard deviation, with a little absorption."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    ky, kx = (np.fft.fftfreq(n) for n in shape)
    smooth = np.fft.ifft2(np.fft.fft2(noise) * np.exp(-2 * (np.pi * width) ** 2 * (ky[:, None] ** 2 + kx**2))).real
    smooth /= smooth.std()
    return np.exp(1j * contrast * smooth - 0.05 * contrast * (smooth - smooth.min()))


def first_probe(side: int = SIDE, defocus: float = 8e-9) -> Array:
    return aperture_probe(side, semi_angle=0.021, defocus=defocus, pixel_size=PIXEL, wavelength=WAVELENGTH)


def scan_positions(rows: int = 9, step: float = 4.0, seed: int = 0) -> Array:
    """A raster with fractions, against the raster pathology."""
    raster = np.stack(np.meshgrid(np.arange(rows), np.arange(rows), indexing="ij"), -1).reshape(-1, 2) * step
    return raster + np.random.default_rng(seed).uniform(-0.8, 0.8, raster.shape)


def simulated(
    dose: float = 1e5, *, rows: int = 9, seed: int = 0, noise_seed: int | None = 0, **given: Any
) -> tuple[PtychographyProblem, Array]:
    """A problem and its true object; `noise_seed` None leaves out the noise."""
    positions, probe = scan_positions(rows, seed=seed), first_probe()
    empty = np.zeros((len(positions), SIDE, SIDE), np.uint16)
    frame = PtychographyProblem.of(empty, positions, probe, pixel_size=PIXEL, wavelength=WAVELENGTH)
    truth = phantom(frame.object_shape, seed=seed)
    rate = dose * diffraction_patterns(truth, probe, frame.positions)
    counts = rate if noise_seed is None else np.random.default_rng(noise_seed).poisson(rate)
    problem = PtychographyProblem.of(counts, positions, probe, pixel_size=PIXEL, wavelength=WAVELENGTH, **given)
    return problem, truth
