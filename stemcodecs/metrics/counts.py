"""Errors of counts against counts, in pieces: neither array has to fit in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from stemcodecs.errors import ConfigurationError
from stemcodecs.metrics.arguments import pair

__all__ = ["diffraction_mse", "total_count_bias"]

_PIECE_VALUES = 1 << 22


def diffraction_mse(patterns: Any, reference: Any) -> float:
    """Mean squared error of diffraction data: ``mean (N' − N)²`` over all patterns and pixels.

    The fidelity of Huang et al., who judge lossy ptychography data by it and by `phase_mse` (matrix factorization
    approaches to lossy compression of ptychography data).

    Parameters
    ----------
    patterns, reference : array_like
        Counts of one shape; read along the first dimension in pieces, so that arrays in files may be given.

    Returns
    -------
    float
        Counts².

    Raises
    ------
    ConfigurationError
        Shapes differ, there is nothing to compare, or a value is not finite.
    """
    total, values = 0.0, 0
    for decoded, original in _pieces(patterns, reference):
        total += float(((decoded - original) ** 2).sum())
        values += original.size
    return total / values


def total_count_bias(counts: Any, reference: Any) -> float:
    """How far the sum of all counts is off: ``ΣN' / ΣN − 1``, without unit.

    Zero for a decoder without bias. What integrates counts (virtual images, fluorescence yields, masses) inherits it.

    Parameters
    ----------
    counts, reference : array_like
        Counts of one shape, read in pieces as `diffraction_mse` does.

    Raises
    ------
    ConfigurationError
        Shapes differ, a value is not finite, or the reference sums to nothing.
    """
    sums = [(float(decoded.sum()), float(original.sum())) for decoded, original in _pieces(counts, reference)]
    decoded, original = (math.fsum(column) for column in zip(*sums, strict=True))
    if original == 0:
        raise ConfigurationError("the reference has no counts; a relative bias is not defined")
    return decoded / original - 1.0


def _pieces(first: Any, second: Any) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Both arrays in matching pieces along the first dimension."""
    a, b = (x if hasattr(x, "shape") and hasattr(x, "__getitem__") else np.asarray(x) for x in (first, second))
    if tuple(a.shape) != tuple(b.shape):
        raise ConfigurationError(f"shapes {tuple(a.shape)} and {tuple(b.shape)} differ; compare arrays of one shape")
    if len(a.shape) == 0 or math.prod(a.shape) == 0:
        yield pair(np.atleast_1d(a[()]), np.atleast_1d(b[()]))
        return
    step = max(1, _PIECE_VALUES // math.prod(a.shape[1:]))
    for start in range(0, a.shape[0], step):
        yield pair(a[start : start + step], b[start : start + step])
