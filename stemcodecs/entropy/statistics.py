"""Statistics of a scan, block by block, from which one model for all its chunks is fitted.

Blocks can be taken in any order and of any shape, and merged in any tree: the same patterns give the same model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.entropy.fit import FitOptions, fit_model
from stemcodecs.entropy.layout import Layout
from stemcodecs.entropy.model_bytes import write_model
from stemcodecs.entropy.planes import NumberMap, to_plane
from stemcodecs.entropy.rows import GroupedCounts, PixelStatistics
from stemcodecs.entropy.shared import SharedModel
from stemcodecs.errors import ConfigurationError

__all__ = ["ScanStatistics"]

Array = np.ndarray[Any, Any]

SAMPLE_BYTES = 32 << 20
FEWEST_PATTERNS, MOST_PATTERNS = 64, 1024


def sample_size(n_pixels: int) -> int:
    """Patterns that are kept to fit contexts and histograms on: 32 MB of them."""
    return int(np.clip(SAMPLE_BYTES // (2 * max(n_pixels, 1)), FEWEST_PATTERNS, MOST_PATTERNS))


def _scatter(position: Array) -> Array:
    """A fixed random-looking order of all scan positions: the finaliser of SplitMix64 (Steele et al., 2014)."""
    z = position.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@dataclass(frozen=True, kw_only=True, eq=False)
class ScanStatistics:
    """Exact sums and ranges of every pixel, and a sample of the patterns chosen by their scan position.

    Attributes
    ----------
    detector : tuple of int
        (det_y, det_x).
    pixels : PixelStatistics
        Over all positions seen.
    sampled : int64[k]
        Scan positions of the sample, increasing.
    patterns : uint16[k, n_pixels]
        Their counts.
    """

    detector: tuple[int, int]
    pixels: PixelStatistics
    sampled: Array
    patterns: Array

    @classmethod
    def block(cls, patterns: Array, positions: Array) -> ScanStatistics:
        """Statistics of some patterns.

        Parameters
        ----------
        patterns : ndarray, shape (..., det_y, det_x)
            Counts of any numeric dtype.
        positions : int64, shape (...)
            Flat index of every pattern in the scan.

        Raises
        ------
        ConfigurationError
            If the values are not counts of 16 bits: each chunk then has to find its own model.
        """
        detector = (int(patterns.shape[-2]), int(patterns.shape[-1]))
        plane = to_plane(np.ascontiguousarray(patterns))
        if plane is None or plane.low is not None or plane.numbers.offset != NumberMap().offset:
            raise ConfigurationError("these values are not counts below 65536: encode without a shared model")
        counts = plane.counts.reshape(-1, detector[0] * detector[1])
        flat = np.asarray(positions, np.int64).ravel()
        pixels = PixelStatistics(
            n=flat.size, total=counts.sum(axis=0, dtype=np.int64),
            low=counts.min(axis=0).astype(np.uint16), high=counts.max(axis=0).astype(np.uint16),
        )  # fmt: skip
        keep = _lowest(flat, sample_size(counts.shape[1]))
        return cls(detector=detector, pixels=pixels, sampled=flat[keep], patterns=counts[keep].astype(np.uint16))

    def merge(self, other: ScanStatistics) -> ScanStatistics:
        """Statistics of the patterns of both; no position may be in both."""
        if self.detector != other.detector:
            raise ConfigurationError(f"cannot merge statistics of detectors {self.detector} and {other.detector}")
        a, b = self.pixels, other.pixels
        pixels = PixelStatistics(
            n=a.n + b.n, total=a.total + b.total, low=np.minimum(a.low, b.low), high=np.maximum(a.high, b.high)
        )
        sampled = np.concatenate([self.sampled, other.sampled])
        keep = _lowest(sampled, sample_size(self.patterns.shape[1]))
        patterns = np.concatenate([self.patterns, other.patterns])[keep]
        return ScanStatistics(detector=self.detector, pixels=pixels, sampled=sampled[keep], patterns=patterns)

    def finalize(self, mode: str = "auto") -> SharedModel:
        """Fit the model that all chunks of the scan share.

        ``mode`` is that of the codec; scan neighbours are not used in a shared model, so that chunks of one group stay
        independent.
        """
        layout = Layout(scan=(1, self.sampled.size), detector=self.detector)
        counts = GroupedCounts(self.patterns, layout, 4 * self.detector[1])
        mean_frame_sum = float(self.pixels.total.sum() / self.pixels.n)
        counts.set_reference(mean_frame_sum)
        fit = fit_model(counts, FitOptions(mode=mode), self.pixels)
        return SharedModel(detector=self.detector, mean_frame_sum=mean_frame_sum, model=write_model(fit.model))


def _lowest(positions: Array, n: int) -> Array:
    """Indices of the ``n`` positions that come first in the fixed order, by increasing position."""
    chosen = np.arange(positions.size)
    if positions.size > n:
        chosen = np.argpartition(_scatter(positions), n)[:n]
    return chosen[np.argsort(positions[chosen])]
