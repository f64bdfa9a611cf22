"""Values that no map gives because their pixels are stuck: marks rather than one exception in every pattern."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from stemcodecs.entropy.values.number_map import MAX_SPECIALS, PLANE_TOP
from stemcodecs.entropy.values.plane import Plane

__all__ = ["with_marks"]

Array = np.ndarray[Any, Any]

_ALWAYS = 0.9
"""Share of its patterns in which a pixel must have the value: as of marks that are found in a sample."""


def with_marks(plane: Plane, n_pixels: int) -> Plane:
    """The plane of patterns of ``n_pixels``, with exceptions that are always on the same pixels made marks.

    Its counts may change in place.
    """
    n_positions = plane.counts.size // n_pixels
    room = MAX_SPECIALS - len(plane.numbers.specials)
    if room <= 0 or plane.exceptions_at.size < _ALWAYS * n_positions or n_positions < 2:
        return plane
    values, which, times = np.unique(plane.exceptions, return_inverse=True, return_counts=True)
    found: list[int] = []
    for k in np.argsort(times, kind="stable")[::-1][:room]:
        pixels = np.unique(plane.exceptions_at[which == k] % n_pixels)
        if times[k] >= _ALWAYS * n_positions * pixels.size:
            found.append(int(k))
    numbers = replace(plane.numbers, specials=(*plane.numbers.specials, *(int(values[k]) for k in found)))
    if not found:
        return plane
    # Codes of marks have 16 bits.
    counts, top = plane.counts.astype(np.uint16, copy=False), PLANE_TOP - numbers.negatives
    # Counts this high have taken the codes of the marks.
    if ((counts >= top - len(numbers.specials)) & (counts < top - len(plane.numbers.specials))).any():
        return plane
    for k in found:
        counts[plane.exceptions_at[which == k]] = numbers.code(numbers.specials.index(int(values[k])))
    others = ~np.isin(which, found)
    return replace(
        plane, numbers=numbers, counts=counts,
        exceptions_at=plane.exceptions_at[others], exceptions=plane.exceptions[others],
    )  # fmt: skip
