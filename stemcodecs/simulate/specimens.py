"""What the beam meets: for each scan position the dose and the diffraction pattern before noise.

A specimen works out one position at a time and by the same arithmetic whatever else is asked for,
so that blocks of any shape fit together exactly.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

__all__ = ["Crystal", "PhaseObject", "Specimen", "Unstructured"]

Array = np.ndarray[Any, np.dtype[np.float64]]

# Of the central disk; below it a reflection is lost in the background.
_NEGLIGIBLE = 1e-6


class Specimen(Protocol):
    """What a simulation needs to know of a specimen."""

    dose: Array
    """Relative number of electrons that reach the detector at each position: (y, x), mean 1."""

    def pattern(self, y: int, x: int) -> Array:
        """Diffraction pattern at a position: (det_y, det_x), not negative, any scale."""


class Unstructured:
    """The same pattern everywhere, times a dose that varies smoothly by ±5 %.

    The pattern is the bright-field disk with a soft edge, a tail of small-angle scattering around
    it, and a flat background: what is left of a specimen that hardly scatters.
    """

    def __init__(self, scan_shape: tuple[int, int], detector_shape: tuple[int, int]) -> None:
        sy, sx = np.indices(scan_shape)
        self.dose = _mean_one(1.0 + 0.05 * np.sin(2 * np.pi * sx / 17) * np.cos(2 * np.pi * sy / 23))
        ny, nx = detector_shape
        y, x = np.indices(detector_shape)
        # The beam is never quite in the middle of a real detector.
        radius = np.hypot((y - ny / 2 + 0.013 * ny) / ny, (x - nx / 2 - 0.008 * nx) / nx)
        disk = 1.0 / (1.0 + np.exp((radius - 0.18) / 0.006))
        self._pattern: Array = disk + 0.12 * np.exp(-radius / 0.07) + 5e-4

    def pattern(self, y: int, x: int) -> Array:
        """Diffraction pattern, the same at every position."""
        return self._pattern


class Crystal:
    """Bragg disks of crystalline grains: rotation, tilt, strain and thickness differ by place.

    One grain makes a lattice that is bent slowly across the scan, so that the excitation of its
    reflections sweeps through the pattern (bend contours).
    """

    def __init__(
        self,
        scan_shape: tuple[int, int],
        detector_shape: tuple[int, int],
        grains: int,
        rng: np.random.Generator,
    ) -> None:
        self._detector_shape = detector_shape
        size = float(min(detector_shape))
        self._size = size
        self._centre = (detector_shape[0] / 2 - 0.5, detector_shape[1] / 2 - 0.5)
        self._disk_radius = 0.075 * size
        self._edge = max(0.5, size / 256)
        self._reciprocal = 0.21 * size
        self._seeds = rng.uniform(0, scan_shape, (grains, 2))
        self._angle = rng.uniform(0, np.pi / 3, grains)
        self._tilt = rng.uniform(-0.6, 0.6, (grains, 2))
        self._strain = 1 + rng.uniform(-0.03, 0.03, grains)
        h, k = np.array([(h, k) for h in range(-3, 4) for k in range(-3, 4) if (h, k) != (0, 0)]).T
        self._lattice = np.array([h + 0.5 * k, 0.75**0.5 * k])  # hexagonal, x and y
        self._bend = 0.5 if grains == 1 else 0.0
        self._scan_shape = scan_shape
        sy, sx = np.indices(scan_shape)
        self._thickness = 1 + 0.35 * np.sin(2 * np.pi * sx / 40 + 1) * np.sin(2 * np.pi * sy / 29)
        # Thick places scatter more electrons past the detector.
        self.dose = _mean_one(1.0 - 0.1 * self._thickness)
        y, x = np.indices(detector_shape)
        q = np.hypot(y - self._centre[0], x - self._centre[1])
        self._background: Array = 0.05 * np.exp(-q / (0.18 * size)) + 6.7e-4

    def pattern(self, y: int, x: int) -> Array:
        """Diffraction pattern: central disk, excited Bragg disks, diffuse background."""
        grain = int(np.argmin(((self._seeds - (y, x)) ** 2).sum(axis=1)))
        thickness = float(self._thickness[y, x])
        pattern = thickness * self._background
        self._add_disk(pattern, *self._centre, 1.0 - 0.125 * thickness)
        tilt_y, tilt_x = self._tilt[grain] + self._bend * np.sin(
            2 * np.pi * np.array([y / self._scan_shape[0], x / self._scan_shape[1]])
        )
        angle = self._angle[grain] + 0.02 * np.sin(x / 9)
        spacing = self._reciprocal * self._strain[grain] * (1 + 0.004 * np.sin(y / 11))
        ux, uy = spacing * self._lattice
        qx = ux * np.cos(angle) - uy * np.sin(angle)
        qy = ux * np.sin(angle) + uy * np.cos(angle)
        excitation = (qx * tilt_x + qy * tilt_y) / (0.15 * self._size)
        falloff = 1.3 * (qx * qx + qy * qy) / (0.3 * self._size) ** 2
        weights = 0.35 * thickness * np.exp(-falloff - excitation * excitation)
        for weight, disk_y, disk_x in zip(weights, qy, qx, strict=True):
            if weight > _NEGLIGIBLE:
                self._add_disk(pattern, self._centre[0] + disk_y, self._centre[1] + disk_x, weight)
        return pattern

    def _add_disk(self, pattern: Array, y: float, x: float, weight: float) -> None:
        """Add a disk with soft edges, only where it is not negligible (e⁻¹⁴)."""
        reach = self._disk_radius + 14 * self._edge
        y0, y1 = max(0, int(y - reach)), min(self._detector_shape[0], int(y + reach) + 2)
        x0, x1 = max(0, int(x - reach)), min(self._detector_shape[1], int(x + reach) + 2)
        if y0 >= y1 or x0 >= x1:
            return
        rows, columns = np.arange(y0, y1)[:, None] - y, np.arange(x0, x1)[None, :] - x
        distance = np.hypot(rows, columns)
        pattern[y0:y1, x0:x1] += weight / (1 + np.exp((distance - self._disk_radius) / self._edge))


class PhaseObject:
    """Ptychography: a defocused probe through a random phase object, |FFT|² on the detector.

    The exit wave is probe × transmission at overlapping positions on a jittered raster of three
    object pixels; the object only shifts the phase, so every pattern holds the same dose.
    """

    def __init__(
        self,
        scan_shape: tuple[int, int],
        detector_shape: tuple[int, int],
        rng: np.random.Generator,
    ) -> None:
        self.dose = np.ones(scan_shape)
        self._shape = detector_shape
        step, jitter = 3, 2
        extent = [n + step * s + jitter for n, s in zip(detector_shape, scan_shape, strict=True)]
        sharp, smooth = (_smoothed(rng.standard_normal(extent), sigma) for sigma in (1.5, 6.0))
        self._transmission = np.exp(0.42j * (sharp + smooth))
        sy, sx = np.indices(scan_shape)
        self._y = step * sy + rng.integers(0, jitter + 1, scan_shape)
        self._x = step * sx + rng.integers(0, jitter + 1, scan_shape)
        ny, nx = detector_shape
        k2 = np.fft.fftfreq(ny)[:, None] ** 2 + np.fft.fftfreq(nx)[None, :] ** 2
        # Semi-angle 0.3 of the sampling frequency; defocus spreads the probe over a fifth of the
        # field of view to each side.
        aperture = 1.0 / (1.0 + np.exp((np.sqrt(k2) - 0.3) * min(detector_shape)))
        defocus = 0.2 * min(detector_shape) / 0.3
        self._probe = np.fft.fftshift(np.fft.ifft2(aperture * np.exp(-1j * np.pi * defocus * k2)))

    def pattern(self, y: int, x: int) -> Array:
        """Diffraction pattern of the exit wave at a position."""
        top, left = int(self._y[y, x]), int(self._x[y, x])
        seen = self._transmission[top : top + self._shape[0], left : left + self._shape[1]]
        wave = np.fft.fftshift(np.fft.fft2(self._probe * seen))
        pattern: Array = wave.real**2 + wave.imag**2
        return pattern


def _mean_one(field: Array) -> Array:
    scaled: Array = field / field.mean()
    return scaled


def _smoothed(noise: Array, sigma: float) -> Array:
    """White noise blurred by a Gaussian with periodic edges, scaled to variance 1."""
    ky = np.fft.fftfreq(noise.shape[0])[:, None]
    kx = np.fft.rfftfreq(noise.shape[1])[None, :]
    window = np.exp(-2 * (np.pi * sigma) ** 2 * (ky**2 + kx**2))
    field: Array = np.fft.irfft2(np.fft.rfft2(noise) * window, s=noise.shape)
    field = (field - field.mean()) / field.std()
    return field
