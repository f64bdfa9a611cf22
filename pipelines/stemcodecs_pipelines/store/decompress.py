"""Write a compressed store out again: .npy, HDF5 or a Zarr store that needs no stemcodecs."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from stemcodecs.errors import DestinationError, SourceError
from stemcodecs.readers.scan import Region
from stemcodecs.store import Location, require_complete, write_error
from stemcodecs_pipelines.run.plan import Plan, available_cores
from stemcodecs_pipelines.store.contents import StoreContents

__all__ = ["FORMATS", "decompress"]


class _Sink(Protocol):
    def write(self, region: Region, block: np.ndarray[Any, Any]) -> None:
        """Write one block."""

    def close(self) -> None:
        """Write what is left and close."""


class _NpySink:
    def __init__(self, path: Path, contents: StoreContents) -> None:
        from numpy.lib import format as npy

        plan = contents.plan
        self.shape, self.dtype = plan.shape, np.dtype(plan.dtype)
        with path.open("wb") as file:
            header = {
                "descr": npy.dtype_to_descr(self.dtype),
                "fortran_order": False,
                "shape": plan.shape,
            }
            npy.write_array_header_1_0(file, header)
            self.offset = file.tell()
            # Taking the room now turns a full disk into an error here; a map would die of SIGBUS.
            os.posix_fallocate(file.fileno(), 0, self.offset + plan.raw_bytes)
        self.file = path.open("r+b", buffering=0)

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
        self.file.close()


class _Hdf5Sink:
    def __init__(self, path: Path, contents: StoreContents) -> None:
        import h5py

        plan = contents.plan
        self.file = h5py.File(path, "w")
        chunk = tuple(
            min(c, n) if i >= len(plan.shape) - 2 else 1
            for i, (c, n) in enumerate(zip(plan.chunk, plan.shape, strict=True))
        )
        self.data = self.file.create_dataset("data", shape=plan.shape, dtype=plan.dtype, chunks=chunk)
        for i, (name, values, attributes) in enumerate(_coordinates(contents)):
            axis = self.file.create_dataset(name, data=values)
            axis.make_scale(name)
            for key in ("units",):
                if key in attributes:
                    axis.attrs[key] = attributes[key]
            self.data.dims[i].attach_scale(axis)
            self.data.dims[i].label = name

    def write(self, region: Region, block: np.ndarray[Any, Any]) -> None:
        self.data[region] = block

    def close(self) -> None:
        self.file.close()


class _ZarrSink:
    def __init__(self, path: Path, contents: StoreContents) -> None:
        import zarr

        plan = contents.plan
        root = zarr.create_group(path)
        axes = _coordinates(contents)
        self.data = root.create_array(
            "data",
            shape=plan.shape,
            dtype=plan.dtype,
            chunks=plan.chunk,
            shards=plan.shard,
            dimension_names=[name for name, _, _ in axes],
        )
        for name, values, attributes in axes:
            array = root.create_array(name, data=values, dimension_names=[name])
            array.attrs.update(attributes)

    def write(self, region: Region, block: np.ndarray[Any, Any]) -> None:
        self.data[region] = block

    def close(self) -> None:
        """Zarr has written everything."""


FORMATS: dict[str, Callable[[Path, StoreContents], _Sink]] = {
    ".npy": _NpySink,
    ".h5": _Hdf5Sink,
    ".hdf5": _Hdf5Sink,
    ".zarr": _ZarrSink,
}


def _coordinates(contents: StoreContents) -> list[tuple[str, np.ndarray[Any, Any], dict[str, Any]]]:
    import zarr

    group = zarr.open_group(contents.location.url, mode="r")
    names = contents.coder.metadata["dimension_names"]
    return [(name, np.asarray(group[name]), dict(group[name].attrs)) for name in names]


def decompress(
    store: str | Path,
    out: str | Path,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    start: Callable[[Plan], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Plan:
    """Write the values of a store to a file that other programs read.

    The file appears under its name when it is complete.

    Parameters
    ----------
    store : path or URL
        Complete store.
    out : path
        ``.npy``, ``.h5``/``.hdf5`` (dataset ``data``) or ``.zarr`` (array ``data``, Zstandard).
    workers : int, optional
        Blocks decoded at once; default one per core.
    overwrite : bool
        Replace a file that is there.
    start, progress : callable, optional
        Called with the plan, and with the raw bytes of every block.

    Raises
    ------
    DestinationError
        The suffix is unknown, or the file exists or cannot be written.
    CorruptChunkError
        A chunk is damaged.
    """
    path = Path(out)
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise DestinationError(f"{out}: unknown output format; use one of {', '.join(FORMATS)}")
    location = Location.of(store)
    contents = StoreContents(location, require_complete(location).attributes)
    plan = contents.plan.with_workers(workers or available_cores())
    _check_free(path, location, overwrite)
    if start is not None:
        start(plan)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sink = FORMATS[suffix](part, contents)
        with contextlib.closing(sink):
            for region, block in _decoded(contents, plan):
                sink.write(region, block)
                if progress is not None:
                    progress(block.nbytes)
        if path.is_dir():
            shutil.rmtree(path)
        part.replace(path)
    except OSError as error:
        raise write_error(str(out), error) from error
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)
    return plan


def _check_free(path: Path, store: Location, overwrite: bool) -> None:
    if not os.path.lexists(path):
        return
    if store.local and Path(store.url) == path.resolve():
        raise DestinationError(f"{path} is the store itself; choose another name")
    if not overwrite:
        raise DestinationError(f"{path} exists; choose another name, or replace it with --overwrite")
    if path.is_dir() and not Location.of(path).is_zarr():
        raise DestinationError(f"{path} is a folder but not a Zarr store; choose another name")


def _decoded(contents: StoreContents, plan: Plan) -> Iterator[tuple[Region, np.ndarray[Any, Any]]]:
    """Decoded blocks in order, a few ahead of the one being written."""

    def decode(index: int) -> tuple[Region, np.ndarray[Any, Any]]:
        region = plan.region(index)
        key = contents.coder.key(plan.coordinates(index))
        stored = contents.location.read(key)
        if stored is None:
            raise SourceError(
                f"{contents.location}: the object {key} is missing; repair the store from its "
                "source "
                "with stemcodecs repair"
            )
        return region, contents.coder.decode({key: stored}, region)

    with ThreadPoolExecutor(plan.workers) as pool:
        ahead = [pool.submit(decode, i) for i in range(min(plan.workers, plan.blocks))]
        following = len(ahead)
        try:
            while ahead:
                block = ahead.pop(0).result()
                if following < plan.blocks:
                    ahead.append(pool.submit(decode, following))
                    following += 1
                yield block
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
