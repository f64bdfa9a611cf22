"""What all metrics ask of the two things that they compare."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stemcodecs.errors import ConfigurationError

__all__ = ["image_pair", "pair", "support_of"]

Array = np.ndarray[Any, Any]


def pair(first: ArrayLike, second: ArrayLike) -> tuple[Array, Array]:
    """Two arrays of one shape, in double precision, real or complex.

    Raises
    ------
    ConfigurationError
        The shapes differ, there is nothing in them, or a value is not finite.
    """
    arrays = tuple(np.asarray(values) for values in (first, second))
    if any(a.dtype.kind not in "buifc" for a in arrays):
        raise ConfigurationError("metrics compare numbers; give arrays of counts, images or complex objects")
    a, b = (a.astype(np.complex128 if a.dtype.kind == "c" else np.float64) for a in arrays)
    if a.shape != b.shape:
        raise ConfigurationError(f"shapes {a.shape} and {b.shape} differ; compare arrays of one shape")
    if not a.size:
        raise ConfigurationError("there is nothing to compare; give arrays with values")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ConfigurationError("a value is not finite; replace NaN and infinity, or leave them out, before comparing")
    return a, b


def image_pair(first: ArrayLike, second: ArrayLike, least: int = 2) -> tuple[Array, Array]:
    """Like `pair`, of two dimensions with at least `least` pixels each.

    Raises
    ------
    ConfigurationError
        As `pair`, or these are no images of that size.
    """
    a, b = pair(first, second)
    if a.ndim != 2 or min(a.shape) < least:
        raise ConfigurationError(f"shape {a.shape} is no image of at least {least}×{least} pixels; give one at a time")
    return a, b


def support_of(support: ArrayLike | None, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """The pixels that count; all of them where no support is given.

    Raises
    ------
    ConfigurationError
        The support has another shape, or is empty.
    """
    if support is None:
        return np.ones(shape, np.bool_)
    inside: np.ndarray[Any, np.dtype[np.bool_]] = np.asarray(support) != 0
    if inside.shape != shape:
        raise ConfigurationError(f"the support has shape {inside.shape}, the image {shape}; give one of the same shape")
    if not inside.any():
        raise ConfigurationError("the support is empty; mark the pixels that count")
    return inside
