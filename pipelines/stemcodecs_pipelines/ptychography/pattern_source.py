"""Patterns wherever they lie, read in blocks that follow the chunks of their source."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from stemcodecs.errors import ConfigurationError
from stemcodecs.readers.scan import Region, Scan

__all__ = ["PatternBlock", "PatternSource"]

Array = np.ndarray[Any, Any]

BLOCK_BYTES = 16 << 20
"""Patterns that are read at once, as single-precision numbers, where no chunk asks for more."""


@dataclass(frozen=True, eq=False)
class PatternBlock:
    """Patterns that are read together.

    Attributes
    ----------
    region : tuple of slice
        Where they lie in the leading dimensions of the source.
    numbers : ndarray of int
        Their numbers, counted line by line through the scan.
    """

    region: Region
    numbers: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class PatternSource:
    """A stack or scan of patterns, of which regions are read.

    Attributes
    ----------
    leading : tuple of int
        Shape of the scan, or length of the stack.
    detector : tuple of int
        Shape of a pattern as it is stored.
    dtype : numpy.dtype
        Dtype as it is stored.
    chunk : tuple of int
        Block of scan positions that the source stores together.
    read : callable
        Values of a region of the leading dimensions.
    """

    leading: tuple[int, ...]
    detector: tuple[int, int]
    dtype: np.dtype[Any]
    chunk: tuple[int, ...]
    read: Callable[[Region], Array]

    @classmethod
    def of(cls, patterns: Any) -> PatternSource:
        """Patterns as an array (NumPy, memory map, Zarr, Dask, xarray), an open `Scan`, or the path of a scan.

        Raises
        ------
        ConfigurationError
            They have fewer than three dimensions, or are no real numbers.
        SourceError
            The path cannot be opened.
        """
        if isinstance(patterns, PatternSource):
            return patterns
        if isinstance(patterns, str | os.PathLike):
            from stemcodecs.readers import open_scan

            patterns = open_scan(patterns)
        if isinstance(patterns, Scan):
            return cls._checked(patterns.shape, patterns.dtype, patterns.chunks, patterns.read)
        if hasattr(patterns, "dims") and hasattr(patterns, "data"):
            patterns = patterns.data
        if not hasattr(patterns, "shape") or not hasattr(patterns, "dtype"):
            patterns = np.asarray(patterns)
        chunks = getattr(patterns, "chunks", None)
        if chunks and isinstance(chunks[0], tuple):
            chunks = tuple(max(sizes) for sizes in chunks)
        # Where Zarr packs chunks into shards, a chunk can be read without the others.
        return cls._checked(patterns.shape, patterns.dtype, chunks, lambda region: np.asarray(patterns[region]))

    @classmethod
    def _checked(cls, shape: Any, dtype: Any, chunks: Any, read: Callable[[Region], Array]) -> PatternSource:
        sizes = tuple(int(n) for n in shape)
        if len(sizes) < 3 or 0 in sizes:
            raise ConfigurationError(
                f"patterns of shape {sizes} are no scan; give (position, det_y, det_x) or "
                "(scan_y, scan_x, det_y, det_x)"
            )
        if np.dtype(dtype).kind not in "biuf":
            raise ConfigurationError(f"patterns of {dtype} are no counts; give integers or real numbers")
        leading = sizes[:-2]
        chunk = tuple(int(n) for n in chunks[: len(leading)]) if chunks else (1,) * len(leading)
        return cls(leading=leading, detector=(sizes[-2], sizes[-1]), dtype=np.dtype(dtype), chunk=chunk, read=read)

    @property
    def count(self) -> int:
        """Number of patterns."""
        return math.prod(self.leading)

    def blocks(self) -> list[PatternBlock]:
        """All patterns, in blocks of whole chunks."""
        pattern = 4 * math.prod(self.detector)
        sizes = [min(c, n) for c, n in zip(self.chunk, self.leading, strict=True)]
        # The last axis grows first: neighbours in the file are read together.
        for axis in reversed(range(len(sizes))):
            room = BLOCK_BYTES // (pattern * math.prod(sizes))
            if room > 1:
                sizes[axis] = min(self.leading[axis], sizes[axis] * room)
        numbers = np.arange(self.count).reshape(self.leading)
        return [PatternBlock(region, numbers[region].ravel()) for region in _regions(self.leading, sizes)]

    def read_block(self, block: PatternBlock) -> Array:
        """Values of a block, (pattern, det_y, det_x), in the order of its numbers."""
        return np.asarray(self.read(block.region)).reshape(-1, *self.detector)


def _regions(shape: tuple[int, ...], sizes: list[int]) -> Iterator[Region]:
    starts = (range(0, n, size) for n, size in zip(shape, sizes, strict=True))
    for corner in product(*starts):
        yield tuple(slice(a, min(a + size, n)) for a, size, n in zip(corner, sizes, shape, strict=True))
