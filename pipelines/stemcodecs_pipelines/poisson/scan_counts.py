"""The counts behind a whole scan: the map on a sample of its patterns, gain and offset from all of them."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stemcodecs.counts.counts_map import CountsMap
from stemcodecs.counts.find_map import FoundMap, find_map, unlit_pixels, whole_numbers, with_gains_of
from stemcodecs.counts.photon_transfer import RUN, SUMS_BYTES, PhotonTransfer, TransferSums
from stemcodecs_pipelines.run.engine import ThreadEngine
from stemcodecs_pipelines.run.open_sources import close_source, source_key, source_of
from stemcodecs_pipelines.run.plan import available_cores
from stemcodecs_pipelines.run.reduction import reduce_scan

if TYPE_CHECKING:
    from stemcodecs.readers.scan import Scan
    from stemcodecs_pipelines.methods.base import Learning

__all__ = ["map_of_scan", "photon_transfer"]

Array = np.ndarray[Any, Any]

SAMPLE_BYTES = 32 << 20
"""Of the patterns on which the map is sought, whatever the size of the scan."""
MOST_PATTERNS = 1280
UNLIT_BYTES = 512 << 20
"""Of the patterns that are read once more for pixels which had no count in the others."""


def map_of_scan(scan: Scan, learning: Learning) -> FoundMap:
    """Look for one map on runs of neighbouring patterns spread evenly over a scan."""
    return learning.remembered.once(("map of counts", scan.path, scan.dataset), lambda: _found_map(scan, learning))


def _found_map(scan: Scan, learning: Learning) -> FoundMap:
    pattern = int(np.prod(scan.shape[-2:], dtype=np.int64)) * scan.dtype.itemsize
    runs = _runs(scan, int(np.clip(SAMPLE_BYTES // max(1, pattern), 2 * RUN, MOST_PATTERNS)))
    sample = _read(scan, runs, None, learning).reshape(-1, *scan.shape[-2:])
    found = find_map(sample, np.concatenate(runs), scan.shape[:-2])
    if found.map is None:
        return found
    pixels = unlit_pixels(sample, found.map)
    del sample
    most = min(UNLIT_BYTES // max(1, pattern), SAMPLE_BYTES // max(1, pixels.size * scan.dtype.itemsize))
    if pixels.size == 0 or most <= sum(map(len, runs)):
        return found
    columns = _read(scan, _runs(scan, most), pixels, learning)
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


def _read(scan: Scan, runs: list[Array], pixels: Array | None, learning: Learning) -> Array:
    """Native values[patterns, pixels] of some runs, in order, read where the blocks will be."""
    pickled = pickle.dumps(scan)
    engine = learning.engine or ThreadEngine(learning.workers or available_cores())
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


def photon_transfer(scan: Scan, behind: CountsMap | None, dark: int, learning: Learning) -> PhotonTransfer:
    """Gain and offset from the noise of the whole scan, in units of its values or of the whole numbers behind them;
    ``dark`` is about what dark pixels have.

    Raises
    ------
    ConfigurationError
        The noise is not that of Poisson counts.
    """
    text = "photon transfer: the variance of neighbouring patterns against their mean"
    done, raw = 0, int(np.prod(scan.shape, dtype=np.int64)) * scan.dtype.itemsize

    def progress(read: int) -> None:
        nonlocal done
        done += read
        learning.report(text, min(done, raw - 1), raw)

    learning.report(text, 0, raw)
    statistics = TransferStatistics(behind=behind, dark=dark, scan=scan.shape[:-2])
    found = reduce_scan(
        scan, statistics, workers=learning.workers, memory=learning.memory, engine=learning.engine, progress=progress
    )
    learning.report(f"photon transfer: {found}", 1, 1)
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class TransferStatistics:
    """Sums for photon transfer, as `stemcodecs_pipelines.run.reduction.Statistics`.

    Parameters
    ----------
    behind : CountsMap or None
        How values become whole numbers, where they are none.
    dark : int
        About the whole number of dark pixels.
    scan : tuple of int
        Shape of the scan.
    """

    behind: CountsMap | None
    dark: int
    scan: tuple[int, ...]

    @property
    def part_bytes(self) -> int:
        """See `Statistics.part_bytes`."""
        return SUMS_BYTES

    def prepared(self, scan: Scan) -> TransferStatistics:
        """See `Statistics.prepared`."""
        return self

    def block(self, patterns: Array, positions: Array) -> TransferSums:
        """See `Statistics.block`."""
        rows = np.ascontiguousarray(patterns, patterns.dtype.newbyteorder("=")).reshape(len(patterns), -1)
        order = np.argsort(positions, kind="stable")
        return TransferSums.of(whole_numbers(rows[order], self.behind), positions[order], self.scan, self.dark)

    def merge(self, first: TransferSums, second: TransferSums) -> TransferSums:
        """See `Statistics.merge`."""
        return first.merge(second)

    def finalize(self, total: TransferSums) -> PhotonTransfer:
        """See `Statistics.finalize`."""
        return PhotonTransfer.fit(total)
