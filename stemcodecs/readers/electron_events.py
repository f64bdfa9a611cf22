"""Electron counting files of stempy (4D Camera): where each electron hit, frame by frame, read into counts.

Group ``electron_events`` with ``frames``, for each frame the flat indices of the pixels that were hit, and
``scan_positions``, the position at which each frame was taken; github.com/OpenChemistry/stempy. Version 1 repeats an
index for a second electron in a pixel, later versions give such a position a second frame: both are sums here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial as bound
from typing import Any

import numpy as np

from stemcodecs.errors import SourceError
from stemcodecs.readers.hdf5_files import open_file
from stemcodecs.readers.hdf5_layouts import child
from stemcodecs.readers.scan import Region, Scan, small_attributes

__all__ = ["is_electron_events", "open_electron_events"]

_FRAMES = "electron_events/frames"
_POSITIONS = "electron_events/scan_positions"
_DTYPE = np.dtype(np.uint16)
_FIRST_FLATTENED = 3
"""Version from which all frames of a position follow each other."""
_CONVERT = "write the counts as a dense array, with py4DSTEM or stempy for example, and give that"


class ElectronEvents:
    """Counts by frame, built from lists of hits when they are read.

    Parameters
    ----------
    file : h5py.File
        The open file; it is closed with this source.
    path : str
        Its path, for messages.
    """

    def __init__(self, file: Any, path: str) -> None:
        self._file = file
        self._path = path
        self._frames = file[_FRAMES]
        scan, frame = _sizes(path, file)
        self.shape = (*scan, *frame)
        self.dtype = _DTYPE
        positions = _positions(path, file, scan)
        # Frames by position: those of one position lie between two bounds of the sorted order.
        self._order = np.argsort(positions, kind="stable")
        self._bounds = np.searchsorted(positions[self._order], np.arange(scan[0] * scan[1] + 1))
        counts = np.diff(self._bounds)
        self.empty = int((counts == 0).sum())
        self.repeated = int((counts > 1).sum())

    def read(self, region: Region) -> np.ndarray[Any, Any]:
        """Counts of a region with explicit bounds.

        Raises
        ------
        SourceError
            A hit lies outside the detector, or a pixel has more electrons than uint16 can hold.
        """
        rows, columns, *detector = region
        block = np.empty([s.stop - s.start for s in region], self.dtype)
        for y in range(rows.start, rows.stop):
            first = y * self.shape[1]
            bounds = self._bounds[first + columns.start : first + columns.stop + 1]
            lists = self._lists(self._order[bounds[0] : bounds[-1]])
            for x, (begin, end) in enumerate(zip(bounds[:-1] - bounds[0], bounds[1:] - bounds[0], strict=True)):
                counts = self._counts(lists[begin:end], y, x + columns.start)
                block[y - rows.start, x] = counts.reshape(self.shape[2:])[tuple(detector)]
        return block

    def _counts(self, lists: Sequence[Any], y: int, x: int) -> np.ndarray[Any, Any]:
        """Electrons in each pixel at one position."""
        pixels, largest = self.shape[2] * self.shape[3], np.iinfo(self.dtype).max
        # So many hits cannot overflow even if all are in one pixel.
        small = sum(len(hits) for hits in lists) <= largest
        counts = np.zeros(pixels, self.dtype if small else np.int64)
        for hits in lists:
            if len(hits) and int(hits.max()) >= pixels:
                raise SourceError(
                    f"{self._path}: an electron at position ({y}, {x}) hits pixel {int(hits.max())} of {pixels}; "
                    "the file is damaged, or says a wrong detector size"
                )
            np.add.at(counts, hits, 1)
        if not small and counts.max() > largest:
            raise SourceError(f"{self._path}: a pixel at position ({y}, {x}) has {counts.max()} electrons")
        return counts

    def _lists(self, numbers: np.ndarray[Any, Any]) -> Sequence[Any]:
        """Lists of hits of some frames, in one read where they follow each other in the file."""
        if len(numbers) and np.array_equal(numbers, np.arange(numbers[0], numbers[0] + len(numbers))):
            return list(self._frames[int(numbers[0]) : int(numbers[-1]) + 1])
        return [self._frames[int(number)] for number in numbers]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def is_electron_events(file: Any) -> bool:
    """Whether an open HDF5 file is one of stempy's."""
    import h5py

    frames, positions = child(file, _FRAMES), child(file, _POSITIONS)
    return (
        isinstance(frames, h5py.Dataset)
        and isinstance(positions, h5py.Dataset)
        and h5py.check_vlen_dtype(frames.dtype) is not None
    )


def open_electron_events(path: str) -> Scan:
    """Open an electron counting file as a scan of counts, uint16.

    Raises
    ------
    SourceError
        It does not say the size of scan or detector, or its lists do not fit them.
    """
    opener = bound(_open_events, path)
    source = opener()
    try:
        remarks = [f"lists of electron hits are read as counts ({source.dtype.name}), as {_FRAMES} has them"]
        if source.repeated:
            remarks.append(f"{source.repeated} scan positions have several frames, which are added up")
        if source.empty:
            remarks.append(f"{source.empty} scan positions have no frame and are read as zeros")
        attributes = small_attributes(dict(source._file.attrs))
    finally:
        source.close()
    return Scan(
        path=path,
        format="HDF5 (stempy electron events)",
        opener=opener,
        metadata={"dataset": _FRAMES, "attributes": attributes},
        remarks=remarks,
    )


def _open_events(path: str) -> ElectronEvents:
    file = open_file(path)
    try:
        return ElectronEvents(file, path)
    except BaseException:
        file.close()
        raise


def _sizes(path: str, file: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """Shapes of scan and detector."""
    try:
        scan = tuple(int(file[_POSITIONS].attrs[name]) for name in ("Ny", "Nx"))
        # Of the detector stempy calls the rows Nx: its lists count along Ny first.
        frame = tuple(int(file[_FRAMES].attrs[name]) for name in ("Nx", "Ny"))
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"{path}: the electron events do not say the size of scan and detector (attributes Nx and Ny of "
            f"{_POSITIONS} and {_FRAMES}); {_CONVERT}"
        ) from error
    if min(*scan, *frame) < 1:
        raise SourceError(f"{path}: electron events of a scan {scan} and a detector {frame}; {_CONVERT}")
    return (scan[0], scan[1]), (frame[0], frame[1])


def _positions(path: str, file: Any, scan: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Flat scan position of each frame."""
    frames, positions = file[_FRAMES].shape, file[_POSITIONS].shape
    count = scan[0] * scan[1]
    problem = SourceError(
        f"{path}: {frames} lists of electrons and {positions} scan positions do not fit a scan {scan}; {_CONVERT}"
    )
    if len(frames) != 1 or len(positions) != 1:
        raise problem
    if positions == frames:
        found: np.ndarray[Any, Any] = np.asarray(file[_POSITIONS][()]).astype(np.int64)
        if found.size and not (found.min() >= 0 and found.max() < count):
            raise problem
        return found
    version = file.attrs.get("version", 1)
    if np.ndim(version) == 0 and version >= _FIRST_FLATTENED and frames[0] % count == 0 and frames[0] > 0:
        return np.repeat(np.arange(count), int(frames[0]) // count)
    raise problem
