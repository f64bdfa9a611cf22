"""What all rows must agree on before the first is reconstructed, and what a good fit of counts leaves over."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from stemcodecs.errors import ConfigurationError, SourceError
from stemcodecs_pipelines.tomography.problem import TomographyProblem

__all__ = ["Survey", "expected_deviance", "survey"]

Array = np.ndarray[Any, Any]

_FIELD_SHARE = 3.0
"""A dense part of a specimen is taken to be a third of the field wide; only its order of magnitude matters."""
_SERIES_FROM = 36.0


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Scales of a measurement.

    Parameters
    ----------
    density : ndarray, (element,)
        A typical density of each element where it is, g/cm³: the unit in which steps are taken.
    mean_counts : float
        Mean over all counts: the unit of the loss.
    """

    density: Array
    mean_counts: float


def survey(problem: TomographyProblem, block: int) -> Survey:
    """Read all maps once, some rows at a time.

    Raises
    ------
    ConfigurationError
        Nothing determines an element: it has no line, and there is no transmission.
    SourceError
        There are no counts, or a value cannot be.
    """
    sections, geometry = problem.sections, problem.geometry
    measured = sections.line_elements
    silent = [symbol for i, symbol in enumerate(sections.elements) if i not in measured]
    if silent and problem.transmission is None:
        raise ConfigurationError(
            f"nothing determines {', '.join(silent)}: no line of it is measured, and there is no transmission; "
            "give --transmission, or leave it out"
        )
    # First and second moment of the areal density that each line, or the transmission, would have alone.
    moments = np.zeros((len(sections.elements), 2))
    total, values = 0.0, 0
    for start in range(0, problem.rows, block):
        counts, passed = problem.read(slice(start, min(start + block, problem.rows)))
        total, values = total + float(counts.sum(dtype=np.float64)), values + counts.size
        per_area = geometry.photons * geometry.solid_angle * sections.produced
        for line, element in enumerate(measured):
            moments[element] += _moments(counts[line] / per_area[line])
        for symbol in silent:
            element = sections.elements.index(symbol)
            moments[element] += _moments(np.maximum(-np.log(np.asarray(passed)), 0) / sections.beam[element])
    if not total:
        raise SourceError("all maps are empty; a tomogram needs counts")
    thickness = problem.pixels * geometry.pixel_size / _FIELD_SHARE
    density = np.divide(moments[:, 1], moments[:, 0], out=np.zeros(len(moments)), where=moments[:, 0] > 0) / thickness
    # An element that is nowhere still needs a step.
    return Survey(density=np.where(density > 0, density, density.max()), mean_counts=total / values)


def _moments(areal: Array) -> Array:
    return np.array([areal.sum(dtype=np.float64), np.square(areal, dtype=np.float64).sum()])


def expected_deviance(rate: Array) -> Array:
    """Mean of the deviance 2 (N ln(N/λ) − N + λ) of Poisson counts N about their own rate λ.

    Near 1 where there are many counts, but not where there are few: that of an empty pixel is 0. Summed directly up to
    λ = 36 and interpolated over √λ; above, 1 + 1/(6λ) + 1/(6λ²) is good to 1e-5.
    """
    grid, low = _deviance_table()
    high = np.maximum(rate, _SERIES_FROM)
    series = 1 + (1 + 1 / high) / (6 * high)
    expected: Array = np.where(rate < _SERIES_FROM, np.interp(np.sqrt(np.maximum(rate, 0)), grid, low), series)
    return expected


@cache
def _deviance_table() -> tuple[Array, Array]:
    grid = np.linspace(0.0, 6.0, 1201)
    rate = np.maximum(grid**2, 1e-300)
    probability = np.exp(-rate)
    total = np.zeros_like(rate)  # E[N ln N]
    for n in range(1, 160):
        probability = probability * rate / n
        total += probability * n * np.log(n)
    return grid, 2 * (total - rate * np.log(rate))
