"""From what a file says about its axes to `Axis`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stemcodecs.readers.scan import Axis, default_dims

__all__ = ["axes_from", "axis_from_values", "axis_named", "clean_units"]

_NO_UNITS = {
    "",
    "1",
    "pixel",
    "pixels",
    "px",
    "[px]",
    "unknown",
    "<undefined>",
    "none",
    "a.u.",
    "[]",
}

# How far from equal steps the coordinates may be, in steps: single-precision coordinates of a
# few thousand positions stay below it.
_EVEN = 1e-2


def clean_units(units: Any) -> str | None:
    """Units as text; None for the words that mean that there are none."""
    if isinstance(units, bytes):
        units = units.decode("utf-8", "replace")
    if isinstance(units, np.ndarray):
        units = units.item() if units.size == 1 else None
        return clean_units(units)
    if not isinstance(units, str) or units.strip().lower() in _NO_UNITS:
        return None
    # EMD 0.1 writes [n_m] and [n_m^-1]: underscores separate the prefix from the unit.
    text = units.strip()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1].replace("_", "")
    return text


def axis_named(name: str, size: int, scale: Any = None, offset: Any = 0.0, units: Any = None) -> Axis:
    """Make an axis; steps of 1 from 0 without units, and steps that are no number, say nothing."""
    text = clean_units(units)
    try:
        step, start = float(scale), float(0.0 if offset is None else offset)
    except (TypeError, ValueError):
        return Axis(name=name, size=size)
    if not (np.isfinite(step) and np.isfinite(start)) or step == 0.0:
        return Axis(name=name, size=size)
    if text is None and step == 1.0 and start == 0.0:
        return Axis(name=name, size=size)
    return Axis(name=name, size=size, scale=step, offset=start, units=text)


def axis_from_values(name: str, size: int, values: Any, units: Any = None) -> Axis:
    """Make an axis from coordinates: all of them, or the first two (EMD 1.0).

    Coordinates that are not evenly spaced have no scale, and the axis stays without one.
    """
    plain = Axis(name=name, size=size)
    points = np.asarray(values)
    if points.ndim != 1 or points.dtype.kind not in "iuf" or not np.isfinite(points).all():
        return plain
    points = points.astype(np.float64)
    if len(points) not in (2, size) or len(points) < 2:
        return plain
    step = (points[-1] - points[0]) / (len(points) - 1)
    even = points[0] + step * np.arange(len(points))
    if step == 0.0 or np.abs(points - even).max() > _EVEN * abs(step):
        return plain
    return axis_named(name, size, float(step), float(points[0]), units)


def axes_from(path: str, shape: Sequence[int], given: Sequence[Axis | None]) -> tuple[Axis, ...]:
    """Axes in the order of the array under our names; plain where the source says nothing."""
    names = default_dims(len(shape), path, [None if axis is None else axis.name for axis in given])
    axes = []
    for i, (name, size) in enumerate(zip(names, shape, strict=True)):
        axis = given[i] if i < len(given) else None
        if axis is None or axis.size != size:
            axes.append(Axis(name=name, size=int(size)))
        else:
            axes.append(
                Axis(
                    name=name,
                    size=int(size),
                    scale=axis.scale,
                    offset=axis.offset,
                    units=axis.units,
                )
            )
    return tuple(axes)
