"""DECTRIS master files (ARINA, QUADRO, EIGER): frames spread over data_000001, data_000002, ..."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from stemcodecs.errors import SourceError
from stemcodecs.readers.scan import Region, Scan

__all__ = ["open_dectris"]

_GROUP = "entry/data"


class FrameBlocks:
    """Frames of several datasets, one after the other."""

    def __init__(self, file: Any, parts: list[Any]) -> None:
        self._file = file
        self._parts = parts
        self._starts = np.concatenate([[0], np.cumsum([len(p) for p in parts])])
        self.shape = (int(self._starts[-1]), *(int(n) for n in parts[0].shape[1:]))
        self.dtype = np.dtype(parts[0].dtype)

    def read(self, region: Region) -> np.ndarray[Any, Any]:
        """Values of a region with explicit bounds."""
        frames, *pixels = region
        block = np.empty([s.stop - s.start for s in region], self.dtype)
        for part, start, stop in zip(self._parts, self._starts, self._starts[1:], strict=False):
            first, last = max(frames.start, int(start)), min(frames.stop, int(stop))
            if first < last:
                inside = slice(first - int(start), last - int(start))
                block[first - frames.start : last - frames.start] = part[(inside, *pixels)]
        return block

    def close(self) -> None:
        """Close the file and the files that it links to."""
        self._file.close()


def open_dectris(path: str) -> Scan:
    """Open a master file as one stack (frame, det_y, det_x).

    Raises
    ------
    SourceError
        A data file is missing or does not fit the others.
    """
    opener = partial(_open_frames, path)
    source = opener()
    chunks = source._parts[0].chunks
    names = [p.name for p in source._parts]
    source.close()
    return Scan(
        path=path,
        format="HDF5 (DECTRIS master)",
        opener=opener,
        chunks=None if chunks is None else tuple(int(n) for n in chunks),
        metadata={"dataset": _GROUP, "parts": len(names)},
    )


def _open_frames(path: str) -> FrameBlocks:
    from stemcodecs.readers.hdf5 import check_readable, open_file

    file = open_file(path)
    try:
        group = file[_GROUP]
        parts = []
        for name in sorted(n for n in group if n.startswith("data_")):
            try:
                part = group[name]
            except (KeyError, OSError) as error:
                raise SourceError(
                    f"{path}: the data file behind {_GROUP}/{name} is missing; put it next to the master file"
                ) from error
            check_readable(part, path)
            parts.append(part)
        if any(p.shape[1:] != parts[0].shape[1:] or p.dtype != parts[0].dtype for p in parts):
            raise SourceError(f"{path}: the parts of {_GROUP} differ in frame size or dtype; choose one with --dataset")
        return FrameBlocks(file, parts)
    except BaseException:
        file.close()
        raise
