"""Contrast matching: make a simulated training object scatter as strongly as the specimen does.

From the on-detector encoding of Huang, Deng, Noonan, Tran, Fahim and Jacobsen ("Matrix
factorization approaches to lossy compression of ptychography data"): the object fractional
scattering κ is the counts that the object scatters divided by the counts of the probe, both read
off the mean diffraction pattern; the training object's contrast is multiplied by the factor η at
which its simulated mean pattern has the same κ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from stemcodecs.errors import ConfigurationError

__all__ = ["contrast_factor", "fractional_scattering", "probe_mask"]

Array = np.ndarray[Any, Any]


def probe_mask(pattern: Array, *, threshold: float = 0.5) -> Array:
    """Where the probe's own scattering lies: pixels above a share of the pattern's bright level.

    Parameters
    ----------
    pattern : ndarray, (det_y, det_x)
        The pattern without specimen (best), or the mean pattern of a scan.
    threshold : float
        Share of the bright level, which is the median over the brightest half of the counts.

    Returns
    -------
    ndarray of bool, (det_y, det_x)

    Raises
    ------
    ConfigurationError
        If the pattern holds no counts.
    """
    ordered = np.sort(np.asarray(pattern, np.float64), axis=None)[::-1]
    total = ordered.sum()
    if not total > 0:
        raise ConfigurationError("the mean pattern holds no counts: no probe can be found in it")
    brightest = ordered[: int(np.searchsorted(np.cumsum(ordered), total / 2)) + 1]
    return np.asarray(pattern) > threshold * np.median(brightest)


def fractional_scattering(mean_pattern: Array, probe: Array) -> float:
    """κ: counts scattered by the object per count of the probe, from a mean pattern (det_y, det_x).

    ``probe`` is the mask of :func:`probe_mask`: what falls outside was scattered there by the
    object.
    """
    inside = float(mean_pattern[probe].sum())
    if not inside > 0:
        raise ConfigurationError("the probe mask holds no counts; give the mask of this scan's probe")
    return float(mean_pattern[~probe].sum()) / inside


def contrast_factor(
    mean_pattern: Callable[[float], Array],
    kappa: float,
    probe: Array,
    *,
    largest: float = 16.0,
    tolerance: float = 1e-3,
) -> float:
    """η: the factor on the training object's contrast at which its mean pattern has the fraction κ.

    Parameters
    ----------
    mean_pattern : callable
        Gives the simulated mean pattern (det_y, det_x) of the training object with its contrast
        (phase and log-amplitude) multiplied by the argument.
    kappa : float
        Target, from :func:`fractional_scattering` of the experiment's mean pattern.
    probe : ndarray of bool
        The same mask for both.
    largest : float
        Upper end of the search.
    tolerance : float
        Relative width at which the bisection stops.

    Raises
    ------
    ConfigurationError
        If no factor up to ``largest`` scatters that much.
    """

    def excess(eta: float) -> float:
        return fractional_scattering(mean_pattern(eta), probe) - kappa

    if excess(0.0) >= 0:
        return 0.0
    # κ grows with contrast only until the phase wraps: walk up to the first crossing, then bisect.
    low, high = 0.0, 0.125
    while excess(high) < 0:
        low, high = high, high * 1.25
        if high > largest:
            raise ConfigurationError(
                f"the training object reaches no fractional scattering of {kappa:.4g} with "
                f"contrast up to {largest} "
                "times its own; use a training object with finer detail"
            )
    while high - low > tolerance * high:
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return (low + high) / 2
