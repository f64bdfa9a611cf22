"""From the path of a scan and what the user knows about it to a `PtychographyProblem`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.errors import ConfigurationError
from stemcodecs.readers.scan import Axis, Scan
from stemcodecs_pipelines.ptychography.array_files import load_array, load_positions
from stemcodecs_pipelines.ptychography.data_sets import DataSet, read_data_set
from stemcodecs_pipelines.ptychography.geometry import (
    AS_STORED,
    Orientation,
    Particle,
    raster_positions,
    rotate_positions,
    wavelength_of,
)
from stemcodecs_pipelines.ptychography.pattern_source import PatternSource
from stemcodecs_pipelines.ptychography.probe import aperture_probe, probe_from_patterns
from stemcodecs_pipelines.ptychography.problem import PtychographyProblem
from stemcodecs_pipelines.ptychography.units import angle_unit, length_unit, reciprocal_unit, require_length

__all__ = ["Known", "read_problem"]

Array = np.ndarray[Any, Any]

AVERAGED = 64
"""Blocks of patterns, from all over the scan, whose mean shows the aperture."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the user says; it goes before what the source says. All lengths in metres, angles in radians.

    Attributes
    ----------
    energy_ev : float, optional
        Energy in eV.
    particle : {"electron", "photon"}
        What is diffracted.
    distance, detector_pixel : float, optional
        From the specimen to the detector, and its pixel.
    detector_angle : float, optional
        Angle of a detector pixel.
    pixel_size : float, optional
        Object pixel.
    positions : str, optional
        File of positions, see `load_positions`.
    position_units : str
        ``px``, or a length.
    scan_step : tuple of float, optional
        Distance of rows and columns of a regular scan.
    scan_rotation : float
        Angle in degrees, see `rotate_positions`.
    probe : str, optional
        File with the wave of the probe, see `load_array`.
    defocus, semi_angle : float, optional
        See `aperture_probe`; without a semi-angle the aperture is taken from the patterns.
    mask : str, optional
        File that is not zero where the detector measured.
    orientation : Orientation
        See `Orientation`; on top of what a format has by itself.
    """

    energy_ev: float | None = None
    particle: Particle = "electron"
    distance: float | None = None
    detector_pixel: float | None = None
    detector_angle: float | None = None
    pixel_size: float | None = None
    positions: str | None = None
    position_units: str = "px"
    scan_step: tuple[float, float] | None = None
    scan_rotation: float = 0.0
    probe: str | None = None
    defocus: float | None = None
    semi_angle: float | None = None
    mask: str | None = None
    orientation: Orientation = AS_STORED


def read_problem(source: str | Scan, known: Known | None = None) -> PtychographyProblem:
    """Open a scan and make a problem of it; of the patterns only a sample is read, where the aperture is wanted.

    Parameters
    ----------
    source : path or Scan
        PtychoShelves or cSAXS HDF5, CXI, .ptyd, or whatever `stemcodecs.readers.open_scan` opens.
    known : Known
        What the source does not say.

    Raises
    ------
    ConfigurationError
        Something that is needed is said by nobody, or what is said does not fit together.
    SourceError
        A file cannot be read.
    """
    known = known or Known()
    found = (read_data_set(source) if isinstance(source, str) else None) or _of_scan(source)
    wavelength = found.wavelength
    if known.energy_ev is not None:
        wavelength = wavelength_of(known.energy_ev, known.particle)
    pixel_size = _pixel_size(known, found, wavelength)
    orientation = _together(found.orientation, known.orientation)
    positions, metres = _positions(known, found)
    mask = found.mask if known.mask is None else load_array(known.mask) != 0
    stand_in = PtychographyProblem.of(
        found.patterns,
        positions,
        np.ones(found.patterns.detector, np.complex64),
        pixel_size=pixel_size,
        wavelength=wavelength,
        metres=metres,
        mask=mask,
        orientation=orientation,
    )
    return PtychographyProblem.of(
        found.patterns,
        positions,
        _probe(known, stand_in),
        pixel_size=pixel_size,
        wavelength=wavelength,
        metres=metres,
        mask=mask,
        orientation=orientation,
    )


def _of_scan(source: str | Scan) -> DataSet:
    """What the calibrated axes of a scan say."""
    from stemcodecs.readers import open_scan

    scan = source if isinstance(source, Scan) else open_scan(source)
    positions = None
    steps = [_metres(axis) for axis in scan.axes[:-2]]
    if len(steps) == 2 and None not in steps:
        positions = raster_positions(scan.shape[:2], (steps[0], steps[1]))  # type: ignore[arg-type]
    axis = scan.axes[-1]
    scale = abs(axis.scale or 0.0)
    reciprocal, angle = reciprocal_unit(axis.units), angle_unit(axis.units)
    return DataSet(
        format=scan.format,
        patterns=PatternSource.of(scan),
        positions=positions,
        pixel_size=1.0 / (scan.shape[-1] * scale * reciprocal) if scale and reciprocal else None,
        detector_angle=scale * angle if scale and angle else None,
    )


def _metres(axis: Axis) -> float | None:
    unit = length_unit(axis.units)
    return None if unit is None or axis.scale is None else axis.scale * unit


def _pixel_size(known: Known, found: DataSet, wavelength: float | None) -> float | None:
    angle = known.detector_angle
    if known.distance is not None or known.detector_pixel is not None:
        if known.distance is None or known.detector_pixel is None or angle is not None:
            raise ConfigurationError("give the distance to the detector with its pixel, or the angle of a pixel")
        angle = known.detector_pixel / known.distance
    if known.pixel_size is not None:
        if angle is not None:
            raise ConfigurationError("give the object pixel, or what it follows from, but not both")
        return known.pixel_size
    if angle is None and found.pixel_size is not None:
        return found.pixel_size
    angle = angle or found.detector_angle
    if angle is None:
        return None
    if wavelength is None:
        raise ConfigurationError("the object pixel needs the wavelength; give --energy")
    if not angle > 0:
        raise ConfigurationError("the angle of a detector pixel must be positive")
    return wavelength / (found.patterns.detector[-1] * angle)


def _positions(known: Known, found: DataSet) -> tuple[Array, bool]:
    """Positions, and whether they are in metres."""
    if known.positions is not None:
        if known.scan_step is not None:
            raise ConfigurationError("give --positions, or --scan-step of a regular scan, but not both")
        positions = load_positions(known.positions)
        metres = known.position_units != "px"
        positions = positions * require_length(known.position_units) if metres else positions
        flat = positions.reshape(-1, 2)
        return (rotate_positions(flat, known.scan_rotation) if known.scan_rotation else flat), metres
    if known.scan_step is not None:
        if len(found.patterns.leading) != 2:
            raise ConfigurationError("--scan-step needs a scan of rows and columns; give --scan-shape, or --positions")
        rows, columns = found.patterns.leading
        return raster_positions((rows, columns), known.scan_step, known.scan_rotation), True
    if found.positions is None:
        raise ConfigurationError(
            f"{found.format} says no positions here; give --positions FILE, or --scan-step of a regular scan"
        )
    return rotate_positions(found.positions, known.scan_rotation), found.metres


def _together(first: Orientation, second: Orientation) -> Orientation:
    """What a format needs, then what the user says."""
    if second.transpose:
        # Flips along y before a transpose are flips along x after it.
        first = Orientation(transpose=not first.transpose, flip_y=first.flip_x, flip_x=first.flip_y)
    return Orientation(
        transpose=first.transpose, flip_y=first.flip_y != second.flip_y, flip_x=first.flip_x != second.flip_x
    )


def _probe(known: Known, problem: PtychographyProblem) -> Array:
    if known.probe is not None:
        wave = load_array(known.probe)
        wave = wave.reshape(-1, *wave.shape[-2:]) if wave.ndim > 2 else wave
        if not np.iscomplexobj(wave):
            raise ConfigurationError(f"{known.probe} holds real numbers; a probe is a complex wave")
        if known.defocus is not None or known.semi_angle is not None:
            raise ConfigurationError("give --probe, or --defocus to make one, but not both")
        return wave
    if known.defocus is None:
        raise ConfigurationError("no probe; give --probe FILE, or --defocus to make one")
    if problem.pixel_size is None or problem.wavelength is None:
        raise ConfigurationError("a probe from its defocus needs the object pixel and the energy; give both")
    if known.semi_angle is not None:
        return aperture_probe(
            problem.side,
            semi_angle=known.semi_angle,
            defocus=known.defocus,
            pixel_size=problem.pixel_size,
            wavelength=problem.wavelength,
        )
    return probe_from_patterns(
        mean_pattern(problem), defocus=known.defocus, pixel_size=problem.pixel_size, wavelength=problem.wavelength
    )


def mean_pattern(problem: PtychographyProblem) -> Array:
    """Mean of patterns from all over the scan, oriented as the object; float64, (n, n), 0 where the mask is."""
    blocks = problem.patterns.blocks()
    chosen = np.unique(np.linspace(0, len(blocks) - 1, AVERAGED).round().astype(int))
    total, count = np.zeros((problem.side, problem.side)), 0
    for block in (blocks[i] for i in chosen):
        values = problem.orientation.apply(problem.patterns.read_block(block))
        total += values.sum(axis=0, dtype=np.float64)
        count += len(values)
    return np.where(problem.mask, total / count, 0.0)
