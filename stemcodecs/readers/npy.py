"""NumPy .npy files."""

from __future__ import annotations

from functools import partial
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy_format

from stemcodecs.errors import SourceError, UnsupportedDtypeError
from stemcodecs.readers.file_array import open_file_array
from stemcodecs.readers.scan import Scan

__all__ = ["open_npy", "read_npy_header"]


def open_npy(path: str) -> Scan:
    """Open a .npy file; arrays in Fortran order are read in their own dimension order too.

    Raises
    ------
    SourceError
        The header is broken or the file is truncated.
    UnsupportedDtypeError
        The array holds objects or records.
    """
    with open(path, "rb") as file:
        shape, fortran, dtype = read_npy_header(file, path)
        offset = file.tell()
    opener = partial(open_file_array, path, offset, shape, dtype, fortran=fortran, exact=False)
    return Scan(path=path, format="NumPy .npy", opener=opener)


def read_npy_header(file: BinaryIO, path: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and dtype; leaves the file at the first value."""
    try:
        version = npy_format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = npy_format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, fortran, dtype = npy_format.read_array_header_2_0(file)
        else:
            raise UnsupportedDtypeError(
                f"{path}: .npy version {version} holds records; save the counts as a plain array"
            )
    except ValueError as error:
        raise SourceError(f"{path}: broken .npy header ({error}); restore the file") from error
    if dtype.hasobject or dtype.names is not None:
        raise UnsupportedDtypeError(
            f"{path}: cannot store Python objects or records ({dtype}); save the counts as a plain array"
        )
    return shape, fortran, dtype
