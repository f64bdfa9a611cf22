"""What a look at a scan finds: what its values are, and what looks wrong with them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.counts.find_map import FoundMap
from stemcodecs.counts.words import words_of_map
from stemcodecs.marks import find_marks
from stemcodecs.readers.scan import Scan
from stemcodecs_pipelines.compare.losses import CountsBehind
from stemcodecs_pipelines.compare.sample import ChosenBlocks
from stemcodecs_pipelines.run.map_of_scan import map_of_scan
from stemcodecs_pipelines.store.survey import survey_scan
from stemcodecs_pipelines.store.virtual_images import VirtualDetectors, block_sums, image_sums

__all__ = ["Look", "look_at"]

Array = np.ndarray[Any, Any]

FEW_POSITIONS = 64
"""Positions below which the codec's groups of 64 are not full, and a model has little to learn from."""
DRIFT = 0.1
"""Change of the mean dose from one end of a scan to the other that is worth a word."""
OUTLIER, BRIGHT = 10.0, 3.0
"""Standard deviations above the pixels around, and times their mean, of a hot pixel."""
LIT = 0.5
"""Mean counts around a pixel, below which one that never counted may be dark by chance."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What was found.

    Attributes
    ----------
    counts : CountsBehind
        How values become counts.
    words : str
        The same in words; empty where they are counts.
    detectors : VirtualDetectors or None
        Of the virtual images.
    findings : tuple of str
        Sentences, for people.
    mean_pattern : ndarray of float64
        Mean counts of the blocks that were read, shape (det_y, det_x).
    virtual_images : dict
        Of a scan that was read whole.
    """

    counts: CountsBehind
    words: str
    detectors: VirtualDetectors | None
    findings: tuple[str, ...]
    mean_pattern: Array
    virtual_images: dict[str, Array]


def look_at(scan: Scan, chosen: ChosenBlocks) -> Look:
    """Read the blocks of a sample once.

    Parameters
    ----------
    scan : Scan
        Source.
    chosen : ChosenBlocks
        Blocks of whole patterns.
    """
    if len(scan.shape) >= 3 and scan.dtype.kind in "iuf":
        counts = CountsBehind(found=map_of_scan(scan, workers=1))
    else:
        counts = CountsBehind(found=FoundMap(plain=scan.dtype.kind in "bu"))
    words = "" if counts.map is None else words_of_map(counts.map)
    marked, detectors = survey_scan(scan)
    sums = _Sums(scan, detectors)
    for region in chosen.regions:
        sums.add(scan.read(region), region, counts)
    findings = list(_of_values(scan, counts, words, sums))
    gaps = sums.marks == sums.patterns
    if marked.mask is not None:
        gaps |= marked.mask
    if gaps.any():
        findings.append(f"{int(gaps.sum()):,} pixels hold a mark in every pattern: gaps or dead pixels.")
    mean = sums.mean_pattern
    findings += _of_pixels(mean, gaps, sums.patterns)
    findings += _of_positions(scan, sums)
    images = {}
    if chosen.whole and detectors is not None:
        found = image_sums(sums.images)
        images = {name: found[name].astype(np.float64) for name in ("sum_image", "bright_field", "annular_dark_field")}
    return Look(
        counts=counts,
        words=words,
        detectors=detectors,
        findings=tuple(findings),
        mean_pattern=mean,
        virtual_images=images,
    )


class _Sums:
    """Sums over the blocks."""

    def __init__(self, scan: Scan, detectors: VirtualDetectors | None) -> None:
        self.detectors = detectors
        self.pattern = np.zeros(scan.shape[-2:])
        self.images = np.zeros((*scan.shape[:-2], 5))
        self.read = np.zeros(scan.shape[:-2], bool)
        self.marks = np.zeros(scan.shape[-2:], np.int64)
        self.patterns = self.negative = self.unknown = self.saturated = 0
        self.largest = -math.inf

    def add(self, block: Array, region: Any, counts: CountsBehind) -> None:
        marks = find_marks(block)
        if marks is not None:
            self.marks += np.count_nonzero(marks.reshape(-1, *block.shape[-2:]), axis=0)
        clean = block if marks is None else np.where(marks, block.dtype.type(0), block)
        if block.dtype.kind in "if":
            self.negative += int((clean < 0).sum())
        largest = float(clean.max(initial=0))
        self.largest = max(self.largest, largest)
        if block.dtype.kind in "iu" and largest == np.iinfo(block.dtype).max:
            self.saturated += int((clean == np.iinfo(block.dtype).max).sum())
        patterns = clean.reshape(-1, *block.shape[-2:])
        numbers = patterns
        if counts.map is not None:
            numbers, known = counts.of(patterns)
            self.unknown += 0 if known is None else int((~known).sum())
        found = block_sums(np.ascontiguousarray(numbers), self.detectors)
        self.pattern += found.pattern
        lead = region[:-2]
        self.images[lead] = found.images.reshape(self.images[lead].shape)
        self.read[lead] = True
        self.patterns += len(patterns)

    @property
    def mean_pattern(self) -> Array:
        return self.pattern / np.maximum(1, self.patterns - self.marks)


def _of_values(scan: Scan, counts: CountsBehind, words: str, sums: _Sums) -> list[str]:
    found = []
    if words:
        found.append(f"The values are {words}.")
        if sums.unknown:
            found.append(f"{sums.unknown:,} values have no count behind them and are kept as they are.")
    if not counts.known:
        why = f" ({counts.found.problem})" if counts.found.problem else ""
        found.append(f"The values are not counts{why}: bounds in units of shot noise have no meaning here.")
    elif scan.dtype.kind == "f" and not words:
        found.append(f"The values are whole numbers that are stored as {scan.dtype}.")
    if counts.found.plain and sums.negative:
        found.append(f"{sums.negative:,} values lie below zero, where counts cannot.")
    if sums.marks.any():
        count = int(sums.marks.sum())
        found.append(f"{count:,} values are marks (the largest of {scan.dtype}, NaN or infinity), not counts.")
    if sums.saturated:
        found.append(
            f"{sums.saturated:,} values are {int(np.iinfo(scan.dtype).max)}, the largest of {scan.dtype}: saturated."
        )
    return found


def _of_pixels(mean: Array, gaps: Array, patterns: int) -> list[str]:
    """Pixels that differ from those around them by more than their noise."""
    if min(mean.shape) < 5 or patterns < 2 or not np.isfinite(mean).all():
        return []
    around = _median_around(mean)
    # Beside a gap there is too little to compare with.
    padded = np.pad(gaps, 1)
    near = np.any([padded[y : y + mean.shape[0], x : x + mean.shape[1]] for y in range(3) for x in range(3)], axis=0)
    usable = ~near
    # The noise of the mean of Poisson counts; a pixel at the rim of a disk differs from its neighbours by far less than
    # a hot one does.
    noise = np.sqrt(np.maximum(around, 1 / patterns) / patterns)
    hot = usable & (mean > BRIGHT * around) & (mean - around > OUTLIER * noise) & (mean > around + BRIGHT / patterns)
    dead = usable & (mean == 0) & (around > LIT)
    found = []
    for name, where in (("hot", hot), ("dead", dead)):
        count = int(where.sum())
        if count:
            at = ", ".join(f"({y}, {x})" for y, x in np.argwhere(where)[:3])
            places = f"{at}{', …' if count > 3 else ''}"
            found.append(f"The detector has {count:,} {name} pixel{'s' * (count != 1)}, at {places}.")
    return found


def _median_around(image: Array) -> Array:
    """Median of the eight pixels around each."""
    padded = np.pad(image, 1, mode="reflect")
    height, width = image.shape
    shifts = [(y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1)]
    return np.asarray(np.median([padded[y : y + height, x : x + width] for y, x in shifts], axis=0))


def _of_positions(scan: Scan, sums: _Sums) -> list[str]:
    found = []
    positions = math.prod(scan.shape[:-2])
    if positions < FEW_POSITIONS:
        found.append(f"There are few positions ({positions}): models of {FEW_POSITIONS} or more learn from more.")
    doses, where = sums.images[..., 0].ravel(), np.flatnonzero(sums.read.ravel())
    if where.size >= FEW_POSITIONS and np.isfinite(doses[where]).all() and doses[where].mean() > 0:
        doses = doses[where] / doses[where].mean()
        # Thirds of the scan in the order in which it was taken; a specimen is not the same in both, so a bare line
        # would mistake its edge for drift.
        first, _, last = (float(np.median(part)) for part in np.array_split(doses, 3))
        if abs(last - first) > DRIFT:
            found.append(
                f"The dose of a pattern changes by {100 * (last - first):+.0f} % from the first to the last third of "
                "the scan: drift of the beam, or the specimen."
            )
    return found
