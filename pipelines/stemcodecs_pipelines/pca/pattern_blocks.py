"""A scan cut into blocks of whole patterns, and what each pass of the PCA computes on one block."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, TypeVar

import numpy as np

from stemcodecs.counts.counts_map import CountsMap
from stemcodecs.errors import ConfigurationError, UnsupportedDtypeError
from stemcodecs.lowrank.basis import PcaBasis, as_features
from stemcodecs.lowrank.mapped import counts_behind
from stemcodecs.lowrank.marked import expected_counts, marked
from stemcodecs.lowrank.rangefinder import PassSums, pass_sums
from stemcodecs.lowrank.stabilize import inverse_anscombe
from stemcodecs_pipelines.run.engine import Engine

__all__ = ["BlockTask", "DevianceTask", "PatternBlocks", "in_order"]

Array = np.ndarray[Any, Any]

_MOST_MARKS = 0.05
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, eq=False)
class PatternBlocks:
    """Blocks of whole patterns that follow the source's chunks.

    Parameters
    ----------
    source : Scan, zarr.Array, dask.array.Array or ndarray
        Scan of shape (…, det_y, det_x), 3 or more dimensions.
    block_bytes : int
        Size of a block as float32; a chunk of the source is not cut, unless it is read as one array
        anyway.
    of_counts : bool
        What is no count marks a gap, a dead or a saturated pixel; otherwise every value is one.
    behind : CountsMap, optional
        How values become the counts that are read.
    """

    source: Any
    block_bytes: int = 8 << 20
    of_counts: bool = True
    behind: CountsMap | None = None

    def __post_init__(self) -> None:
        if len(self.source.shape) < 3:
            raise ConfigurationError(
                f"PCA needs a stack of patterns, not an array of shape {tuple(self.source.shape)}; "
                "its last two dimensions must be the detector"
            )
        if np.dtype(self.source.dtype).kind not in "biuf":
            raise UnsupportedDtypeError(f"PCA needs real numbers, not {self.source.dtype}")

    @property
    def detector(self) -> tuple[int, int]:
        """Detector shape."""
        return (int(self.source.shape[-2]), int(self.source.shape[-1]))

    @property
    def pixels(self) -> int:
        """Detector pixels."""
        return math.prod(self.detector)

    @property
    def positions(self) -> int:
        """Scan positions."""
        return math.prod(self.source.shape[:-2])

    @cached_property
    def tile(self) -> tuple[int, ...]:
        """Scan positions of a block along each scan dimension."""
        lead = tuple(int(n) for n in self.source.shape[:-2])
        chunks = _chunk_shape(self.source)
        tile = [1] * len(lead) if chunks is None else [min(c, n) for c, n in zip(chunks, lead, strict=False)]
        room = max(1, self.block_bytes // (4 * self.pixels))
        # Grow along the fastest dimension first, so that a block is one stretch of the file where
        # possible.
        for axis in reversed(range(len(lead))):
            while tile[axis] < lead[axis] and 2 * math.prod(tile) <= room:
                tile[axis] = min(2 * tile[axis], lead[axis])
        return tuple(tile)

    def __len__(self) -> int:
        return math.prod(-(-n // t) for n, t in zip(self.source.shape, self.tile, strict=False))

    @cached_property
    def _regions(self) -> list[tuple[slice, ...]]:
        starts = [range(0, n, t) for n, t in zip(self.source.shape, self.tile, strict=False)]
        return [
            tuple(slice(s, min(s + t, n)) for s, t, n in zip(corner, self.tile, self.source.shape, strict=False))
            for corner in product(*starts)
        ]

    def read(self, index: int) -> Array:
        """Counts (positions, pixels) of a block.

        Marks are replaced by what their pixel has on average in the block, and by 0 where it has only these: so they
        tell the fit nothing.

        Raises
        ------
        ConfigurationError
            So many values are negative or not finite that these are no marks.
        """
        block = self._stored(index)
        if self.behind is not None:
            return self._behind(block, self.behind)
        none = marked(block) if self.of_counts else None
        if none is None:
            return block
        with np.errstate(invalid="ignore"):
            below = ~(block >= 0)
        if np.count_nonzero(below[:, ~below.all(axis=0)]) > _MOST_MARKS * block.size + 8:
            raise ConfigurationError(
                "the scan holds many values that are NaN or negative, so they are no marks of gaps and dead pixels, "
                "and PCA cannot model them; replace them first"
            )
        position, pixel = np.nonzero(none)
        filled = block.copy()
        filled[position, pixel] = expected_counts(block, none)[pixel].astype(block.dtype)
        return filled

    @staticmethod
    def _behind(block: Array, behind: CountsMap) -> Array:
        counts, none, _ = counts_behind(np.ascontiguousarray(block, block.dtype.newbyteorder("=")), behind)
        if np.count_nonzero(none[:, ~none.all(axis=0)]) > _MOST_MARKS * block.size + 8:
            raise ConfigurationError(
                "many values of the scan lie below zero counts, or have no counts behind them, so that PCA cannot "
                "model them; store it with poisson or pixel_histogram"
            )
        if none.any():
            position, pixel = np.nonzero(none)
            counts[position, pixel] = expected_counts(counts, none)[pixel].astype(counts.dtype)
        return counts

    def _stored(self, index: int) -> Array:
        region = self._regions[index]
        if hasattr(self.source, "read"):
            block = self.source.read((*region, slice(0, self.detector[0]), slice(0, self.detector[1])))
        elif hasattr(self.source, "dask"):
            # Already inside a task: the block's own graph runs here, in this thread.
            block = self.source[region].compute(scheduler="synchronous")
        else:
            block = np.asarray(self.source[region])
        return np.ascontiguousarray(block).reshape(-1, self.pixels)

    def thinned(self, index: int, seed: int) -> tuple[Array, Array]:
        """Two independent halves of a block's counts by binomial thinning; the same at every
        call.
        """
        counts = self.read(index)
        whole = counts.astype(np.int64) if counts.dtype.kind == "f" else counts
        if (counts.dtype.kind == "f" and not np.array_equal(whole, counts)) or whole.min(initial=0) < 0:
            raise ConfigurationError(
                "rank='auto' splits counts and needs whole numbers of at least 0; "
                "give a rank, or convert the scan to counts"
            )
        generator = np.random.default_rng((seed, index))
        # Most pixels of a sparse scan are 0, and have nothing to draw.
        first = np.zeros(whole.shape, np.int64)
        lit = whole > 0
        first[lit] = generator.binomial(whole[lit].astype(np.int64), 0.5)
        return first, whole - first


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockTask:
    """One pass of the range finder over blocks; picklable.

    Parameters
    ----------
    blocks : PatternBlocks
        What to read.
    sketch : ndarray, float32, (pixels, columns)
        Ω of this pass.
    shift : ndarray or None, float32, (pixels,)
        Subtracted from the features.
    stabilised : bool
        Anscombe transform or not.
    moments : bool
        Also sum counts, features and energy: in the first pass.
    thinning : int or None
        Seed: use one half of the counts.
    """

    blocks: PatternBlocks
    sketch: Array
    shift: Array | None
    stabilised: bool
    moments: bool
    thinning: int | None = None

    def __call__(self, index: int) -> tuple[int, PassSums]:
        """PassSums sums of one block."""
        counts = self.blocks.read(index) if self.thinning is None else self.blocks.thinned(index, self.thinning)[0]
        return index, pass_sums(counts, self.shift, self.sketch, self.stabilised, self.moments)


@dataclass(frozen=True, kw_only=True, eq=False)
class DevianceTask:
    """Poisson deviance of one half of the counts under the low-rank rates of the other;
    picklable.
    """

    blocks: PatternBlocks
    basis: PcaBasis
    ranks: tuple[int, ...]
    seed: int

    def __call__(self, index: int) -> tuple[int, Array]:
        """Deviance of each candidate rank, less a constant; float64, (candidates,)."""
        basis = self.basis
        fitted, held_out = self.blocks.thinned(index, self.seed)
        mean = basis.mean.ravel()
        features = as_features(fitted, basis.stabilised) - mean
        components = basis.components.reshape(basis.rank, basis.mean.size)
        coefficients = features @ components.T
        # A rate of 0 would make one count infinitely unlikely.
        floor = 0.02 * basis.mean_counts.ravel() + 1e-4 * basis.mean_counts.mean() + 1e-12
        deviance = np.empty(len(self.ranks))
        estimate = np.repeat(mean[None], len(features), 0)
        done = 0
        for i, rank in enumerate(self.ranks):
            estimate += coefficients[:, done:rank] @ components[done:rank]
            done = rank
            rate = np.maximum(inverse_anscombe(estimate) if basis.stabilised else estimate, floor)
            deviance[i] = rate.sum() - (held_out * np.log(rate)).sum()
        return index, deviance


def in_order(
    engine: Engine, task: Callable[[int], tuple[int, Result]], indices: Sequence[int], ahead: int | None = None
) -> Iterator[Result]:
    """Results in the order of the indices, so that sums round the same way however tasks finish.

    Of a block that takes long, at most ``ahead`` later ones are begun, so that their results do not pile up.
    """
    waiting: dict[int, Result] = {}
    position = {index: n for n, index in enumerate(indices)}
    begun = following = 0

    def todo() -> Iterator[int]:
        nonlocal begun
        while begun < len(indices) and (ahead is None or begun - following < ahead):
            begun += 1
            yield indices[begun - 1]

    while following < len(indices):
        # The engine finishes what it has when there is nothing more to do, the late block included.
        for index, result in engine.map(_call, task, todo()):
            waiting[position[index]] = result
            while following in waiting:
                yield waiting.pop(following)
                following += 1


def _call(task: Callable[[int], Any], index: int) -> Any:
    return task(index)


def _chunk_shape(source: Any) -> tuple[int, ...] | None:
    """Chunk along the scan dimensions, if the source has chunks."""
    chunks = getattr(source, "chunks", None)
    if chunks is None:
        return None
    lead = chunks[: len(source.shape) - 2]
    # dask lists the size of every chunk.
    return tuple(int(max(c)) if isinstance(c, tuple) else int(c) for c in lead)
