"""Roots of doses: what the networks know of a pattern as a whole."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["dose_roots"]

Array = np.ndarray[Any, Any]


def dose_roots(doses: Array) -> Array:
    """``floor(4096 * sqrt(dose / 4096))`` of doses below 2**16: int32, below 2**14."""
    root = np.sqrt(doses.astype(np.float64) * 4096).astype(np.int64)
    # A double is off by less than one, and only squares decide.
    root -= root * root > doses.astype(np.int64) * 4096
    root += (root + 1) * (root + 1) <= doses.astype(np.int64) * 4096
    return root.astype(np.int32)
