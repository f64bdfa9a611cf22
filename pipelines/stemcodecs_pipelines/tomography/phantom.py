"""Specimens of known composition, and what would be measured of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.errors import ConfigurationError

__all__ = ["PHANTOMS", "Phantom", "make_phantom", "pillars_in_bead"]

Array = np.ndarray[Any, Any]

_BEAD_RADIUS, _PILLAR_RING, _PILLAR_RADIUS, _PILLAR_HEIGHT = 0.7, 0.45, 0.09, 0.5
"""In units of half the field: everything stays inside at every angle."""
_PILLARS = 6
_FIRST_PILLAR = 0.3


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """A specimen of known composition.

    Parameters
    ----------
    elements : tuple of str
        Symbols.
    density : ndarray of float32, (element, y, x, z)
        Mass of each element per volume, g/cm³.
    lines : tuple of str or None
        Lines that are measured; None for one of each element.
    """

    elements: tuple[str, ...]
    density: Array
    lines: tuple[str, ...] | None = None


def pillars_in_bead(
    pixels: int,
    bead: Mapping[str, float],
    pillars: Sequence[Mapping[str, float]],
    *,
    lines: Sequence[str] | None = None,
) -> Phantom:
    """A bead with six pillars parallel to the axis of rotation, which take the bead's place where they are.

    Parameters
    ----------
    pixels : int
        Edge of the cubic volume; at least 8.
    bead : mapping
        Density of each of its elements, g/cm³.
    pillars : sequence of mapping
        The same for the pillars, which take turns.
    lines : sequence of str, optional
        Lines that are measured, see `cross_sections`.

    Raises
    ------
    ConfigurationError
        The volume is too small, or a density is negative.
    """
    if pixels < 8:
        raise ConfigurationError(f"a phantom of {pixels} pixels shows nothing; give at least 8")
    materials = [bead, *pillars]
    if not pillars or any(not 0 <= value < np.inf for material in materials for value in material.values()):
        raise ConfigurationError("a phantom needs pillars, and densities that are finite and not negative")
    elements = tuple(dict.fromkeys(symbol for material in materials for symbol in material))
    places = (np.arange(pixels) - (pixels - 1) / 2) / (pixels / 2)
    y, x, z = np.meshgrid(places, places, places, indexing="ij", sparse=True)
    density = np.zeros((len(elements), pixels, pixels, pixels), np.float32)

    def fill(where: Array, material: Mapping[str, float]) -> None:
        for index, symbol in enumerate(elements):
            density[index][where] = material.get(symbol, 0.0)

    fill(x * x + y * y + z * z < _BEAD_RADIUS**2, bead)
    for number in range(_PILLARS):
        phase = number * 2 * np.pi / _PILLARS + _FIRST_PILLAR
        distance = (x - _PILLAR_RING * np.cos(phase)) ** 2 + (z - _PILLAR_RING * np.sin(phase)) ** 2
        fill((distance < _PILLAR_RADIUS**2) & (np.abs(y) < _PILLAR_HEIGHT), pillars[number % len(pillars)])
    return Phantom(elements=elements, density=density, lines=None if lines is None else tuple(lines))


PHANTOMS: Mapping[str, Mapping[str, Any]] = {
    "calcium-iron": {"bead": {"Ca": 1.0}, "pillars": [{"Fe": 3.0}]},
    # The K lines of Sc lie just above the K edge of Ca, which takes most of them away.
    "calcium-scandium": {"bead": {"Ca": 1.55}, "pillars": [{"Sc": 2.985}]},
    "silica-titanium-iron": {
        "bead": {"Si": 1.03, "O": 1.17},
        "pillars": [{"Ti": 4.5}, {"Fe": 7.87}],
        "lines": ("Si-K", "Ti-K", "Fe-K"),
    },
}
"""Arguments of `pillars_in_bead` by name; densities are those of the elements and of silica glass, or below."""


def make_phantom(name: str, pixels: int = 48) -> Phantom:
    """A phantom by name.

    Parameters
    ----------
    name : {"calcium-iron", "calcium-scandium", "silica-titanium-iron"}
        Bead and pillars.
    pixels : int
        Edge of the cubic volume.

    Raises
    ------
    ConfigurationError
        There is no such phantom.
    """
    if name not in PHANTOMS:
        raise ConfigurationError(f"no phantom {name!r}; choose one of {', '.join(PHANTOMS)}")
    return pillars_in_bead(pixels, **PHANTOMS[name])
