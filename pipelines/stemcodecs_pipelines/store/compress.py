"""Compress a scan: one pass over the source, one task per block, one store that is whole or not."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from stemcodecs.location import JOURNAL, Location
from stemcodecs.readers.scan import Scan
from stemcodecs.store import State, state
from stemcodecs_pipelines.methods.base import Comparison, Learning, merged
from stemcodecs_pipelines.run.engine import Engine, ThreadEngine
from stemcodecs_pipelines.run.open_sources import close_source, source_key
from stemcodecs_pipelines.run.plan import Plan, make_plan
from stemcodecs_pipelines.run.source import HowToOpen, opened
from stemcodecs_pipelines.store.compress_block import BlockResult, compress_block
from stemcodecs_pipelines.store.destination import Destination
from stemcodecs_pipelines.store.finish import finish
from stemcodecs_pipelines.store.job import JOB_KEY, Job, JobHandle, check_resumable, method_named, prepare_job
from stemcodecs_pipelines.store.journal import RECORDS
from stemcodecs_pipelines.store.source_identity import check_same_source

__all__ = ["CompressResult", "compress"]

DEFAULT_METHOD = "pixel_histogram"


@dataclass(frozen=True, kw_only=True)
class CompressResult:
    """A finished store.

    Parameters
    ----------
    location : str
        Where it is.
    plan : Plan
        How it was cut.
    raw_bytes, stored_bytes : int
        Size of the scan, and of its compressed chunks (models included).
    kept_blocks : int
        Blocks that an interrupted run had finished.
    verified : bool
        This run read back every value that it wrote and compared it with the source; what it kept of an interrupted run
        was compared by that one, and has the bytes that it had then.
    already_complete : bool
        There was nothing left to do, and nothing was read.
    deviation : Comparison or None
        How far the values of the blocks that this run wrote lie from the source, where the method measures it.
    values : str or None
        What the codec found behind the values, in words; None where they are counts as they are, or nothing was found.
    """

    location: str
    plan: Plan
    raw_bytes: int
    stored_bytes: int
    kept_blocks: int
    verified: bool
    already_complete: bool = False
    deviation: Comparison | None = None
    values: str | None = None

    @property
    def ratio(self) -> float:
        """Raw size over stored size."""
        return self.raw_bytes / self.stored_bytes

    @property
    def bits_per_pixel(self) -> float:
        """Stored bits per value of the scan, models and headers included."""
        return 8 * self.stored_bytes / int(np.prod(self.plan.shape, dtype=np.int64))


def compress(
    source: Scan | str | os.PathLike[str],
    store: str | Path,
    *,
    method: str | None = None,
    chunk: Sequence[int] | None = None,
    shards: Sequence[int] | None = None,
    workers: int | None = None,
    memory: int | None = None,
    engine: Engine | None = None,
    overwrite: bool = False,
    resume: bool = False,
    verify: bool = True,
    start: Callable[[Plan], None] | None = None,
    progress: Callable[[BlockResult], None] | None = None,
    learning: Callable[[str, int, int], None] | None = None,
    **how: Unpack[HowToOpen],
) -> CompressResult:
    """Compress a scan into a Zarr store.

    Until the last byte is in place, the store has no ``zarr.json`` at its root: nothing opens it by
    mistake, and `stemcodecs.store.state` calls it incomplete.

    Parameters
    ----------
    source : Scan or path
        Source: from `stemcodecs.readers.open_scan`, or what it opens.
    store : path or URL
        Destination; URLs go through fsspec.
    method : str, optional
        Method with options, such as ``pixel_histogram:mode=pixel``; ``stemcodecs methods`` lists them. Default:
        ``pixel_histogram``.
    chunk, shards : sequence of int, optional
        Shapes, see `make_plan`.
    workers : int, optional
        Blocks in work at once; with an `engine`, only the memory bound is computed from it.
    memory : int, optional
        Bytes that the run may take, see `make_plan`.
    engine : Engine, optional
        Where the tasks run; default threads of this process.
    overwrite : bool
        Replace a store that is there. It is kept until the new one is complete.
    resume : bool
        Continue an interrupted run; the finished store has the same bytes as an uninterrupted one.
    verify : bool
        Read back every block after writing it and compare every value with the source. A resumed
        run keeps the choice that it began with.
    start : callable, optional
        Called with the final plan before the first block is read.
    progress : callable, optional
        Called with the `BlockResult` of every finished block.
    learning : callable, optional
        Called by methods that look at the whole scan first, with what they do, steps done and steps in all.

    **how
        How to open a path, see `stemcodecs.readers.open_scan`.

    Returns
    -------
    CompressResult

    Raises
    ------
    ConfigurationError
        A choice does not fit the scan, or differs from that of the run to be resumed.
    DestinationError
        The destination exists, or cannot be written; a full disk says so.
    SourceMismatchError
        The run to be resumed was begun with another source.
    SourceError
        The source changed while it was read.
    ReadBackError
        The disk does not give back what was written to it.
    VerificationError
        A block does not read back as the method guarantees.
    """
    where = Learning(engine=engine, workers=workers, memory=memory)
    if learning is not None:
        where = Learning(engine=engine, workers=workers, memory=memory, report=learning)
    with (
        opened(source, **how) as scan,
        Destination.held(Location.of(store), source=scan.path, overwrite=overwrite, resume=resume) as destination,
    ):
        found = state(destination.working)
        if resume and found.kind == "complete":
            return _already_complete(destination, found, scan, store)
        if resume and found.kind == "incomplete":
            job, plan = _resumed(destination.working, scan, method, chunk, shards, where)
        else:
            job, plan = _begun(destination, scan, method, chunk, shards, verify, where)
        if start is not None:
            start(plan)
        handle = JobHandle.of(destination.working, scan, resume=resume)
        kept, deviation = _write_blocks(handle, plan, engine or ThreadEngine(plan.workers), progress)
        # What was compared must be what the user has: only a source that is still the same may be called verified.
        scan.check_unchanged()
        finish(job, destination.working)
        destination.publish()
    return _result_of(state(destination.target), plan, store, kept, deviation)


def _begun(
    destination: Destination,
    scan: Scan,
    method: str | None,
    chunk: Sequence[int] | None,
    shards: Sequence[int] | None,
    verify: bool,
    where: Learning,
) -> tuple[Job, Plan]:
    """A new job: planned, learned, and noted in the empty store before the first block."""
    chosen = method_named(method or DEFAULT_METHOD)
    plan = make_plan(
        scan,
        chunk=chunk,
        shard=shards,
        workers=where.workers,
        memory=where.memory,
        engine=where.engine,
        whole_detector=chosen.whole_detector,
        together=chosen.together,
        scratch_bytes=chosen.scratch_bytes((scan.shape[-2], scan.shape[-1])),
    )
    job, stored_models = prepare_job(scan, plan, method=chosen, verify=verify, learning=where)
    # Only now: whatever was refused until here has left an old unfinished store alone.
    destination.clear()
    place = destination.working
    place.make_folder(RECORDS)
    for key, data in stored_models.items():
        place.write(key, data)
    # The job comes last: a store with a job has everything that its blocks need.
    place.write(JOB_KEY, job.to_json())
    return job, plan


def _resumed(
    place: Location,
    scan: Scan,
    method: str | None,
    chunk: Sequence[int] | None,
    shards: Sequence[int] | None,
    where: Learning,
) -> tuple[Job, Plan]:
    """The job that an interrupted run left, with as many workers as this run has."""
    data = place.read(JOB_KEY)
    assert data is not None
    job = Job.from_json(data, place)
    asked: dict[str, Any] = {"method": None if method is None else method_named(method).text}
    if chunk is not None or shards is not None:
        plan = make_plan(scan, chunk=chunk or job.plan.chunk, shard=shards)
        asked |= {"chunk": plan.chunk if chunk else None, "shards": plan.shard}
    check_resumable(job, scan, asked)
    return job, make_plan(
        scan,
        chunk=job.plan.chunk,
        shard=job.plan.shard,
        workers=where.workers,
        memory=where.memory,
        engine=where.engine,
        scratch_bytes=method_named(job.method).scratch_bytes((scan.shape[-2], scan.shape[-1])),
    )


def _write_blocks(
    handle: JobHandle, plan: Plan, engine: Engine, progress: Callable[[BlockResult], None] | None
) -> tuple[int, Comparison | None]:
    """Write all blocks that are not there yet; how many were, and how far the others lie from the source."""
    handle.location.make_folder(handle.parts)
    kept = 0
    deviation: Comparison | None = None
    try:
        with contextlib.closing(engine.map(compress_block, handle, range(plan.blocks))) as results:
            for result in results:
                kept += result.kept
                deviation = merged(deviation, result.deviation)
                if progress is not None:
                    progress(result)
    finally:
        engine.tell(close_source, source_key(handle.scan))
    return kept, deviation


def _already_complete(destination: Destination, found: State, scan: Scan, store: str | Path) -> CompressResult:
    """A resumed run whose store was complete: only what comes after the last byte is left to do."""
    attributes = found.attributes
    check_same_source(
        attributes.get("fingerprint", {}),
        scan,
        what=f"{destination.target}, which is complete (compare them with stemcodecs verify, or replace the store with "
        "--overwrite)",
    )
    destination.working.remove(JOURNAL)
    destination.publish()
    plan = make_plan(scan, chunk=attributes["chunk"], shard=attributes["shard"])
    return replace(_result_of(found, plan, store, plan.blocks), verified=False, already_complete=True)


def _result_of(
    found: State, plan: Plan, store: str | Path, kept: int, deviation: Comparison | None = None
) -> CompressResult:
    return CompressResult(
        location=str(store),
        plan=plan,
        raw_bytes=found.attributes["raw_bytes"],
        stored_bytes=found.attributes["stored_bytes"],
        kept_blocks=kept,
        verified=found.attributes["verified"] and kept < plan.blocks,
        deviation=deviation,
        values=found.attributes.get("values"),
    )
