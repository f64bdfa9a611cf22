"""Sums of one block of patterns, taken in one pass over its values.

The mean pattern, the sum image, bright and dark field and the centre of mass of every pattern cost
one pass over data that is in the cache anyway, and let a user look at a scan before decoding it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
from numba import njit

from stemcodecs.readers.scan import Scan

__all__ = ["BlockSums", "VirtualDetectors", "block_sums", "image_sums"]

_SAMPLED_PATTERNS = 32
_DARK_FIELD_START = 1.2
"""Inner edge of the dark field in units of the disk's radius: clear of the disk's blurred rim."""


@dataclass(frozen=True, kw_only=True)
class VirtualDetectors:
    """Where the direct beam lies on the detector, in pixels.

    Parameters
    ----------
    center_y, center_x : float
        Centre of the bright-field disk.
    radius : float
        Radius of the bright-field disk.
    inner : float
        Where the annular dark field starts; it reaches to the edge of the detector.
    """

    center_y: float
    center_x: float
    radius: float
    inner: float

    @classmethod
    def from_pattern(cls, pattern: np.ndarray[Any, Any]) -> Self:
        """Find the disk in a mean pattern: the pixels above half of its smoothed maximum.

        Parameters
        ----------
        pattern : ndarray of shape (det_y, det_x)
            A mean pattern, or the mean of a sample of patterns.
        """
        values = np.nan_to_num(np.asarray(pattern, np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        smooth = _box3(np.clip(values, 0.0, None))
        disk = smooth > 0.5 * smooth.max()
        if not disk.any():
            disk = np.ones_like(disk)
        y, x = np.nonzero(disk)
        # Rounded, because these numbers are written down and the same run must write the same
        # bytes.
        radius = round(max(0.5, float(np.sqrt(disk.sum() / np.pi))), 2)
        return cls(
            center_y=round(float(y.mean()), 2),
            center_x=round(float(x.mean()), 2),
            radius=radius,
            inner=round(radius * _DARK_FIELD_START, 2),
        )

    @classmethod
    def from_scan(cls, scan: Scan) -> Self:
        """Find the disk from some patterns spread evenly over a scan, or over a series of scans."""
        positions, detector = scan.shape[:-2], scan.shape[-2:]
        total = np.zeros(detector, np.float64)
        for flat in np.unique(np.linspace(0, math.prod(positions) - 1, _SAMPLED_PATTERNS).astype(np.int64)):
            place = tuple(slice(int(i), int(i) + 1) for i in np.unravel_index(flat, positions))
            with np.errstate(all="ignore"):
                total += scan.read(place).reshape(detector)
        return cls.from_pattern(total)

    def row_spans(self, shape: tuple[int, int], radius: float) -> np.ndarray[Any, np.dtype[np.int64]]:
        """First and last-plus-one pixel of a disk in each row, int64 of shape (det_y, 2)."""
        rows = np.arange(shape[0], dtype=np.float64)
        half = np.sqrt(np.clip(radius**2 - (rows - self.center_y) ** 2, 0.0, None))
        inside = np.abs(rows - self.center_y) <= radius
        start = np.clip(np.ceil(self.center_x - half), 0, shape[1])
        stop = np.clip(np.floor(self.center_x + half) + 1, 0, shape[1])
        spans = np.where(inside[:, None], np.stack([start, stop], axis=1), 0.0)
        return np.ascontiguousarray(spans.astype(np.int64))

    def to_dict(self) -> dict[str, float]:
        """Numbers for the store's attributes."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class BlockSums:
    """Sums of a block of patterns; integer counts are summed exactly.

    Parameters
    ----------
    pattern : ndarray of shape (det_y, det_x)
        Sum over the patterns of the block.
    images : ndarray of shape (patterns, 5)
        Per pattern: sum of all pixels, of the bright-field disk, of the disk up to the dark field,
        and the sums of value × row and value × column.
    """

    pattern: np.ndarray[Any, Any]
    images: np.ndarray[Any, Any]


def _box3(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    padded = np.pad(image, 1, mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return np.asarray(rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9.0


def _accumulators(dtype: np.dtype[Any]) -> tuple[np.dtype[Any], np.dtype[Any], int]:
    """Dtype of the inner sums and of the result, and how many patterns fit the inner sums.

    Values of at most 16 bits are summed in 32 bits, which is what makes the loop vectorise well.
    """
    if dtype.kind == "b" or (dtype.kind == "u" and dtype.itemsize <= 2):
        return np.dtype(np.uint32), np.dtype(np.int64), 1 << (32 - 8 * dtype.itemsize)
    if dtype.kind == "i" and dtype.itemsize <= 2:
        return np.dtype(np.int32), np.dtype(np.int64), 1 << (31 - 8 * dtype.itemsize)
    if dtype.kind in "ui" and dtype.itemsize == 4:
        return np.dtype(np.int64), np.dtype(np.int64), 1 << 30
    return np.dtype(np.float64), np.dtype(np.float64), 1 << 62


def block_sums(
    patterns: np.ndarray[Any, Any], detectors: VirtualDetectors | None, corner: tuple[int, int] = (0, 0)
) -> BlockSums:
    """Sum a block of patterns over positions and over pixels.

    Parameters
    ----------
    patterns : ndarray of shape (patterns, det_y, det_x)
        Any real dtype. Integers of at most 32 bits give exact int64 sums, other dtypes float64.
    detectors : VirtualDetectors or None
        None for stacks without a scan: the bright-field columns are then zero.
    corner : tuple of int
        Row and column of the detector where the block begins, if it covers only a part of it.
    """
    if detectors is not None:
        detectors = replace(detectors, center_y=detectors.center_y - corner[0], center_x=detectors.center_x - corner[1])
    values = patterns.view(np.uint8) if patterns.dtype.kind == "b" else patterns
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    inner, outer, limit = _accumulators(patterns.dtype)
    count, height, width = values.shape
    if detectors is None:
        bright = dark = np.zeros((height, 2), np.int64)
    else:
        bright = detectors.row_spans((height, width), detectors.radius)
        dark = detectors.row_spans((height, width), detectors.inner)
    # A narrow sum over one column or row must not overflow either.
    if height * width >= limit and inner != outer:
        inner, limit = np.dtype(np.int64), 1 << 30
    total = np.zeros((height, width), outer)
    images = np.zeros((count, 5), outer)
    columns = np.zeros(width, inner)
    for start in range(0, count, limit):
        part = np.zeros((height, width), inner)
        stop = min(start + limit, count)
        _accumulate(values[start:stop], bright, dark, part, columns, images[start:stop])
        total += part
    # Moments are taken about the corner of the whole detector.
    images[:, 3] += corner[0] * images[:, 0]
    images[:, 4] += corner[1] * images[:, 0]
    return BlockSums(pattern=total, images=images)


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _accumulate(patterns, bright, dark, total, columns, images):  # type: ignore[no-untyped-def]  # pragma: no cover
    height, width = total.shape
    zero = columns[0] * 0
    for p in range(patterns.shape[0]):
        columns[:] = 0
        whole = images[p, 0] * 0
        disk = images[p, 0] * 0
        wide = images[p, 0] * 0
        moment_y = images[p, 0] * 0
        for y in range(height):
            row = patterns[p, y]
            sums = total[y]
            line = zero
            for x in range(width):
                value = row[x]
                sums[x] += value
                columns[x] += value
                line += value
            whole += line
            moment_y += line * y
            for x in range(bright[y, 0], bright[y, 1]):
                disk += row[x]
            for x in range(dark[y, 0], dark[y, 1]):
                wide += row[x]
        moment_x = images[p, 0] * 0
        for x in range(width):
            moment_x += columns[x] * x
        images[p, 0] = whole
        images[p, 1] = disk
        images[p, 2] = wide
        images[p, 3] = moment_y
        images[p, 4] = moment_x


def image_sums(images: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Virtual images from the per-pattern sums of :class:`BlockSums`.

    Parameters
    ----------
    images : ndarray of shape (..., 5)
        Per-pattern sums.

    Returns
    -------
    dict of str to ndarray
        ``sum_image``, ``bright_field``, ``annular_dark_field``, and the centre of mass ``com_y``
        and ``com_x`` in pixels, float64, NaN where a pattern has no counts.
    """
    whole = images[..., 0]
    weight = np.where(whole == 0, np.nan, whole.astype(np.float64))
    return {
        "sum_image": whole,
        "bright_field": images[..., 1],
        "annular_dark_field": whole - images[..., 2],
        "com_y": images[..., 3] / weight,
        "com_x": images[..., 4] / weight,
    }
