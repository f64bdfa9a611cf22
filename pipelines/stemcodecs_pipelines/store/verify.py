"""Check a store against its source or its own digests, and repair the chunks that fail."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from stemcodecs.errors import (
    CorruptChunkError,
    SourceError,
    VerificationError,
)
from stemcodecs.readers.scan import Region, Scan
from stemcodecs.store import JOURNAL, Location, require_complete
from stemcodecs_pipelines.methods.registry import Comparison, Method, merged, parse_method
from stemcodecs_pipelines.run.engine import Engine, ThreadEngine
from stemcodecs_pipelines.run.plan import Plan, available_cores
from stemcodecs_pipelines.store.block_coder import DATA, BlockCoder
from stemcodecs_pipelines.store.compress import raw_digest
from stemcodecs_pipelines.store.job import sha256
from stemcodecs_pipelines.store.stored_models import load_models

__all__ = ["BlockCheck", "Report", "repair", "verify"]


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
    """

    index: int
    raw_bytes: int
    stored_bytes: int
    problem: str | None = None
    position: tuple[int, ...] = ()
    deviation: Comparison | None = None


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
        """
        if self.failures:
            first = self.failures[0]
            raise VerificationError(
                f"{store}: {len(self.failures)} of {self.blocks} blocks failed, first at "
                f"{first.position}: {first.problem}",
                first.position,
            )


@dataclass(frozen=True, kw_only=True)
class StoreHandle:
    """What a checking task carries.

    Parameters
    ----------
    location : Location
        The store.
    scan : Scan or None
        Source; None checks against the store's own digests.
    repair : bool
        Encode a failing block again.
    """

    location: Location
    scan: Scan | None
    repair: bool = False

    def contents(self) -> StoreContents:
        """The store's plan, coder and digests, read once per process."""
        root = self.location.read("zarr.json") or b""
        return _contents(self.location, sha256(root).tobytes())


@dataclass(frozen=True)
class StoreContents:
    """A complete store as the encoder sees it.

    Parameters
    ----------
    location : Location
        Root.
    attributes : dict
        Provenance.
    """

    location: Location
    attributes: dict[str, Any] = field(hash=False)

    @cached_property
    def plan(self) -> Plan:
        """How the array is cut."""
        known = self.attributes
        return Plan(
            shape=tuple(known["shape"]),
            dtype=np.dtype(known["dtype"]).str,
            chunk=tuple(known["chunk"]),
            shard=tuple(known["shard"]) if known["shard"] else None,
        )

    @cached_property
    def coder(self) -> BlockCoder:
        """Decoder of the blocks."""
        data = self.location.read(f"{DATA}/zarr.json")
        if data is None:
            raise SourceError(f"{self.location}: {DATA}/zarr.json is missing; restore it from another copy")
        metadata = json.loads(data)
        load_models(metadata, self.location)
        return BlockCoder(metadata)

    @cached_property
    def method(self) -> Method:
        """Method, with the check of its guarantee."""
        return parse_method(self.attributes["method"])[0]

    @cached_property
    def digests(self) -> dict[str, np.ndarray[Any, Any]]:
        """Digests of all blocks, uint8 arrays of shape (blocks, 32)."""
        import zarr

        group = zarr.open_group(self.location.url, mode="r")
        return {name: np.asarray(group[f"provenance/{name}"]) for name in ("raw_sha256", "stored_sha256")}


@lru_cache(maxsize=4)
def _contents(location: Location, digest: bytes) -> StoreContents:
    return StoreContents(location, require_complete(location).attributes)


def check_block(handle: StoreHandle, index: int) -> BlockCheck:
    """Decode one block and compare it; with `repair`, write it again where it fails."""
    contents = handle.contents()
    region = contents.plan.region(index)
    start = tuple(s.start for s in region)
    key = contents.coder.key(contents.plan.coordinates(index))
    stored = handle.location.read(key)
    raw = int(np.prod([s.stop - s.start for s in region])) * np.dtype(contents.plan.dtype).itemsize

    deviation: Comparison | None = None

    def outcome(problem: str | None, position: tuple[int, ...] = start) -> BlockCheck:
        size = 0 if stored is None else len(stored)
        return BlockCheck(
            index=index, raw_bytes=raw, stored_bytes=size, problem=problem, position=position, deviation=deviation
        )

    source = handle.scan.read(region) if handle.scan is not None else None
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
                _check_source(contents, index, source, region)
        return outcome(None)
    except VerificationError as error:
        problem = outcome(str(error), error.index)
    except CorruptChunkError as error:
        problem = outcome(str(error))
    if handle.repair:
        assert source is not None
        return replace(problem, deviation=_repair(handle, contents, index, source))
    return problem


def _check_digest(contents: StoreContents, name: str, index: int, digest: np.ndarray[Any, Any]) -> None:
    if not np.array_equal(contents.digests[name][index], digest):
        raise CorruptChunkError(f"its {name.replace('_', ' ')} differs from the store's provenance")


def _check_source(contents: StoreContents, index: int, source: np.ndarray[Any, Any], region: Region) -> None:
    if not np.array_equal(contents.digests["raw_sha256"][index], raw_digest(source)):
        raise VerificationError(
            "the source does not hold the values that this block was made from; give the original source",
            tuple(s.start for s in region),
        )


def _repair(
    handle: StoreHandle, contents: StoreContents, index: int, source: np.ndarray[Any, Any]
) -> Comparison | None:
    region = contents.plan.region(index)
    try:
        _check_source(contents, index, source, region)
    except VerificationError as error:
        raise SourceError(f"block {index}: {error}") from None
    key = contents.coder.key(contents.plan.coordinates(index))
    handle.location.write(key, contents.coder.encode(source, region)[key])
    written = handle.location.read(key)
    if written is None:
        raise VerificationError(f"{handle.location}: {key} cannot be read back; check the disk")
    return contents.method.compare(source, contents.coder.decode({key: written}, region), region)


def _run(
    handle: StoreHandle,
    plan: Plan,
    engine: Engine | None,
    progress: Callable[[BlockCheck], None] | None,
) -> Report:
    failures = []
    deviation: Comparison | None = None
    tasks = (engine or ThreadEngine(plan.workers)).map(check_block, handle, range(plan.blocks))
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


def _open(
    source: Scan | None, store: str | Path, workers: int | None, start: Callable[[Plan], None] | None
) -> tuple[Location, Plan]:
    """A complete store and how it is cut, once the source, if there is one, has its shape and dtype."""
    location = Location.of(store)
    known = require_complete(location).attributes
    shape, dtype = tuple(known["shape"]), known["dtype"]
    if source is not None and (source.shape != shape or source.dtype.name != dtype):
        raise VerificationError(
            f"{store} holds {dtype}{shape}, {source.path} holds {source.dtype.name}{source.shape}; "
            "give the source that it was made from"
        )
    plan = StoreContents(location, known).plan.with_workers(workers or available_cores())
    if start is not None:
        start(plan)
    return location, plan


def verify(
    source: Scan | None,
    store: str | Path,
    *,
    workers: int | None = None,
    engine: Engine | None = None,
    start: Callable[[Plan], None] | None = None,
    progress: Callable[[BlockCheck], None] | None = None,
) -> Report:
    """Read back a whole store and compare every value.

    Parameters
    ----------
    source : Scan or None
        What the store was made from. None compares with the digests that were taken when it was
        written, which needs no source and finds every change.
    store : path or URL
        Root of the store.
    workers, engine
        Where and how many at once, see `stemcodecs_pipelines.store.compress.encode`.
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
    VerificationError
        Shape or dtype differ from the source's.
    """
    location, plan = _open(source, store, workers, start)
    return _run(StoreHandle(location=location, scan=source), plan, engine, progress)


def repair(
    source: Scan,
    store: str | Path,
    *,
    workers: int | None = None,
    engine: Engine | None = None,
    start: Callable[[Plan], None] | None = None,
    progress: Callable[[BlockCheck], None] | None = None,
) -> Report:
    """Encode every damaged or missing block of a store again.

    Parameters
    ----------
    source : Scan
        What the store was made from; a block whose values have another digest than was noted when
        the store was written is refused.
    store : path or URL
        Root of the store.
    workers, engine, start, progress
        As for `verify`.

    Returns
    -------
    Report
        Its failures are the blocks that were repaired.
    """
    location, plan = _open(source, store, workers, start)
    location.make_folder(JOURNAL)
    try:
        report = _run(StoreHandle(location=location, scan=source, repair=True), plan, engine, progress)
        if report.failures:
            _note_digests(location, plan, report)
    finally:
        location.remove(JOURNAL)
    return report


def _note_digests(location: Location, plan: Plan, report: Report) -> None:
    """A newer encoder may have written other bytes for the same values."""
    import zarr

    contents = StoreContents(location, require_complete(location).attributes)
    noted = zarr.open_group(location.url, mode="r+")["provenance/stored_sha256"]
    for failure in report.failures:
        stored = location.read(contents.coder.key(plan.coordinates(failure.index)))
        digest = sha256(stored or b"")
        if not np.array_equal(contents.digests["stored_sha256"][failure.index], digest):
            noted[failure.index] = digest  # type: ignore[index]
