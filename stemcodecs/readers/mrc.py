"""MRC stacks and maps: .mrc, .mrcs, .st, .rec, .map, .ali, .preali.

The header is that of MRC2014 (Cheng et al., J. Struct. Biol. 192 (2015), 146, doi:10.1016/j.jsb.2015.04.002), which
older files share as far as it is read here. Values are read as they lie in the file.
"""

from __future__ import annotations

import glob
import os
import re
import struct
from dataclasses import dataclass
from functools import partial as bound
from typing import Any

import numpy as np

from stemcodecs.errors import SourceError, UnsupportedDtypeError
from stemcodecs.readers.calibration import axes_from, axis_named
from stemcodecs.readers.file_array import file_size, open_file_array
from stemcodecs.readers.frame_count import Frames, frames_to_read
from stemcodecs.readers.scan import Axis, Scan

__all__ = ["is_mrc", "open_mrc"]

_HEADER_BYTES = 1024
_EXTENSIONS = (".mrc", ".mrcs", ".st", ".rec", ".map", ".ali", ".preali")
_DTYPES = {0: "u1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_NOT_READ = {
    3: "complex numbers of two 16-bit integers",
    4: "complex numbers",
    16: "colours",
    101: "two 4-bit values in each byte",
}
_IMOD_STAMP = 1146047817
_LARGEST_SIDE = 1 << 20
_FEI_EXTENDED = 128 * 1024
_FEI_PIXEL_SIZE = _HEADER_BYTES + 44
_NM_PER_ANGSTROM = 0.1
# Direct Electron writes the shape of a scan into a text file next to the movie.
_DE_MOVIE = re.compile(r"(\d{8}_\d+_).*movie\.mrc")


@dataclass(frozen=True, kw_only=True)
class _Header:
    columns: int
    rows: int
    sections: int
    mode: int
    signed: bool
    order: str
    extended: int
    cell: tuple[float, float]
    """Size of a pixel in ångström, rows first; 0 where the header does not say."""
    origin: tuple[float, float]

    @property
    def plausible(self) -> bool:
        """Whether these could be the numbers of a header at all."""
        sides = 0 < self.columns <= _LARGEST_SIDE and 0 < self.rows <= _LARGEST_SIDE
        known = self.mode in _DTYPES or self.mode in _NOT_READ
        return sides and known and self.sections >= 0 and self.extended >= 0


def is_mrc(path: str) -> bool:
    """Whether a file is MRC: by its stamp, or by its extension and a header that makes sense.

    A movie of Direct Electron with its text file is not, as that says the shape of the scan: RosettaSciIO reads both.
    """
    name = os.path.basename(path)
    movie = _DE_MOVIE.fullmatch(name)
    if movie and glob.glob(os.path.join(glob.escape(os.path.dirname(path)), f"{movie[1]}*info.txt")):
        return False
    start = _start(path)
    if len(start) < _HEADER_BYTES:
        return False
    header = _parse(start)
    stamped = start[208:212] == b"MAP "
    return header.plausible and (stamped or os.path.splitext(name)[1].lower() in _EXTENSIONS)


def open_mrc(path: str, *, frames: Frames = "said") -> Scan:
    """Open an MRC file as a stack (frame, det_y, det_x), or as one pattern.

    Parameters
    ----------
    path : str
        The file.
    frames : str
        Which frames are read where the file holds more or fewer than its header says.

    Raises
    ------
    SourceError
        The header is broken, or does not say as many frames as the file holds.
    UnsupportedDtypeError
        The values are complex, or packed.
    """
    start = _start(path)
    header = _parse(start)
    if header.mode in _NOT_READ:
        raise UnsupportedDtypeError(
            f"{path}: MRC mode {header.mode} ({_NOT_READ[header.mode]}) is not read; "
            "convert it to mode 0, 1, 2 or 6, with newstack of IMOD for example"
        )
    if not header.plausible:
        raise SourceError(f"{path}: broken MRC header; restore the file")
    dtype = np.dtype(f"{header.order}{_DTYPES[header.mode]}")
    remarks: tuple[str, ...] = ()
    if header.mode == 0:
        # MRC2014 has signed bytes; IMOD and most cameras write unsigned ones under the same mode.
        dtype = np.dtype("i1" if header.signed else "u1")
        remarks = (f"bytes of MRC mode 0 are read as {dtype.name}",)
    offset = _HEADER_BYTES + header.extended
    frame_bytes = header.rows * header.columns * dtype.itemsize
    there = max(0, file_size(path) - offset) // frame_bytes
    count, said = frames_to_read(path, said=header.sections, there=there, wanted=frames)
    shape = (header.rows, header.columns) if count == header.sections == 1 else (count, header.rows, header.columns)
    return Scan(
        path=path,
        format="MRC",
        opener=bound(open_file_array, path, offset, shape, dtype, fortran=False, exact=False),
        axes=_axes(path, shape, header, start),
        metadata={"mode": header.mode},
        remarks=(*remarks, *said),
    )


def _start(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(_FEI_PIXEL_SIZE + 4)


def _parse(start: bytes) -> _Header:
    """The header in the byte order of its stamp, or in the one that makes sense."""
    stamp = start[212:214]
    if stamp == b"\x11\x11":
        return _parse_as(">", start)
    little = _parse_as("<", start)
    if stamp in (b"DD", b"DA", b"D\x00") or little.plausible:
        return little
    big = _parse_as(">", start)
    return big if big.plausible else little


def _parse_as(order: str, start: bytes) -> _Header:
    def said(kind: str, position: int) -> Any:
        values = struct.unpack_from(f"{order}{kind}", start, position)
        return values if len(values) > 1 else values[0]

    columns, rows, sections, mode = said("4i", 0)
    grid, lengths, origin = said("3i", 28), said("3f", 40), said("3f", 196)
    cell = [length / n if n > 0 and np.isfinite(length) else 0.0 for length, n in zip(lengths, grid, strict=True)]
    if said("i", 152) == _IMOD_STAMP:
        signed = bool(said("i", 156) & 1)
    else:
        signed = said("i", 108) in (20140, 20141) or said("f", 76) < 0
    return _Header(
        columns=columns,
        rows=rows,
        sections=sections,
        mode=mode,
        signed=signed,
        order=order,
        extended=said("i", 92),
        cell=(cell[1], cell[0]),
        origin=(origin[1], origin[0]),
    )


def _axes(path: str, shape: tuple[int, ...], header: _Header, start: bytes) -> tuple[Axis, ...]:
    given: list[Axis | None] = [None] * (len(shape) - 2)
    fei = header.extended == _FEI_EXTENDED and len(start) >= _FEI_PIXEL_SIZE + 4
    pixel = struct.unpack_from(f"{header.order}f", start, _FEI_PIXEL_SIZE)[0] * 1e9 if fei else 0.0
    for size, cell, origin in zip(shape[-2:], header.cell, header.origin, strict=True):
        if np.isfinite(pixel) and pixel > 0:
            given.append(axis_named("", size, pixel, 0.0, "nm"))
        elif cell > 0:
            given.append(axis_named("", size, cell * _NM_PER_ANGSTROM, origin * _NM_PER_ANGSTROM, "nm"))
        else:
            given.append(None)
    return axes_from(path, shape, given)
