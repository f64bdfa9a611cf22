"""Encode the blocks of a store again that fail the check against their source."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from stemcodecs.errors import ReadBackError, SourceMismatchError, VerificationError
from stemcodecs.location import JOURNAL, Location
from stemcodecs.readers.scan import Scan
from stemcodecs.store import require_complete
from stemcodecs.zarr_private import put
from stemcodecs_pipelines.methods.base import Comparison
from stemcodecs_pipelines.run.engine import Engine
from stemcodecs_pipelines.run.plan import Plan
from stemcodecs_pipelines.run.source import HowToOpen, opened
from stemcodecs_pipelines.store.companions import check_companions, note_objects
from stemcodecs_pipelines.store.contents import StoreContents
from stemcodecs_pipelines.store.digests import sha256
from stemcodecs_pipelines.store.lock import locked
from stemcodecs_pipelines.store.verify import (
    BlockCheck,
    Report,
    StoreHandle,
    check_all,
    check_origin,
    check_source,
    compare_block,
)

__all__ = ["repair"]

_STORED = "provenance/stored_sha256"
_NEEDED = ("zarr.json", "data/zarr.json", "provenance/")
"""Beginnings of the names of what must be intact before a block can be judged."""


def repair_block(handle: StoreHandle, index: int) -> BlockCheck:
    """Check one block, and encode it again where it fails. Runs on a worker.

    Raises
    ------
    SourceMismatchError
        The block failed, and the source does not hold what it was made from.
    """
    contents = handle.contents()
    source = handle.read_source(contents.plan.region(index))
    assert source is not None
    found = compare_block(contents, index, source)
    if found.problem is None:
        return found
    return replace(found, deviation=_encode_again(contents, index, source))


def _encode_again(contents: StoreContents, index: int, source: np.ndarray[Any, Any]) -> Comparison | None:
    region = contents.plan.region(index)
    try:
        check_origin(contents, index, source)
    except SourceMismatchError as error:
        raise SourceMismatchError(f"block {index}: {error}") from None
    key = contents.coder.key(contents.plan.coordinates(index))
    contents.location.write(key, contents.coder.encode(source, region)[key])
    written = contents.location.read(key)
    if written is None:
        raise ReadBackError(f"{contents.location}: {key} cannot be read back; check the disk")
    return contents.method.compare(source, contents.coder.decode({key: written}, region), region)


def repair(
    source: Scan | str | os.PathLike[str],
    store: str | Path,
    *,
    workers: int | None = None,
    engine: Engine | None = None,
    start: Callable[[Plan], None] | None = None,
    progress: Callable[[BlockCheck], None] | None = None,
    **how: Unpack[HowToOpen],
) -> Report:
    """Encode every damaged or missing block of a store again.

    Parameters
    ----------
    source : Scan or path
        What the store was made from; a block whose values have another digest than was noted when
        the store was written is refused.
    store : path or URL
        Root of the store.
    workers, engine, start, progress, **how
        As for `stemcodecs_pipelines.store.verify.verify`.

    Returns
    -------
    Report
        Its failures are the blocks that were repaired; its companions, images and coordinates, are not repaired.

    Raises
    ------
    SourceMismatchError
        The source is not the one that the store was made from.
    ReadBackError
        What was written cannot be read back.
    VerificationError
        Metadata or digests of the store are damaged.
    """
    location = Location.of(store)
    require_complete(location)
    companions = check_companions(location)
    if needed := [problem for problem in companions if problem.startswith(_NEEDED)]:
        raise VerificationError(f"{store}: {needed[0]}; blocks cannot be judged without it")
    contents = StoreContents.of(location)
    with opened(source, **how) as scan:
        check_source(contents, scan, store)
        with locked(location), _parts(location):
            report = check_all(
                repair_block,
                contents=contents,
                scan=scan,
                workers=workers,
                engine=engine,
                start=start,
                progress=progress,
            )
            if report.failures:
                _note_digests(contents, report)
            location.sync()
        scan.check_unchanged()
    return replace(report, companions=tuple(companions))


@contextlib.contextmanager
def _parts(location: Location) -> Iterator[None]:
    """A folder for half-written objects; a complete store has none."""
    location.make_folder(JOURNAL)
    try:
        yield
    finally:
        location.remove(JOURNAL)


def _note_digests(contents: StoreContents, report: Report) -> None:
    """A newer encoder may have written other bytes for the same values."""
    known, place = contents.digests["stored_sha256"], contents.location
    changed = []
    for failure in report.failures:
        stored = place.read(contents.coder.key(contents.plan.coordinates(failure.index)))
        digest = sha256(stored or b"")
        if not np.array_equal(known[failure.index], digest):
            # The contents stay in this process's memory, and the next check asks them.
            known[failure.index] = digest
            changed.append(failure.index)
    if not changed:
        return
    import zarr
    from zarr.storage import MemoryStore

    # Made in memory and written as everything else is: synced, and whole or not at all.
    objects: dict[str, Any] = {}
    store = MemoryStore(objects)
    for key in ("zarr.json", *(key.removeprefix(f"{_STORED}/") for key in place.names(f"{_STORED}/c"))):
        put(store, key, place.read(f"{_STORED}/{key}") or b"")
    before = dict(objects)
    noted = zarr.open_array(store, mode="r+")
    for index in changed:
        noted[index] = known[index]
    written = [key for key, value in objects.items() if value is not before.get(key)]
    for key in written:
        place.write(f"{_STORED}/{key}", objects[key].to_bytes())
    note_objects(place, [f"{_STORED}/{key}" for key in written])
