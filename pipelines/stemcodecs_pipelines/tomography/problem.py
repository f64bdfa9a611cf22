"""A measurement to reconstruct: maps of counts and transmission, read row by row, and what they were taken with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stemcodecs.errors import ConfigurationError, SourceError
from stemcodecs_pipelines.run.torch_device import import_torch
from stemcodecs_pipelines.tomography.cross_sections import CrossSections, cross_sections
from stemcodecs_pipelines.tomography.forward import Projector
from stemcodecs_pipelines.tomography.geometry import Geometry
from stemcodecs_pipelines.tomography.phantom import Phantom

__all__ = ["TomographyProblem", "simulate"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class TomographyProblem:
    """Fluorescence maps and transmission of one specimen over angles.

    Parameters
    ----------
    counts : sequence of array_like, each (angle, y, x)
        Photons of each line, in the order of ``sections.lines``: arrays, Zarr arrays, or what `stemcodecs.readers`
        opens. Read in rows.
    transmission : array_like, (angle, y, x), optional
        Fraction of the beam that goes through; without it the fluorescence alone decides.
    geometry : Geometry
        Beam, detector and angles.
    sections : CrossSections
        Elements and lines.
    """

    counts: Sequence[Any]
    geometry: Geometry
    sections: CrossSections
    transmission: Any = None

    def __post_init__(self) -> None:
        names = [line.name for line in self.sections.lines]
        if len(self.counts) != len(names):
            raise ConfigurationError(
                f"{len(self.counts)} maps of counts for {len(names)} lines ({', '.join(names)}); give one for each"
            )
        maps = dict(zip(names, self.counts, strict=True))
        if self.transmission is not None:
            maps["transmission"] = self.transmission
        for name, source in maps.items():
            shape = tuple(source.shape)
            if len(shape) != 3 or min(shape) < 1:
                raise ConfigurationError(f"{name} has shape {shape}; give a stack of maps (angle, y, x)")
            if shape[0] != self.geometry.angles.size:
                raise ConfigurationError(
                    f"{name} has {shape[0]} maps for {self.geometry.angles.size} angles; give one angle for each map"
                )
            if shape != self.shape:
                raise ConfigurationError(f"{name} has shape {shape}, {names[0]} {self.shape}; give maps of one shape")
        self.geometry.check_field(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (angle, y, x) of each map."""
        return tuple(int(n) for n in self.counts[0].shape)  # type: ignore[return-value]

    @property
    def rows(self) -> int:
        """Sections of the volume."""
        return self.shape[1]

    @property
    def pixels(self) -> int:
        """Width of a row."""
        return self.shape[2]

    def with_counts(self, counts: Sequence[Any]) -> TomographyProblem:
        """The same measurement with other counts: those that were compressed and came back."""
        return replace(self, counts=counts)

    def check_unchanged(self) -> None:
        """Hold files that the maps lie in against what they were when they were opened.

        Raises
        ------
        SourceError
            One was changed or replaced meanwhile.
        """
        for source in [*self.counts, self.transmission]:
            if hasattr(source, "check_unchanged"):
                source.check_unchanged()

    def read(self, rows: slice) -> tuple[Array, Array | None]:
        """Counts, float32 of shape (line, angle, y, x), and transmission of some rows.

        Raises
        ------
        SourceError
            A value is not finite, a count is negative, or a transmission is not positive.
        """
        names = [line.name for line in self.sections.lines]
        counts = np.stack([_rows_of(source, rows) for source in self.counts])
        for name, values in zip(names, counts, strict=True):
            if not np.isfinite(values).all() or values.min() < 0:
                raise SourceError(f"{name}: {_where(values < 0, values, rows)} is no count; mend or leave out that map")
        if self.transmission is None:
            return counts, None
        passed = _rows_of(self.transmission, rows)
        if not np.isfinite(passed).all() or passed.min() <= 0:
            raise SourceError(
                f"transmission: {_where(passed <= 0, passed, rows)} has no logarithm; "
                "give fractions of the beam, larger than 0"
            )
        return counts, passed


def _rows_of(source: Any, rows: slice) -> Array:
    if hasattr(source, "read"):
        part = source.read((slice(0, source.shape[0]), rows, slice(0, source.shape[2])))
    else:
        part = source[:, rows]
    return np.asarray(part).astype(np.float32)


def _where(bad: Array, values: Array, rows: slice) -> str:
    angle, y, x = (int(i[0]) for i in np.nonzero(bad | ~np.isfinite(values)))
    return f"{values[angle, y, x]:g} at angle {angle}, row {y + rows.start}, pixel {x}"


def simulate(
    phantom: Phantom,
    geometry: Geometry,
    beam_energy: float,
    *,
    transmission_photons: float = 1e4,
    noise: bool = True,
    seed: int = 0,
) -> TomographyProblem:
    """Measure a phantom: Poisson counts of every line, and transmission.

    The forward model is that of the reconstruction, on the same grid: what a simulation shows is the effect of noise,
    of absorption and of loss, not that of a model that is wrong.

    Parameters
    ----------
    phantom : Phantom
        From `make_phantom` or `pillars_in_bead`.
    geometry : Geometry
        Beam, detector and angles.
    beam_energy : float
        keV.
    transmission_photons : float
        Photons that a pixel of the transmission would count without a specimen; its noise follows from them.
    noise : bool
        False gives expected counts, float32.
    seed : int
        Chooses the noise; the same for the same seed, angle by angle.

    Raises
    ------
    ConfigurationError
        An element is unknown or not excited, or torch or xraylib is missing.
    """
    torch = import_torch()
    if not 0 < transmission_photons < np.inf or seed < 0:
        raise ConfigurationError("transmission_photons must be positive and seed not negative; check both")
    sections = cross_sections(phantom.elements, beam_energy, phantom.lines)
    rows, pixels = phantom.density.shape[1:3]
    projector = Projector(geometry, sections, pixels)
    density = torch.as_tensor(phantom.density.transpose(2, 3, 1, 0).copy()).reshape(pixels**2, rows, -1)
    shape = (len(sections.lines), geometry.angles.size, rows, pixels)
    counts = np.empty(shape, np.uint32 if noise else np.float32)
    passed = np.empty(shape[1:], np.float32)
    with torch.no_grad():
        for angle in range(geometry.angles.size):
            expected, through = (x.numpy().astype(np.float64) for x in projector(density, angle))
            if noise:
                rng = np.random.default_rng([seed, angle])
                expected = rng.poisson(expected).astype(np.float64)
                # No photon at all would have no logarithm: one is what such a pixel can tell apart from none.
                through = np.maximum(rng.poisson(through * transmission_photons), 1) / transmission_photons
            counts[:, angle], passed[angle] = expected, through
    return TomographyProblem(counts=list(counts), geometry=geometry, sections=sections, transmission=passed)
