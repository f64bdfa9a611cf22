"""TVIPS series x_000.tvips, x_001.tvips, ...: whether all of it is there, and the whole frames of a truncated one.

Complete series are read by RosettaSciIO, which says where the numbers stand; it cannot open truncated ones.
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

from stemcodecs.errors import SourceError
from stemcodecs.readers.file_array import file_size
from stemcodecs.readers.identity import Identity
from stemcodecs.readers.mapped_frames import FileMap, open_frames
from stemcodecs.readers.scan import BlockSource, Region, Scan

__all__ = ["is_truncated_tvips", "open_truncated_tvips", "refuse_broken_series", "series_files"]

_GENERAL_HEADER_BYTES = 52
_FRAME_HEADER_BYTES_1 = 12


@dataclass(frozen=True, kw_only=True)
class SeriesPart:
    """One file of a series.

    Parameters
    ----------
    frames : FileMap
        Where its frames lie.
    count : int
        Its whole frames.
    rest : int
        Bytes of one more frame that is not whole.
    """

    frames: FileMap
    count: int
    rest: int


class SeriesFrames:
    """Frames of several files, one after the other."""

    def __init__(self, parts: list[SeriesPart]) -> None:
        self._sources: list[BlockSource] = [open_frames(p.frames, p.count) for p in parts if p.count]
        self._starts = np.cumsum([0, *(s.shape[0] for s in self._sources)])
        self.shape = (int(self._starts[-1]), *self._sources[0].shape[1:])
        self.dtype = self._sources[0].dtype

    def read(self, region: Region) -> np.ndarray[Any, Any]:
        """Values of a region with explicit bounds."""
        frames, *pixels = region
        block = np.empty([s.stop - s.start for s in region], self.dtype)
        for source, start, stop in zip(self._sources, self._starts, self._starts[1:], strict=False):
            first, last = max(frames.start, int(start)), min(frames.stop, int(stop))
            if first < last:
                inside = slice(first - int(start), last - int(start))
                block[first - frames.start : last - frames.start] = source.read((inside, *pixels))
        return block

    def close(self) -> None:
        """No file stays open between reads."""


def refuse_broken_series(path: str) -> None:
    """Make sure that RosettaSciIO reads every frame: it stops at the first part that is not there.

    Raises
    ------
    SourceError
        A part is missing, or ends within a frame.
    """
    parts = _parts(path)
    for part in parts:
        if part.rest:
            total = sum(p.count for p in parts)
            raise SourceError(
                f"{part.frames.path}: its last frame has {part.rest} of {part.frames.record_bytes} bytes; the file is "
                f"truncated: restore it, or take the {total} whole frames of the series with --partial"
            )


def is_truncated_tvips(path: str) -> bool:
    """Whether a file is the first of a series of which a part ends within a frame."""
    if not re.search(r"_000\.tvips$", path, re.IGNORECASE):
        return False
    return any(part.rest for part in _parts(path))


def open_truncated_tvips(path: str) -> Scan:
    """Open the whole frames of a series of which the last part is truncated.

    Raises
    ------
    SourceError
        A part before the last is truncated, or nothing is there.
    """
    parts = _parts(path)
    if any(part.rest for part in parts[:-1]) or not sum(part.count for part in parts):
        refuse_broken_series(path)
    frames = sum(part.count for part in parts)
    last = parts[-1]
    return Scan(
        path=path,
        format="TVIPS",
        opener=bound(SeriesFrames, parts),
        identity=Identity.of(series_files(path)),
        remarks=(
            f"the file is truncated: its last frame has {last.rest} of {last.frames.record_bytes} bytes and is left "
            f"out; {frames} whole frames are read",
        ),
    )


def _parts(path: str) -> list[SeriesPart]:
    """The parts of a series, all of the same kind as the first says."""
    with open(path, "rb") as file:
        header = file.read(_GENERAL_HEADER_BYTES)
    if len(header) < _GENERAL_HEADER_BYTES:
        return []
    size, version, columns, rows, bits = struct.unpack_from("<5I", header)
    head = struct.unpack_from("<I", header, 48)[0] if version == 2 else _FRAME_HEADER_BYTES_1
    if version not in (1, 2) or bits not in (8, 16) or not 0 < columns * rows < 1 << 32:
        return []  # what it is, RosettaSciIO says
    record = np.dtype([("head", f"V{head}"), ("data", f"<u{bits // 8}", (rows, columns))])
    parts = []
    for i, name in enumerate(series_files(path)):
        offset = size if i == 0 else 0
        count, rest = divmod(max(0, file_size(name) - offset), record.itemsize)
        frames = FileMap(path=name, offset=offset, shape=(count,), dtype=record, key="data")
        parts.append(SeriesPart(frames=frames, count=count, rest=rest))
    return parts


def series_files(path: str) -> list[str]:
    """Files of the series that a file begins, all of which are there."""
    found = re.fullmatch(r"(.*)(\d{3})(\.\w+)", path, re.DOTALL)
    if found is None:
        return [path]
    stem, _, extension = found.groups()
    there = glob.glob(f"{glob.escape(stem)}[0-9][0-9][0-9]{glob.escape(extension)}")
    last = max((int(name[len(stem) : len(stem) + 3]) for name in there), default=0)
    names = [f"{stem}{number:03}{extension}" for number in range(last + 1)]
    for name in names:
        if not os.path.exists(name):
            raise SourceError(
                f"{path}: the part {os.path.basename(name)} of the series is missing; put it next to the others"
            )
    return names
