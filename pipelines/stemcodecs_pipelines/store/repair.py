"""Encode the blocks of a store again that fail the check against their source."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from stemcodecs.errors import ReadBackError, SourceMismatchError
from stemcodecs.readers.scan import Scan
from stemcodecs.store import JOURNAL, Location
from stemcodecs_pipelines.methods.base import Comparison
from stemcodecs_pipelines.run.engine import Engine
from stemcodecs_pipelines.run.plan import Plan
from stemcodecs_pipelines.run.source import opened
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


def repair_block(handle: StoreHandle, index: int) -> BlockCheck:
    """Check one block, and encode it again where it fails. Runs on a worker.

    Raises
    ------
    SourceMismatchError
        The block failed, and the source does not hold what it was made from.
    """
    assert handle.scan is not None
    contents = handle.contents()
    source = handle.scan.read(contents.plan.region(index))
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
    dataset: str | None = None,
    shape: Sequence[int] | None = None,
    dtype: DTypeLike | None = None,
    offset: int = 0,
    workers: int | None = None,
    engine: Engine | None = None,
    start: Callable[[Plan], None] | None = None,
    progress: Callable[[BlockCheck], None] | None = None,
) -> Report:
    """Encode every damaged or missing block of a store again.

    Parameters
    ----------
    source : Scan or path
        What the store was made from; a block whose values have another digest than was noted when
        the store was written is refused.
    store : path or URL
        Root of the store.
    dataset, shape, dtype, offset, workers, engine, start, progress
        As for `stemcodecs_pipelines.store.verify.verify`.

    Returns
    -------
    Report
        Its failures are the blocks that were repaired.

    Raises
    ------
    SourceMismatchError
        The source is not the one that the store was made from.
    ReadBackError
        What was written cannot be read back.
    """
    location = Location.of(store)
    contents = StoreContents.of(location)
    with opened(source, dataset=dataset, shape=shape, dtype=dtype, offset=offset) as scan:
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
    return report


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
    import zarr

    noted = zarr.open_group(contents.location.url, mode="r+")["provenance/stored_sha256"]
    known = contents.digests["stored_sha256"]
    for failure in report.failures:
        stored = contents.location.read(contents.coder.key(contents.plan.coordinates(failure.index)))
        digest = sha256(stored or b"")
        if not np.array_equal(known[failure.index], digest):
            noted[failure.index] = digest  # type: ignore[index]
            # The contents stay in this process's memory, and the next check asks them.
            known[failure.index] = digest
