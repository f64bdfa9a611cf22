"""What was added to the counts of every pixel: one number, one of each row and column, or one of each pixel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["poisson_offsets", "zeros_of_pixels"]

Array = np.ndarray[Any, Any]

_SURE = 3
"""Expected number of values without counts from which the lowest value of a pixel is its offset."""
_MOST = 0.85
"""Share of the pixels that a simpler map must explain: the others are dead, hot, or masked."""
_FEWEST_SURE = 0.02


def poisson_offsets(low: Array, mean: Array, n: int) -> tuple[Array, Array]:
    """What was added to Poisson counts of which only the mean and the lowest of ``n`` are known, and their mean."""
    rates = np.geomspace(1e-3, 1e5, 400)
    rate = np.interp(mean - low, np.maximum.accumulate(rates - _lowest_of(rates, n)), rates)
    return np.rint(mean - rate), rate


def _lowest_of(rates: Array, n: int) -> Array:
    """About the lowest of ``n`` Poisson counts."""
    # Below the mean by so many standard deviations lies the lowest of n (square-root transform).
    reach = math.sqrt(2 * math.log(max(n, 3))) * 0.5
    lowest = np.maximum(np.sqrt(rates + 0.375) - reach * 0.85, 0) ** 2
    return np.where(n * np.exp(-rates) > 1, 0.0, lowest)


def zeros_of_pixels(low: Array, mean: Array, n: int, detector: tuple[int, int], gain: float = 1.0) -> Array:
    """Value of zero counts of every pixel, int64[n_pixels], as simple a map as explains most of them.

    Parameters
    ----------
    low : int64[n_pixels]
        Lowest value of each pixel.
    mean : float64[n_pixels]
        Mean value of each.
    n : int
        Number of values that each has.
    detector : tuple of int
        Rows and columns of the detector.
    gain : float
        Values that a count takes, about.
    """
    estimates, rates = poisson_offsets(low / gain, mean / gain, n)
    sure = n * np.exp(-rates) > _SURE
    # A lowest value is a whole number of gains from zero counts, an estimate is not.
    own = np.where(sure, low, np.minimum(estimates.astype(np.int64), low)) if gain == 1 else low
    # Dead pixels have no counts to begin from.
    alive = mean > low
    if float(sure[alive].mean() if alive.any() else 0) < _FEWEST_SURE:
        return own
    common = np.full(low.size, _most_frequent(low[sure & alive]) if (sure & alive).any() else int(np.median(low[sure])))
    for simple in (common, _rows_and_columns(own, sure & alive, detector)):
        if simple is None:
            continue
        explained = _explains(simple, low, mean, n, gain)
        if float(explained[alive].mean()) > _MOST:
            return np.where(explained, simple, own)
    return own


def _most_frequent(values: Array) -> int:
    distinct, times = np.unique(values, return_counts=True)
    return int(distinct[np.argmax(times)])


def _explains(zeros: Array, low: Array, mean: Array, n: int, gain: float) -> Array:
    """Of which pixels the lowest value is about the lowest of Poisson counts above these zeros."""
    rates = np.maximum(mean - zeros, 0) / gain
    highest = _lowest_of(rates, n) + 1.5 + 0.5 * np.sqrt(rates)
    lowest_count = (low - zeros) / gain
    # What is lowest among many is known to a count or two, in dark pixels exactly.
    highest = np.where(n * np.exp(-rates) > 4 * _SURE, 0.5, highest)
    whole = np.abs(lowest_count - np.rint(lowest_count)) * gain < 1 + 0.1 * gain * lowest_count
    return (low >= zeros) & (lowest_count <= highest) & whole


def _rows_and_columns(own: Array, sure: Array, detector: tuple[int, int]) -> Array | None:
    """The sum of an offset of each row and one of each column that most pixels have; int64[n_pixels] or None."""
    if min(detector) < 2:
        return None
    image, known = own.reshape(detector), sure.reshape(detector)
    # From one row to the next the offsets of columns drop out.
    steps = _lower_medians(np.diff(image, axis=0), known[1:] & known[:-1])
    rows = np.concatenate([[0], np.cumsum(steps)])
    columns = _lower_medians((image - rows[:, None]).T, known.T)
    return (rows[:, None] + columns).reshape(-1)


def _lower_medians(lines: Array, known: Array) -> Array:
    """Median of what is known of each line; of all of it, where nothing is known."""
    known = known | ~known.any(axis=1, keepdims=True)
    ordered = np.sort(np.where(known, lines, np.iinfo(np.int64).max), axis=1)
    return ordered[np.arange(len(lines)), (known.sum(axis=1) - 1) // 2]
