"""Statistics of a whole scan, out of core, as a Dask graph with a tree reduction.

Give `reduce_scan` an object with ``prepared``, ``block``, ``merge`` and ``finalize`` (see `Statistics`), such as those
of `stemcodecs_pipelines.histograms.scan_histograms`.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np

from stemcodecs.readers.scan import Region, Scan
from stemcodecs_pipelines.run.engine import Engine, ThreadEngine
from stemcodecs_pipelines.run.open_sources import close_source, source_key, source_of
from stemcodecs_pipelines.run.plan import Plan, make_plan

__all__ = ["Reduction", "Statistics", "reduce_scan", "reduction_graph"]

Part = TypeVar("Part")
Outcome = TypeVar("Outcome", covariant=True)

_RUNS_PER_WORKER = 8
"""Reading tasks per worker: enough that all end at about the same time, few enough for any scheduler."""


class Statistics(Protocol[Part, Outcome]):
    """Statistics that can be taken block by block; an importable, picklable object.

    ``merge`` must be associative and commutative to the last bit (integers are), so that the result
    depends neither on the chunks nor on who finishes first. Neither ``block`` nor ``merge`` may change what they are
    given: a task that was lost half way is run again on the same parts.
    """

    @property
    def part_bytes(self) -> int:
        """Most that the statistics of some patterns take in memory."""

    def prepared(self, scan: Scan) -> Self:
        """What all blocks must agree on, found out before the first of them is read."""

    def block(self, patterns: np.ndarray[Any, Any], positions: np.ndarray[Any, Any]) -> Part:
        """Statistics of some patterns, shape (patterns, det_y, det_x), and the flat index of each in the scan."""

    def merge(self, first: Part, second: Part) -> Part:
        """Statistics of both."""

    def finalize(self, total: Part) -> Outcome:
        """What the statistics of the whole scan are for."""


@dataclass(frozen=True)
class _Source:
    """The scan as a task gets it, cut into runs of neighbouring blocks that share the blocks evenly."""

    scan: bytes
    plan: Plan
    runs: int

    def blocks(self, run: int) -> range:
        """Blocks of a run."""
        return range(run * self.plan.blocks // self.runs, (run + 1) * self.plan.blocks // self.runs)

    def run_bytes(self, run: int) -> int:
        """Raw bytes of a run."""
        itemsize = np.dtype(self.plan.dtype).itemsize
        regions = (self.plan.region(index) for index in self.blocks(run))
        return sum(itemsize * int(np.prod([s.stop - s.start for s in region])) for region in regions)


@dataclass(frozen=True)
class Reduction(Generic[Outcome]):
    """A Dask graph that takes statistics of a scan.

    Attributes
    ----------
    total : dask.delayed.Delayed
        The outcome; ``dask.compute(total)`` or ``client.compute(total)`` runs the graph.
    parts : list of dask.delayed.Delayed
        The tasks in it that read the scan.
    part_bytes : list of int
        Raw bytes that each of them reads.
    source : str
        What the processes that ran it keep open, for `stemcodecs_pipelines.run.open_sources.close_source`.
    """

    total: Any
    parts: list[Any]
    part_bytes: list[int]
    source: str


def prepare(source: _Source, statistics: Statistics[Part, Outcome]) -> Statistics[Part, Outcome]:
    """The first task of a graph."""
    return statistics.prepared(source_of(source.scan))


def reduce_run(source: _Source, statistics: Statistics[Part, Any], run: int) -> Part:
    """Statistics of one run of blocks."""
    scan = source_of(source.scan)
    total: Part | None = None
    for index in source.blocks(run):
        region = source.plan.region(index)
        block = scan.read(region)
        part = statistics.block(block.reshape(-1, *block.shape[-2:]), _positions(region, scan.shape))
        del block
        total = part if total is None else statistics.merge(total, part)
    assert total is not None
    return total


def merge(statistics: Statistics[Part, Any], first: Part, second: Part) -> Part:
    """A node of the tree."""
    return statistics.merge(first, second)


def finalize(statistics: Statistics[Part, Outcome], total: Part) -> Outcome:
    """The root of the tree."""
    return statistics.finalize(total)


def _positions(region: Region, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Flat indices of the patterns of a region in the whole scan, int64."""
    axes = [np.arange(s.start, s.stop) for s in region[:-2]]
    if not axes:
        return np.zeros(1, np.int64)
    return np.ravel_multi_index(np.meshgrid(*axes, indexing="ij"), shape[:-2]).ravel().astype(np.int64)


def reduction_graph(scan: Scan, statistics: Statistics[Part, Outcome], plan: Plan) -> Reduction[Outcome]:
    """The Dask graph that takes statistics of a scan.

    One task finds out what all must agree on; a bounded number of tasks, however many blocks there are, read the scan
    and reduce it where it is read; a binary tree of tasks merges what they found, two neighbours at a time.

    Parameters
    ----------
    scan : Scan
        Source, which every worker must be able to open.
    statistics : Statistics
        What to take.
    plan : Plan
        Its blocks, each of whole patterns, and how many workers there will be.
    """
    from dask.delayed import delayed

    source = _Source(pickle.dumps(scan), plan, min(plan.blocks, _RUNS_PER_WORKER * plan.workers))
    shared = delayed(source, pure=False, traverse=False)
    ready = delayed(prepare, pure=False)(shared, delayed(statistics, pure=False, traverse=False))
    parts = [delayed(reduce_run, pure=False)(shared, ready, run) for run in range(source.runs)]
    level = parts
    while len(level) > 1:
        pairs = [level[k : k + 2] for k in range(0, len(level), 2)]
        level = [delayed(merge, pure=False)(ready, *pair) if len(pair) == 2 else pair[0] for pair in pairs]
    total = delayed(finalize, pure=False)(ready, level[0])
    return Reduction(total, parts, [source.run_bytes(run) for run in range(source.runs)], source_key(source.scan))


def reduce_scan(
    scan: Scan,
    statistics: Statistics[Part, Outcome],
    *,
    workers: int | None = None,
    memory: int | None = None,
    engine: Engine | None = None,
    start: Callable[[Plan], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Outcome:
    """Take statistics of all patterns of a scan in one pass.

    Parameters
    ----------
    scan : Scan
        Source; every block is read once, and the detector is whole in each.
    statistics : Statistics
        What to take.
    workers, memory, engine
        Where and how many at once, see `stemcodecs_pipelines.run.plan.make_plan`.
    start, progress : callable, optional
        Called with the plan, and with the raw bytes of every finished run of blocks.

    Returns
    -------
    object
        What `Statistics.finalize` makes of the whole.
    """
    plan = make_plan(
        scan,
        workers=workers,
        memory=memory,
        engine=engine,
        whole_detector=True,
        part_bytes=statistics.part_bytes,
    )
    if start is not None:
        start(plan)
    reduction = reduction_graph(scan, statistics, plan)

    def done(part: int) -> None:
        if progress is not None:
            progress(reduction.part_bytes[part])

    runs = engine or ThreadEngine(plan.workers)
    try:
        outcome: Outcome = runs.compute(reduction.total, reduction.parts, done)
    finally:
        runs.tell(close_source, reduction.source)
    scan.check_unchanged()
    return outcome
