"""How far reconstructed densities are from known ones: total mass, and error of the map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from stemcodecs.errors import ConfigurationError

__all__ = ["ElementError", "concentration_errors"]

Array = np.ndarray[Any, Any]


class ElementError(NamedTuple):
    """What became of one element.

    Attributes
    ----------
    element : str
        Symbol.
    mass_ratio : float
        Total mass over the true one; 1 where nothing is lost.
    relative_error : float
        ``√(Σ (c − c_true)² / Σ c_true²)`` over all voxels.
    """

    element: str
    mass_ratio: float
    relative_error: float


def concentration_errors(elements: Sequence[str], density: ArrayLike, truth: ArrayLike) -> list[ElementError]:
    """Hold densities against known ones, or those of decoded counts against those of the original ones.

    Parameters
    ----------
    elements : sequence of str
        Symbols.
    density, truth : array_like, (element, y, x, z)
        g/cm³.

    Raises
    ------
    ConfigurationError
        Shapes differ, or there is none of an element in truth.
    """
    found, true = np.asarray(density, np.float64), np.asarray(truth, np.float64)
    if found.shape != true.shape or len(found) != len(elements):
        raise ConfigurationError(
            f"densities {found.shape} and {true.shape} of {len(elements)} elements do not fit; give (element, y, x, z)"
        )
    errors = []
    for symbol, ours, theirs in zip(elements, found, true, strict=True):
        power = float((theirs**2).sum())
        if power == 0:
            raise ConfigurationError(f"there is no {symbol} to compare with; leave it out")
        difference = float(((ours - theirs) ** 2).sum())
        errors.append(ElementError(symbol, float(ours.sum() / theirs.sum()), float(np.sqrt(difference / power))))
    return errors
