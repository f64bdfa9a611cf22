"""Arrays that lie uncompressed in a file at an offset: raw binary, .npy, Nion Swift .ndata."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from stemcodecs.errors import SourceError
from stemcodecs.readers.frame_count import frames_to_read
from stemcodecs.readers.scan import Region

__all__ = ["FileArray", "array_bytes", "file_size", "frames_in_file", "open_file_array"]

_SPAN_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True)
class FileArray:
    """An array in a file, read with ordinary reads.

    Not a memory map: mapped pages count as the process's memory, and a file that shrinks or a
    network drive that fails under a map kills the process instead of raising an error.

    Parameters
    ----------
    path : str
        File to read; it is opened for each read, so that threads do not share a position.
    offset : int
        Position of the first value, in bytes.
    shape : tuple of int
        Shape of the array.
    dtype : numpy.dtype
        Dtype in the byte order of the file.
    fortran : bool
        The first dimension varies fastest in the file.
    """

    path: str
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool = False

    def read(self, region: Region) -> np.ndarray[Any, Any]:
        """Values of a region with explicit bounds."""
        with open(self.path, "rb", buffering=0) as file:
            if not self.fortran:
                return self._read(file, self.shape, region)
            return self._read(file, self.shape[::-1], region[::-1]).T

    def _read(self, file: BinaryIO, shape: tuple[int, ...], region: Region) -> np.ndarray[Any, Any]:
        block = np.empty([s.stop - s.start for s in region], self.dtype)
        self._fill(file, self.offset, shape, region, block)
        return block

    def _fill(
        self,
        file: BinaryIO,
        position: int,
        shape: tuple[int, ...],
        region: Region,
        block: np.ndarray[Any, Any],
    ) -> None:
        """Fill a block from the array of this shape at a position of the file.

        Whole rows are read straight into the block. Parts of short rows are cut out of longer
        reads: one read for each short run would be slower than reading what lies between them.
        """
        if block.size == 0:
            return
        start, stop = region[0].start, region[0].stop
        row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * self.dtype.itemsize
        position += start * row_bytes
        if all(s.stop - s.start == n for s, n in zip(region[1:], shape[1:], strict=True)):
            self._read_into(file, position, block)
        elif row_bytes > _SPAN_BYTES:
            for i in range(stop - start):
                self._fill(file, position + i * row_bytes, shape[1:], region[1:], block[i])
        else:
            rows = min(stop - start, max(1, _SPAN_BYTES // row_bytes))
            span = np.empty((rows, *shape[1:]), self.dtype)
            for i in range(0, stop - start, rows):
                part = span[: min(rows, stop - start - i)]
                self._read_into(file, position + i * row_bytes, part)
                block[i : i + rows] = part[(slice(None), *region[1:])]

    def _read_into(self, file: BinaryIO, position: int, block: np.ndarray[Any, Any]) -> None:
        view = block.reshape(-1).view(np.uint8).data
        file.seek(position)
        while view:
            count = file.readinto(view)  # type: ignore[attr-defined]
            if not count:
                raise OSError(f"the file ends {len(view)} bytes too early")
            view = view[count:]

    def close(self) -> None:
        """No file stays open between reads."""


def open_file_array(
    path: str, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any], fortran: bool, exact: bool
) -> FileArray:
    """Check the size of a file against the array that should be in it.

    Raises
    ------
    SourceError
        The file is shorter than the array, or with `exact` longer.
    """
    file_bytes, needed = file_size(path), offset + array_bytes(shape, dtype)
    if file_bytes < needed or (exact and file_bytes != needed):
        way_out = f"; {_whole_frames(file_bytes - offset, shape, dtype)}" if len(shape) > 2 and not fortran else ""
        raise SourceError(
            f"{path} has {file_bytes} bytes, but {dtype}{shape} at offset {offset} needs {needed}; "
            + ("give the right --shape, --dtype and --offset" if exact else "the file is truncated: restore it")
            + way_out
        )
    return FileArray(path=path, offset=offset, shape=shape, dtype=dtype, fortran=fortran)


def frames_in_file(
    path: str, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any], fortran: bool
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Shape of what is there of an array in a file, and a remark where something is missing.

    An array of which the end is missing becomes the stack of its whole frames.

    Raises
    ------
    SourceError
        Not one whole frame is there, or the frames do not lie one after the other.
    """
    available = file_size(path) - offset
    if available >= array_bytes(shape, dtype):
        return shape, ()
    if fortran:
        raise SourceError(f"{path}: truncated, and in Fortran order no frame of it is whole; restore it")
    said = int(np.prod(shape[:-2], dtype=np.int64))
    there = max(0, available) // max(1, array_bytes(shape[-2:], dtype))
    there, remarks = frames_to_read(path, said=said, there=there, wanted="partial")
    return (there, *shape[-2:]), remarks


def array_bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Size of an array in bytes, exact however large the shape is."""
    return int(np.prod([int(n) for n in shape], dtype=object)) * dtype.itemsize


def file_size(path: str) -> int:
    """Size of a file in bytes.

    Raises
    ------
    SourceError
        It is not there.
    """
    try:
        return os.path.getsize(path)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def _whole_frames(available: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    there = max(0, available) // max(1, array_bytes(shape[-2:], dtype))
    said = int(np.prod(shape[:-2], dtype=np.int64))
    return f"{there} whole frames of {said} are there: --partial takes at most those"
