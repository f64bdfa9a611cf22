"""How a scan is cut into chunks and shared among workers, decided and shown before the run."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich import filesize

from stemcodecs.errors import ConfigurationError
from stemcodecs.readers.scan import Region, Scan
from stemcodecs_pipelines.run.engine import Engine

__all__ = ["Plan", "choose_chunk", "make_plan", "memory_bytes"]

BASE_BYTES = 300_000_000
"""What a process needs before it reads any data: Python, NumPy, Numba, Zarr and HDF5."""
CHUNKS_PER_WORKER = 4
"""Blocks that one worker may hold at once: the source's, a padded one, the decoded one, scratch."""
WORKER_BYTES = 32_000_000
"""What a worker keeps however small its blocks are: scratch of the codec, memory freed but not returned."""
LARGEST_CHUNK = 64 << 20
GROUP = 64
"""Scan positions that the codec codes as one group: a chunk of whole groups wastes nothing, one of less than a group
takes the time and the memory of a whole one."""
LANE_BYTES = 2
"""What a group takes for a value, at least."""

LEAST_FILL, SMALL_COST = 0.5, 2.0
PARTIAL_COST = 0.5
OBLONG_COST = 0.02
"""What a chunk's shape costs, in units of the scan stored once more: each missing half of a chunk below half of the
largest one (the learned model then weighs), a last group that is not whole, and each doubling of its aspect ratio."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Chunks, workers and the memory they need.

    Parameters
    ----------
    shape : tuple of int
        Shape of the scan.
    dtype : str
        Its dtype, native byte order.
    chunk : tuple of int
        What the codec encodes at once.
    shard : tuple of int or None
        What is stored as one object, a multiple of the chunk; None stores each chunk by itself.
    workers : int
        Blocks encoded at the same time.
    threads_per_process : int
        How many of them share the memory of a process; 0 for all.
    source_bytes : int
        Largest piece that the source's own format makes a reader hold.
    part_bytes : int
        What the result of some blocks takes, where results are merged in a tree.
    scratch_bytes : int
        What decoding takes beyond a block and its values.
    """

    shape: tuple[int, ...]
    dtype: str
    chunk: tuple[int, ...]
    shard: tuple[int, ...] | None = None
    workers: int = 1
    threads_per_process: int = 0
    source_bytes: int = 0
    part_bytes: int = 0
    scratch_bytes: int = 0

    @property
    def block(self) -> tuple[int, ...]:
        """What one task reads and writes: a whole shard, or a chunk."""
        return self.shard or self.chunk

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of blocks along each dimension."""
        return tuple(-(-n // b) for n, b in zip(self.shape, self.block, strict=True))

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return math.prod(self.grid)

    @property
    def raw_bytes(self) -> int:
        """Size of the uncompressed scan."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def block_bytes(self) -> int:
        """Size of one uncompressed block."""
        return math.prod(self.block) * np.dtype(self.dtype).itemsize

    @property
    def memory_bound(self) -> int:
        """Most memory that a process takes, in bytes."""
        # A chunk of a few patterns is coded in the rows of 64 all the same.
        group = GROUP * math.prod(self.chunk[-2:]) * max(LANE_BYTES, np.dtype(self.dtype).itemsize)
        blocks = max(CHUNKS_PER_WORKER * max(self.block_bytes, group), WORKER_BYTES)
        # On a cluster the bound is that of one process; its threads share the base.
        threads = min(self.workers, self.threads_per_process or self.workers)
        # Two results and their sum at each worker, and those that wait for their neighbours in the tree.
        parts = 3 * threads + self.workers.bit_length() + 3
        return BASE_BYTES + threads * (blocks + self.source_bytes + self.scratch_bytes) + parts * self.part_bytes

    def coordinates(self, index: int) -> tuple[int, ...]:
        """Grid coordinates of a block; the last dimension varies fastest."""
        return tuple(int(i) for i in np.unravel_index(index, self.grid))

    def region(self, index: int) -> Region:
        """Part of the scan that a block covers, clipped to the scan."""
        return tuple(
            slice(i * b, min((i + 1) * b, n))
            for i, b, n in zip(self.coordinates(index), self.block, self.shape, strict=True)
        )

    def with_workers(self, workers: int) -> Plan:
        """The same plan for this many workers, or as many as there are blocks."""
        return replace(self, workers=min(workers, self.blocks))

    def describe(self) -> str:
        """One line for the user."""
        shards = f" in shards of {_times(self.shard)}" if self.shard else ""
        each = " in each process" if self.threads_per_process else ""
        return (
            f"{self.blocks} block{'s' * (self.blocks != 1)}, chunks of {_times(self.chunk)}{shards} "
            f"({filesize.decimal(self.block_bytes)} each), {self.workers} worker{'s' * (self.workers != 1)}, "
            f"memory at most {filesize.decimal(self.memory_bound)}{each}"
        )


def _times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def memory_bytes(text: str) -> int:
    """Read a size such as ``4GB``, ``500 MB`` or ``1.5GiB``.

    Raises
    ------
    ConfigurationError
        The text is not a size.
    """
    from dask.utils import parse_bytes

    try:
        count = parse_bytes(text)
    except (ValueError, OverflowError):
        count = 0
    # Dask reads a unit alone as one of it, and nothing at all as one byte.
    if count <= 0 or not any(c.isdigit() for c in text):
        raise ConfigurationError(f"{text!r} is not a size; write it like 4GB or 500MB")
    return count


def choose_chunk(
    shape: Sequence[int], itemsize: int, *, largest: int = LARGEST_CHUNK, whole_detector: bool = False
) -> tuple[int, ...]:
    """Default chunk: the whole detector times a near-square block of the scan.

    The block holds a multiple of 64 positions where that is possible, weighs half of `largest` to
    `largest`, and wastes as little as possible on padding at the edges of the scan. Where 64 patterns
    weigh more, the detector is cut into bands of rows: a chunk of fewer positions would be coded at a
    fraction of the speed, in the memory of 64.

    Parameters
    ----------
    shape : sequence of int
        Shape of the scan, 2 dimensions or more.
    itemsize : int
        Bytes per value.
    largest : int
        Upper limit in bytes.
    whole_detector : bool
        Never cut a pattern.
    """
    shape = tuple(shape)
    scan, height, width = shape[:-2], *shape[-2:]
    row = width * max(itemsize, LANE_BYTES)
    # Bands of equal height, so that the last one is not a sliver.
    if not whole_detector and GROUP * height * row > largest:
        bands = -(-height // max(1, largest // (GROUP * row)))
        height = -(-height // bands)
    positions = max(1, largest // (height * width * itemsize))
    if math.prod(scan) <= positions:
        return (*scan, height, width)
    if len(scan) == 1:
        count = positions - positions % GROUP if positions >= GROUP else positions
        return (count, height, width)
    # Of a series of scans whole ones are taken together, as many as fit; else each is cut as it would be alone.
    series = [1] * (len(scan) - 2)
    left = positions // math.prod(scan[-2:])
    for i in reversed(range(len(series))):
        if left < 1:
            break
        series[i] = min(scan[i], left)
        left = left // scan[i]
    inner = scan[-2:] if positions >= math.prod(scan[-2:]) else _scan_block(scan[-2], scan[-1], positions)
    return (*series, *inner, height, width)


def _scan_block(height: int, width: int, positions: int) -> tuple[int, int]:
    """Best (rows, columns) of at most `positions` positions."""

    def sizes(length: int) -> list[int]:
        # Multiples of 8 on both sides make whole groups of 64.
        step = 8 if positions >= GROUP else 1
        limit = min(length, positions)
        return sorted(n for n in {*range(step, limit + 1, step), *(2**k for k in range(4)), length} if n <= length)

    y, x = (grid.ravel() for grid in np.meshgrid(sizes(height), sizes(width), indexing="ij"))
    # Blocks far below the limit are left out before they are weighed: scans are thousands of positions wide.
    fits = (y * x <= positions) & (positions < (y + 8) * (x + 8) * 4)
    y, x = y[fits], x[fits]
    padded = -(-height // y) * y * (-(-width // x) * x) / (height * width)
    fill = y * x / positions
    # Measured on real scans: below half a chunk the learned model weighs; a block that is not
    # made of whole groups codes its last group at a loss; squares serve any reading direction.
    partial = (y * x % GROUP != 0) & (positions >= GROUP)
    cost = (
        padded
        - 1
        + SMALL_COST * np.maximum(0, LEAST_FILL - fill)
        + PARTIAL_COST * partial
        + OBLONG_COST * np.abs(np.log2(y / x))
    )
    best = np.lexsort((-fill, cost))[0]
    return int(y[best]), int(x[best])


def make_plan(
    scan: Scan,
    *,
    chunk: Sequence[int] | None = None,
    shard: Sequence[int] | None = None,
    workers: int | None = None,
    memory: int | None = None,
    engine: Engine | None = None,
    whole_detector: bool = False,
    together: int = 1,
    part_bytes: int = 0,
    scratch_bytes: int = 0,
) -> Plan:
    """Decide chunks and workers.

    Parameters
    ----------
    scan : Scan
        Source.
    chunk : sequence of int, optional
        Chunk shape, or only its scan part (the detector is then whole). Default: `choose_chunk`.
    shard : sequence of int, optional
        Shard shape, a multiple of the chunk along every dimension, or only its scan part.
    workers : int, optional
        Blocks encoded at once. Default: one per core (or thread of the cluster), as many as the memory allows.
    memory : int, optional
        Bytes that the run may take, or each process of a cluster. Smaller chunks, then fewer workers, are chosen to
        fit.
    engine : Engine, optional
        Where the blocks are encoded; default threads of this process.
    whole_detector : bool
        Chunks must not cut patterns.
    together : int
        Patterns along the fast scan axis that are coded as one: a default chunk holds a multiple of them.
    part_bytes : int
        What the result of some blocks takes, where results are merged in a tree.
    scratch_bytes : int
        What decoding takes beyond a block and its values.

    Raises
    ------
    ConfigurationError
        The shapes do not fit the scan, or the memory is not enough for one worker.
    """
    source_bytes = math.prod(scan.chunks) * scan.dtype.itemsize if scan.chunks else 0
    if workers is not None and workers < 1:
        raise ConfigurationError(f"--workers {workers}: at least one worker is needed")
    threads = _cluster_threads(engine)
    fixed = workers is not None or bool(threads)

    def plan(largest: int, count: int) -> Plan:
        pieces = _full("chunk", chunk, scan.shape) or choose_chunk(
            scan.shape, scan.dtype.itemsize, largest=largest, whole_detector=whole_detector
        )
        if chunk is None and together > 1 and len(pieces) > 2 and pieces[-3] < scan.shape[-3]:
            count = max(together, pieces[-3] - pieces[-3] % together)
            pieces = (*pieces[:-3], min(count, scan.shape[-3]), *pieces[-2:])
        return Plan(
            shape=scan.shape,
            dtype=scan.dtype.str,
            chunk=pieces,
            shard=_check_shard(_full("shards", shard, scan.shape, clip=False), pieces),
            threads_per_process=max(threads, default=0),
            source_bytes=source_bytes,
            part_bytes=part_bytes,
            scratch_bytes=scratch_bytes,
        ).with_workers(count)

    largest = LARGEST_CHUNK
    wanted = workers or sum(threads) or available_cores()
    made = plan(largest, wanted)
    if memory is not None:
        # Chunks first, then workers: smaller chunks cost a little size, fewer workers cost time. Blocks smaller than
        # the least that a worker keeps save nothing.
        while (
            made.memory_bound > memory
            and chunk is None
            and CHUNKS_PER_WORKER * made.block_bytes > WORKER_BYTES
            and largest > 1 << 20
        ):
            largest //= 2
            made = plan(largest, wanted)
        while made.memory_bound > memory and not fixed and wanted > 1:
            wanted -= 1
            made = plan(largest, wanted)
        if made.memory_bound > memory:
            raise ConfigurationError(
                f"--memory {filesize.decimal(memory)} is not enough: chunks of {_times(made.block)} with "
                f"{made.workers} worker(s) need {filesize.decimal(made.memory_bound)}; give more memory, "
                "fewer workers or smaller chunks"
            )
    return made


def available_cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _cluster_threads(engine: Engine | None) -> list[int]:
    """Threads of every worker process of a cluster; none for an engine in this process."""
    client: Any = getattr(engine, "client", None)
    return [] if client is None else list(client.nthreads().values())


def _full(name: str, part: Sequence[int] | None, shape: tuple[int, ...], clip: bool = True) -> tuple[int, ...] | None:
    """Complete a scan part with the whole detector and check it."""
    if part is None:
        return None
    sizes = tuple(int(n) for n in part)
    if len(sizes) == len(shape) - 2:
        sizes = (*sizes, *shape[-2:])
    if len(sizes) != len(shape) or any(n < 1 for n in sizes):
        raise ConfigurationError(
            f"--{name} {','.join(map(str, part))} does not fit a scan of shape {_times(shape)}; "
            f"give {len(shape) - 2 or 2} or {len(shape)} positive numbers"
        )
    return tuple(min(n, s) for n, s in zip(sizes, shape, strict=True)) if clip else sizes


def _check_shard(shard: tuple[int, ...] | None, chunk: tuple[int, ...]) -> tuple[int, ...] | None:
    if shard is None:
        return None
    # Zarr would refuse it later, in words that do not name the option.
    if any(s % c for s, c in zip(shard, chunk, strict=True)):
        raise ConfigurationError(
            f"--shards {_times(shard)} is not a multiple of the chunk {_times(chunk)}; "
            "choose both so that whole chunks fill a shard"
        )
    return shard
