"""One histogram model for all chunks of a scan, fitted out of core in one pass over it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemcodecs.readers.scan import Scan
from stemcodecs_pipelines.engine import Engine
from stemcodecs_pipelines.plan import Plan
from stemcodecs_pipelines.reduction import reduce_scan

if TYPE_CHECKING:
    from stemcodecs.entropy.shared import SharedModel
    from stemcodecs.entropy.statistics import ScanStatistics

__all__ = ["ModelStatistics", "fit_scan_model"]


@dataclass(frozen=True, kw_only=True)
class ModelStatistics:
    """`stemcodecs_pipelines.reduction.Statistics` that a histogram model is fitted to.

    Parameters
    ----------
    mode : str
        Mode of the codec: ``auto``, ``pixel`` or ``neighbour``.
    """

    mode: str = "auto"

    def block(self, patterns: np.ndarray[Any, Any], positions: np.ndarray[Any, Any]) -> ScanStatistics:
        """Statistics of some patterns at their flat scan positions."""
        from stemcodecs.entropy.statistics import ScanStatistics

        return ScanStatistics.block(patterns, positions)

    def merge(self, first: ScanStatistics, second: ScanStatistics) -> ScanStatistics:
        """Statistics of both."""
        return first.merge(second)

    def finalize(self, total: ScanStatistics) -> SharedModel:
        """The model."""
        return total.finalize(self.mode)


def fit_scan_model(
    scan: Scan,
    *,
    mode: str = "auto",
    workers: int | None = None,
    memory: int | None = None,
    engine: Engine | None = None,
    start: Callable[[Plan], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> SharedModel:
    """Fit the model that all chunks of a scan share.

    With it, chunks of one group (64 positions) compress as well as large ones, because none of them carries a model of
    its own. Give it to the codec: ``PixelHistogram(**fit_scan_model(scan).configuration())``.

    Parameters
    ----------
    scan : Scan
        Source; read once.
    mode : str
        Mode of the codec.
    workers, memory, engine, start, progress
        See `stemcodecs_pipelines.reduction.reduce_scan`.

    Returns
    -------
    SharedModel
        The same whatever the chunks, the workers and their order.

    Raises
    ------
    ConfigurationError
        The values are not counts below 65536.
    """
    return reduce_scan(
        scan, ModelStatistics(mode=mode), workers=workers, memory=memory, engine=engine, start=start, progress=progress
    )
