"""Check a store against its source or its own digests."""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from stemcodecs.errors import CorruptChunkError, SourceMismatchError, VerificationError
from stemcodecs.location import Location
from stemcodecs.readers.scan import Region, Scan
from stemcodecs.store import require_complete
from stemcodecs_pipelines.methods.base import Comparison, merged
from stemcodecs_pipelines.run.engine import Engine, ThreadEngine
from stemcodecs_pipelines.run.open_sources import close_source, source_key, source_of
from stemcodecs_pipelines.run.plan import Plan, available_cores
from stemcodecs_pipelines.run.source import HowToOpen, opened
from stemcodecs_pipelines.store.companions import check_companions, missing_checksums
from stemcodecs_pipelines.store.contents import StoreContents
from stemcodecs_pipelines.store.digests import raw_digest, sha256
from stemcodecs_pipelines.store.image_check import ImageCheck, ImageSums
from stemcodecs_pipelines.store.virtual_images import BlockSums

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
    sums : BlockSums or None
        What the block of the source adds to the images, where they are checked.
    """

    index: int
    raw_bytes: int
    stored_bytes: int
    problem: str | None = None
    position: tuple[int, ...] = ()
    deviation: Comparison | None = None
    other_source: bool = False
    sums: BlockSums | None = None


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
    companions : tuple of str
        What is wrong with what lies beside the data: images, coordinates, digests, models and metadata.
    remarks : tuple of str
        What could not be checked, and why.
    deviation : Comparison or None
        How far the values of the intact blocks lie from the source, where the method measures it.
    """

    blocks: int
    values: int
    failures: tuple[BlockCheck, ...]
    companions: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    deviation: Comparison | None = None

    @property
    def intact(self) -> bool:
        """No block failed, and nothing beside the data is damaged."""
        return not self.failures and not self.companions

    def require_intact(self, store: str | Path) -> None:
        """Raise for the first failure.

        Raises
        ------
        VerificationError
            With the coordinates of the first value that is wrong.
        SourceMismatchError
            The first failing block was made from another source.
        """
        if self.companions:
            more = f" and {len(self.companions) - 1} more" if len(self.companions) > 1 else ""
            raise VerificationError(f"{store}: {self.companions[0]}{more}")
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
    scan : bytes or None
        Pickled source; None checks against the store's own digests.
    images : ImageSums or None
        How images are summed, where they are checked.
    """

    location: Location
    scan: bytes | None
    images: ImageSums | None = None

    def read_source(self, region: Region) -> np.ndarray[Any, Any] | None:
        """A region of the source, which is opened once per process."""
        return None if self.scan is None else source_of(self.scan).read(region)

    def contents(self) -> StoreContents:
        """The store's plan, coder and digests, read once per process."""
        return StoreContents.of(self.location)


def check_block(handle: StoreHandle, index: int) -> BlockCheck:
    """Read one block of the store, and of its source if there is one, and compare them. Runs on a worker."""
    contents = handle.contents()
    region = contents.plan.region(index)
    source = handle.read_source(region)
    found = compare_block(contents, index, source)
    if source is None or handle.images is None:
        return found
    return replace(found, sums=handle.images.of_block(source, region))


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
    images: ImageSums | None = None,
) -> Report:
    """Run a checking task on every block of a store."""
    plan = contents.plan.with_workers(workers or available_cores())
    if start is not None:
        start(plan)
    failures = []
    deviation: Comparison | None = None
    pickled = None if scan is None else pickle.dumps(scan)
    handle = StoreHandle(location=contents.location, scan=pickled, images=images)
    runs = engine or ThreadEngine(plan.workers)
    sums = None if images is None else ImageCheck(contents.location, plan)
    try:
        with contextlib.closing(runs.map(task, handle, range(plan.blocks))) as results:
            for result in results:
                if result.problem is not None:
                    failures.append(replace(result, sums=None))
                if sums is not None and result.sums is not None:
                    sums.add(plan.region(result.index), result.sums)
                deviation = merged(deviation, result.deviation)
                if progress is not None:
                    progress(result)
    finally:
        if pickled is not None:
            runs.tell(close_source, source_key(pickled))
    return Report(
        blocks=plan.blocks,
        values=int(np.prod(plan.shape, dtype=np.int64)),
        failures=tuple(sorted(failures, key=lambda f: f.index)),
        # Of a source that is not the store's, the images say nothing more.
        companions=tuple(sums.problems()) if sums is not None and not failures else (),
        deviation=deviation,
    )


def verify(
    source: Scan | str | os.PathLike[str] | None,
    store: str | Path,
    *,
    workers: int | None = None,
    engine: Engine | None = None,
    start: Callable[[Plan], None] | None = None,
    progress: Callable[[BlockCheck], None] | None = None,
    **how: Unpack[HowToOpen],
) -> Report:
    """Read back a whole store and compare every value, and everything that lies beside the values.

    Parameters
    ----------
    source : Scan, path or None
        What the store was made from. None compares with the digests that were taken when it was
        written, which needs no source and finds every change.
    store : path or URL
        Root of the store.
    workers, engine
        Where and how many at once, see `stemcodecs_pipelines.compress`.
    start, progress : callable, optional
        Called with the plan, and with every `BlockCheck`.
    **how
        How to open a path, see `stemcodecs.readers.open_scan`.

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
    location = Location.of(store)
    provenance = require_complete(location).attributes
    # First: what says how the blocks are decoded, and what they must hold, lies beside them.
    companions = tuple(check_companions(location))
    if companions:
        return Report(blocks=0, values=0, failures=(), companions=companions)
    note = missing_checksums(provenance)
    contents = StoreContents.of(location)
    check = partial(
        check_all, check_block, contents=contents, workers=workers, engine=engine, start=start, progress=progress
    )
    if source is None:
        report = check(scan=None)
    else:
        images = ImageSums.of(location, provenance) if note is None else None
        with opened(source, **how) as scan:
            check_source(contents, scan, store)
            report = check(scan=scan, images=images)
            scan.check_unchanged()
    return replace(report, remarks=() if note is None else (note,))
