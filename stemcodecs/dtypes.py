"""Which dtypes can be stored at all."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.errors import UnsupportedDtypeError

__all__ = ["require_numeric"]


def require_numeric(name: str, dtype: np.dtype[Any]) -> None:
    """Refuse dtypes without a numeric order; complex data has no counts in it.

    Parameters
    ----------
    name : str
        Who asks; starts the message.
    dtype : dtype
        Of the values.

    Raises
    ------
    UnsupportedDtypeError
        For anything but booleans, integers and real floats.
    """
    if dtype.kind not in "biuf":
        raise UnsupportedDtypeError(
            f"{name}: cannot store dtype {dtype}; store real numbers "
            "(complex data as two arrays: real and imaginary part)"
        )
