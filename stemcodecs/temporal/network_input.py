"""What a network is given of a measurement: the same for training and for decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Normalised", "network_input"]

Array = np.ndarray[Any, Any]

_LEAST_SPREAD = 1e-3
"""Relative to the mean: a measurement without contrast is not blown up."""


@dataclass(frozen=True, kw_only=True)
class Normalised:
    """A measurement in units that do not depend on exposure and bit depth.

    Attributes
    ----------
    measured : ndarray of float32
        (planes, y, x), mean 0, standard deviation 1.
    shift, scale : float
        ``shift + scale * frames`` are the frames in units of the movie.
    """

    measured: Array
    shift: float
    scale: float


def network_input(total: Array, opened: Array) -> Normalised:
    """Measurement over how many values it sums, shifted and scaled.

    Parameters
    ----------
    total : ndarray
        Sums of masked frames, or of bins, (planes, y, x), any number.
    opened : ndarray of int64
        How many values each of them sums, (planes, y, x).
    """
    mean_frame = total.astype(np.float64) / np.maximum(opened, 1)
    shift = float(mean_frame.mean())
    scale = max(float(mean_frame.std()), _LEAST_SPREAD * abs(shift), 1e-9)
    return Normalised(measured=((mean_frame - shift) / scale).astype(np.float32), shift=shift, scale=scale)
