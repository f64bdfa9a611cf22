"""What a few patterns tell of a scan before its first block: where the bright-field disk is, which pixels are marked.

A gap or a dead pixel carries a mark in every pattern. Where the mark is no count (the largest value of 16 bits and
more, NaN) it is left out by its value; where it could be one, in 8 bits for example, only its place tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from stemcodecs.marks import FULL_SCALES, find_marks
from stemcodecs.readers.scan import Scan
from stemcodecs_pipelines.store.virtual_images import VirtualDetectors

__all__ = ["MarkedPixels", "survey_scan"]

_SAMPLED_PATTERNS = 32
_NEGATIVE_MARKS = (-1, -2)
"""Gap and dead pixel in PILATUS files, and in what was converted from them."""

Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, kw_only=True)
class MarkedPixels:
    """Pixels that hold one and the same mark in every pattern, found by that alone.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of the detector.
    runs : dict
        Kind of mark (``"full_scale"`` or ``"negative"``) → runs of pixels, (first, count) in row-major order: gaps are
        whole rows and columns.
    """

    shape: tuple[int, int]
    runs: Mapping[str, tuple[tuple[int, int], ...]]

    @classmethod
    def of(cls, shape: tuple[int, int], masks: Mapping[str, Mask]) -> Self:
        """From masks of shape (det_y, det_x), by kind."""
        return cls(shape=shape, runs={kind: _runs(mask) for kind, mask in masks.items() if mask.any()})

    @cached_property
    def masks(self) -> dict[str, Mask]:
        """Bool of shape (det_y, det_x), by kind."""
        masks = {kind: np.zeros(self.shape, bool) for kind in self.runs}
        for kind, runs in self.runs.items():
            for first, count in runs:
                masks[kind].reshape(-1)[first : first + count] = True
        return masks

    @cached_property
    def mask(self) -> Mask | None:
        """All of them, None where there are none."""
        return np.any(list(self.masks.values()), axis=0) if self.runs else None

    def to_dict(self) -> dict[str, Any]:
        """For the job of a store."""
        return {
            "shape": list(self.shape),
            "runs": {kind: [list(run) for run in runs] for kind, runs in self.runs.items()},
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """From what `to_dict` gave.

        Raises
        ------
        ValueError, TypeError, KeyError
            The content is damaged.
        """
        height, width = map(int, content["shape"])
        runs = {
            str(kind): tuple((int(first), int(count)) for first, count in found)
            for kind, found in content["runs"].items()
        }
        return cls(shape=(height, width), runs=runs)


def _runs(mask: Mask) -> tuple[tuple[int, int], ...]:
    steps = np.diff(mask.reshape(-1).astype(np.int8), prepend=0, append=0)
    starts, stops = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    return tuple((int(start), int(stop - start)) for start, stop in zip(starts, stops, strict=True))


def survey_scan(scan: Scan) -> tuple[MarkedPixels, VirtualDetectors | None]:
    """Look at some patterns spread evenly over a scan.

    Parameters
    ----------
    scan : Scan
        Source, with the detector in the last two dimensions.

    Returns
    -------
    MarkedPixels
    VirtualDetectors or None
        None for stacks of frames and single patterns, which have no scan to make images of.

    Notes
    -----
    A pixel is marked that has the same value in every pattern looked at, of which there are at least two, if that is

    - the full scale of a counter (2ⁿ − 1 for n = 8, 12, 16, 24, 32) and no count anywhere exceeds it. A pixel that is
      saturated in every pattern is left out with the gaps: it tells as little;
    - −1 or −2, and no other pixel is ever negative: where differences or backgrounds go below zero these are values.

    Where all pixels would be marked none is: a scan of one value is not a scan of gaps.
    """
    shape = (scan.shape[-2], scan.shape[-1])
    if len(scan.shape) < 3:
        return MarkedPixels(shape=shape, runs={}), None
    with_disk = len(scan.shape) >= 4
    total = np.zeros(shape if with_disk else (0, 0), np.float64)
    counted = np.zeros(total.shape, np.uint8)
    negative = np.zeros(shape, bool)
    same = np.ones(shape, bool)
    first: np.ndarray[Any, Any] | None = None
    top, patterns = -np.inf, 0
    for pattern in _sample(scan):
        patterns += 1
        marks = find_marks(pattern)
        values = pattern if marks is None else np.where(marks, pattern.dtype.type(0), pattern)
        if with_disk:
            counted += np.uint8(1) if marks is None else ~marks
            with np.errstate(over="ignore"):
                total += values
        negative |= values < 0
        top = max(top, values.max())
        first = pattern.copy() if first is None else first
        same &= pattern == first
    assert first is not None
    found = MarkedPixels.of(shape, _constant_marks(first, same, negative, top) if patterns > 1 else {})
    if not with_disk:
        return found, None
    known = counted > 0 if found.mask is None else (counted > 0) & ~found.mask
    with np.errstate(over="ignore"):
        # The sum itself where every pattern counts: a mean would be rounded, and the disk could change by a pixel.
        mean = np.where(known, total * (patterns / np.maximum(counted, 1)), np.nan)
    return found, VirtualDetectors.from_pattern(mean)


def _sample(scan: Scan) -> Iterator[np.ndarray[Any, Any]]:
    positions = scan.shape[:-2]
    last = int(np.prod(positions, dtype=np.int64)) - 1
    for flat in np.unique(np.linspace(0, last, _SAMPLED_PATTERNS).astype(np.int64)):
        at = tuple(slice(int(i), int(i) + 1) for i in np.unravel_index(flat, positions))
        yield scan.read(at).reshape(scan.shape[-2:])


def _constant_marks(first: np.ndarray[Any, Any], same: Mask, negative: Mask, top: Any) -> dict[str, Mask]:
    """Pixels that always hold a mark which could be a count elsewhere."""
    masks = {}
    scales = np.array(FULL_SCALES, np.float64)
    if first.dtype.kind == "f":
        with np.errstate(over="ignore"):
            # As float32 holds 2³² − 1, for example.
            scales = scales.astype(first.dtype)
    if first.dtype.kind != "b" and np.isin(top, scales):
        masks["full_scale"] = same & (first == top)
    if negative.any():
        below = same & np.isin(first, _NEGATIVE_MARKS)
        if not (negative & ~below).any():
            masks["negative"] = below
    whole = np.any(list(masks.values()), axis=0).all() if masks else False
    return {} if whole else masks
