"""External raw storage of HDF5: the values of a dataset lie in files without any structure, one after the other.

They are read here and not by HDF5, for two reasons. HDF5 takes the names relative to the working directory,
so that the same file would hold other values for a worker that was started elsewhere; and it reads what a file
is too short for as zeros.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np

from stemcodecs.readers.file_array import FileArray
from stemcodecs.readers.hdf5_contents import Contents
from stemcodecs.readers.scan import Region

__all__ = ["RawStorage", "has_raw_storage", "names_of_raw_storage"]


@dataclass(frozen=True)
class Segment:
    """A piece of a file.

    Parameters
    ----------
    name : str
        The file as the dataset names it.
    path : str
        Where that is.
    offset, size : int
        Bytes before the piece, and in it.
    """

    name: str
    path: str
    offset: int
    size: int


@dataclass(frozen=True, kw_only=True)
class RawStorage(FileArray):
    """An array in C order in pieces of files.

    Parameters
    ----------
    segments : tuple of Segment
        The pieces, in their order.
    """

    segments: tuple[Segment, ...]

    @classmethod
    def of(cls, path: str, node: Any) -> RawStorage:
        """Where the values of a dataset lie.

        Parameters
        ----------
        path : str
            The HDF5 file that the dataset is in.
        node : h5py.Dataset
            A dataset with external storage.
        """
        plist = node.id.get_create_plist()
        dtype, shape = np.dtype(node.dtype), tuple(int(n) for n in node.shape)
        left = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        segments = []
        for i in range(plist.get_external_count()):
            raw, offset, size = plist.get_external(i)
            name = os.fsdecode(raw)
            place = os.path.abspath(os.path.join(_folder(path), name))
            segments.append(Segment(name, place, int(offset), min(int(size), left)))
            left -= segments[-1].size
        used = tuple(s for s in segments if s.size)
        return cls(path=path, offset=0, shape=shape, dtype=dtype, segments=used)

    def files(self) -> list[str]:
        """Absolute paths of the files that are there."""
        return [s.path for s in self.segments if os.path.isfile(s.path)]

    def note_losses(self, contents: Contents) -> None:
        """Note what is missing of it."""
        position, itemsize = 0, self.dtype.itemsize
        for segment in self.segments:
            there = 0
            if os.path.isfile(segment.path):
                size, needed = os.path.getsize(segment.path), segment.offset + segment.size
                there = min(segment.size, max(0, size - segment.offset))
                reason = f"takes values from {segment.name}, which is truncated ({size:,} of {needed:,} bytes)"
            else:
                reason = f"takes values from {segment.name}, which is missing"
            if there < segment.size:
                contents.lose_bytes(position + there, segment.size - there, itemsize, reason)
            position += segment.size
        whole = itemsize * int(np.prod(self.shape, dtype=np.int64))
        if position < whole:
            reason = f"says only where {position:,} of its {whole:,} bytes are"
            contents.lose_bytes(position, whole - position, itemsize, reason)

    def read(self, region: Region) -> np.ndarray[Any, Any]:
        """Values of a region with explicit bounds."""
        with _Joined(self.segments) as file:
            return self._read(cast(BinaryIO, file), self.shape, region)


class _Joined:
    """Pieces of files as one file to read from."""

    def __init__(self, segments: tuple[Segment, ...]) -> None:
        self._segments = segments
        self._position = 0
        self._open: tuple[Segment, BinaryIO] | None = None

    def __enter__(self) -> _Joined:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._open is not None:
            self._open[1].close()

    def seek(self, position: int) -> None:
        """Continue at a position of the array."""
        self._position = position

    def readinto(self, view: memoryview) -> int:
        """Read from the piece at the position, at most to its end; 0 where a file ends too early."""
        start = 0
        for segment in self._segments:
            inside = self._position - start
            if inside < segment.size:
                file = self._file(segment)
                file.seek(segment.offset + inside)
                count = int(file.readinto(view[: segment.size - inside]) or 0)  # type: ignore[attr-defined]
                self._position += count
                return count
            start += segment.size
        return 0

    def _file(self, segment: Segment) -> BinaryIO:
        if self._open is None or self._open[0] != segment:
            if self._open is not None:
                self._open[1].close()
            file = open(segment.path, "rb", buffering=0)  # noqa: SIM115  (closed with the whole)
            self._open = segment, cast(BinaryIO, file)
        return self._open[1]


def has_raw_storage(node: Any) -> bool:
    """Whether the values of a dataset lie in files of their own."""
    return bool(node.id.get_create_plist().get_external_count())


def names_of_raw_storage(node: Any) -> list[str]:
    """Names of those files as the dataset has them."""
    plist = node.id.get_create_plist()
    return [os.fsdecode(plist.get_external(i)[0]) for i in range(plist.get_external_count())]


def _folder(path: str) -> str:
    """Folder that names of external storage are relative to: that of the file, unless the user says otherwise."""
    prefix = os.environ.get("HDF5_EXTFILE_PREFIX", "")
    origin = os.path.dirname(os.path.abspath(path))
    return os.path.join(os.getcwd(), prefix.replace("${ORIGIN}", origin, 1)) if prefix else origin
