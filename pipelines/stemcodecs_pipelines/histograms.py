"""Exact histograms of the counts in every detector pixel, over a whole scan.

Counts are mostly small: values below a limit are counted in a dense array, the few larger ones (and
negative ones, which some detectors write into gaps) in a sorted list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from stemcodecs.errors import ConfigurationError, UnsupportedDtypeError
from stemcodecs.readers.scan import Axis, Scan
from stemcodecs_pipelines.engine import Engine
from stemcodecs_pipelines.plan import Plan, format_bytes
from stemcodecs_pipelines.reduction import reduce_scan

if TYPE_CHECKING:
    import xarray

__all__ = ["CountHistograms", "PixelCounts", "histograms", "pixel_counts"]

_DENSE_BYTES = 32 << 20
_MOST_DENSE = 64
_TAIL_BYTES = 1 << 30


@dataclass(frozen=True)
class PixelCounts:
    """How often every value occurred in every pixel, over some patterns.

    Parameters
    ----------
    patterns : int
        Number of patterns.
    dense : ndarray of shape (values, det_y, det_x)
        uint32 occurrences of the values 0, 1, 2, …
    tail : ndarray of shape (3, entries)
        int64 rows: flat pixel, value, occurrences, of all other values; sorted by pixel, then value.
    """

    patterns: int
    dense: np.ndarray[Any, np.dtype[np.uint32]]
    tail: np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, kw_only=True)
class CountHistograms:
    """`stemcodecs_pipelines.reduction.Statistics` that count values.

    Parameters
    ----------
    detector : tuple of int
        Rows and columns.
    axes : tuple of Axis
        Detector axes, for the coordinates of the result.
    """

    detector: tuple[int, int]
    axes: tuple[Axis, ...] = ()

    @property
    def dense_values(self) -> int:
        """Values counted densely. It depends on the detector only: chunks must not change the result."""
        pixels = self.detector[0] * self.detector[1]
        return int(np.clip(_DENSE_BYTES // (4 * pixels), 2, _MOST_DENSE))

    def block(self, patterns: np.ndarray[Any, Any], positions: np.ndarray[Any, Any] | None = None) -> PixelCounts:
        """Count the values of some patterns.

        Raises
        ------
        UnsupportedDtypeError
            The values are not whole numbers.
        """
        values = _whole_numbers(patterns)
        dense = np.zeros((self.dense_values, *self.detector), np.uint32)
        others = _count(values, dense)
        found = np.empty((2, others), np.int64)
        if others:
            _collect(values, self.dense_values, found)
        tail = _aggregate(np.concatenate([found, np.ones((1, others), np.int64)]))
        return PixelCounts(len(patterns), dense, tail)

    def merge(self, first: PixelCounts, second: PixelCounts) -> PixelCounts:
        """Add occurrences.

        Raises
        ------
        ConfigurationError
            So many different large values occur that their list would fill the memory.
        """
        tail = _aggregate(np.concatenate([first.tail, second.tail], axis=1))
        if tail.nbytes > _TAIL_BYTES:
            raise ConfigurationError(
                f"the histograms need more than {format_bytes(_TAIL_BYTES)}: nearly every count is "
                "different; take histograms of a part of the scan, or of counts divided by a step"
            )
        np.add(first.dense, second.dense, out=first.dense)
        return PixelCounts(first.patterns + second.patterns, first.dense, tail)

    def finalize(self, total: PixelCounts) -> xarray.Dataset:
        """The histograms as an xarray Dataset, see `histograms`."""
        import xarray as xr

        present = np.flatnonzero(total.dense.any(axis=(1, 2)))
        values = int(present[-1]) + 1 if present.size else 1
        names = [axis.name for axis in self.axes] or ["det_y", "det_x"]
        y, x = np.divmod(total.tail[0], self.detector[1])
        dataset = xr.Dataset(
            {
                "histogram": (("value", *names), total.dense[:values]),
                "tail_value": ("tail", total.tail[1]),
                "tail_y": ("tail", y),
                "tail_x": ("tail", x),
                "tail_occurrences": ("tail", total.tail[2]),
            },
            coords={"value": np.arange(values)},
            attrs={"patterns": total.patterns},
        )
        for axis in self.axes:
            attributes = {"units": axis.units} if axis.units else {}
            dataset = dataset.assign_coords({axis.name: (axis.name, axis.coordinates, attributes)})
        return dataset


def histograms(
    scan: Scan,
    *,
    workers: int | None = None,
    memory: int | None = None,
    engine: Engine | None = None,
    start: Callable[[Plan], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> xarray.Dataset:
    """Exact histogram of every detector pixel over all positions of a scan.

    Parameters
    ----------
    scan : Scan
        Source with whole numbers (integers, or floats that hold counts).
    workers, memory, engine, start, progress
        See `stemcodecs_pipelines.reduction.reduce_scan`.

    Returns
    -------
    xarray.Dataset
        ``histogram`` (value, det_y, det_x), uint32: how often each small value occurred. All other
        values as a list along ``tail``: ``tail_value`` in the pixel (``tail_y``, ``tail_x``) occurred
        ``tail_occurrences`` times, sorted by pixel and value. ``attrs["patterns"]`` is the number of
        patterns. The result does not depend on chunks, workers or the order of the tasks.

    Raises
    ------
    UnsupportedDtypeError
        The values are not whole numbers.

    See Also
    --------
    pixel_counts : both parts together, for one pixel.
    """
    detector = (scan.shape[-2], scan.shape[-1])
    statistics = CountHistograms(detector=detector, axes=tuple(scan.axes[-2:]))
    return reduce_scan(
        scan,
        statistics,
        workers=workers,
        memory=memory,
        engine=engine,
        start=start,
        progress=progress,
    )


def pixel_counts(dataset: xarray.Dataset, y: int, x: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Values of one detector pixel and how often each occurred.

    Parameters
    ----------
    dataset : xarray.Dataset
        From `histograms`.
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
    counts = np.concatenate([dense[dense > 0], np.asarray(dataset["tail_occurrences"])[here]])
    order = np.argsort(values, kind="stable")
    return values[order], counts[order]


def _whole_numbers(patterns: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
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


def _aggregate(tail: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Sort entries by pixel and value and add the occurrences of equal ones."""
    if tail.shape[1] == 0:
        return tail
    tail = tail[:, np.lexsort((tail[1], tail[0]))]
    new = np.flatnonzero(np.concatenate([[True], (tail[0, 1:] != tail[0, :-1]) | (tail[1, 1:] != tail[1, :-1])]))
    return np.stack([tail[0, new], tail[1, new], np.add.reduceat(tail[2], new)])


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _count(patterns, dense):  # type: ignore[no-untyped-def]  # pragma: no cover
    values, height, width = dense.shape
    others = 0
    for p in range(patterns.shape[0]):
        for y in range(height):
            for x in range(width):
                value = patterns[p, y, x]
                if 0 <= value < values:
                    dense[value, y, x] += 1
                else:
                    others += 1
    return others


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _collect(patterns, values, found):  # type: ignore[no-untyped-def]  # pragma: no cover
    count, height, width = patterns.shape
    entry = 0
    for p in range(count):
        for y in range(height):
            for x in range(width):
                value = patterns[p, y, x]
                if value < 0 or value >= values:
                    found[0, entry] = y * width + x
                    found[1, entry] = value
                    entry += 1
