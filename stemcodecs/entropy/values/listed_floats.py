"""Floats that are few, whatever they are: logarithms or roots of counts, say. Places in a list of all of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.entropy.values.calibration import ValueTable
from stemcodecs.entropy.values.corrected_floats import ordered_bits
from stemcodecs.entropy.values.number_map import PLANE_TOP, NumberMap
from stemcodecs.entropy.values.plane import Plane, wide_bits

__all__ = ["listed_plane", "plane_by_list"]

Array = np.ndarray[Any, Any]

_SAMPLE, _MOST_OF_SAMPLE = 1 << 16, 1 << 12
"""Values that are looked at first, and how many different ones they may be."""
_MOST_VALUES = 0.4
"""Different values, as a share of all, up to which a list of them can pay."""
_AT_ONCE = 1 << 20


def listed_plane(values: Array) -> Plane | None:
    """Counts that are places in the list of all values, in their order; None if the values are too many for a list.

    values : floats[n_positions, n_pixels].
    """
    flat = values.reshape(-1).view(f"i{values.dtype.itemsize}")
    most = min(PLANE_TOP, int(_MOST_VALUES * flat.size))
    found = np.unique(ordered_bits(flat[:: max(1, flat.size // _SAMPLE)]))
    if found.size > min(most, _MOST_OF_SAMPLE):
        return None
    for start in range(0, flat.size, _AT_ONCE):
        some = ordered_bits(flat[start : start + _AT_ONCE])
        missing = some[found[_places(found, some)] != some]
        if missing.size:
            found = np.union1d(found, missing)
            if found.size > most:
                return None
    # It is its own inverse.
    bits = ordered_bits(found.astype(flat.dtype))
    return plane_by_list(values, NumberMap(), ValueTable(values=bits, width=values.dtype.itemsize))


def plane_by_list(values: Array, numbers: NumberMap, table: ValueTable) -> Plane:
    """Counts that are places in a given list; values that are not in it are exceptions."""
    flat = values.reshape(-1).view(f"i{values.dtype.itemsize}")
    listed = ordered_bits(table.values.astype(flat.dtype))
    counts = np.empty(flat.size, np.uint8 if listed.size <= 256 else np.uint16)
    missing = []
    for start in range(0, flat.size, _AT_ONCE):
        some = ordered_bits(flat[start : start + _AT_ONCE])
        places = _places(listed, some)
        wrong = listed[places] != some
        places[wrong] = 0
        counts[start : start + _AT_ONCE] = places
        missing.append(np.flatnonzero(wrong) + start)
    at = np.concatenate(missing)
    return Plane(
        numbers=numbers, counts=counts, low=None, exceptions_at=at, exceptions=wide_bits(values.reshape(-1)[at]),
        calibration=table,
    )  # fmt: skip


def _places(listed: Array, values: Array) -> Array:
    return np.minimum(np.searchsorted(listed, values), listed.size - 1)
