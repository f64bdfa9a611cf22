"""NumPy .npy files."""

from __future__ import annotations

from functools import partial as bound
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy_format

from stemcodecs.errors import SourceError, StemcodecsError, UnsupportedDtypeError
from stemcodecs.readers.file_array import array_bytes, file_size, frames_in_file, open_file_array
from stemcodecs.readers.scan import Scan

__all__ = ["open_npy", "read_npy_header"]

_MAGIC = b"\x93NUMPY"


def open_npy(path: str, *, partial: bool = False) -> Scan:
    """Open a .npy file; arrays in Fortran order are read in their own dimension order too.

    Parameters
    ----------
    path : str
        The file.
    partial : bool
        Take the whole frames of a truncated file, and the first array where something follows it.

    Raises
    ------
    SourceError
        The header is broken, the file is truncated, or something follows the array.
    UnsupportedDtypeError
        The array holds objects or records.
    """
    with open(path, "rb") as file:
        shape, fortran, dtype = read_npy_header(file, path)
        offset = file.tell()
    remarks: tuple[str, ...] = ()
    if partial:
        shape, remarks = frames_in_file(path, offset, shape, dtype, fortran)
    left = file_size(path) - offset - array_bytes(shape, dtype)
    if left > 0 and not remarks:
        follows = _what_follows(path, file_size(path) - left, left)
        # A few bytes are padding; what is as long as a frame may be one.
        if not partial and (follows.startswith("another") or left >= array_bytes(shape[-2:], dtype)):
            raise SourceError(
                f"{path}: {follows} after its array {dtype}{shape}; save each array in its own file, "
                "or take the first with --partial"
            )
        remarks = (f"{follows} after the array; left out",)
    return Scan(
        path=path,
        format="NumPy .npy",
        opener=bound(open_file_array, path, offset, shape, dtype, fortran=fortran, exact=False),
        remarks=remarks,
    )


def read_npy_header(file: BinaryIO, path: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and dtype; leaves the file at the first value.

    Raises
    ------
    SourceError
        The header is broken.
    UnsupportedDtypeError
        The array holds objects or records.
    """
    try:
        version = npy_format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = npy_format.read_array_header_1_0(file)
        elif version in ((2, 0), (3, 0)):
            # Version 3 differs from 2 in the encoding only, for the names of records, which are refused below.
            shape, fortran, dtype = npy_format.read_array_header_2_0(file)
        else:
            raise SourceError(f"{path}: .npy version {version} is not known; save the array with a current NumPy")
    except StemcodecsError:
        raise
    except Exception as error:  # NumPy parses the header as Python text: a damaged one fails in many ways
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SourceError(f"{path}: broken .npy header ({reason[:200]}); restore the file") from error
    if dtype.hasobject or dtype.names is not None or dtype.subdtype is not None:
        raise UnsupportedDtypeError(
            f"{path}: cannot store Python objects or records ({dtype}); save the counts as a plain array"
        )
    if any(n < 0 for n in shape):
        raise SourceError(f"{path}: broken .npy header (shape {shape}); restore the file")
    return shape, fortran, dtype


def _what_follows(path: str, position: int, length: int) -> str:
    with open(path, "rb") as file:
        file.seek(position)
        start = file.read(len(_MAGIC))
        if start == _MAGIC:
            file.seek(position)
            try:
                shape, _, dtype = read_npy_header(file, path)
                return f"another array {dtype}{shape} follows"
            except (SourceError, UnsupportedDtypeError):
                return "another array follows"
    return f"{length} bytes follow"
