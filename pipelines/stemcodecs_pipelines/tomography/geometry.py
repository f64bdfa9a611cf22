"""Where beam, specimen and detector are, and the grids along which rays run.

Right-handed axes fixed in the laboratory: the beam runs along +z, the axis of rotation is y, and the detector stands
on +x, looking at the specimen. A row is a section of the specimen of one y. ``docs/tomography.md`` has the drawing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.errors import ConfigurationError

__all__ = ["LEAST_ANGLES", "Entries", "Geometry", "back_from_rays", "rotation", "to_rays"]

Array = np.ndarray[Any, Any]

LEAST_ANGLES = 8


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """A measurement of fluorescence and transmission over angles.

    Parameters
    ----------
    angles : ndarray, (angle,)
        Radian; the specimen is turned about +y, right-handed.
    pixel_size : float
        Step of the scan along x and y, and edge of a voxel, in cm.
    photons : float
        Photons in the beam for each pixel, on the specimen.
    detector_distance : float
        From the axis of rotation to the detector, in cm.
    detector_diameter : float
        Of its round, sensitive area, in cm.
    detector_points : int
        Points of the detector to which rays run, spread along z in the plane of each row, so that rows do not depend
        on each other.
    """

    angles: Array
    pixel_size: float
    photons: float
    detector_distance: float
    detector_diameter: float
    detector_points: int = 3

    def __post_init__(self) -> None:
        angles = np.asarray(self.angles, np.float64)
        object.__setattr__(self, "angles", angles)
        if angles.ndim != 1 or not np.isfinite(angles).all():
            raise ConfigurationError("angles must be a list of finite numbers in radian; check the file of angles")
        if angles.size < LEAST_ANGLES:
            raise ConfigurationError(
                f"{angles.size} angles are too few for a tomogram; measure at least {LEAST_ANGLES}, "
                "better π/2 times as many as a row has pixels"
            )
        for name in ("pixel_size", "photons", "detector_distance", "detector_diameter"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ConfigurationError(f"{name} {value} cannot be; give a positive number")
        if self.detector_points < 1:
            raise ConfigurationError(f"{self.detector_points} detector points cannot be; give at least one")

    @property
    def solid_angle(self) -> float:
        """Fraction Ω/4π of all directions that the detector covers: π (D/2)² / (4π d²)."""
        return (self.detector_diameter / 2) ** 2 / (4 * self.detector_distance**2)

    def detector(self) -> tuple[Array, Array]:
        """Points of the detector along z in cm, and the share of the solid angle that each stands for.

        A disk is wide in the middle: points and weights are those of Gauss and Chebyshev (second kind), by which the
        mean over the disk of a function of z alone is exact up to polynomials of degree 2n − 1.
        """
        phase = np.pi * np.arange(1, self.detector_points + 1) / (self.detector_points + 1)
        weights = np.sin(phase) ** 2
        return self.detector_diameter / 2 * np.cos(phase), weights / weights.sum()

    def check_field(self, pixels: int) -> None:
        """Hold the width of the field against the detector.

        Raises
        ------
        ConfigurationError
            There is less than two pixels, or the specimen would reach to the detector.
        """
        if pixels < 2:
            raise ConfigurationError(f"rows of {pixels} pixel make no tomogram; scan at least two")
        if pixels * self.pixel_size >= self.detector_distance:
            raise ConfigurationError(
                f"a field of {pixels * self.pixel_size:g} cm reaches to the detector at {self.detector_distance:g} cm; "
                "check the pixel size (cm) and the distance"
            )


@dataclass(frozen=True)
class Entries:
    """A sparse matrix of interpolation weights by its entries.

    Attributes
    ----------
    target, source : ndarray of int64
        Row and column of each entry: the value that is made, and one that it is made from.
    weight : ndarray of float64
        Weight of each.
    shape : tuple of int
        Number of targets and of sources.
    """

    target: Array
    source: Array
    weight: Array
    shape: tuple[int, int]


def rotation(pixels: int, angle: float) -> Entries:
    """Weights that turn a section by an angle: bilinear, nothing outside.

    Sources are the voxels of the specimen, targets those of the laboratory, both (x, z) with z running fastest.
    """
    places = np.arange(pixels) - (pixels - 1) / 2
    x, z = np.meshgrid(places, places, indexing="ij")
    # The voxel of the laboratory, turned back into the specimen.
    source_x = x * math.cos(angle) - z * math.sin(angle) + (pixels - 1) / 2
    source_z = x * math.sin(angle) + z * math.cos(angle) + (pixels - 1) / 2
    left, near = np.floor(source_x), np.floor(source_z)
    parts = []
    for i in range(2):
        for k in range(2):
            column, row = (left + i).astype(np.int64), (near + k).astype(np.int64)
            weight = (1 - np.abs(source_x - column)) * (1 - np.abs(source_z - row))
            inside = (column >= 0) & (column < pixels) & (row >= 0) & (row < pixels)
            targets = np.flatnonzero(inside)
            parts.append((targets, (column * pixels + row)[inside], weight[inside]))
    return _entries(parts, (pixels * pixels, pixels * pixels))


def _rays(geometry: Geometry, pixels: int, point: float) -> tuple[Array, Array, int]:
    """Rays to one detector point, in pixels.

    A ray is named by w, the z at which it crosses the plane x = 0. At x it has come to z = w + (p − w) x / d, so along
    the rays a section is read by one interpolation along z in each column x.

    Returns
    -------
    x, w : ndarray
        Columns of the grid and the rays, both around 0.
    rays : int
        Number of rays: enough that each voxel lies between two.
    """
    distance, p = geometry.detector_distance / geometry.pixel_size, point / geometry.pixel_size
    x = np.arange(pixels) - (pixels - 1) / 2
    edge = (pixels - 1) / 2
    widest = max(abs(_ray_of(z, column, distance, p)) for z in (-edge, edge) for column in (-edge, edge))
    rays = 2 * math.ceil(widest) + 1
    return x, np.arange(rays) - (rays - 1) / 2, rays


def _ray_of(z: Any, x: Any, distance: float, p: float) -> Any:
    """The ray through (x, z)."""
    return p + (z - p) * distance / (distance - x)


def to_rays(geometry: Geometry, pixels: int, point: float) -> tuple[Entries, Array]:
    """Weights that read a section along the rays to a detector point, and the length of a step along each ray.

    Returns
    -------
    Entries
        From voxels (x, z) to (x, ray).
    ndarray, (ray,)
        Length between two columns in cm.
    """
    distance, p = geometry.detector_distance / geometry.pixel_size, point / geometry.pixel_size
    x, w, rays = _rays(geometry, pixels, point)
    z = w + (p - w) * x[:, None] / distance + (pixels - 1) / 2
    steps = geometry.pixel_size * np.hypot(1.0, (p - w) / distance)
    return _along_z(z, rays, pixels), steps


def back_from_rays(geometry: Geometry, pixels: int, point: float) -> Entries:
    """Weights that read what was summed along rays at each voxel: from (x, ray) to (x, z)."""
    distance, p = geometry.detector_distance / geometry.pixel_size, point / geometry.pixel_size
    x, _, rays = _rays(geometry, pixels, point)
    z = np.arange(pixels) - (pixels - 1) / 2
    w = _ray_of(z, x[:, None], distance, p) + (rays - 1) / 2
    return _along_z(w, pixels, rays)


def _along_z(places: Array, targets: int, sources: int) -> Entries:
    """Linear interpolation along the last axis at places of shape (x, targets); nothing outside."""
    columns = len(places)
    low = np.floor(places)
    parts = []
    for k in range(2):
        row = (low + k).astype(np.int64)
        weight = 1 - np.abs(places - row)
        inside = (row >= 0) & (row < sources) & (weight > 0)
        source = np.arange(columns)[:, None] * sources + row
        parts.append((np.flatnonzero(inside), source[inside], weight[inside]))
    return _entries(parts, (columns * targets, columns * sources))


def _entries(parts: list[tuple[Array, Array, Array]], shape: tuple[int, int]) -> Entries:
    target, source, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Entries(target, source, weight, shape)
