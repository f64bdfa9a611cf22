"""What a reconstruction is given: patterns, positions, a first probe, and which pixels count."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.ptychography.geometry import Orientation
from stemcodecs_pipelines.ptychography.pattern_source import PatternSource

__all__ = ["PtychographyProblem"]

Array = np.ndarray[Any, Any]

MARGIN = 8
"""Object pixels around the outermost windows, into which refined positions may move."""
LARGEST_OBJECT = 1 << 28
"""Pixels of an object beyond which the positions are in the wrong units."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PtychographyProblem:
    """A ptychographic data set of any kind; made by `PtychographyProblem.of`, which checks it.

    Attributes
    ----------
    patterns : PatternSource
        Counts, the zero frequency in pixel n // 2 of the oriented pattern.
    positions : ndarray, float64, (position, 2)
        Corner (y, x) of the probe's window in the object, in object pixels; fractions are kept.
    probe : ndarray, complex64, (mode, n, n)
        First guess, in the middle of its window.
    mask : ndarray of bool, (n, n)
        Pixels that were measured, oriented as the object; dead pixels and gaps are False.
    numbers : ndarray of int, (position,)
        Which pattern of the source belongs to each position; fewer than all in a part of a scan.
    orientation : Orientation
        How patterns are turned when they are read.
    object_shape : tuple of int
        Shape (y, x) of the object.
    pixel_size : float or None
        Object pixel in metres.
    wavelength : float or None
        In metres; several slices need it.
    """

    patterns: PatternSource
    positions: Array
    probe: Array
    mask: Array
    numbers: Array
    orientation: Orientation
    object_shape: tuple[int, int]
    pixel_size: float | None = None
    wavelength: float | None = None

    @classmethod
    def of(
        cls,
        patterns: Any,
        positions: Any,
        probe: Any,
        *,
        pixel_size: float | None = None,
        wavelength: float | None = None,
        metres: bool = False,
        mask: Any = None,
        orientation: Orientation | None = None,
        object_shape: tuple[int, int] | None = None,
    ) -> Self:
        """Check the parts of a problem and put them together; no pattern is read.

        Parameters
        ----------
        patterns : array, Scan or path
            See `PatternSource.of`; (position, det_y, det_x) or (scan_y, scan_x, det_y, det_x), square patterns.
        positions : array_like, (position, 2) or (scan_y, scan_x, 2)
            (y, x) in object pixels, or in metres with `metres`. Without `object_shape` only their differences matter.
        probe : array_like of complex, (n, n) or (mode, n, n)
            First guess of the probe, see `stemcodecs_pipelines.ptychography.probe`.
        pixel_size, wavelength : float, optional
            In metres; see `Optics`.
        metres : bool
            The positions are in metres; needs `pixel_size`.
        mask : array_like of bool, (n, n), optional
            True where the detector measured, as the patterns are stored.
        orientation : Orientation, optional
            How patterns are turned into the frame of the positions.
        object_shape : tuple of int, optional
            Shape of the object; the positions are then taken as they are, as corners of the windows.

        Raises
        ------
        ConfigurationError
            Shapes that do not fit, positions outside the object, values that are no numbers, an empty mask or probe.
        """
        source = PatternSource.of(patterns)
        turned = orientation or Orientation()
        side = source.detector[0]
        if source.detector[1] != side:
            raise ConfigurationError(
                f"patterns of {source.detector[0]}×{source.detector[1]} pixels are not square; crop or pad them"
            )
        where = _positions(positions, source, pixel_size if metres else 1.0, metres)
        waves = _probe(probe, side)
        valid = np.ones((side, side), bool) if mask is None else np.asarray(mask)
        if valid.shape != (side, side):
            raise ConfigurationError(f"a mask of shape {valid.shape} does not fit patterns of {side}×{side} pixels")
        valid = turned.apply(valid.astype(bool))
        if not valid.any():
            raise ConfigurationError("the mask leaves no pixel; it must be True where the detector measured")
        for name, value in (("pixel size", pixel_size), ("wavelength", wavelength)):
            if value is not None and not (np.isfinite(value) and value > 0):
                raise ConfigurationError(f"a {name} of {value:g} m cannot be; give a positive one")
        if object_shape is None:
            where = where - where.min(axis=0) + MARGIN
            extent = np.ceil(where.max(axis=0)).astype(int) + side + MARGIN
            shape = (int(extent[0]), int(extent[1]))
            if shape[0] * shape[1] > LARGEST_OBJECT:
                raise ConfigurationError(
                    f"the object would have {shape[0]}×{shape[1]} pixels; check the units of the positions"
                )
        else:
            shape = (int(object_shape[0]), int(object_shape[1]))
            _check_inside(where, side, shape)
        return cls(
            patterns=source,
            positions=where,
            probe=waves,
            mask=np.ascontiguousarray(valid),
            numbers=np.arange(source.count),
            orientation=turned,
            object_shape=shape,
            pixel_size=pixel_size,
            wavelength=wavelength,
        )

    @property
    def side(self) -> int:
        """Pixels along a pattern."""
        return int(self.probe.shape[-1])

    @property
    def count(self) -> int:
        """Number of positions."""
        return len(self.positions)

    def part(self, chosen: Any) -> Self:
        """The same object seen from some of the positions only.

        Parameters
        ----------
        chosen : array_like
            Indices of positions, or a boolean for each.
        """
        positions, numbers = self.positions[chosen], self.numbers[chosen]
        if not len(positions):
            raise ConfigurationError("no position is left; choose at least one")
        return replace(self, positions=positions, numbers=numbers)

    def with_patterns(self, patterns: Any) -> Self:
        """The same problem with other patterns of the same shape: those that come out of a lossy store.

        Raises
        ------
        ConfigurationError
            They have another number or another shape.
        """
        source = PatternSource.of(patterns)
        if (source.count, source.detector) != (self.patterns.count, self.patterns.detector):
            raise ConfigurationError(
                f"{source.count} patterns of {source.detector} take the place of {self.patterns.count} of "
                f"{self.patterns.detector}; give patterns of the same scan"
            )
        return replace(self, patterns=source)

    def covered(self, least: float = 0.3) -> Array:
        """Where the object was seen: the summed intensity of the probe is at least a fraction of its median there.

        Returns
        -------
        ndarray of bool, `object_shape`
        """
        dose = np.zeros(self.object_shape, np.float32)
        intensity = (np.abs(self.probe) ** 2).sum(0)
        for y, x in np.rint(self.positions).astype(int):
            dose[y : y + self.side, x : x + self.side] += intensity
        inside = tuple(
            slice(int(a) + self.side // 2, int(b) + self.side // 2 + 1)
            for a, b in zip(self.positions.min(0), self.positions.max(0), strict=True)
        )
        return np.asarray(dose >= least * np.median(dose[inside]))


def _positions(positions: Any, source: PatternSource, unit: float | None, metres: bool) -> Array:
    where = np.asarray(positions, np.float64)
    if where.ndim == 3 and where.shape[:2] == source.leading:
        where = where.reshape(-1, where.shape[2])
    if where.ndim != 2 or where.shape[1] != 2:
        raise ConfigurationError(f"positions of shape {where.shape} cannot be; give (y, x) for each pattern")
    if len(where) != source.count:
        raise ConfigurationError(f"{len(where)} positions for {source.count} patterns; give one for each")
    if not np.isfinite(where).all():
        bad = int(np.flatnonzero(~np.isfinite(where).all(axis=1))[0])
        raise ConfigurationError(f"position {bad} is not a number; leave out its pattern, or mend the positions")
    if metres and unit is None:
        raise ConfigurationError("positions in metres need the object pixel; give energy and detector, or the pixel")
    where = where / float(unit or 1.0)
    span = float(np.ptp(where, axis=0).max())
    if len(where) > 1 and span < 0.5:
        raise ConfigurationError(
            f"all positions lie within {span:.2g} pixels; check their units (metres and pixels differ)"
        )
    return where


def _probe(probe: Any, side: int) -> Array:
    waves = np.asarray(probe)
    waves = waves[None] if waves.ndim == 2 else waves
    if waves.ndim != 3 or waves.shape[1:] != (side, side):
        raise ConfigurationError(f"a probe of shape {waves.shape} does not fit patterns of {side}×{side} pixels")
    if not np.isfinite(waves).all() or not np.abs(waves).any():
        raise ConfigurationError("the probe is zero or not a number; give its wave, or make one from the defocus")
    return np.ascontiguousarray(waves, np.complex64)


def _check_inside(positions: Array, side: int, shape: tuple[int, int]) -> None:
    last = np.floor(positions).astype(int) + side
    outside = (positions < 0).any(axis=1) | (last > np.array(shape)).any(axis=1)
    if outside.any():
        number = int(np.flatnonzero(outside)[0])
        y, x = positions[number]
        raise ConfigurationError(
            f"position {number} at ({y:g}, {x:g}) lies outside an object of {shape[0]}×{shape[1]} pixels for a window "
            f"of {side}; enlarge the object, or leave out its shape"
        )
