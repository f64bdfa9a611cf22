"""Compress a scan: one pass over the source, one task per block, one store that is whole or not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from stemcodecs.errors import DestinationError, VerificationError
from stemcodecs.readers.scan import Region, Scan
from stemcodecs.store import JOURNAL, Location, State, state
from stemcodecs_pipelines.methods.registry import Comparison, Learning, merged, parse_method
from stemcodecs_pipelines.run.engine import Engine, ThreadEngine
from stemcodecs_pipelines.run.memory import share_freed_blocks
from stemcodecs_pipelines.run.plan import Plan, make_plan
from stemcodecs_pipelines.store.destination import Destination
from stemcodecs_pipelines.store.finish import finish
from stemcodecs_pipelines.store.job import JOB_KEY, Job, JobHandle, check_resumable, prepare, sha256
from stemcodecs_pipelines.store.journal import RECORDS, Record
from stemcodecs_pipelines.store.virtual_images import block_sums

__all__ = ["BlockResult", "EncodeResult", "encode", "encode_block"]

DEFAULT_METHOD = "pixel_histogram"


@dataclass(frozen=True, kw_only=True)
class BlockResult:
    """What a task tells the client; everything larger is in the block's record.

    Parameters
    ----------
    index : int
        Number of the block.
    raw_bytes, stored_bytes : int
        Size before and after.
    kept : bool
        The block was on disk already and its checksum held.
    deviation : Comparison or None
        How far the values lie from the source, where the method measures it and the block was read back.
    """

    index: int
    raw_bytes: int
    stored_bytes: int
    kept: bool
    deviation: Comparison | None = None


@dataclass(frozen=True, kw_only=True)
class EncodeResult:
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
        Every value was read back and compared.
    deviation : Comparison or None
        How far the values of the blocks that this run wrote lie from the source, where the method measures it.
    """

    location: str
    plan: Plan
    raw_bytes: int
    stored_bytes: int
    kept_blocks: int
    verified: bool
    deviation: Comparison | None = None

    @property
    def ratio(self) -> float:
        """Raw size over stored size."""
        return self.raw_bytes / self.stored_bytes

    @property
    def bits_per_pixel(self) -> float:
        """Stored bits per value of the scan, models and headers included."""
        return 8 * self.stored_bytes / int(np.prod(self.plan.shape, dtype=np.int64))


def encode_block(handle: JobHandle, index: int) -> BlockResult:
    """Read one block, write it, read it back, and leave a record. Runs on a worker.

    Raises
    ------
    VerificationError
        What was read back breaks the method's guarantee.
    """
    share_freed_blocks()
    job, location = handle.job(), handle.location
    region = job.plan.region(index)
    key = job.coder.key(job.plan.coordinates(index))
    if handle.resume and (record := _intact(location, key, index)) is not None:
        return _result(job, region, record, kept=True)
    block = handle.open_scan().read(region)
    stored = job.coder.encode(block, region)[key]
    location.write(key, stored, parts=handle.parts)
    digest, size = sha256(stored), len(stored)
    del stored
    deviation = None
    if job.verify:
        written = location.read(key)
        if written is None or not np.array_equal(sha256(written), digest):
            raise VerificationError(
                f"{location}: {key} does not read back as it was written; check the disk, then --resume",
                tuple(s.start for s in region),
            )
        deviation = job.codec.compare(block, job.coder.decode({key: written}, region), region)
    mask = job.marked_pixels.mask
    sums = block_sums(
        block.reshape(-1, *block.shape[-2:]),
        job.detectors,
        corner=(region[-2].start, region[-1].start),
        masked=None if mask is None else mask[region[-2:]],
    )
    record = Record(
        index=index,
        raw_sha256=raw_digest(block),
        stored_sha256=digest,
        stored_bytes=size,
        pattern=sums.pattern,
        images=sums.images,
        left_out=sums.left_out,
    )
    record.write(location, parts=handle.parts)
    return _result(job, region, record, kept=False, deviation=deviation)


def _result(
    job: Job, region: Region, record: Record, *, kept: bool, deviation: Comparison | None = None
) -> BlockResult:
    raw = int(np.prod([s.stop - s.start for s in region])) * np.dtype(job.plan.dtype).itemsize
    return BlockResult(
        index=record.index, raw_bytes=raw, stored_bytes=record.stored_bytes, kept=kept, deviation=deviation
    )


def _intact(location: Location, key: str, index: int) -> Record | None:
    """Record of a block whose stored bytes are what the record says."""
    record = Record.read(location, index)
    if record is None or location.size(key) != record.stored_bytes:
        return None
    data = location.read(key)
    return record if data is not None and np.array_equal(sha256(data), record.stored_sha256) else None


def raw_digest(block: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Digest of a block's values: C order, little-endian."""
    little = block.astype(block.dtype.newbyteorder("<"), copy=False)
    return sha256(np.ascontiguousarray(little).reshape(-1).view(np.uint8))


def encode(
    scan: Scan,
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
) -> EncodeResult:
    """Compress a scan into a Zarr store.

    Until the last byte is in place, the store has no ``zarr.json`` at its root: nothing opens it by
    mistake, and `stemcodecs.store.state` calls it incomplete.

    Parameters
    ----------
    scan : Scan
        Source, from `stemcodecs.readers.open_scan`.
    store : path or URL
        Destination; URLs go through fsspec.
    method : str, optional
        Method with options, such as ``pixel_histogram:mode=pixel``.
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

    Returns
    -------
    EncodeResult

    Raises
    ------
    ConfigurationError
        A choice does not fit the scan, or differs from that of the run to be resumed.
    DestinationError
        The destination exists, or cannot be written; a full disk says so.
    VerificationError
        A block does not read back as the method guarantees.
    """
    destination = Destination.choose(Location.of(store), source=scan.path, overwrite=overwrite, resume=resume)
    with destination.lock():
        place = destination.working
        found = state(place)
        if resume and found.kind == "complete":
            return _already_complete(destination, found, scan, store)
        if resume and found.kind == "incomplete":
            job = _continued(place, scan, method, chunk, shards)
            plan = make_plan(
                scan, chunk=job.plan.chunk, shard=job.plan.shard, workers=workers, memory=memory, engine=engine
            )
        else:
            whole = parse_method(method or DEFAULT_METHOD)[0].whole_detector
            plan = make_plan(
                scan, chunk=chunk, shard=shards, workers=workers, memory=memory, engine=engine, whole_detector=whole
            )
            where = Learning(engine=engine, workers=workers, memory=memory)
            if learning is not None:
                where = replace(where, report=learning)
            job, beside = prepare(scan, plan, method=method or DEFAULT_METHOD, verify=verify, learning=where)
            destination.clear()
            place.make_folder(RECORDS)
            for key, data in beside.items():
                place.write(key, data)
            place.write(JOB_KEY, job.to_json())
        if start is not None:
            start(plan)
        handle = JobHandle.of(place, scan, resume=resume)
        place.make_folder(handle.parts)
        tasks = (engine or ThreadEngine(plan.workers)).map(encode_block, handle, range(plan.blocks))
        kept = 0
        deviation: Comparison | None = None
        with contextlib.closing(tasks) as results:
            for result in results:
                kept += result.kept
                deviation = merged(deviation, result.deviation)
                if progress is not None:
                    progress(result)
        finish(job, place)
        destination.publish()
        return _result_of(state(destination.target), plan, store, kept, deviation)


def _continued(
    place: Location,
    scan: Scan,
    method: str | None,
    chunk: Sequence[int] | None,
    shards: Sequence[int] | None,
) -> Job:
    data = place.read(JOB_KEY)
    assert data is not None
    job = Job.from_json(data, place)
    asked: dict[str, Any] = {"method": method}
    if chunk is not None or shards is not None:
        plan = make_plan(scan, chunk=chunk or job.plan.chunk, shard=shards)
        asked |= {"chunk": plan.chunk if chunk else None, "shards": plan.shard}
    check_resumable(job, scan, asked)
    return job


def _already_complete(destination: Destination, found: State, scan: Scan, store: str | Path) -> EncodeResult:
    """A resumed run whose store was complete: only what comes after the last byte is left to do."""
    attributes = found.attributes
    if tuple(attributes["shape"]) != scan.shape or attributes["dtype"] != scan.dtype.name:
        raise DestinationError(f"{destination.target} is complete and holds another scan; replace it with --overwrite")
    destination.working.remove(JOURNAL)
    destination.publish()
    plan = make_plan(scan, chunk=attributes["chunk"], shard=attributes["shard"])
    return _result_of(found, plan, store, plan.blocks)


def _result_of(
    found: State, plan: Plan, store: str | Path, kept: int, deviation: Comparison | None = None
) -> EncodeResult:
    return EncodeResult(
        location=str(store),
        plan=plan,
        raw_bytes=found.attributes["raw_bytes"],
        stored_bytes=found.attributes["stored_bytes"],
        kept_blocks=kept,
        verified=found.attributes["verified"],
        deviation=deviation,
    )
