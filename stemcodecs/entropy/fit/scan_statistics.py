"""Statistics of a scan, block by block, from which one model for all its chunks is fitted.

Blocks can be taken in any order and of any shape, and merged in any tree: the same patterns give the same model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from stemcodecs.entropy.fit.fit_model import FitOptions, fit_model
from stemcodecs.entropy.fit.grouped_counts import GroupedCounts, PixelStatistics
from stemcodecs.entropy.kernels.transpose import plane_statistics
from stemcodecs.entropy.model.group_layout import GroupLayout
from stemcodecs.entropy.model.model_bytes import write_histogram_model
from stemcodecs.entropy.model.shared_model import SharedModel
from stemcodecs.entropy.values.calibration import Calibration, FloatCalibration
from stemcodecs.entropy.values.float_calibration import express_floats
from stemcodecs.entropy.values.integer_calibration import express_integers
from stemcodecs.entropy.values.number_map import MAX_EXCEPTIONS
from stemcodecs.entropy.values.pattern_parameters import signed, with_parameters
from stemcodecs.entropy.values.plane import NumberMap, apply_map, to_plane
from stemcodecs.errors import ConfigurationError, NotCountsError

__all__ = ["ScanSample", "ScanStatistics", "part_bytes"]

Array = np.ndarray[Any, Any]

SAMPLE_BYTES = 32 << 20
FEWEST_PATTERNS, MOST_PATTERNS = 64, 1024
MOST_PROBES = 16
_AT_ONCE = 1 << 20
_STRANGE = 0.25
"""Share of the values of a pattern without counts from which it is of another kind than the others."""
_NOT_COUNTS = "these values are not counts below 65536: encode without a shared model"


def sample_size(n_pixels: int) -> int:
    """Patterns that are kept to fit contexts and histograms on: 32 MB of them."""
    return int(np.clip(SAMPLE_BYTES // (2 * max(n_pixels, 1)), FEWEST_PATTERNS, MOST_PATTERNS))


def part_bytes(n_pixels: int) -> int:
    """What :class:`ScanStatistics` of a part of a scan take, where seven of them or more are held at once.

    The sample is divided among the parts; with the copies of those that are being merged, they hold it three times.
    """
    return (sample_size(n_pixels) + 12) * n_pixels


def _scatter(position: Array) -> Array:
    """A fixed random-looking order of all scan positions: the finaliser of SplitMix64 (Steele et al., 2014)."""
    z = position.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    # A hash, not a generator: which patterns are sampled must not depend on the order in which blocks come.
    return z ^ (z >> np.uint64(31))


def _first(positions: Array, n: int) -> Array:
    """The ``n`` positions that come first in the fixed order, in that order."""
    if positions.size > n:
        positions = positions[np.argpartition(_scatter(positions), n)[:n]]
    return positions[np.argsort(_scatter(positions))]


@dataclass(frozen=True, kw_only=True, eq=False)
class ScanSample:
    """What all blocks of a scan must agree on before the first is read, so that their cut changes nothing.

    Attributes
    ----------
    positions : int64[k]
        Scan positions of the patterns to keep, increasing.
    numbers : NumberMap
        How values become counts.
    calibration : Calibration or None
        How they do instead, where they are counts in disguise.
    behind : bytes
        Both, as the shared model will carry them; empty without a calibration.
    scaled, extended : bool
        As those of :class:`stemcodecs.entropy.model.shared_model.SharedModel`.
    """

    positions: Array
    numbers: NumberMap = field(default_factory=NumberMap)
    calibration: Calibration | None = None
    behind: bytes = b""
    scaled: bool = False
    extended: bool = False

    @classmethod
    def of(cls, n_positions: int, detector: tuple[int, int]) -> Self:
        """Sample of a scan of so many positions."""
        wanted = sample_size(math.prod(detector))
        chosen = np.zeros(0, np.int64)
        for start in range(0, n_positions, _AT_ONCE):
            chosen = _first(np.append(chosen, np.arange(start, min(n_positions, start + _AT_ONCE))), wanted)
        return cls(positions=np.sort(chosen))

    def probes(self, pattern_bytes: int, most: int = MOST_PROBES) -> Array:
        """Positions of the patterns to give to :meth:`read`: int64[at most 16 or as many as ``most``], increasing."""
        wanted = int(np.clip(SAMPLE_BYTES // max(pattern_bytes, 1), 1, most))
        return np.sort(_first(self.positions, wanted))

    def read(self, patterns: Array) -> Self:
        """Find out from the probes, shape (n, det_y, det_x), how values become counts.

        Raises
        ------
        NotCountsError
            If the values are not counts of 16 bits: each chunk then has to find its own model.
        """
        plane = to_plane(np.ascontiguousarray(patterns))
        if plane is None or plane.low is not None or plane.numbers.offset != NumberMap().offset:
            raise NotCountsError(_NOT_COUNTS)
        return type(self)(positions=self.positions, numbers=plane.numbers)


@dataclass(frozen=True, kw_only=True, eq=False)
class ScanStatistics:
    """Exact sums and ranges of every pixel, and a sample of the patterns chosen by their scan position.

    Attributes
    ----------
    detector : tuple of int
        (det_y, det_x).
    pixels : PixelStatistics
        Over all positions seen.
    numbers : NumberMap
        How values became counts.
    behind, scaled, extended
        As those of :class:`ScanSample`.
    unknown : int
        Values seen that are not counts.
    strange : int
        Patterns that were left out, since most of their values are no such counts.
    sampled : int64[k]
        Scan positions of the sample that were seen, increasing.
    patterns : uint16[k, n_pixels]
        Their counts.
    """

    detector: tuple[int, int]
    pixels: PixelStatistics
    numbers: NumberMap
    behind: bytes
    unknown: int
    sampled: Array
    patterns: Array
    scaled: bool = False
    extended: bool = False
    strange: int = 0

    @classmethod
    def block(cls, patterns: Array, positions: Array, sample: ScanSample | None = None) -> ScanStatistics:
        """Statistics of some patterns.

        Parameters
        ----------
        patterns : ndarray, shape (..., det_y, det_x)
            Counts of any numeric dtype.
        positions : int64, shape (...)
            Flat index of every pattern in the scan.
        sample : ScanSample, optional
            Of the whole scan; default: these patterns are all.

        Raises
        ------
        NotCountsError
            If there is no sample, and the values are not counts of 16 bits.
        """
        detector = (int(patterns.shape[-2]), int(patterns.shape[-1]))
        flat = np.asarray(positions, np.int64).ravel()
        if sample is None:
            everything = np.sort(_first(flat, sample_size(math.prod(detector))))
            sample = ScanSample(positions=everything).read(patterns)
        native = np.ascontiguousarray(patterns, patterns.dtype.newbyteorder("=")).reshape(flat.size, -1)
        counts, unknown = _counts_of(native, sample)
        n_pixels = counts.shape[1]
        # Pattern by pattern, so that it does not matter how the scan is cut.
        known = unknown <= _STRANGE * n_pixels
        strange = flat.size - int(known.sum())
        if strange:
            counts, unknown, flat = counts[known], unknown[known], flat[known]
        total, low, high = (
            np.zeros(n_pixels, np.int64),
            np.full(n_pixels, 65535, np.uint16),
            np.zeros(n_pixels, np.uint16),
        )
        plane_statistics(counts, 0, n_pixels, total, low, high, np.zeros(flat.size, np.int64))
        keep = np.flatnonzero(np.isin(flat, sample.positions))
        keep = keep[np.argsort(flat[keep])]
        return cls(
            detector=detector,
            pixels=PixelStatistics(n=flat.size, total=total, low=low, high=high),
            numbers=sample.numbers,
            behind=sample.behind,
            unknown=int(unknown.sum()),
            sampled=flat[keep],
            patterns=counts[keep].astype(np.uint16),
            scaled=sample.scaled,
            extended=sample.extended,
            strange=strange,
        )

    def merge(self, other: ScanStatistics) -> ScanStatistics:
        """Statistics of the patterns of both; no position may be in both."""
        if self.detector != other.detector:
            raise ConfigurationError(f"cannot merge statistics of detectors {self.detector} and {other.detector}")
        if self.numbers != other.numbers or self.behind != other.behind:
            raise ConfigurationError(
                "these statistics express values as counts in different ways; take them with one ScanSample"
            )
        a, b = self.pixels, other.pixels
        # The first of both in the fixed order: what any other order of merging keeps as well.
        both = np.concatenate([self.sampled, other.sampled])
        sampled = np.sort(_first(both, sample_size(self.patterns.shape[1])))
        patterns = np.empty((sampled.size, self.patterns.shape[1]), np.uint16)
        for part in (self, other):
            kept = np.isin(part.sampled, sampled)
            patterns[np.searchsorted(sampled, part.sampled[kept])] = part.patterns[kept]
        return ScanStatistics(
            detector=self.detector,
            pixels=PixelStatistics(
                n=a.n + b.n, total=a.total + b.total, low=np.minimum(a.low, b.low), high=np.maximum(a.high, b.high)
            ),
            numbers=self.numbers,
            behind=self.behind,
            unknown=self.unknown + other.unknown,
            sampled=sampled,
            patterns=patterns,
            scaled=self.scaled,
            extended=self.extended,
            strange=self.strange + other.strange,
        )

    def finalize(self, mode: str = "auto") -> SharedModel:
        """Fit the model that all chunks of the scan share.

        ``mode`` is that of the codec; scan neighbours are not used in a shared model, so that chunks of one group stay
        independent.

        Raises
        ------
        NotCountsError
            If too many values are not counts of 16 bits.
        """
        if self.unknown > MAX_EXCEPTIONS * self.pixels.n * self.pixels.total.size or not self.sampled.size:
            raise NotCountsError(_NOT_COUNTS)
        layout = GroupLayout(scan=(1, self.sampled.size), detector=self.detector)
        counts = GroupedCounts(self.patterns, layout, 4 * self.detector[1])
        mean_frame_sum = float(self.pixels.total.sum() / self.pixels.n)
        # Of the whole scan: the sample's own mean would differ by chance.
        counts.set_reference(mean_frame_sum)
        fit = fit_model(counts, FitOptions(mode=mode), self.pixels)
        counts.forget()
        return SharedModel(
            detector=self.detector,
            mean_frame_sum=mean_frame_sum,
            model=write_histogram_model(fit.model),
            behind=self.behind,
            scaled=self.scaled,
            extended=self.extended,
        )


def _counts_of(values: Array, sample: ScanSample) -> tuple[Array, Array]:
    """Counts of native values[n, n_pixels], 0 where there are none, and how many values of each pattern have none."""
    numbers, calibration = sample.numbers, sample.calibration
    if calibration is None:
        counts, n = apply_map(values, numbers)
        unknown = np.zeros(len(values), np.int64)
        if n:
            unknown += [apply_map(pattern, numbers)[1] for pattern in values]
        return counts.reshape(values.shape), unknown
    if sample.scaled:
        calibration = with_parameters(values, calibration)
    # However few values have counts: which patterns these are in is asked.
    if isinstance(calibration, FloatCalibration):
        with np.errstate(all="ignore"):
            plane = express_floats(values, numbers, calibration, fixed=True, most=1.0)
    else:
        plane = express_integers(signed(values), numbers, calibration, fixed=True, most=1.0)
    if plane is None:
        return np.zeros(values.shape, np.uint16), np.full(len(values), values.shape[1])
    plane.counts[plane.exceptions_at] = 0
    unknown = np.bincount(plane.exceptions_at // values.shape[1], minlength=len(values))
    return plane.counts.reshape(values.shape), unknown
