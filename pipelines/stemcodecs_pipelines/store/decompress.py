"""Write a compressed store out again: .npy, HDF5 or a Zarr store that needs no stemcodecs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from stemcodecs.errors import DestinationError, SourceError, StemcodecsError
from stemcodecs.location import Location, write_error
from stemcodecs.readers.scan import Region
from stemcodecs.store import require_complete
from stemcodecs_pipelines.run.plan import Plan, available_cores
from stemcodecs_pipelines.store.block_coder import DATA
from stemcodecs_pipelines.store.companions import check_companions
from stemcodecs_pipelines.store.contents import StoreContents
from stemcodecs_pipelines.store.part_folder import part_folder
from stemcodecs_pipelines.store.sinks import SINKS, OutputAxis

__all__ = ["decompress"]

_FULL_DISK = "free some space, or write to another disk"


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

    The file appears under its name when it is complete; whatever ends the run before leaves nothing.

    Parameters
    ----------
    store : path or URL
        Complete store.
    out : path or URL
        ``.npy``, ``.h5``/``.hdf5`` (dataset ``data``) or ``.zarr`` (array ``data``, Zstandard). URLs go through
        fsspec and take ``.zarr`` only; ``file://`` is a local path.
    workers : int, optional
        Blocks decoded at once; default one per core.
    overwrite : bool
        Replace a local file that is there.
    start, progress : callable, optional
        Called with the plan, and with the raw bytes of every block.

    Raises
    ------
    DestinationError
        The suffix is unknown, or the file exists or cannot be written.
    SourceError
        What lies beside the data in the store is damaged.
    CorruptChunkError
        A chunk is damaged.
    """
    text = os.fspath(out).removeprefix("file://")
    remote = "://" in text
    suffix = PurePosixPath(text.rstrip("/")).suffix.lower() if remote else Path(text).suffix.lower()
    if suffix not in SINKS:
        raise DestinationError(f"{out}: unknown output format; use one of {', '.join(SINKS)}")
    if remote and suffix != ".zarr":
        raise DestinationError(f"{out}: only .zarr is written to a URL; write {suffix} to a local path, then copy it")
    location = Location.of(store)
    known = require_complete(location).attributes
    target: Path | Location = Location.of(text) if remote else Path(text)
    _check_free(target, location, overwrite)
    contents = StoreContents(location, known)
    axes = _axes(contents, coordinates=suffix != ".npy")
    plan = contents.plan.with_workers(workers or available_cores())
    if start is not None:
        start(plan)

    def write(path: str) -> None:
        sink = SINKS[suffix](path, plan, axes)
        try:
            with contextlib.closing(_decoded(contents, plan)) as blocks:
                for region, block in blocks:
                    sink.write(region, block)
                    if progress is not None:
                        progress(block.nbytes)
        except BaseException:
            sink.abandon()
            raise
        sink.close()

    if isinstance(target, Location):
        _write_remote(target, write)
        return plan
    try:
        with part_folder(target, location.url) as folder:
            whole = folder / f"whole{suffix}"
            write(str(whole))
            _check_free(target, location, overwrite)
            _publish(whole, target, folder / "old")
    except OSError as error:
        raise write_error(str(out), error, advice=_FULL_DISK) from error
    return plan


def _axes(contents: StoreContents, *, coordinates: bool) -> list[OutputAxis]:
    """Dimensions of the array, once what is needed of the store is known to be intact."""
    import zarr

    location = contents.location
    _require_intact(location, [DATA])
    names = contents.coder.metadata["dimension_names"]
    if not coordinates:
        return []
    _require_intact(location, names)
    group = zarr.open_group(location.url, mode="r")
    return [OutputAxis(name=name, values=np.asarray(group[name]), attributes=dict(group[name].attrs)) for name in names]


def _require_intact(location: Location, arrays: list[str]) -> None:
    for problem in check_companions(location, arrays=arrays):
        raise SourceError(f"{location}: {problem}")


def _publish(whole: Path, target: Path, old: Path) -> None:
    """Give a finished file its name; what had it before goes with the hidden folder."""
    if not target.is_dir() and not whole.is_dir():
        whole.replace(target)
        return
    # A folder is replaced by nothing but renaming both.
    if os.path.lexists(target):
        target.rename(old)
    try:
        whole.rename(target)
    except OSError:
        if os.path.lexists(old):
            old.rename(target)
        raise


def _write_remote(target: Location, write: Callable[[str], None]) -> None:
    """Write to a URL, where nothing is yet; what was written goes if not all of it can be."""
    try:
        write(target.url)
    except BaseException as error:
        with contextlib.suppress(Exception):
            target.remove()
        if isinstance(error, Exception) and not isinstance(error, StemcodecsError | MemoryError):
            # Every backend of fsspec has errors of its own.
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DestinationError(f"{target}: cannot be written ({reason}); check the URL and your access") from error
        raise


def _check_free(target: Path | Location, store: Location, overwrite: bool) -> None:
    if isinstance(target, Location):
        if target.exists():
            raise DestinationError(
                f"{target} exists and an object store cannot replace it at once; "
                "write to a new URL, then remove the old one"
            )
        return
    if not os.path.lexists(target):
        return
    if store.local and Path(store.url) == target.resolve():
        raise DestinationError(f"{target} is the store itself; choose another name")
    if not overwrite:
        raise DestinationError(f"{target} exists; choose another name, or replace it with --overwrite")
    if target.is_dir() and not Location.of(target).is_zarr():
        raise DestinationError(f"{target} is a folder but not a Zarr store; choose another name")


def _decoded(contents: StoreContents, plan: Plan) -> Generator[tuple[Region, np.ndarray[Any, Any]]]:
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
                # In order, so that files are written from front to back; the window bounds what waits for a slow block.
                block = ahead.pop(0).result()
                if following < plan.blocks:
                    ahead.append(pool.submit(decode, following))
                    following += 1
                yield block
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
