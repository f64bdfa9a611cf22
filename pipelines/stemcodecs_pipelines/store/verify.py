"""Check a store against its source or its own digests."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from stemcodecs.errors import CorruptChunkError, SourceMismatchError, VerificationError
from stemcodecs.readers.scan import Scan
from stemcodecs.store import Location
from stemcodecs_pipelines.methods.base import Comparison, merged
from stemcodecs_pipelines.run.engine import Engine, ThreadEngine
from stemcodecs_pipelines.run.plan import Plan, available_cores
from stemcodecs_pipelines.run.source import opened
from stemcodecs_pipelines.store.contents import StoreContents
from stemcodecs_pipelines.store.digests import raw_digest, sha256

__all__ = ["BlockCheck", "Report", "verify"]


@dataclass(frozen=True, kw_only=True)
class BlockCheck:
    """Outcome of one block.

    Parameters
    ----------
    index : int
        Number of the block.
    raw_bytes, stored_bytes : int
        Size of its values and of its stored object.
    problem : str or None
        What is wrong with it, None for an intact block.
    position : tuple of int
        Where: the first value that differs, or the block's first value.
    deviation : Comparison or None
        How far the values lie from the source, where the method measures it.
    other_source : bool
        The problem is not the store's: the source does not hold what the block was made from.
    """

    index: int
    raw_bytes: int
    stored_bytes: int
    problem: str | None = None
    position: tuple[int, ...] = ()
    deviation: Comparison | None = None
    other_source: bool = False


@dataclass(frozen=True, kw_only=True)
class Report:
    """Outcome of a whole store.

    Parameters
    ----------
    blocks : int
        Blocks checked.
    values : int
        Values compared.
    failures : tuple of BlockCheck
        Blocks that failed, in order.
    deviation : Comparison or None
        How far the values of the intact blocks lie from the source, where the method measures it.
    """

    blocks: int
    values: int
    failures: tuple[BlockCheck, ...]
    deviation: Comparison | None = None

    @property
    def intact(self) -> bool:
        """No block failed."""
        return not self.failures

    def require_intact(self, store: str | Path) -> None:
        """Raise for the first failure.

        Raises
        ------
        VerificationError
            With the coordinates of the first value that is wrong.
        SourceMismatchError
            The first failing block was made from another source.
        """
        if self.failures:
            first = self.failures[0]
            message = (
                f"{store}: {len(self.failures)} of {self.blocks} blocks failed, first at "
                f"{first.position}: {first.problem}"
            )
            raise SourceMismatchError(message) if first.other_source else VerificationError(message, first.position)


@dataclass(frozen=True, kw_only=True)
class StoreHandle:
    """What a checking task carries.

    Parameters
    ----------
    location : Location
        The store.
    scan : Scan or None
        Source; None checks against the store's own digests.
    """

    location: Location
    scan: Scan | None

    def contents(self) -> StoreContents:
        """The store's plan, coder and digests, read once per process."""
        return StoreContents.of(self.location)


def check_block(handle: StoreHandle, index: int) -> BlockCheck:
    """Read one block of the store, and of its source if there is one, and compare them. Runs on a worker."""
    contents = handle.contents()
    source = handle.scan.read(contents.plan.region(index)) if handle.scan is not None else None
    return compare_block(contents, index, source)


def compare_block(contents: StoreContents, index: int, source: np.ndarray[Any, Any] | None) -> BlockCheck:
    """Decode one block of a store and compare it with its source, or with the store's own digests."""
    region = contents.plan.region(index)
    key = contents.coder.key(contents.plan.coordinates(index))
    stored = contents.location.read(key)
    raw = int(np.prod([s.stop - s.start for s in region])) * np.dtype(contents.plan.dtype).itemsize
    problem, position, other_source = None, tuple(s.start for s in region), False
    deviation: Comparison | None = None
    try:
        if stored is None:
            raise CorruptChunkError(f"the object {key} is missing")
        decoded = contents.coder.decode({key: stored}, region)
        if source is not None:
            deviation = contents.method.compare(source, decoded, region)
        if contents.method.exact:
            if source is None:
                _check_digest(contents, "raw_sha256", index, raw_digest(decoded))
        else:
            # Values within a bound, or without one, may be those of another source or of altered bytes.
            _check_digest(contents, "stored_sha256", index, sha256(stored))
            if source is not None:
                check_origin(contents, index, source)
    except VerificationError as error:
        problem, position = str(error), error.index
    except SourceMismatchError as error:
        problem, other_source = str(error), True
    except CorruptChunkError as error:
        problem = str(error)
    return BlockCheck(
        index=index,
        raw_bytes=raw,
        stored_bytes=0 if stored is None else len(stored),
        problem=problem,
        position=position,
        deviation=deviation,
        other_source=other_source,
    )


def _check_digest(contents: StoreContents, name: str, index: int, digest: np.ndarray[Any, Any]) -> None:
    if not np.array_equal(contents.digests[name][index], digest):
        raise CorruptChunkError(f"its {name.replace('_', ' ')} differs from the store's provenance")


def check_origin(contents: StoreContents, index: int, source: np.ndarray[Any, Any]) -> None:
    """Check that a block of the source has the values that the store's block was made from.

    Raises
    ------
    SourceMismatchError
        It has others.
    """
    if not np.array_equal(contents.digests["raw_sha256"][index], raw_digest(source)):
        raise SourceMismatchError(
            "the source does not hold the values that this block was made from; give the original source"
        )


def check_source(contents: StoreContents, scan: Scan, store: str | Path) -> None:
    """Check that a source can be the one that a store was made from.

    Raises
    ------
    SourceMismatchError
        Shape or dtype differ.
    """
    shape, dtype = tuple(contents.attributes["shape"]), contents.attributes["dtype"]
    if scan.shape != shape or scan.dtype.name != dtype:
        raise SourceMismatchError(
            f"{store} holds {dtype}{shape}, {scan.path} holds {scan.dtype.name}{scan.shape}; "
            "give the source that it was made from"
        )


def check_all(
    task: Callable[[StoreHandle, int], BlockCheck],
    *,
    contents: StoreContents,
    scan: Scan | None,
    workers: int | None,
    engine: Engine | None,
    start: Callable[[Plan], None] | None,
    progress: Callable[[BlockCheck], None] | None,
) -> Report:
    """Run a checking task on every block of a store."""
    plan = contents.plan.with_workers(workers or available_cores())
    if start is not None:
        start(plan)
    failures = []
    deviation: Comparison | None = None
    handle = StoreHandle(location=contents.location, scan=scan)
    tasks = (engine or ThreadEngine(plan.workers)).map(task, handle, range(plan.blocks))
    with contextlib.closing(tasks) as results:
        for result in results:
            if result.problem is not None:
                failures.append(result)
            deviation = merged(deviation, result.deviation)
            if progress is not None:
                progress(result)
    return Report(
        blocks=plan.blocks,
        values=int(np.prod(plan.shape, dtype=np.int64)),
        failures=tuple(sorted(failures, key=lambda f: f.index)),
        deviation=deviation,
    )


def verify(
    source: Scan | str | os.PathLike[str] | None,
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
    """Read back a whole store and compare every value.

    Parameters
    ----------
    source : Scan, path or None
        What the store was made from. None compares with the digests that were taken when it was
        written, which needs no source and finds every change.
    store : path or URL
        Root of the store.
    dataset, shape, dtype, offset
        How to open a path, see `stemcodecs.readers.open_scan`.
    workers, engine
        Where and how many at once, see `stemcodecs_pipelines.compress`.
    start, progress : callable, optional
        Called with the plan, and with every `BlockCheck`.

    Returns
    -------
    Report
        With all failing blocks; `Report.require_intact` raises for the first.

    Raises
    ------
    IncompleteStoreError, SourceError
        There is no complete store.
    SourceMismatchError
        Shape or dtype differ from the source's.
    """
    contents = StoreContents.of(Location.of(store))
    check = partial(
        check_all, check_block, contents=contents, workers=workers, engine=engine, start=start, progress=progress
    )
    if source is None:
        return check(scan=None)
    with opened(source, dataset=dataset, shape=shape, dtype=dtype, offset=offset) as scan:
        check_source(contents, scan, store)
        report = check(scan=scan)
        scan.check_unchanged()
    return report
