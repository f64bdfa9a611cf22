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
        (y, x), mean 0, standard deviation 1.
    shift, scale : float
        ``shift + scale * frames`` are the frames in units of the movie.
    """

    measured: Array
    shift: float
    scale: float


def network_input(total: Array, masks: Array) -> Normalised:
    """Measurement over its number of open frames, shifted and scaled.

    Parameters
    ----------
    total : ndarray
        Sum of the masked frames, (y, x), any number.
    masks : ndarray of uint8
        (frames, y, x).
    """
    opened = np.maximum(masks.sum(axis=0, dtype=np.int64), 1)
    mean_frame = total.astype(np.float64) / opened
    shift = float(mean_frame.mean())
    scale = max(float(mean_frame.std()), _LEAST_SPREAD * abs(shift), 1e-9)
    return Normalised(measured=((mean_frame - shift) / scale).astype(np.float32), shift=shift, scale=scale)
