"""The extended ptychographical iterative engine (ePIE) in NumPy.

Maiden and Rodenburg (2009, doi:10.1016/j.ultramic.2009.05.012), with several probe modes (Thibault and Menzel 2013,
doi:10.1038/nature11806).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.ptychography.amplitudes import Amplitudes
from stemcodecs_pipelines.ptychography.forward import shift_ramp
from stemcodecs_pipelines.ptychography.probe import probe_modes
from stemcodecs_pipelines.ptychography.problem import PtychographyProblem
from stemcodecs_pipelines.ptychography.reconstruction import Reconstruction

__all__ = ["EpieSettings", "epie"]

Array = np.ndarray[Any, Any]
Progress = Callable[[int, int, float], None]


@dataclass(frozen=True, kw_only=True)
class EpieSettings:
    """How ePIE runs.

    Attributes
    ----------
    iterations : int
        Passes over all patterns, each in a random order.
    modes : int
        Probe modes.
    object_step, probe_step : float
        Share of the update that is taken, α and β of the paper.
    probe_from : int
        Iteration from which on the probe is refined.
    seed : int
        Fixes the orders.
    """

    iterations: int = 20
    modes: int = 1
    object_step: float = 0.7
    probe_step: float = 0.5
    probe_from: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.modes < 1 or not (0 < self.object_step <= 2 and 0 <= self.probe_step <= 2):
            raise ConfigurationError("iterations and modes must be at least 1, and steps in (0, 2]")


def epie(
    problem: PtychographyProblem,
    settings: EpieSettings | None = None,
    *,
    amplitudes: Amplitudes | None = None,
    progress: Progress = lambda done, total, error: None,
) -> Reconstruction:
    """Reconstruct object and probe pattern by pattern.

    Parameters
    ----------
    problem : PtychographyProblem
        What was measured.
    settings : EpieSettings
        How.
    amplitudes : Amplitudes, optional
        The problem's patterns where they have been read already.
    progress : callable
        Called after each iteration with the iterations done, all of them, and the error.
    """
    settings = settings or EpieSettings()
    amplitudes = amplitudes or Amplitudes(problem)
    engine = _Engine(problem, settings, amplitudes.mean_counts())
    errors = []
    for iteration in range(settings.iterations):
        generator = np.random.default_rng([settings.seed, iteration])
        misfit = 0.0
        for numbers, measured in amplitudes.segments(generator):
            for j in generator.permutation(len(numbers)):
                misfit += engine.update(int(numbers[j]), measured[j], refine_probe=iteration >= settings.probe_from)
        errors.append(misfit / amplitudes.total_counts)
        progress(iteration + 1, settings.iterations, errors[-1])
    final = sum(
        engine.misfit(int(j), measured)
        for numbers, segment in amplitudes.segments(np.random.default_rng(0))
        for j, measured in zip(numbers, segment, strict=True)
    )
    return Reconstruction.of(
        problem,
        engine.object[None],
        engine.probe,
        problem.positions,
        errors,
        final / amplitudes.total_counts,
        f"ePIE, {settings.iterations} iterations, {settings.modes} modes",
    )


class _Engine:
    """Object and probe between the updates."""

    def __init__(self, problem: PtychographyProblem, settings: EpieSettings, mean_counts: float) -> None:
        self.settings = settings
        probe = probe_modes(problem.probe, settings.modes)
        # The probe carries the mean energy of a pattern, so that the object is of order one.
        self.probe = (probe * np.sqrt(mean_counts / (np.abs(probe) ** 2).sum())).astype(np.complex64)
        self.object = np.ones(problem.object_shape, np.complex64)
        self.valid = np.fft.ifftshift(problem.mask)
        self.all_valid = bool(self.valid.all())
        self.corners = np.floor(problem.positions).astype(int)
        self.fractions = problem.positions - self.corners
        self.side = problem.side

    def _exit_waves(self, j: int) -> tuple[Array, Array, Array, Array, Array]:
        y, x = self.corners[j]
        window = self.object[y : y + self.side, x : x + self.side]
        ramp = shift_ramp(self.fractions[j], self.side)
        probe = np.fft.ifft2(np.fft.fft2(self.probe) * ramp) if self.fractions[j].any() else self.probe
        waves = probe * window
        return window, ramp, probe, waves, np.fft.fft2(waves, norm="ortho")

    def misfit(self, j: int, measured: Array) -> float:
        """Σ(√I − √N)² of one pattern over measured pixels."""
        far = self._exit_waves(j)[-1]
        return self._misfit(np.sqrt((np.abs(far) ** 2).sum(axis=0)), measured)

    def _misfit(self, modelled: Array, measured: Array) -> float:
        return float(np.square((modelled - measured)[self.valid]).sum(dtype=np.float64))

    def update(self, j: int, measured: Array, *, refine_probe: bool) -> float:
        """Replace the modulus of the far field of one pattern by the measured one, where there is one."""
        window, ramp, probe, waves, far = self._exit_waves(j)
        modelled = np.sqrt((np.abs(far) ** 2).sum(axis=0))
        factor = measured / np.maximum(modelled, 1e-3)
        if not self.all_valid:
            factor[~self.valid] = 1.0
        change = np.fft.ifft2(far * factor, norm="ortho") - waves
        before = window.copy()
        intensity = (np.abs(probe) ** 2).sum(axis=0)
        window += self.settings.object_step / intensity.max() * (np.conj(probe) * change).sum(axis=0)
        if refine_probe:
            step = self.settings.probe_step / (np.abs(before) ** 2).max() * np.conj(before) * change
            if self.fractions[j].any():
                step = np.fft.ifft2(np.fft.fft2(step) * np.conj(ramp))
            self.probe = (self.probe + step).astype(np.complex64)
        return self._misfit(modelled, measured)
