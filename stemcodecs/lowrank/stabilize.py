"""The Anscombe transform: Poisson counts to values of unit noise, and back, also in integers.

Forward: f(N) = 2·√(N + 3/8) (Anscombe 1948, doi:10.1093/biomet/35.3-4.246). Backward: the closed
form of the exact unbiased inverse of Mäkitalo and Foi (2011, doi:10.1109/TIP.2011.2121085), which
gives the rate λ with E[f(N) | λ] = y rather than f⁻¹(y), biased low by a quarter of a count.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

__all__ = [
    "FRACTION_BITS",
    "anscombe",
    "anscombe_variance",
    "fixed_inverse_table",
    "inverse_anscombe",
]

Array = np.ndarray[Any, Any]

FRACTION_BITS = 12
"""Binary digits after the point of stabilised values and rates in fixed-point arithmetic."""

TABLE_END = 16
"""Stabilised values below this are inverted by table; above, λ = y²/4 − 1/8 is exact to 0.02
counts at λ = 64.
"""

_SMALLEST = 2 * np.sqrt(3 / 8)


def anscombe(counts: Array, out: Array | None = None) -> Array:
    """Stabilise non-negative counts of any shape; float32, into ``out`` if it is given; noise of about unit variance
    from 4 counts on.
    """
    stabilised = np.add(counts, np.float32(0.375), dtype=np.float32, out=out)
    np.sqrt(stabilised, out=stabilised)
    stabilised *= np.float32(2)
    result: Array = stabilised
    return result


def inverse_anscombe(stabilised: Array) -> Array:
    """Rates λ ≥ 0 (counts) of stabilised values of any shape; float64."""
    y = np.maximum(np.asarray(stabilised, np.float64), _SMALLEST)
    root = np.sqrt(1.5)
    rate = y * y / 4 + root / (4 * y) - 11 / (8 * y**2) + 5 * root / (8 * y**3) - 1 / 8
    result: Array = np.maximum(rate, 0.0)
    return result


def anscombe_variance(rate: Array) -> Array:
    """Variance of f(N) for Poisson counts of the given rates; about 1 above 4 counts, about
    1.26·λ near 0.
    """
    rate = np.asarray(rate, np.float64)
    grid = np.concatenate([[0.0], np.geomspace(1e-4, 40.0, 200)])
    counts = np.arange(120.0)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(counts[1:]))])
    with np.errstate(divide="ignore"):
        log_rate = np.log(grid[1:, None])
    weight = np.exp(counts * log_rate - grid[1:, None] - log_factorial)
    value = 2 * np.sqrt(counts + 0.375)
    mean = weight @ value
    variance = np.concatenate([[0.0], weight @ value**2 - mean**2])
    result: Array = np.interp(rate, grid, variance)
    return result


@lru_cache(maxsize=1)
def fixed_inverse_table() -> Array:
    """Rates of the stabilised values 0, 1, 2 … below ``TABLE_END``, all with ``FRACTION_BITS``;
    int64.

    Integer arithmetic only, so that every machine builds the same table.
    """
    bits = FRACTION_BITS
    y = np.arange(TABLE_END << bits, dtype=np.int64)
    # √1.5 with 24 bits, as an integer constant: 1.2247448713915890491 · 2²⁴
    root = 20_547_809
    smallest = 5017  # 2·√(3/8) with 12 bits, rounded up
    y = np.maximum(y, smallest)
    rate = (y * y) >> (2 + bits)
    rate += ((root << (2 * bits - 24)) // 4) // y
    rate -= (11 << (3 * bits)) // (8 * y * y)
    rate += ((5 * root) << (4 * bits - 24)) // (8 * y * y * y)
    rate -= 1 << (bits - 3)
    table = np.maximum(rate, 0)
    table.flags.writeable = False
    result: Array = table
    return result
