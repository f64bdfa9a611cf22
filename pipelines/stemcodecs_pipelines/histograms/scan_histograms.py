"""What is known of every detector pixel after one pass over a whole scan: a model to code it with, and exact counts.

The model goes into the codec's configuration, so that chunks of one group (64 positions) compress as well as large
ones, because none of them carries a model of its own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from stemcodecs.errors import ConfigurationError
from stemcodecs.readers.scan import Scan
from stemcodecs_pipelines.histograms.pixel_counts import CountHistograms, PixelCounts, pixel_counts
from stemcodecs_pipelines.run.engine import Engine
from stemcodecs_pipelines.run.plan import Plan, available_cores
from stemcodecs_pipelines.run.reduction import Reduction, reduce_scan, reduction_graph
from stemcodecs_pipelines.run.source import HowToOpen, opened

if TYPE_CHECKING:
    import xarray

    from stemcodecs.codecs import PixelHistogram
    from stemcodecs.entropy.fit.scan_statistics import ScanSample, ScanStatistics
    from stemcodecs.entropy.model.shared_model import SharedModel

__all__ = ["HistogramStatistics", "ScanHistograms", "histogram_graph", "histograms", "pixel_counts"]

_LEAST_TAIL = 1 << 20
_LOOKED_AT = 64
"""Patterns that are read to see whether values are counts in disguise."""


@dataclass(frozen=True, kw_only=True)
class ScanHistograms:
    """Outcome of `histograms`.

    Attributes
    ----------
    mode : str
        Mode of the codec that the model was fitted for.
    shared : SharedModel or None
        The model; None if it was left out.
    counts : xarray.Dataset or None
        The exact histograms; None if they were left out.
        ``histogram`` (value, det_y, det_x), uint32: how often each small value occurred. All other
        values as a list along ``tail``: ``tail_value`` in the pixel (``tail_y``, ``tail_x``) occurred
        ``tail_occurrences`` times, sorted by pixel and value. ``attrs["patterns"]`` is the number of
        patterns. `pixel_counts` joins both parts for one pixel.
    strange : int
        Patterns that the model is not of, since many of their values are no such counts as those of the others.
    """

    mode: str
    shared: SharedModel | None
    counts: xarray.Dataset | None
    strange: int = 0

    def configuration(self) -> dict[str, str]:
        """Configuration of the codec: ``PixelHistogram(**model.configuration())``.

        Raises
        ------
        ConfigurationError
            If the model was left out.
        """
        if self.shared is None:
            raise ConfigurationError("these histograms were taken without a model; take them with model=True")
        return {"mode": self.mode, **self.shared.configuration()}

    def codec(self) -> PixelHistogram:
        """The codec that carries the model: a serializer of Zarr format 3."""
        from stemcodecs.codecs import PixelHistogram

        return PixelHistogram(**self.configuration())


@dataclass(frozen=True, kw_only=True)
class HistogramStatistics:
    """`stemcodecs_pipelines.run.reduction.Statistics` for `histograms`.

    Parameters
    ----------
    detector : tuple of int
        Rows and columns.
    mode : str
        Mode of the codec: ``auto``, ``pixel`` or ``neighbour``.
    model : bool
        Whether to fit a model.
    counts : CountHistograms or None
        How to count values exactly, if they are to be.
    sample : ScanSample, optional
        What the blocks must agree on for the model.
    """

    detector: tuple[int, int]
    mode: str = "auto"
    model: bool = True
    counts: CountHistograms | None = None
    sample: ScanSample | None = None

    @property
    def part_bytes(self) -> int:
        """Most that the statistics of some patterns take."""
        from stemcodecs.entropy.fit.scan_statistics import part_bytes

        of_model = part_bytes(math.prod(self.detector)) if self.model else 0
        return of_model + (self.counts.part_bytes if self.counts else 0)

    def prepared(self, scan: Scan) -> HistogramStatistics:
        """Look at a few patterns: which values stand for which counts must not depend on the blocks.

        Raises
        ------
        NotCountsError
            The values are not counts below 65536.
        """
        from stemcodecs.entropy.chunk.find_shared import find_shared
        from stemcodecs.entropy.chunk.shared_calibration import behind_bytes, is_extended
        from stemcodecs.entropy.fit.scan_statistics import ScanSample

        # Counting needs no agreement: a value is a value in every block.
        if not self.model:
            return self
        sample = ScanSample.of(math.prod(scan.shape[:-2]), self.detector)
        pattern_bytes = scan.dtype.itemsize * math.prod(self.detector)

        def read(positions: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            return np.stack([scan.read(_region(int(at), scan.shape)).reshape(self.detector) for at in positions])

        # Some patterns tell whether values are counts in disguise, many how.
        looked_at = sample.probes(pattern_bytes, _LOOKED_AT)
        patterns = read(looked_at)
        found = find_shared(patterns)
        if found is not None:
            # Among many there may be patterns of another kind, which few do not show.
            found = find_shared(read(sample.probes(pattern_bytes, sample.positions.size))) or found
        if found is None:
            return replace(self, sample=sample.read(patterns[np.isin(looked_at, sample.probes(pattern_bytes))]))
        numbers, calibration, scaled = found
        extended = is_extended(calibration, self.detector, scaled=scaled)
        behind = behind_bytes(numbers, calibration, self.detector, extended=extended)
        agreed = replace(
            sample, numbers=numbers, calibration=calibration, behind=behind, scaled=scaled, extended=extended
        )
        return replace(self, sample=agreed)

    def block(
        self, patterns: np.ndarray[Any, Any], positions: np.ndarray[Any, Any]
    ) -> tuple[ScanStatistics | None, PixelCounts | None]:
        """Statistics of some patterns at their flat scan positions."""
        from stemcodecs.entropy.fit.scan_statistics import ScanStatistics

        model = ScanStatistics.block(patterns, positions, self.sample) if self.model else None
        return model, self.counts.block(patterns) if self.counts else None

    def merge(
        self, first: tuple[ScanStatistics | None, PixelCounts | None], second: tuple[Any, Any]
    ) -> tuple[ScanStatistics | None, PixelCounts | None]:
        """Statistics of both."""
        model = first[0].merge(second[0]) if first[0] else None
        counts = self.counts.merge(first[1], second[1]) if self.counts and first[1] else None
        return model, counts

    def finalize(self, total: tuple[ScanStatistics | None, PixelCounts | None]) -> ScanHistograms:
        """Fit the model, and lay the counts out."""
        model, counts = total
        return ScanHistograms(
            mode=self.mode,
            shared=model.finalize(self.mode) if model else None,
            counts=self.counts.finalize(counts) if self.counts and counts else None,
            strange=model.strange if model else 0,
        )


def histograms(
    source: Scan | str | os.PathLike[str],
    *,
    mode: str = "auto",
    model: bool = True,
    counts: bool = True,
    workers: int | None = None,
    memory: int | None = None,
    engine: Engine | None = None,
    start: Callable[[Plan], None] | None = None,
    progress: Callable[[int], None] | None = None,
    **how: Unpack[HowToOpen],
) -> ScanHistograms:
    """Statistics of every detector pixel over all positions of a scan, out of core, in one pass.

    Parameters
    ----------
    source : Scan or path
        Source with whole numbers (integers, or floats that hold counts).
    mode : str
        Mode of the codec that the model is for: ``auto``, ``pixel`` or ``neighbour``.
    model, counts : bool
        Whether to fit the model, and whether to count the values of every pixel exactly.
    workers, memory, engine, start, progress
        See `stemcodecs_pipelines.run.reduction.reduce_scan`.

    **how
        How to open a path, see `stemcodecs.readers.open_scan`.

    Returns
    -------
    ScanHistograms
        The same to the last bit whatever the chunks, the workers and their order.

    Raises
    ------
    UnsupportedDtypeError
        The values are not whole numbers, and ``counts`` is set.
    NotCountsError
        The values are not counts below 65536, and ``model`` is set.
    ConfigurationError
        So many different large values occur that their list would take more than the memory allows.

    Examples
    --------
    >>> found = histograms(scan)  # doctest: +SKIP
    >>> zarr.create_array(..., serializer=found.codec(), compressors=None)  # doctest: +SKIP
    >>> found.counts["histogram"].sel(value=0)  # how often each pixel was dark  # doctest: +SKIP
    """
    with opened(source, **how) as scan:
        statistics = _statistics(scan, mode=mode, model=model, counts=counts, workers=workers, memory=memory)
        return reduce_scan(
            scan, statistics, workers=workers, memory=memory, engine=engine, start=start, progress=progress
        )


def histogram_graph(
    scan: Scan, *, plan: Plan, mode: str = "auto", model: bool = True, counts: bool = True
) -> Reduction[ScanHistograms]:
    """The Dask graph of `histograms`, for whoever runs it with other tasks or on a scheduler of their own.

    ``dask.compute(histogram_graph(scan, plan=make_plan(scan, whole_detector=True)).total)`` gives the `ScanHistograms`.
    """
    return reduction_graph(scan, _statistics(scan, mode=mode, model=model, counts=counts), plan)


def _statistics(
    scan: Scan,
    *,
    mode: str,
    model: bool,
    counts: bool,
    workers: int | None = None,
    memory: int | None = None,
) -> HistogramStatistics:
    from stemcodecs.codecs import PixelHistogram

    detector = (scan.shape[-2], scan.shape[-1])
    counting = None
    if counts:
        axes = scan.axes[-2:]
        counting = CountHistograms(
            detector=detector,
            names=(axes[0].name, axes[1].name),
            coordinates={a.name: (a.name, a.coordinates, {"units": a.units} if a.units else {}) for a in axes},
        )
        if memory is not None:
            # An eighth of it for the lists, however many of them wait to be merged.
            parts = 3 * (workers or available_cores()) + 8
            counting = replace(counting, tail_bytes=max(_LEAST_TAIL, memory // (8 * parts)))
    return HistogramStatistics(detector=detector, mode=PixelHistogram(mode=mode).mode, model=model, counts=counting)


def _region(position: int, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """One pattern."""
    at = np.unravel_index(position, shape[:-2]) if len(shape) > 2 else ()
    return (*(slice(int(i), int(i) + 1) for i in at), slice(0, shape[-2]), slice(0, shape[-1]))
