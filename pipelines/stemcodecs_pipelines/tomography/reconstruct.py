"""Densities from counts: gradient descent through the forward model, rows by rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemcodecs_pipelines.run.torch_device import import_torch
from stemcodecs_pipelines.tomography.forward import Projector
from stemcodecs_pipelines.tomography.problem import TomographyProblem
from stemcodecs_pipelines.tomography.settings import DescentSettings
from stemcodecs_pipelines.tomography.survey import Survey, expected_deviance, survey

if TYPE_CHECKING:
    import torch

__all__ = ["Rows", "element_densities", "reconstruct_rows"]

Array = np.ndarray[Any, Any]

_LEAST_COUNTS = 1e-3
"""An expected count never falls below: no voxel on a beam would leave a logarithm of nothing."""
_SMOOTHED = 1e-3
"""Differences, in units of an element's density, below which the total variation is smooth."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Some rows, reconstructed.

    Parameters
    ----------
    density : ndarray of float32, (element, row, x, z)
        g/cm³.
    deviance : ndarray, (epoch,)
        Mean Poisson deviance of all counts of these rows while the epoch ran; 1 is the noise of many counts.
    epochs : ndarray of int, (row,)
        Epochs after which each row was left as it is.
    """

    density: Array
    deviance: Array
    epochs: Array


def element_densities(
    problem: TomographyProblem,
    settings: DescentSettings | None = None,
    *,
    progress: Callable[[int], None] | None = None,
) -> Rows:
    """Reconstruct a specimen in memory, all rows at once.

    Parameters
    ----------
    problem : TomographyProblem
        The measurement.
    settings : DescentSettings, optional
        How; the defaults are for 60 angles and some thousand counts.
    progress : callable, optional
        Called with 1 after each epoch.

    Returns
    -------
    Rows
        Densities in g/cm³, (element, y, x, z).

    Raises
    ------
    SourceError, ConfigurationError
        A value of the maps cannot be, or torch is missing.
    """
    import_torch("tomography")
    whole = slice(0, problem.rows)
    return reconstruct_rows(
        problem, whole, settings or DescentSettings(), survey(problem, problem.rows), progress=progress
    )


def reconstruct_rows(
    problem: TomographyProblem,
    rows: slice,
    settings: DescentSettings,
    scales: Survey,
    *,
    progress: Callable[[int], None] | None = None,
) -> Rows:
    """Reconstruct some rows; the result does not depend on which rows are taken together.

    Minimises ``Σ (I − N ln I) / mean N + b Σ (ln T − ln T_measured)² + TV`` over densities that are not negative and
    lie in the cylinder that is in the field at every angle, by Adam, one angle a step.

    Parameters
    ----------
    problem : TomographyProblem
        The measurement.
    rows : slice
        Which.
    settings : DescentSettings
        How.
    scales : Survey
        Of the whole measurement.
    progress : callable, optional
        Called with 1 after each epoch.
    """
    torch = import_torch()
    counts, passed = problem.read(rows)
    descent = _Descent(problem, settings, scales, counts)
    measured = torch.as_tensor(counts)
    logarithm = None if passed is None else torch.as_tensor(np.log(passed))
    order = np.random.default_rng(settings.seed)
    deviance = []
    for _ in range(settings.epochs):
        descent.begin_epoch()
        for angle in order.permutation(problem.geometry.angles.size):
            descent.step(int(angle), measured[:, angle], None if logarithm is None else logarithm[angle])
        deviance.append(descent.end_epoch())
        if progress is not None:
            progress(1)
        if not descent.running.any():
            break
    # What stopped early is still one curve: its last value stands.
    deviance += [deviance[-1]] * (settings.epochs - len(deviance))
    return Rows(density=descent.density(), deviance=np.array(deviance), epochs=descent.epochs)


class _Descent:
    """Densities of some rows on their way down, in units of each element's own."""

    def __init__(self, problem: TomographyProblem, settings: DescentSettings, scales: Survey, counts: Array) -> None:
        torch = import_torch()
        self.settings, self.pixels = settings, problem.pixels
        self.project = Projector(
            problem.geometry, problem.sections, problem.pixels, self_absorption=settings.self_absorption
        )
        rows = counts.shape[2]
        self._scale = torch.as_tensor(scales.density, dtype=torch.float32)
        self._inverse_mean = 1.0 / (scales.mean_counts * problem.pixels)
        place = np.arange(problem.pixels) - (problem.pixels - 1) / 2
        inside = np.hypot(place[:, None], place) <= problem.pixels / 2
        self._inside = torch.as_tensor(inside.reshape(-1, 1, 1), dtype=torch.float32)
        self._values = (self._inside * self._start(problem, scales, counts, int(inside.sum()))).requires_grad_(True)
        self._adam = torch.optim.Adam([self._values], lr=settings.step)
        self._schedule = torch.optim.lr_scheduler.ExponentialLR(self._adam, settings.decay)
        self.running = np.ones(rows, np.bool_)
        self.epochs = np.zeros(rows, np.int64)
        self._counts_per_row = counts[:, :, 0].size

    def _start(self, problem: TomographyProblem, scales: Survey, counts: Array, voxels: int) -> Any:
        """Each row's mass, as if nothing were absorbed, spread over the cylinder; a little of what has no line."""
        torch = import_torch()
        sections, geometry = problem.sections, problem.geometry
        start = np.full((len(sections.elements), counts.shape[2]), 0.01)
        areal = counts.mean(axis=1, dtype=np.float64).sum(axis=-1)  # counts of a whole row, mean over the angles
        per_density = geometry.photons * geometry.solid_angle * sections.produced * geometry.pixel_size * voxels
        for line, element in enumerate(sections.line_elements):
            start[element] = areal[line] / per_density[line] / scales.density[element]
        return torch.as_tensor(start.T.copy(), dtype=torch.float32)

    def begin_epoch(self) -> None:
        """Forget the deviance of the epoch before."""
        self._deviance = np.zeros(len(self.running))
        self._expected = np.zeros(len(self.running))

    def step(self, angle: int, counts: torch.Tensor, logarithm: torch.Tensor | None) -> None:
        """One step of Adam on the maps of one angle."""
        torch = import_torch()
        expected, passed = self.project(self._values * self._scale, angle)
        expected = expected.clamp(min=_LEAST_COUNTS)
        loss = self._inverse_mean * (expected - counts * expected.log()).sum()
        if logarithm is not None and self.settings.transmission_weight:
            error = ((passed.log() - logarithm) ** 2).sum() / self.pixels
            loss = loss + self.settings.transmission_weight * error
        if self.settings.total_variation:
            loss = loss + self.settings.total_variation * self._total_variation()
        self._adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        stopped = torch.as_tensor(~self.running)
        kept = self._values.detach()[:, stopped]
        self._adam.step()
        with torch.no_grad():
            self._values.mul_(self._inside).clamp_(min=0)
            self._values[:, stopped] = kept
        self._note(expected.detach(), counts)

    def _total_variation(self) -> Any:
        """Mean over the voxels of each section, summed over rows and elements."""
        torch = import_torch()
        volume = self._values.reshape(self.pixels, self.pixels, *self._values.shape[1:])
        along_x, along_z = volume[1:, :-1] - volume[:-1, :-1], volume[:-1, 1:] - volume[:-1, :-1]
        return torch.sqrt(along_x**2 + along_z**2 + _SMOOTHED**2).sum() / self.pixels**2

    def _note(self, expected: Any, counts: Any) -> None:
        torch = import_torch()
        deviance = 2 * (torch.xlogy(counts, counts / expected) - counts + expected)
        self._deviance += deviance.sum((0, 2)).numpy().astype(np.float64)
        if self.settings.stop_at_noise:
            self._expected += expected_deviance(expected.numpy()).sum((0, 2))

    def end_epoch(self) -> float:
        """Stop what is fitted well enough, take smaller steps; mean deviance of the epoch."""
        self.epochs[self.running] += 1
        if self.settings.stop_at_noise:
            self.running &= self._deviance > self._expected
        self._schedule.step()
        return float(self._deviance.sum() / (self._counts_per_row * len(self.running)))

    def density(self) -> Array:
        """g/cm³, float32, (element, row, x, z)."""
        volume = (self._values.detach() * self._scale).reshape(self.pixels, self.pixels, *self._values.shape[1:])
        return np.ascontiguousarray(volume.permute(3, 2, 0, 1).numpy())
