"""Files that other programs read, written one block at a time: .npy, HDF5, and Zarr that needs no stemcodecs."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from stemcodecs.readers.scan import Region
from stemcodecs_pipelines.run.plan import Plan

__all__ = ["SINKS", "OutputAxis", "Sink"]

_CANNOT_RESERVE = {errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS}
"""What file systems answer that cannot take room in advance."""


@dataclass(frozen=True, kw_only=True)
class OutputAxis:
    """A dimension with its coordinates.

    Parameters
    ----------
    name : str
        Name of the dimension.
    values : ndarray of shape (size,)
        Coordinates.
    attributes : dict
        Units and calibration.
    """

    name: str
    values: np.ndarray[Any, Any]
    attributes: dict[str, Any]


class Sink(Protocol):
    """An open file."""

    def write(self, region: Region, block: np.ndarray[Any, Any]) -> None:
        """Write one block.

        Raises
        ------
        OSError
            The disk is full, for example.
        """

    def close(self) -> None:
        """Write what is left, see it to the disk, and close."""

    def abandon(self) -> None:
        """Close without caring what becomes of the content."""


class _NpySink:
    def __init__(self, path: str, plan: Plan, axes: list[OutputAxis]) -> None:
        from numpy.lib import format as npy

        self.shape, self.dtype = plan.shape, np.dtype(plan.dtype)
        self.file = open(path, "w+b", buffering=0)  # noqa: SIM115
        try:
            header = {"descr": npy.dtype_to_descr(self.dtype), "fortran_order": False, "shape": plan.shape}
            npy.write_array_header_1_0(self.file, header)
            self.offset = self.file.tell()
            _reserve(self.file.fileno(), path, self.offset + plan.raw_bytes)
        except BaseException:
            self.abandon()
            raise

    def write(self, region: Region, block: np.ndarray[Any, Any]) -> None:
        # The longest run of values that is contiguous in the file.
        whole = len(self.shape)
        while whole > 0 and region[whole - 1] == slice(0, self.shape[whole - 1]):
            whole -= 1
        outer = region[: max(0, whole - 1)]
        strides = np.cumprod([1, *self.shape[:0:-1]])[::-1].astype(np.int64)
        rest = sum(int(s.start * t) for s, t in zip(region[len(outer) :], strides[len(outer) :], strict=True))
        for position in np.ndindex(*(s.stop - s.start for s in outer)):
            first = rest + sum((i + s.start) * int(t) for i, s, t in zip(position, outer, strides, strict=False))
            self.file.seek(self.offset + first * self.dtype.itemsize)
            view = np.ascontiguousarray(block[position]).data.cast("B")
            while view:
                view = view[self.file.write(view) :]

    def close(self) -> None:
        with self.file:
            os.fsync(self.file.fileno())

    def abandon(self) -> None:
        self.file.close()


def _reserve(descriptor: int, path: str, size: int) -> None:
    """Take the room for a file now: a full disk is then an error before hours of work, not after."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except AttributeError:
        # macOS and Windows.
        _require_room(path, size)
    except OSError as error:
        if error.errno not in _CANNOT_RESERVE:
            raise
        _require_room(path, size)


def _require_room(path: str, size: int) -> None:
    if shutil.disk_usage(os.path.dirname(path)).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


class _QuietFile(io.RawIOBase):
    """A file for HDF5, to which writing always succeeds.

    HDF5 keeps what it could not write and tries again when the file is closed and when the process ends, where it
    crashes. It gets no errors to see: the first one is kept here, and whoever writes asks for it.
    """

    def __init__(self, path: str) -> None:
        self.file = open(path, "w+b", buffering=0)  # noqa: SIM115
        self.error: OSError | None = None

    def check(self) -> None:
        """Raise what went wrong."""
        if self.error is not None:
            raise self.error

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        size = len(view)
        with self._kept():
            while view:
                view = view[self.file.write(view) :]
        return size

    def readinto(self, buffer: Any) -> int:
        return self.file.readinto(buffer) or 0

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def truncate(self, size: int | None = None) -> int:
        with self._kept():
            self.file.truncate(size)
        return size or 0

    def flush(self) -> None:
        """Nothing is buffered."""

    @contextlib.contextmanager
    def _kept(self) -> Any:
        try:
            yield
        except OSError as error:
            self.error = self.error or error


class _Hdf5Sink:
    def __init__(self, path: str, plan: Plan, axes: list[OutputAxis]) -> None:
        import h5py

        _require_room(path, plan.raw_bytes)
        self.disk = _QuietFile(path)
        self.file = h5py.File(self.disk, "w")
        chunk = tuple(
            min(c, n) if i >= len(plan.shape) - 2 else 1
            for i, (c, n) in enumerate(zip(plan.chunk, plan.shape, strict=True))
        )
        self.data = self.file.create_dataset("data", shape=plan.shape, dtype=plan.dtype, chunks=chunk)
        for i, axis in enumerate(axes):
            scale = self.file.create_dataset(axis.name, data=axis.values)
            scale.make_scale(axis.name)
            if "units" in axis.attributes:
                scale.attrs["units"] = axis.attributes["units"]
            self.data.dims[i].attach_scale(scale)
            self.data.dims[i].label = axis.name

    def write(self, region: Region, block: np.ndarray[Any, Any]) -> None:
        self.data[region] = block
        self.disk.check()

    def close(self) -> None:
        with self.disk.file:
            self.file.close()
            self.disk.check()
            os.fsync(self.disk.file.fileno())

    def abandon(self) -> None:
        self.file.close()
        self.disk.file.close()


class _ZarrSink:
    def __init__(self, path: str, plan: Plan, axes: list[OutputAxis]) -> None:
        import zarr

        self.path = path
        # Each by its own path: by name, Zarr would make the group around it at once.
        self.data = zarr.create_array(
            f"{path}/data",
            shape=plan.shape,
            dtype=plan.dtype,
            chunks=plan.chunk,
            shards=plan.shard,
            dimension_names=[axis.name for axis in axes],
            zarr_format=3,
        )
        for axis in axes:
            array = zarr.create_array(
                f"{path}/{axis.name}", data=axis.values, dimension_names=[axis.name], zarr_format=3
            )
            array.attrs.update(axis.attributes)

    def write(self, region: Region, block: np.ndarray[Any, Any]) -> None:
        self.data[region] = block

    def close(self) -> None:
        import zarr

        # Last of all: in an object store, which renames nothing, this is what makes it a store.
        zarr.create_group(self.path, zarr_format=3)

    def abandon(self) -> None:
        """Zarr keeps nothing open."""


SINKS: dict[str, Callable[[str, Plan, list[OutputAxis]], Sink]] = {
    ".npy": _NpySink,
    ".h5": _Hdf5Sink,
    ".hdf5": _Hdf5Sink,
    ".zarr": _ZarrSink,
}
"""By suffix: opened with a path (.zarr: or URL), how the array is cut, and its dimensions."""
