"""DECTRIS master files (ARINA, QUADRO, EIGER): frames spread over data_000001, data_000002, ..."""

from __future__ import annotations

import math
from functools import partial as bound
from typing import Any

import numpy as np

from stemcodecs.errors import MissingPartError, SourceError
from stemcodecs.readers.hdf5_contents import Contents, taken_rows
from stemcodecs.readers.hdf5_layouts import PART, child, parts_group
from stemcodecs.readers.hdf5_parts import Examination
from stemcodecs.readers.scan import Region, Scan

__all__ = ["open_dectris"]

_DETECTOR = "entry/instrument/detector/detectorSpecific"


class FrameBlocks:
    """Frames of several datasets, one after the other.

    Parameters
    ----------
    path : str
        The master file.
    partial : bool
        Take the parts that are there.
    """

    def __init__(self, path: str, *, partial: bool = False) -> None:
        self._examination = Examination(path)
        try:
            self._open(path, partial)
        except BaseException:
            self._examination.close()
            raise

    def _open(self, path: str, partial: bool) -> None:
        master = self._examination.file(path)
        group = parts_group(master) or "entry/data"
        self._parts: list[Any] = []
        parts: list[Contents] = []
        chunks: list[Any] = []
        counts: list[int] = []
        missing: list[str] = []
        remarks: list[str] = []
        for name in _part_names(master, group):
            try:
                contents = self._examination.dataset(name)
            except MissingPartError:
                missing.append(name)
                continue
            rows, said = taken_rows(contents, path=path, name=name, partial=partial)
            remarks.extend(said)
            if rows:
                parts.append(contents)
                counts.append(rows)
                chunks.append(self._examination.node(path, name)[1].chunks)
                self._parts.append(self._examination.reader(name, partial=partial))
        if any(len(p.shape) != 3 or p.shape[1:] != parts[0].shape[1:] or p.dtype != parts[0].dtype for p in parts):
            raise SourceError(f"{path}: the parts of {group} differ in frame size or dtype; choose one with --dataset")
        frames, announced = sum(counts), _announced(master)
        if missing:
            behind = "the data file" + (" behind " if len(missing) == 1 else "s behind ") + _listed(missing)
            problem = f"{behind} {'is' if len(missing) == 1 else 'are'} missing"
            remedy = "put it next to the master file" if len(missing) == 1 else "put them next to the master file"
        elif frames < announced:
            problem = f"the run was to take {announced} frames, and {frames} are there"
            remedy = "find the rest"
        else:
            problem = ""
        if problem and (not partial or not parts):
            rest = ""
            if parts:
                rest = f", or take the {frames} frames that are there with --partial (one part alone with --dataset)"
            raise SourceError(f"{path}: {problem}; {remedy}{rest}")
        if not parts:
            raise SourceError(f"{path}: no part of {group} holds a frame; check the master file")
        if problem:
            remarks.append(f"{problem}; taken are the {frames} frames that are there, one after the other")
        self.identity = self._examination.identity()
        self.remarks = tuple(remarks)
        self.chunks = chunks[0]
        self.metadata = {"dataset": group, "parts": len(parts)}
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self.shape = (frames, *(int(n) for n in parts[0].shape[1:]))
        self.dtype = np.dtype(parts[0].dtype)

    def read(self, region: Region) -> np.ndarray[Any, Any]:
        """Values of a region with explicit bounds."""
        frames, *pixels = region
        block = np.empty([s.stop - s.start for s in region], self.dtype)
        for part, start, stop in zip(self._parts, self._starts, self._starts[1:], strict=False):
            first, last = max(frames.start, int(start)), min(frames.stop, int(stop))
            if first < last:
                inside = slice(first - int(start), last - int(start))
                block[first - frames.start : last - frames.start] = part((inside, *pixels))
        return block

    def close(self) -> None:
        """Close the file and the files that it links to."""
        self._parts = []
        self._examination.close()


def open_dectris(path: str, *, partial: bool = False) -> Scan:
    """Open a master file as one stack (frame, det_y, det_x).

    Parameters
    ----------
    path : str
        The master file; its parts lie below ``entry/data``, or below ``entry`` in older ones.
    partial : bool
        Take the frames that are there of an aborted run.

    Raises
    ------
    SourceError
        A data file is missing or does not fit the others, or there are fewer frames than the run was to take.
    """
    opener = bound(FrameBlocks, path, partial=partial)
    source = opener()
    chunks, metadata = source.chunks, source.metadata
    source.close()
    return Scan(
        path=path,
        format="HDF5 (DECTRIS master)",
        opener=opener,
        chunks=None if chunks is None else tuple(int(n) for n in chunks),
        metadata=metadata,
    )


def _part_names(master: Any, group: str) -> list[str]:
    """Paths of all parts in their order, those that the numbers leave out included."""
    numbers = {int(match[1]): key for key in master[group] if (match := PART.fullmatch(key))}
    first = min(1, *numbers)
    return [f"{group}/{numbers.get(i, f'data_{i:06}')}" for i in range(first, max(numbers) + 1)]


def _announced(master: Any) -> int:
    """Frames that the run was to take, as the master file was told at its beginning; 0 where it does not say."""
    said = []
    for name in ("nimages", "ntrigger"):
        node = child(master, f"{_DETECTOR}/{name}")
        try:
            said.append(int(np.asarray(node[()]).ravel()[0]))
        except (TypeError, ValueError, IndexError, OSError):
            said.append(1 if name == "ntrigger" else 0)
    return math.prod(max(0, n) for n in said)


def _listed(names: list[str]) -> str:
    shown = names if len(names) <= 3 else [*names[:2], f"{len(names) - 2} more"]
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " and " + shown[-1]
