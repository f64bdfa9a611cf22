"""What a lossy method does to the counts, block by block: errors, sums, mean pattern and virtual images."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stemcodecs.counts.counts_map import CountsMap
from stemcodecs.counts.find_map import FoundMap, whole_numbers
from stemcodecs.marks import find_marks
from stemcodecs.metrics import diffraction_mse, ssim
from stemcodecs.readers.scan import Region
from stemcodecs_pipelines.compare.report import Loss
from stemcodecs_pipelines.store.virtual_images import VirtualDetectors, block_sums, image_sums

__all__ = ["ERROR_EDGES", "CountsBehind", "LossSums"]

Array = np.ndarray[Any, Any]

ERROR_EDGES = np.linspace(-2.0, 2.0, 81)
"""Of the histogram of errors in standard deviations; the outermost bins hold what lies beyond them too."""
SMALLEST_IMAGE = 11
"""Pixels along a side, below which structural similarity is not defined."""
IMAGES = ("sum_image", "bright_field", "annular_dark_field")


@dataclass(frozen=True, kw_only=True)
class CountsBehind:
    """How the values of a scan become counts.

    Attributes
    ----------
    found : FoundMap
        What a few patterns told.
    """

    found: FoundMap

    @property
    def known(self) -> bool:
        """Whether there are counts behind the values."""
        return self.found.plain or self.found.map is not None

    @property
    def map(self) -> CountsMap | None:
        """None where the values are counts as they are."""
        return self.found.map

    def of(self, values: Array) -> tuple[Array, Array | None]:
        """Counts of patterns, shape (n, det_y, det_x), integers; and where there are some, None for everywhere.

        Marks and values without a count behind them are 0 there.
        """
        if self.map is None and values.dtype.kind == "u":
            # As they are: a copy in a wider dtype would be the largest thing in memory.
            marks = find_marks(values)
            return (values, None) if marks is None else (np.where(marks, values.dtype.type(0), values), ~marks)
        numbers = whole_numbers(np.ascontiguousarray(values).reshape(len(values), -1), self.map).reshape(values.shape)
        known = numbers < np.iinfo(np.int32).max
        # Values below zero are no counts: differences, or an offset that nobody found.
        known &= numbers >= 0
        if known.all():
            return numbers, None
        return np.where(known, numbers, 0), known


@dataclass(kw_only=True)
class LossSums:
    """Sums over blocks, from which a `Loss` is made.

    Parameters
    ----------
    shape : tuple of int
        Of the scan.
    detectors : VirtualDetectors or None
        None for stacks, which have no virtual images.
    """

    shape: tuple[int, ...]
    detectors: VirtualDetectors | None
    values: int = 0
    largest: float = 0.0
    source_total: float = 0.0
    decoded_total: float = 0.0
    squares: float = 0.0
    scaled_squares: float = 0.0
    amplitude_squares: float = 0.0
    histogram: Array = field(default_factory=lambda: np.zeros(len(ERROR_EDGES) - 1, np.int64))
    patterns: Array | None = None
    images: list[tuple[Region, Array, Array]] = field(default_factory=list)

    def add(self, source: Array, decoded: Array, known: Array | None, region: Region) -> None:
        """Take a block.

        Parameters
        ----------
        source, decoded : ndarray, (n, det_y, det_x)
            Counts; those that are decoded may be fractions.
        known : ndarray of bool or None
            Where there are counts; None for everywhere.
        region : Region
            Of the scan.
        """
        if self.patterns is None:
            self.patterns = np.zeros((2, *self.shape[-2:]))
        place = region[-2:]
        sums: list[Array] = []
        for number, counts in enumerate((source, decoded)):
            clean = counts if known is None else np.where(known, counts, 0)
            found = block_sums(np.ascontiguousarray(clean), self.detectors, corner=(place[0].start, place[1].start))
            self.patterns[number][place] += found.pattern
            sums.append(found.images.astype(np.float64))
        if self.detectors is not None:
            self.images.append((region[:-2], sums[0], sums[1]))
        for a, b, where in zip(source, decoded, [None] * len(source) if known is None else known, strict=True):
            self._add_pattern(a if where is None else a[where], b if where is None else b[where])

    def _add_pattern(self, source: Array, decoded: Array) -> None:
        if not source.size:
            return
        n, d = source.astype(np.float64).ravel(), decoded.astype(np.float64).ravel()
        error = d - n
        scaled = error / np.sqrt(np.maximum(n, 1))
        self.values += n.size
        self.largest = max(self.largest, float(np.abs(scaled).max()))
        self.source_total += float(n.sum())
        self.decoded_total += float(d.sum())
        self.squares += float((error**2).sum())
        self.scaled_squares += float((scaled**2).sum())
        # A low-rank estimate may lie below zero, where there is no amplitude.
        self.amplitude_squares += n.size * diffraction_mse(np.sqrt(np.maximum(d, 0)), np.sqrt(n))
        self.histogram += np.histogram(np.clip(scaled, ERROR_EDGES[0], ERROR_EDGES[-1]), ERROR_EDGES)[0]

    def loss(self, *, whole: bool) -> Loss:
        """What the sums say; of a part of a scan, images are compared block by block."""
        if not self.values or self.patterns is None:
            return Loss()
        some = self.source_total > 0
        return Loss(
            largest_error=self.largest,
            total_bias=self.decoded_total / self.source_total - 1.0 if some else None,
            added_noise=math.sqrt(self.scaled_squares / self.values),
            # Thinning N to the fraction f and scaling it back adds the variance N (1/f − 1): see `dose_equivalent`.
            dose_equivalent=self.source_total / (self.source_total + self.squares) if some else None,
            ssim_mean_pattern=_similarity(self.patterns[1], self.patterns[0]),
            ssim_images=min(self._image_similarities(whole), default=None),
            diffraction_mse=self.amplitude_squares / self.values,
        )

    def _image_similarities(self, whole: bool) -> list[float]:
        found = []
        for source, decoded in self._fields(whole):
            of_source, of_decoded = image_sums(source), image_sums(decoded)
            found += [_similarity(of_decoded[name], of_source[name]) for name in IMAGES]
        return [value for value in found if value is not None]

    def _fields(self, whole: bool) -> list[tuple[Array, Array]]:
        """Per-pattern sums of source and decoded counts, as (rows, columns, 5): of whole scans, or of blocks."""
        if not whole:
            shapes = [tuple(s.stop - s.start for s in region) for region, _, _ in self.images]
            return [
                (a.reshape(-1, *shape[-2:], 5)[0], b.reshape(-1, *shape[-2:], 5)[0])
                for shape, (_, a, b) in zip(shapes, self.images, strict=True)
            ]
        full = np.zeros((2, *self.shape[:-2], 5))
        for region, *sums in self.images:
            for number, values in enumerate(sums):
                # Bands of a detector add up.
                part = full[number][region]
                part += values.reshape(part.shape)
        scans = full.reshape(2, -1, *self.shape[-4:-2], 5)
        return list(zip(scans[0], scans[1], strict=True))


def _similarity(image: Array, reference: Array) -> float | None:
    if image.ndim != 2 or min(image.shape) < SMALLEST_IMAGE or np.ptp(reference) == 0:
        return None
    return ssim(image, reference)
