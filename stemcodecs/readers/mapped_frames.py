"""Arrays of RosettaSciIO that lie uncompressed in a file: where they lie, and how many frames are really there.

RosettaSciIO maps as much of a file as its header says, without a look at the rest: frames beyond the header are dropped
and missing ones fail when they are read. Its Dask graphs say which file they map, from where and as what; that is the
only place that says so for all formats.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial as bound
from typing import Any

import numpy as np

from stemcodecs.errors import SourceError
from stemcodecs.readers.file_array import FileArray, array_bytes, file_size
from stemcodecs.readers.scan import BlockSource, Region

__all__ = ["FileMap", "file_map_of", "open_frames"]

_MAPPER = "slice_memmap"


@dataclass(frozen=True, kw_only=True)
class FileMap:
    """One array that is mapped from a file.

    Parameters
    ----------
    path : str
        File that holds the values; not always the one that was opened.
    offset : int
        Position of the first value, in bytes.
    shape : tuple of int
        Shape of the mapped array; of its records where `key` is given.
    dtype : numpy.dtype
        Dtype of the mapped array, records included.
    key : str or None
        Field of the records that holds the frame.
    fortran : bool
        The first dimension varies fastest in the file.
    """

    path: str
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    key: str | None = None
    fortran: bool = False

    @property
    def frame(self) -> tuple[int, ...]:
        """Shape of one frame."""
        return self.shape[-2:] if self.key is None else self.dtype[self.key].shape

    @property
    def record_bytes(self) -> int:
        """Bytes from one frame to the next."""
        return self.dtype.itemsize if self.key is not None else array_bytes(self.frame, self.dtype)

    @property
    def said(self) -> int:
        """Frames that the header says."""
        navigation = self.shape if self.key is not None else self.shape[:-2]
        return int(np.prod(navigation, dtype=np.int64))

    def there(self) -> int:
        """Whole frames from the first one to the end of the file."""
        return max(0, file_size(self.path) - self.offset) // max(1, self.record_bytes)

    @property
    def countable(self) -> bool:
        """Whether the frames lie one after the other, so that they can be counted and read alone."""
        return len(self.frame) == 2 and not self.fortran and self.record_bytes > 0

    def fits(self) -> bool:
        """Whether the file is as long as the array."""
        return file_size(self.path) >= self.offset + array_bytes(self.shape, self.dtype)


class RecordFrames:
    """Frames of records that hold more than a frame: a header, a footer."""

    def __init__(self, records: FileArray, key: str) -> None:
        self._records = records
        self._key = key
        field = records.dtype[key]
        self.shape = (*records.shape, *field.shape)
        self.dtype = field.base

    def read(self, region: Region) -> np.ndarray[Any, Any]:
        """Values of a region with explicit bounds."""
        frames: np.ndarray[Any, Any] = self._records.read(region[:1])[self._key]
        return frames[(slice(None), *region[1:])]

    def close(self) -> None:
        """No file stays open between reads."""


def open_frames(mapped: FileMap, count: int) -> BlockSource:
    """Open the first frames of a file as a stack (frame, y, x), whatever its header says.

    Raises
    ------
    SourceError
        So many are not there.
    """
    if mapped.there() < count:
        raise SourceError(f"{mapped.path} has fewer than {count} frames; the file was changed: start again")
    array = bound(FileArray, path=mapped.path, offset=mapped.offset, dtype=mapped.dtype)
    if mapped.key is None:
        return array(shape=(count, *mapped.frame))
    return RecordFrames(array(shape=(count,)), mapped.key)


def file_map_of(data: Any) -> FileMap | None:
    """What a lazy array of RosettaSciIO maps; None where it is no map of one file."""
    graph = getattr(data, "dask", None)
    found = {said["file"]: said for layer in getattr(graph, "layers", {}).values() for said in _mapper_options(layer)}
    if len(found) != 1:
        return None
    (said,) = found.values()
    shape = said["shape"]
    return FileMap(
        path=str(said["file"]),
        offset=int(said.get("offset", 0)),
        shape=tuple(int(n) for n in (shape if isinstance(shape, tuple | list) else (shape,))),
        dtype=np.dtype(said["dtypes"]),
        key=said.get("key"),
        fortran=said.get("order", "C") == "F",
    )


def _mapper_options(layer: Any) -> Iterator[dict[str, Any]]:
    """Arguments of the mapping function in a layer, from a task or from the older tuples of Dask."""
    task: Any = getattr(layer, "task", None)
    if getattr(getattr(task, "func", None), "__name__", "") == _MAPPER:
        yield dict(task.kwargs)
        return
    for value in getattr(layer, "dsk", None) or {}:
        found = layer.dsk[value]
        if _names_mapper(found):
            yield from _options_in(found)


def _names_mapper(node: Any) -> bool:
    if isinstance(node, tuple | list):
        return any(_names_mapper(part) for part in node)
    return getattr(node, "__name__", "") == _MAPPER


def _options_in(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict) and "dtypes" in node:
        yield node
    elif isinstance(node, tuple | list):
        if len(node) == 2 and node[0] is dict:
            # How a dictionary is spelled in a graph: (dict, [[key, value], ...]), lists and tuples as tasks again.
            yield from _options_in({str(key): _plain(value) for key, value in node[1]})
        else:
            for part in node:
                yield from _options_in(part)


def _plain(node: Any) -> Any:
    if isinstance(node, tuple) and len(node) == 2 and node[0] in (tuple, list):
        return tuple(_plain(part) for part in node[1])
    return node
