"""Which whole numbers of a dtype the quantiser handles."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.errors import UnsupportedDtypeError

__all__ = ["value_limits"]

_FLOAT_LIMITS = {4: 1 << 24, 8: (1 << 32) - 1}
"""Up to here float32 holds every whole number; float64 would go further than codes of 32 bits."""


def value_limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    """Smallest and largest whole number of a dtype that the quantiser handles.

    Raises
    ------
    UnsupportedDtypeError
        For anything but integers of 8, 16 and 32 bits and floats of 32 and 64 bits.
    """
    if dtype.kind in "iu" and dtype.itemsize <= 4:
        return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    if dtype.kind == "f" and dtype.itemsize in _FLOAT_LIMITS:
        limit = _FLOAT_LIMITS[dtype.itemsize]
        return -limit, limit
    raise UnsupportedDtypeError(
        f"Poisson quantisation cannot store dtype {dtype}; "
        "use integers of 8, 16 or 32 bits, or float32 / float64 that hold whole counts"
    )
