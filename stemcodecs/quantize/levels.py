"""Quantisation levels whose every bin can be decoded within r·σ, built in exact integer arithmetic.

Counts of a photon or electron carry shot noise σ = √N, so neighbouring counts may share one code as
long as the value decoded for them lies within r·σ of each. Everything here works on ``x``, whole
ADU above the detector's offset: with a gain of g ADU per count, σ = √(g·x) ADU, so one number
``k2`` = r²·g states the bound

    (x' − x)² ≤ k2 · x,

a comparison of integers once k2 is a fraction. No floating point takes part: levels are the same
everywhere.

Sources: P. Huang et al., J. Synchrotron Rad. 28, 292 (2021), doi:10.1107/S1600577520013326
(bit-depth reduction within the shot noise); M. Hammer et al., JINST 16, P01025 (2021),
doi:10.1088/1748-0221/16/01/P01025 (the same on the detector's chip).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import ceil, isqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from stemcodecs.errors import ConfigurationError

__all__ = ["PRESETS", "Levels", "huang_levels", "optimal_levels", "preset_bound", "radius"]

Int64 = npt.NDArray[np.int64]

# Largest number of levels that is still a quantisation; it also bounds the time to build a table
# (seconds).
MOST_LEVELS = 1 << 22
# Below this value isqrt of a 64-bit quotient fits float64 with room for the test of doubt in
# radius().
_LARGEST_VALUE = (1 << 32) - 1

PRESETS: dict[str, Fraction | None] = {
    "optimal": None,
    "huang-511": Fraction(1, 8),
    "huang-255": Fraction(1, 2),
    "huang-191": Fraction(1),
}
"""Each construction's r², its bound squared in units of σ²; the bound of ``optimal`` is free."""


def preset_bound(preset: str) -> Fraction | None:
    """The fixed r² of a preset, or None where r is free."""
    try:
        return PRESETS[preset]
    except KeyError:
        raise ConfigurationError(f"unknown preset {preset!r}; choose one of {', '.join(sorted(PRESETS))}") from None


def radius(x: Int64, k2: Fraction) -> Int64:
    """Largest whole number d with d² ≤ k2·x, for each x ≥ 0; exact for every x below 2³².

    Parameters
    ----------
    x : array of int64
        ADU above the offset.
    k2 : Fraction
        The bound: r² · gain.

    Returns
    -------
    array of int64
        How far a decoded value may lie from x.
    """
    root = np.sqrt(x * float(k2))
    whole = np.floor(root)
    # float64 is off by less than 1e-9 here; only where the root is that near to an integer can
    # floor be wrong.
    nearest = np.rint(root)
    doubtful = np.flatnonzero(np.abs(root - nearest) < 1e-6 * np.maximum(1.0, root * 1e-6))
    result: Int64 = whole.astype(np.int64)
    if doubtful.size:
        values, inverse = np.unique(x.reshape(-1)[doubtful], return_inverse=True)
        exact = [isqrt(k2.numerator * int(v) // k2.denominator) for v in values]
        result.reshape(-1)[doubtful] = np.array(exact, dtype=np.int64)[inverse.reshape(-1)]
    return result


@dataclass(frozen=True, kw_only=True, eq=False)
class Levels:
    """Consecutive bins over 0..top; level i holds ``lows[i] <= x <= highs[i]``.

    Attributes
    ----------
    lows : array of int64
        First value of every bin, not decreasing; equal neighbours mean that no value reaches the
        earlier level (``huang-511`` counts quarter photons: three of its levels lie between whole
        counts).
    top : int
        Last value of the last bin.
    k2 : Fraction
        The bound r²·gain.
    """

    lows: Int64
    top: int
    k2: Fraction

    def __post_init__(self) -> None:
        self.lows.flags.writeable = False
        broken = np.flatnonzero((self.smallest > self.largest) & (self.highs >= self.lows))
        if broken.size:
            low, high = int(self.lows[broken[0]]), int(self.highs[broken[0]])
            raise ConfigurationError(
                f"no whole value is within the bound for all of {low}..{high} ADU: this preset "
                "does not suit this gain; use preset 'optimal', or a gain that is a power of two"
            )

    @property
    def count(self) -> int:
        """Number of levels."""
        return len(self.lows)

    @cached_property
    def highs(self) -> Int64:
        """Last value of every bin; below its low where no value reaches the level."""
        return np.append(self.lows[1:] - 1, np.int64(self.top))

    @cached_property
    def smallest(self) -> Int64:
        """Smallest value inside each bin that is within the bound of all the bin's values."""
        smallest: Int64 = np.maximum(self.lows, self.highs - radius(np.maximum(self.highs, 0), self.k2))
        return smallest

    @cached_property
    def largest(self) -> Int64:
        """Largest value inside each bin that is within the bound of all the bin's values."""
        largest: Int64 = np.minimum(self.highs, self.lows + radius(self.lows, self.k2))
        return largest

    @cached_property
    def midpoints(self) -> Int64:
        """Middle of each bin, clipped to ``smallest..largest``; the low of a bin without values."""
        middle = np.clip((self.lows + self.highs) // 2, self.smallest, self.largest)
        return np.where(self.highs < self.lows, self.lows, middle)

    def level_of(self, x: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
        """Level of each value of 0..top."""
        return np.searchsorted(self.lows, x, side="right") - 1


def _refuse_too_many(levels: int) -> None:
    if levels > MOST_LEVELS:
        raise ConfigurationError(
            f"the bound needs about {levels} levels, more than {MOST_LEVELS}: "
            "use a larger r or a lower saturation, or store the data losslessly"
        )


def optimal_levels(k2: Fraction, top: int, exact_below: int = 1) -> Levels:
    """The fewest levels over 0..top with every value below ``exact_below`` on a level of its own.

    A bin is feasible if some integer lies within the bound of its first and of its last value (the values between
    follow), and every part of a feasible bin is feasible. So laying each bin as wide as the bound allows needs the
    fewest, from either end: by induction the i-th bin laid reaches at least as far as in any other scheme.

    Bins are laid upwards, so that the low counts, which are most of a scan, get the widest bins and do not depend on
    ``top``. At k2 = 1 with only zero exact they are laid downwards instead: for every top = n² − 1 that gives the
    integer square root, the code that detectors and other software use at 1 σ, with as few levels.

    Parameters
    ----------
    k2 : Fraction
        The bound r²·gain, positive.
    top : int
        Largest value, below 2³².
    exact_below : int
        Values below this keep a level each; at least 1, so that zero stays zero.

    Returns
    -------
    Levels

    Raises
    ------
    ConfigurationError
        If more than 2²² levels would be needed.
    """
    p, q = k2.numerator, k2.denominator
    exact_below = min(exact_below, top + 1)
    _refuse_too_many(min(top + 1, exact_below + ceil(1 / k2) + ceil((top / k2) ** 0.5)))
    lows = _laid_down(p, q, exact_below, top) if p == q and exact_below == 1 else _laid_up(p, q, exact_below, top)
    return Levels(lows=np.array([*range(exact_below), *lows], dtype=np.int64), top=top, k2=k2)


def _laid_up(p: int, q: int, first: int, top: int) -> list[int]:
    lows = []
    low = first
    while low <= top:
        lows.append(low)
        # The farthest value that the first of the bin allows; it decides how far the bin may reach.
        value = low + isqrt(p * low // q)
        # One past the largest high with (high − value)² ≤ k2·high: the larger root of a quadratic, exactly.
        low = (2 * q * value + p + isqrt(4 * p * q * value + p * p)) // (2 * q) + 1
    return lows


def _laid_down(p: int, q: int, first: int, top: int) -> list[int]:
    lows = []
    high = top
    while high >= first:
        value = high - isqrt(p * high // q)
        # The smallest low with (value − low)² ≤ k2·low: the smaller root, rounded up exactly.
        root = isqrt(4 * p * q * value + p * p)
        lows.append(max(first, -((root - 2 * q * value - p) // (2 * q))))
        high = lows[-1] - 1
    return lows[::-1]


def _octave_edges(shift: int, largest: int) -> list[int]:
    """0, and in each [2^j, 2^(j+1)) bins of width 2^⌊(j+shift)/2⌋, from 1 to 2^j wide."""
    edges = [0]
    j = 0
    while (1 << j) <= largest:
        width = 1 << min(j, max(0, (j + shift) // 2))
        edges.extend(range(1 << j, 1 << (j + 1), width))
        j += 1
    return edges


def _square_octave_edges(largest: int) -> list[int]:
    """0, then {1, 2, 3}, and in each [4^k, 4^(k+1)) from 4 on bins of width 2·2^k."""
    edges = [0, 1]
    k = 1
    while (1 << 2 * k) <= largest:
        edges.extend(range(1 << 2 * k, 1 << 2 * (k + 1), 2 << k))
        k += 1
    return edges


def huang_levels(preset: str, gain: Fraction, top: int) -> Levels:
    """The power-of-two bins of the X-ray ptychography work, cheap in a detector's logic.

    They have 511, 255 and 191 levels for 14-bit counts: ``huang-255`` doubles its bin width at
    every other power of two, ``huang-191`` at every power of four, ``huang-511`` is the rule of 255
    on quarter counts (so three of its levels lie between whole counts and are never reached when
    the gain is 1).

    Parameters
    ----------
    preset : {"huang-511", "huang-255", "huang-191"}
        Which table.
    gain : Fraction
        ADU per count.
    top : int
        Largest value in ADU above the offset.

    Returns
    -------
    Levels

    Raises
    ------
    ConfigurationError
        If whole ADU of this gain cannot meet the bound of the table.
    """
    bound = preset_bound(preset)
    if bound is None:
        raise ConfigurationError(f"preset {preset!r} has no fixed table; use optimal_levels")
    units = (4 if preset == "huang-511" else 1) / gain
    largest = int(top * units)
    _refuse_too_many(4 * isqrt(largest + 1))
    edges = _square_octave_edges(largest) if preset == "huang-191" else _octave_edges(1, largest)
    lows = [ceil(edge / units) for edge in edges if edge <= largest]
    return Levels(lows=np.array(lows, dtype=np.int64), top=top, k2=bound * gain)
