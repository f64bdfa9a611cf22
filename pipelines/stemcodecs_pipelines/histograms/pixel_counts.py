"""Exact counts of the values in every detector pixel: dense for small values, a sparse tail for the rest.

Counts are mostly small: values below a limit are counted in a dense array, the few larger ones (and
negative ones, which some detectors write into gaps) in a sorted list for each pixel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit
from rich import filesize

from stemcodecs.errors import ConfigurationError, UnsupportedDtypeError

if TYPE_CHECKING:
    import xarray

__all__ = ["CountHistograms", "PixelCounts", "pixel_counts"]

Array = np.ndarray[Any, Any]

DENSE_BYTES = 8 << 20
MOST_DENSE = 64
TAIL_BYTES = 32 << 20
ENTRY_BYTES = 12
"""A value and its occurrences."""
_AT_ONCE = 1 << 21
"""Values that are looked at together: what does not fit the dense array is collected and sorted."""


@dataclass(frozen=True)
class PixelCounts:
    """How often every value occurred in every pixel, over some patterns.

    Parameters
    ----------
    patterns : int
        Number of patterns.
    dense : ndarray of shape (values, det_y, det_x)
        uint32 occurrences of the values 0, 1, 2, … up to the largest that occurred, or to the limit.
    starts : ndarray of shape (pixels + 1,)
        int64; all other values of a flat pixel are the entries ``starts[pixel]:starts[pixel + 1]`` of
        the tail.
    values, occurrences : ndarray of shape (entries,)
        The tail: int64, increasing within a pixel, and uint32.
    """

    patterns: int
    dense: Array
    starts: Array
    values: Array
    occurrences: Array


@dataclass(frozen=True, kw_only=True)
class CountHistograms:
    """`stemcodecs_pipelines.run.reduction.Statistics` that count values.

    Parameters
    ----------
    detector : tuple of int
        Rows and columns.
    tail_bytes : int
        What the tail may take.
    names : tuple of str
        Dimensions of the detector in the result.
    coordinates : mapping
        Coordinates of the result, as `xarray.Dataset` takes them.
    """

    detector: tuple[int, int]
    tail_bytes: int = TAIL_BYTES
    names: tuple[str, str] = ("det_y", "det_x")
    coordinates: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dense_values(self) -> int:
        """Values counted densely. It depends on the detector only: chunks must not change the result."""
        return int(np.clip(DENSE_BYTES // (4 * math.prod(self.detector)), 2, MOST_DENSE))

    @property
    def part_bytes(self) -> int:
        """Most that the counts of some patterns take."""
        return 4 * self.dense_values * math.prod(self.detector) + self.tail_bytes + 8 * math.prod(self.detector)

    def block(self, patterns: Array, positions: Array | None = None) -> PixelCounts:
        """Count the values of some patterns, wherever they are in the scan.

        Raises
        ------
        UnsupportedDtypeError
            The values are not whole numbers.
        ConfigurationError
            So many different large values occur that their list would take more than `tail_bytes`.
        """
        dense = np.zeros((self.dense_values, *self.detector), np.uint32)
        total: PixelCounts | None = None
        step = max(1, _AT_ONCE // math.prod(self.detector))
        for start in range(0, len(patterns), step):
            values = _whole_numbers(patterns[start : start + step])
            tail = _tail(values, dense)
            part = PixelCounts(len(values), dense[:0], *tail)
            total = part if total is None else self.merge(total, part)
        assert total is not None
        present = np.flatnonzero(dense.any(axis=(1, 2)))
        # What is not there need not wait in memory, nor be sent.
        used = dense[: int(present[-1]) + 1].copy() if present.size else dense[:1].copy()
        return PixelCounts(total.patterns, used, total.starts, total.values, total.occurrences)

    def merge(self, first: PixelCounts, second: PixelCounts) -> PixelCounts:
        """Add occurrences.

        Raises
        ------
        ConfigurationError
            So many different large values occur that their list would take more than `tail_bytes`.
        """
        large, small = sorted((first.dense, second.dense), key=len, reverse=True)
        # Neither is changed: a task that failed half way is run again on the same parts.
        dense = large.copy()
        dense[: len(small)] += small
        a, b = (first.starts, first.values, first.occurrences), (second.starts, second.values, second.occurrences)
        starts = np.empty_like(first.starts)
        entries = _count_union(*a[:2], *b[:2], starts)
        if entries * ENTRY_BYTES > self.tail_bytes:
            raise ConfigurationError(
                f"counts of {self.dense_values} and more have so many different values that their histograms take "
                f"more than {filesize.decimal(self.tail_bytes)}; allow more memory, leave the exact counts out "
                "(counts=False), or take the histograms of a part of the scan"
            )
        values, occurrences = np.empty(entries, np.int64), np.empty(entries, np.uint32)
        _unite(*a, *b, starts, values, occurrences)
        return PixelCounts(first.patterns + second.patterns, dense, starts, values, occurrences)

    def finalize(self, total: PixelCounts) -> xarray.Dataset:
        """The histograms as an xarray Dataset, see `stemcodecs_pipelines.histograms.scan_histograms.histograms`."""
        import xarray as xr

        pixel = np.repeat(np.arange(len(total.starts) - 1), np.diff(total.starts))
        y, x = np.divmod(pixel, self.detector[1])
        return xr.Dataset(
            {
                "histogram": (("value", *self.names), total.dense),
                "tail_value": ("tail", total.values),
                "tail_y": ("tail", y.astype(np.int32)),
                "tail_x": ("tail", x.astype(np.int32)),
                "tail_occurrences": ("tail", total.occurrences),
            },
            coords={"value": np.arange(len(total.dense)), **self.coordinates},
            attrs={"patterns": total.patterns},
        )


def pixel_counts(dataset: xarray.Dataset, y: int, x: int) -> tuple[Array, Array]:
    """Values of one detector pixel and how often each occurred.

    Parameters
    ----------
    dataset : xarray.Dataset
        ``counts`` of a `stemcodecs_pipelines.histograms.scan_histograms.ScanHistograms`.
    y, x : int
        Row and column of the pixel.

    Returns
    -------
    values, occurrences : ndarray of int64
        Sorted by value; values that never occurred are left out.
    """
    dense = np.asarray(dataset["histogram"][:, y, x]).astype(np.int64)
    here = np.asarray((dataset["tail_y"] == y) & (dataset["tail_x"] == x))
    values = np.concatenate([np.flatnonzero(dense), np.asarray(dataset["tail_value"])[here]])
    counts = np.concatenate([dense[dense > 0], np.asarray(dataset["tail_occurrences"])[here].astype(np.int64)])
    order = np.argsort(values, kind="stable")
    return values[order], counts[order]


def _whole_numbers(patterns: Array) -> Array:
    patterns = patterns.astype(patterns.dtype.newbyteorder("="), copy=False)
    kind, size = patterns.dtype.kind, patterns.dtype.itemsize
    if kind == "b":
        return patterns.view(np.uint8)
    if kind == "i" or (kind == "u" and size < 8):
        return patterns
    with np.errstate(invalid="ignore"):
        whole = patterns.astype(np.int64)
    if not np.array_equal(whole.astype(patterns.dtype), patterns) or (kind == "u" and (whole < 0).any()):
        raise UnsupportedDtypeError(
            f"histograms need whole numbers below 2⁶³, this scan of {patterns.dtype} has others; "
            "convert it to counts first"
        )
    return whole


def _tail(values: Array, dense: Array) -> tuple[Array, Array, Array]:
    """Count small values; starts, values and occurrences of the others."""
    limit, height, width = dense.shape
    others = np.zeros(height * width + 1, np.int64)
    _count(values, dense, others[1:])
    starts = np.cumsum(others)
    found = np.empty(starts[-1], np.int64)
    occurrences = np.empty(starts[-1], np.uint32)
    if found.size:
        _collect(values, limit, starts[:-1].copy(), found)
        entries = _aggregate(starts, found, occurrences)
        found, occurrences = found[:entries].copy(), occurrences[:entries].copy()
    return starts, found, occurrences


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _count(patterns, dense, others):  # type: ignore[no-untyped-def]  # pragma: no cover
    values, height, width = dense.shape
    # Row by row of the detector: the histograms of a row stay in the cache.
    for y in range(height):
        for p in range(patterns.shape[0]):
            for x in range(width):
                value = patterns[p, y, x]
                if 0 <= value < values:
                    dense[value, y, x] += 1
                else:
                    others[y * width + x] += 1


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _collect(patterns, limit, free, found):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Large values by pixel; free : where the next one of every pixel goes."""
    count, height, width = patterns.shape
    for y in range(height):
        for p in range(count):
            for x in range(width):
                value = patterns[p, y, x]
                if value < 0 or value >= limit:
                    pixel = y * width + x
                    found[free[pixel]] = value
                    free[pixel] += 1


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _aggregate(starts, found, occurrences):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Sort the values of every pixel and count equal ones, in place; returns how many entries there are."""
    entry = 0
    begin = starts[0]
    for pixel in range(starts.shape[0] - 1):
        end = starts[pixel + 1]
        part = found[begin:end]
        part.sort()
        starts[pixel] = entry
        for k in range(begin, end):
            if entry > starts[pixel] and found[entry - 1] == found[k]:
                occurrences[entry - 1] += 1
            else:
                found[entry] = found[k]
                occurrences[entry] = 1
                entry += 1
        begin = end
    starts[-1] = entry
    return entry


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _count_union(starts_a, values_a, starts_b, values_b, starts):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Entries of two tails together; starts : the result, where those of every pixel will start."""
    entry = 0
    for pixel in range(starts.shape[0] - 1):
        starts[pixel] = entry
        a, b = starts_a[pixel], starts_b[pixel]
        end_a, end_b = starts_a[pixel + 1], starts_b[pixel + 1]
        entry += end_a - a + end_b - b
        while a < end_a and b < end_b:
            if values_a[a] < values_b[b]:
                a += 1
            elif values_b[b] < values_a[a]:
                b += 1
            else:
                a += 1
                b += 1
                entry -= 1
    starts[-1] = entry
    return entry


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _unite(starts_a, values_a, count_a, starts_b, values_b, count_b, starts, values, counts):  # type: ignore[no-untyped-def]  # pragma: no cover
    for pixel in range(starts.shape[0] - 1):
        a, b = starts_a[pixel], starts_b[pixel]
        end_a, end_b = starts_a[pixel + 1], starts_b[pixel + 1]
        for entry in range(starts[pixel], starts[pixel + 1]):
            if b == end_b or (a < end_a and values_a[a] < values_b[b]):
                values[entry], counts[entry] = values_a[a], count_a[a]
                a += 1
            elif a == end_a or values_b[b] < values_a[a]:
                values[entry], counts[entry] = values_b[b], count_b[b]
                b += 1
            else:
                values[entry], counts[entry] = values_a[a], count_a[a] + count_b[b]
                a += 1
                b += 1
