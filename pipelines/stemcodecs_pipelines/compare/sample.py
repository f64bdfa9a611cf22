"""Which blocks of a scan are read, and how well their sizes tell that of the whole."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stemcodecs.readers import open_scan
from stemcodecs.readers.scan import Region, Scan
from stemcodecs_pipelines.compare.report import Sample
from stemcodecs_pipelines.run.plan import Plan, make_plan

__all__ = ["DEFAULT_SAMPLE", "ChosenBlocks", "choose_blocks", "sample_as_scan"]

Array = np.ndarray[Any, Any]

DEFAULT_SAMPLE = 256_000_000
"""Bytes that are read of a larger scan."""
FEWEST_BLOCKS = 4
"""Of a part of a scan: from fewer nobody can tell how much blocks differ."""


@dataclass(frozen=True, kw_only=True)
class ChosenBlocks:
    """Blocks of a plan that are read.

    Attributes
    ----------
    plan : Plan
        Chunks, as `stemcodecs_pipelines.compress` would write them.
    numbers : tuple of int
        Of the blocks, increasing.
    """

    plan: Plan
    numbers: tuple[int, ...]

    @property
    def whole(self) -> bool:
        """Whether these are all blocks."""
        return len(self.numbers) == self.plan.blocks

    @property
    def regions(self) -> list[Region]:
        """Their parts of the scan."""
        return [self.plan.region(number) for number in self.numbers]

    @property
    def values(self) -> list[int]:
        """How many values each of them has."""
        return [math.prod(s.stop - s.start for s in region) for region in self.regions]

    @property
    def raw_bytes(self) -> int:
        """Size of all of them."""
        return sum(self.values) * np.dtype(self.plan.dtype).itemsize

    def bits_per_value(self, sizes: Sequence[int], model: int = 0) -> tuple[float, float]:
        """Bits that a value of the whole scan takes, and the standard error of that.

        Parameters
        ----------
        sizes : sequence of int
            Bytes of each block.
        model : int
            Bytes that the scan has once, however large it is.

        Notes
        -----
        The ratio estimator of a sample without replacement (Cochran, Sampling Techniques, 1977, chapter 6): blocks at
        the edge of a scan are smaller than others.
        """
        bits, values = 8.0 * np.asarray(sizes, np.float64), np.asarray(self.values, np.float64)
        ratio = float(bits.sum() / values.sum())
        count = len(values)
        error = 0.0
        if not self.whole:
            variance = float(((bits - ratio * values) ** 2).sum() / (count - 1))
            error = math.sqrt((1 - count / self.plan.blocks) * variance / count) / float(values.mean())
        return ratio + 8.0 * model / math.prod(self.plan.shape), error

    def describe(self) -> Sample:
        """What was read, for a report; of a plan that cuts no pattern."""
        pattern = math.prod(self.plan.shape[-2:])
        return Sample(
            positions=sum(self.values) // pattern,
            of_positions=math.prod(self.plan.shape[:-2]),
            raw_bytes=self.raw_bytes,
            of_bytes=self.plan.raw_bytes,
            blocks=len(self.numbers),
        )


def choose_blocks(scan: Scan, sample_bytes: int, *, whole_detector: bool = False, together: int = 1) -> ChosenBlocks:
    """All blocks of a scan, or whole ones that are spread over it.

    The scan is divided into as many runs of blocks as shall be read, and one of each run is taken at random (always the
    same): blocks at equal distances could all lie in one column.

    Parameters
    ----------
    scan : Scan
        Source.
    sample_bytes : int
        Bytes to read of a larger scan; at least `FEWEST_BLOCKS` blocks are.
    whole_detector, together
        See `stemcodecs_pipelines.methods.base.Method`.
    """
    plan = make_plan(scan, workers=1, whole_detector=whole_detector, together=together)
    count = max(FEWEST_BLOCKS, sample_bytes // plan.block_bytes)
    if plan.raw_bytes <= sample_bytes or count >= plan.blocks:
        return ChosenBlocks(plan=plan, numbers=tuple(range(plan.blocks)))
    edges = np.linspace(0, plan.blocks, count + 1).round().astype(int)
    draw = np.random.default_rng(0)
    numbers = tuple(int(draw.integers(a, b)) for a, b in itertools.pairwise(edges))
    return ChosenBlocks(plan=plan, numbers=numbers)


def sample_as_scan(scan: Scan, chosen: ChosenBlocks, place: Path) -> Scan:
    """The blocks of a sample side by side as a scan of their own, for methods that read all they can get.

    Parameters
    ----------
    scan : Scan
        Source.
    chosen : ChosenBlocks
        Its blocks; those at the edges that are smaller than the others are left out.
    place : Path
        File to write, ``.npy``.
    """
    shapes = [tuple(s.stop - s.start for s in region) for region in chosen.regions]
    largest = max(shapes, key=math.prod)
    regions = [region for region, shape in zip(chosen.regions, shapes, strict=True) if shape == largest]
    # Rows of a scan are laid below each other, frames after each other.
    axis = max(0, len(scan.shape) - 4)
    shape = (*largest[:axis], len(regions) * largest[axis], *largest[axis + 1 :])
    out = np.lib.format.open_memmap(place, "w+", scan.dtype, shape)
    for i, region in enumerate(regions):
        out[(slice(None),) * axis + (slice(i * largest[axis], (i + 1) * largest[axis]),)] = scan.read(region)
    out.flush()
    del out
    return open_scan(place)
