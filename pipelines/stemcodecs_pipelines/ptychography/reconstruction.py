"""What a reconstruction gives: object, probe, positions and how well they explain the patterns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs_pipelines.ptychography.problem import PtychographyProblem

__all__ = ["Reconstruction"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Reconstruction:
    """Object and probe.

    Attributes
    ----------
    slices : ndarray, complex64, (slice, y, x)
        Transmission function of each slice, one for a thin object.
    probe : ndarray, complex64, (mode, n, n)
        In units in which |probe|² summed over modes and pixels is the counts of a pattern through an empty object.
    positions : ndarray, float64, (position, 2)
        Corners (y, x) of the windows in object pixels, refined where that was asked for.
    errors : ndarray, float64, (iteration,)
        Σ(√I − √N)² / ΣN over measured pixels, each pattern before the update it causes.
    error : float
        The same sum of the final object and probe.
    covered : ndarray of bool, (y, x)
        Where the probe was.
    pixel_size : float or None
        Object pixel in metres.
    method : str
        What made it, with its settings.
    """

    slices: Array
    probe: Array
    positions: Array
    errors: Array
    error: float
    covered: Array
    pixel_size: float | None
    method: str

    @property
    def object(self) -> Array:
        """Transmission function of the whole object: the product of its slices; complex64, (y, x)."""
        return np.asarray(np.prod(self.slices, axis=0))

    @property
    def probe_shares(self) -> Array:
        """Share of the energy that each probe mode carries."""
        energy = (np.abs(self.probe) ** 2).sum(axis=(1, 2), dtype=np.float64)
        return np.asarray(energy / energy.sum())

    @classmethod
    def of(
        cls,
        problem: PtychographyProblem,
        slices: Array,
        probe: Array,
        positions: Array,
        errors: Any,
        error: float,
        method: str,
    ) -> Reconstruction:
        """Put together what a method found, with unit mean modulus of the object where it was seen.

        Object and probe are known up to a factor between them, which is fixed so.
        """
        covered = problem.covered()
        slices, probe = np.asarray(slices, np.complex64), _orthogonal(np.asarray(probe, np.complex64))
        for layer in slices:
            modulus = float(np.abs(layer[covered]).mean())
            layer /= modulus
            probe = probe * np.float32(modulus)
        return cls(
            slices=slices,
            probe=probe,
            positions=positions,
            errors=np.asarray(errors, np.float64),
            error=float(error),
            covered=covered,
            pixel_size=problem.pixel_size,
            method=method,
        )


def _orthogonal(probe: Array) -> Array:
    """The same partly coherent beam as orthogonal modes, the strongest first; one mode stays as it is."""
    if len(probe) == 1:
        return probe
    flat = probe.reshape(len(probe), -1)
    # A unitary mix of modes changes no intensity, so the singular vectors are as good as what was found.
    _, weights, modes = np.linalg.svd(flat, full_matrices=False)
    return np.asarray((weights[:, None] * modes).reshape(probe.shape), np.complex64)
