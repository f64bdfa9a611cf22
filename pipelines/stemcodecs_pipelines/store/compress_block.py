"""What happens to one block of a scan: read, encoded, written, read back, and noted. Runs on a worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.errors import ReadBackError, SourceMismatchError
from stemcodecs.location import Location
from stemcodecs.readers.scan import Region
from stemcodecs_pipelines.methods.base import Comparison
from stemcodecs_pipelines.store.digests import raw_digest, sha256
from stemcodecs_pipelines.store.job import Job, JobHandle
from stemcodecs_pipelines.store.journal import Record
from stemcodecs_pipelines.store.virtual_images import block_sums

__all__ = ["BlockResult", "compress_block"]


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


def compress_block(handle: JobHandle, index: int) -> BlockResult:
    """Read one block, write it, read it back, and leave a record. Runs on a worker.

    Raises
    ------
    ReadBackError
        The disk gives back other bytes than were written.
    SourceMismatchError
        A block that is there already was made from another source.
    VerificationError
        What was read back breaks the method's guarantee.
    """
    job, location = handle.job(), handle.location
    region = job.plan.region(index)
    key = job.coder.key(job.plan.coordinates(index))
    if handle.resume and (record := _intact(location, key, index)) is not None:
        if job.fingerprint["files"] is None:
            # A source without files has no identity but its values.
            _require_same(handle.open_scan().read(region), record)
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
            raise ReadBackError(
                f"{location}: {key} does not read back as it was written; check the disk, then --resume"
            )
        deviation = job.chosen_method.compare(block, job.coder.decode({key: written}, region), region)
    patterns = block.reshape(-1, *block.shape[-2:])
    mask = job.marked_pixels.mask
    sums = block_sums(
        patterns,
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


def _require_same(block: np.ndarray[Any, Any], record: Record) -> None:
    if not np.array_equal(raw_digest(block), record.raw_sha256):
        raise SourceMismatchError(
            f"block {record.index} was made from other values than the source has now; "
            "give the same source, or start again with --overwrite"
        )


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
