"""Gain and offset of the counts behind a scan, from the noise of all its patterns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemcodecs.counts.counts_map import CountsMap
from stemcodecs.counts.find_map import whole_numbers
from stemcodecs.counts.photon_transfer import SUMS_BYTES, PhotonTransfer, TransferSums
from stemcodecs_pipelines.run.reduction import reduce_scan

if TYPE_CHECKING:
    from stemcodecs.readers.scan import Scan
    from stemcodecs_pipelines.methods.base import Learning

__all__ = ["photon_transfer"]

Array = np.ndarray[Any, Any]


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
