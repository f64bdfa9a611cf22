"""Nion Swift .ndata / .ndata1: an uncompressed zip of data.npy and metadata.json."""

from __future__ import annotations

import json
import zipfile
from functools import partial
from typing import Any

from stemcodecs.errors import SourceError
from stemcodecs.readers.calibration import axes_from
from stemcodecs.readers.file_array import open_file_array
from stemcodecs.readers.hdf5_layouts import nion_axes
from stemcodecs.readers.npy import read_npy_header
from stemcodecs.readers.scan import Scan, small_attributes

__all__ = ["open_ndata"]

_LOCAL_HEADER_BYTES = 30


def open_ndata(path: str) -> Scan:
    """Open a Nion Swift .ndata file in place, without unpacking it.

    Raises
    ------
    SourceError
        The file is broken, or was packed with compression.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entry = archive.getinfo("data.npy")
            properties = json.loads(archive.read("metadata.json"))
    except (zipfile.BadZipFile, ValueError) as error:
        raise SourceError(f"{path}: broken Nion Swift file ({error}); restore it") from error
    if entry.compress_type != zipfile.ZIP_STORED:
        raise SourceError(f"{path}: data.npy is compressed inside; unpack it and give data.npy")
    with open(path, "rb") as file:
        # Only the local header says where the values start: name and extra field vary in length.
        file.seek(entry.header_offset)
        header = file.read(_LOCAL_HEADER_BYTES)
        name_bytes = int.from_bytes(header[26:28], "little")
        extra_bytes = int.from_bytes(header[28:30], "little")
        file.seek(entry.header_offset + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes)
        shape, fortran, dtype = read_npy_header(file, path)
        offset = file.tell()
    said: dict[str, Any] = properties if isinstance(properties, dict) else {}
    axes = axes_from(path, shape, nion_axes(said, shape))
    return Scan(
        path=path,
        format="Nion Swift .ndata",
        opener=partial(open_file_array, path, offset, shape, dtype, fortran=fortran, exact=False),
        axes=axes,
        metadata={"dataset": "data.npy", "attributes": small_attributes(said)},
    )
