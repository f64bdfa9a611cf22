"""Nion Swift .ndata / .ndata1: an uncompressed zip of data.npy and metadata.json."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from stemcodecs.errors import SourceError
from stemcodecs.readers.calibration import axes_from
from stemcodecs.readers.file_array import array_bytes, open_file_array
from stemcodecs.readers.hdf5_layouts import nion_axes
from stemcodecs.readers.npy import read_npy_header
from stemcodecs.readers.scan import Scan, small_attributes
from stemcodecs.zip_members import zip_members

__all__ = ["open_ndata"]


def open_ndata(path: str) -> Scan:
    """Open a Nion Swift .ndata file in place, without unpacking it.

    Raises
    ------
    SourceError
        The file is broken, or was packed with compression.
    """
    members = zip_members(path)
    entry = members["data.npy"]
    try:
        properties = json.loads(members["metadata.json"].read())
    except ValueError as error:
        raise SourceError(f"{path}: broken Nion Swift file ({error}); restore it") from error
    if not entry.stored:
        raise SourceError(f"{path}: data.npy is compressed inside; unpack it and give data.npy")
    with open(path, "rb") as file:
        file.seek(entry.offset())
        shape, fortran, dtype = read_npy_header(file, path)
        offset = file.tell()
    left = entry.offset() + entry.size - offset - array_bytes(shape, dtype)
    if left < 0:
        raise SourceError(f"{path}: data.npy ends before its array {dtype}{shape}; the file is truncated: restore it")
    if left > 0 and left >= array_bytes(shape[-2:], dtype):
        raise SourceError(
            f"{path}: {left} bytes follow the array {dtype}{shape} in data.npy; "
            "unpack it and give data.npy with --partial"
        )
    said: dict[str, Any] = properties if isinstance(properties, dict) else {}
    axes = axes_from(path, shape, nion_axes(said, shape))
    return Scan(
        path=path,
        format="Nion Swift .ndata",
        opener=partial(open_file_array, path, offset, shape, dtype, fortran=fortran, exact=False),
        axes=axes,
        metadata={"dataset": "data.npy", "attributes": small_attributes(said)},
    )
