"""What loss costs, in the currency of the microscope: dose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stemcodecs.errors import ConfigurationError
from stemcodecs.metrics.arguments import pair

__all__ = ["dose_equivalent"]

Array = np.ndarray[Any, Any]


def dose_equivalent(
    original: ArrayLike,
    decoded: ArrayLike,
    statistic: Callable[[Array], float],
    *,
    refinements: int = 3,
    smallest: float = 2.0**-10,
    seed: int = 0,
) -> float:
    """The fraction of the dose at which counting noise costs as much as the loss does.

    Each count N of the original is thinned, N_f ~ Binomial(N, f): exactly a measurement at the fraction f of the dose,
    where the original is Poisson. The result is the f at which ``statistic(N_f / f) = statistic(decoded)``. It is
    bracketed by halving f, the bracket is halved in 1/f, and between its ends the statistic is taken as straight in
    1/f, which it is exactly for mean squared errors: the variance of N_f / f is N/f about the rate, N(1/f − 1) about N.

    Parameters
    ----------
    original : array_like
        Counts, whole numbers of any dtype.
    decoded : array_like
        What loss made of them, of the same shape.
    statistic : callable
        Takes counts on the scale of the original and gives an error that grows as the dose falls: `phase_mse` of a
        reconstruction, a resolution as a length, a mean squared error. Called 3 + log2(1/f) + `refinements` times at
        most.
    refinements : int
        How often the bracket is halved.
    smallest : float
        Fraction below which no one looks.
    seed : int
        Chooses the electrons that are left out; the result is the same for the same seed.

    Returns
    -------
    float
        1 where the loss costs nothing (or makes things better), 0.9 where a tenth of the dose could have been saved
        instead, 0 where it costs more than all but `smallest` of the dose.

    Raises
    ------
    ConfigurationError
        The original holds no whole counts, shapes differ, or the statistic gives no finite number.
    """
    counts, lossy = pair(original, decoded)
    if counts.dtype.kind == "c" or counts.min() < 0 or (counts != np.floor(counts)).any():
        raise ConfigurationError("only counts can be thinned; the original must hold whole numbers, not negative")
    if refinements < 0 or not 0 < smallest < 1:
        raise ConfigurationError(
            f"refinements must not be negative and smallest between 0 and 1; got {refinements} and {smallest}"
        )
    whole = counts.astype(np.int64)

    def error(values: Array) -> float:
        result = float(statistic(values))
        if not np.isfinite(result):
            raise ConfigurationError(f"the statistic gave {result}; give one that is finite for every dose")
        return result

    def thinned(inverse: float) -> float:
        rng = np.random.default_rng(seed)
        return error(rng.binomial(whole, 1.0 / inverse) * inverse)

    cost = error(lossy)
    # In 1/f: (low, error at low) lies below the cost, (high, error at high) at or above it.
    low, at_low = 1.0, error(counts)
    if cost <= at_low:
        return 1.0
    high, at_high = 2.0, thinned(2.0)
    while at_high < cost:
        low, at_low, high = high, at_high, 2.0 * high
        if high * smallest > 1.0:
            return 0.0
        at_high = thinned(high)
    for _ in range(refinements):
        middle = (low + high) / 2.0
        at_middle = thinned(middle)
        if at_middle < cost:
            low, at_low = middle, at_middle
        else:
            high, at_high = middle, at_middle
    return 1.0 / (low + (high - low) * (cost - at_low) / (at_high - at_low))
