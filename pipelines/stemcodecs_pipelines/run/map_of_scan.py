"""The map from the values of a scan to the counts behind them, sought on a sample of its patterns."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stemcodecs.counts.find_map import FoundMap, find_map, unlit_pixels, with_gains_of
from stemcodecs.counts.photon_transfer import RUN
from stemcodecs_pipelines.run.engine import Engine, ThreadEngine
from stemcodecs_pipelines.run.open_sources import close_source, source_key, source_of
from stemcodecs_pipelines.run.plan import available_cores

if TYPE_CHECKING:
    from stemcodecs.readers.scan import Scan

__all__ = ["map_of_scan"]

Array = np.ndarray[Any, Any]

SAMPLE_BYTES = 32 << 20
"""Of the patterns on which the map is sought, whatever the size of the scan."""
MOST_PATTERNS = 1280
UNLIT_BYTES = 512 << 20
"""Of the patterns that are read once more for pixels which had no count in the others."""


def map_of_scan(scan: Scan, engine: Engine | None = None, workers: int | None = None) -> FoundMap:
    """Look for one map on runs of neighbouring patterns spread evenly over a scan.

    Parameters
    ----------
    scan : Scan
        Patterns of integers or floats, 3 dimensions or more.
    engine : Engine, optional
        Where the runs are read; default: threads, ``workers`` of them.
    """
    engine = engine or ThreadEngine(workers or available_cores())
    pattern = int(np.prod(scan.shape[-2:], dtype=np.int64)) * scan.dtype.itemsize
    runs = _runs(scan, int(np.clip(SAMPLE_BYTES // max(1, pattern), 2 * RUN, MOST_PATTERNS)))
    sample = _read(scan, runs, None, engine).reshape(-1, *scan.shape[-2:])
    found = find_map(sample, np.concatenate(runs), scan.shape[:-2])
    if found.map is None:
        return found
    pixels = unlit_pixels(sample, found.map)
    del sample
    most = min(UNLIT_BYTES // max(1, pattern), SAMPLE_BYTES // max(1, pixels.size * scan.dtype.itemsize))
    if pixels.size == 0 or most <= sum(map(len, runs)):
        return found
    columns = _read(scan, _runs(scan, most), pixels, engine)
    return replace(found, map=with_gains_of(found.map, pixels, columns))


@dataclass(frozen=True, kw_only=True, eq=False)
class _ReadRuns:
    """Runs of patterns to read: the pickled scan, the flat position of the first of each run, their length, and which
    pixels of them (None: all).
    """

    scan: bytes
    starts: tuple[int, ...]
    length: int
    pixels: Array | None


def _read(scan: Scan, runs: list[Array], pixels: Array | None, engine: Engine) -> Array:
    """Native values[patterns, pixels] of some runs, in order, read where the blocks will be."""
    pickled = pickle.dumps(scan)
    starts = tuple(int(run[0]) for run in runs)
    tasks = _ReadRuns(scan=pickled, starts=starts, length=len(runs[0]), pixels=pixels)
    parts: dict[int, Array] = {}
    try:
        for index, part in engine.map(_read_run, tasks, range(len(runs))):
            parts[index] = part
    finally:
        engine.tell(close_source, source_key(pickled))
    return np.concatenate([parts.pop(i) for i in range(len(runs))])


def _read_run(tasks: _ReadRuns, index: int) -> tuple[int, Array]:
    """Native values[length, pixels] of a run. Runs on a worker."""
    scan = source_of(tasks.scan)
    lead = scan.shape[:-2]
    at = np.unravel_index(tasks.starts[index], lead)
    region = (*(slice(int(i), int(i) + 1) for i in at[:-1]), slice(int(at[-1]), int(at[-1]) + tasks.length))
    whole = tuple(slice(0, n) for n in scan.shape[-2:])
    rows = scan.read((*region, *whole)).reshape(tasks.length, -1)
    some = rows if tasks.pixels is None else rows[:, tasks.pixels]
    return index, np.ascontiguousarray(some, some.dtype.newbyteorder("="))


def _runs(scan: Scan, most: int) -> list[Array]:
    """Flat positions of runs of neighbouring patterns, increasing; about ``most`` patterns."""
    lead = scan.shape[:-2]
    total, row = int(np.prod(lead, dtype=np.int64)), int(lead[-1])
    length = min(RUN, row)
    in_a_row = row // length
    count = min(total // row * in_a_row, max(2, most // length))
    chosen = np.unique(np.linspace(0, total // row * in_a_row - 1, count).round().astype(np.int64))
    starts = chosen // in_a_row * row + chosen % in_a_row * length
    return [np.arange(start, start + length) for start in starts]
