"""Raw binary: values and nothing else, so that the user says shape and dtype."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial as bound

import numpy as np
from numpy.typing import DTypeLike

from stemcodecs.errors import SourceError, UnsupportedDtypeError
from stemcodecs.readers.file_array import array_bytes, file_size, frames_in_file, open_file_array
from stemcodecs.readers.scan import Scan

__all__ = ["open_raw"]


def open_raw(path: str, shape: Sequence[int], dtype: DTypeLike, offset: int = 0, *, partial: bool = False) -> Scan:
    """Open a file of values in C order.

    Parameters
    ----------
    path : str
        The file.
    shape : sequence of int
        Shape of the array; together with `dtype` and `offset` it must account for every byte.
    dtype : dtype
        With byte order where the file is not in that of this machine: ``">u2"``, ``"<f4"``.
    offset : int
        Bytes of header to leave out.
    partial : bool
        Take the whole frames of a shorter file, and leave out what follows the array in a longer one.

    Raises
    ------
    SourceError
        The size of the file does not match.
    UnsupportedDtypeError
        No such dtype.
    """
    try:
        parsed = np.dtype(dtype)
    except TypeError as error:
        raise UnsupportedDtypeError(f"no dtype {dtype!r}; give one such as uint8, uint16, >u2 or float32") from error
    sizes = tuple(int(n) for n in shape)
    if min(sizes, default=0) < 1 or offset < 0:
        raise SourceError(f"shape {sizes} at offset {offset} cannot be; give positive sizes and a byte offset >= 0")
    if parsed.hasobject or parsed.names is not None or parsed.itemsize == 0:
        raise UnsupportedDtypeError(f"no numbers in dtype {dtype!r}; give one such as uint8, uint16, >u2 or float32")
    remarks: tuple[str, ...] = ()
    if partial:
        sizes, remarks = frames_in_file(path, offset, sizes, parsed, fortran=False)
        left = file_size(path) - offset - array_bytes(sizes, parsed)
        if left > 0 and not remarks:
            remarks = (f"{left} bytes after the array {parsed}{sizes} are left out",)
    opener = bound(open_file_array, path, offset, sizes, parsed, fortran=False, exact=not partial)
    return Scan(path=path, format="raw binary", opener=opener, metadata={"offset": offset}, remarks=remarks)
