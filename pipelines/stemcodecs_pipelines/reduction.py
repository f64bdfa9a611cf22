"""Statistics of a whole scan, out of core: blocks are reduced where they are read, then merged in a tree.

Give `reduce_scan` an object with ``block``, ``merge`` and ``finalize`` (see `Statistics`): the exact histograms of
`stemcodecs_pipelines.histograms`, the shared model of `stemcodecs_pipelines.scan_model`.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from stemcodecs.readers.scan import Region, Scan
from stemcodecs_pipelines.engine import Engine, ThreadEngine
from stemcodecs_pipelines.plan import Plan, make_plan

__all__ = ["Statistics", "reduce_scan"]

Partial = TypeVar("Partial")
Outcome = TypeVar("Outcome", covariant=True)

_RUNS_PER_WORKER = 8
"""Tasks per worker: enough that all end at about the same time, few enough to merge."""


class Statistics(Protocol[Partial, Outcome]):
    """Statistics that can be taken block by block; an importable, picklable object.

    ``merge`` must be associative and commutative to the last bit (integers are), so that the result
    depends neither on the chunks nor on who finishes first.
    """

    def block(self, patterns: np.ndarray[Any, Any], positions: np.ndarray[Any, Any]) -> Partial:
        """Statistics of some patterns, shape (patterns, det_y, det_x), and the flat index of each in the scan."""

    def merge(self, first: Partial, second: Partial) -> Partial:
        """Statistics of both; may reuse the memory of either."""

    def finalize(self, total: Partial) -> Outcome:
        """What the statistics of the whole scan are for."""


@dataclass(frozen=True)
class _Runs(Generic[Partial]):
    """What a task needs to know: it reduces one run of neighbouring blocks."""

    scan: bytes
    plan: Plan
    statistics: Statistics[Partial, Any]
    count: int

    def blocks(self, run: int) -> range:
        """Blocks of a run; the runs share all blocks evenly."""
        return range(run * self.plan.blocks // self.count, (run + 1) * self.plan.blocks // self.count)


@lru_cache(maxsize=4)
def _open(pickled: bytes) -> Scan:
    scan: Scan = pickle.loads(pickled)
    return scan


def reduce_run(runs: _Runs[Partial], run: int) -> tuple[Partial, int]:
    """Statistics of one run of blocks, and how many bytes they have. Runs on a worker."""
    scan = _open(runs.scan)
    total: Partial | None = None
    count = 0
    for index in runs.blocks(run):
        region = runs.plan.region(index)
        block = scan.read(region)
        part = runs.statistics.block(block.reshape(-1, *block.shape[-2:]), _positions(region, scan.shape))
        count += block.nbytes
        del block
        total = part if total is None else runs.statistics.merge(total, part)
    assert total is not None
    return total, count


def _positions(region: Region, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Flat indices of the patterns of a region in the whole scan, int64."""
    axes = [np.arange(s.start, s.stop) for s in region[:-2]]
    if not axes:
        return np.zeros(1, np.int64)
    return np.ravel_multi_index(np.meshgrid(*axes, indexing="ij"), shape[:-2]).ravel().astype(np.int64)


def reduce_scan(
    scan: Scan,
    statistics: Statistics[Partial, Outcome],
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
        Where and how many at once, see `stemcodecs_pipelines.encode.encode`.
    start, progress : callable, optional
        Called with the plan, and with the raw bytes of every finished run of blocks.

    Returns
    -------
    object
        What `Statistics.finalize` makes of the whole.
    """
    plan = make_plan(scan, chunk=_whole_detector(scan), workers=workers, memory=memory)
    if start is not None:
        start(plan)
    runs: _Runs[Partial] = _Runs(
        pickle.dumps(scan), plan, statistics, min(plan.blocks, _RUNS_PER_WORKER * plan.workers)
    )
    total: Partial | None = None
    tasks = (engine or ThreadEngine(plan.workers)).map(reduce_run, runs, range(runs.count))
    with contextlib.closing(tasks) as results:
        for part, count in results:
            total = part if total is None else statistics.merge(total, part)
            if progress is not None:
                progress(count)
    assert total is not None
    return statistics.finalize(total)


def _whole_detector(scan: Scan) -> tuple[int, ...] | None:
    """A block must hold whole patterns even where one pattern is larger than a default chunk."""
    chunk = make_plan(scan).chunk
    whole = chunk[-2:] == scan.shape[-2:]
    return None if whole else (*chunk[:-2], *scan.shape[-2:])
