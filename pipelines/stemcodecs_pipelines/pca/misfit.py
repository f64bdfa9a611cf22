"""How far a scan that was stored without a pointwise guarantee lies from its source."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any, NoReturn, Self

import numpy as np

from stemcodecs.counts.counts_map import CountsMap
from stemcodecs.errors import VerificationError
from stemcodecs.lowrank.mapped import counts_behind
from stemcodecs.lowrank.marked import marked
from stemcodecs.lowrank.stabilize import anscombe
from stemcodecs.readers.scan import Region
from stemcodecs_pipelines.methods.base import check_form

__all__ = ["Misfit", "measure", "measure_behind"]

Array = np.ndarray[Any, Any]

_ROWS = 1 << 20
"""Values compared at once: the comparison takes next to no memory."""


@dataclass(frozen=True, kw_only=True)
class Misfit:
    """Difference of values from their source in units of the counting noise σ; merges over the blocks of a scan.

    Differences are taken between 2·√(N + 3/8) of both, which have a noise of 1 at every count (Anscombe 1948): about
    (N' − N)/√N, and finite at N = 0.

    Attributes
    ----------
    values : int
        Values compared.
    squares : float
        Sum of the squared differences.
    largest : float
        Largest of them.
    counts, difference : float
        Sums of N and of N' − N.
    """

    values: int = 0
    squares: float = 0.0
    largest: float = 0.0
    counts: float = 0.0
    difference: float = 0.0

    def merge(self, other: Self) -> Self:
        """Both blocks together."""
        return type(self)(
            values=self.values + other.values,
            squares=self.squares + other.squares,
            largest=max(self.largest, other.largest),
            counts=self.counts + other.counts,
            difference=self.difference + other.difference,
        )

    @property
    def rms(self) -> float:
        """Root mean square of the differences, in σ."""
        return sqrt(self.squares / self.values) if self.values else 0.0

    @property
    def bias(self) -> float:
        """Change of the total counts, as a fraction of them."""
        return self.difference / self.counts if self.counts else 0.0

    def summary(self) -> str:
        """One line for people."""
        return (
            f"no pointwise guarantee; over {self.values:,} values the RMS difference is {self.rms:.3f} σ of the "
            f"counting noise, the largest {self.largest:.1f} σ, total counts {100 * self.bias:+.3f} %"
        )


def measure(source: Array, decoded: Array, region: Region) -> Misfit:
    """Compare a block with what it decodes to.

    Marks of gaps, dead and saturated pixels are no counts, and have no noise that a difference could be compared with.

    Raises
    ------
    VerificationError
        Shape or dtype differ, or a mark that is negative or not finite was not kept.
    """
    check_form(source, decoded, region)
    found = Misfit()
    flat, other = source.reshape(-1), decoded.reshape(-1)
    bits = f"u{source.dtype.itemsize}"
    for first in range(0, flat.size, _ROWS):
        a, b = flat[first : first + _ROWS], other[first : first + _ROWS]
        none = marked(a)
        if none is not None:
            with np.errstate(invalid="ignore"):
                lost = ~((a >= 0) & (a < np.inf)) & (a.view(bits) != b.view(bits))
            if lost.any():
                _refuse(source, decoded, region, first + int(np.argmax(lost)))
            # What was not kept was no mark but a count, however large.
            counted = ~none | (a.view(bits) != b.view(bits))
            a, b = a[counted], b[counted]
            if a.size == 0:
                continue
        found = found.merge(_apart(a, b))
    return found


def measure_behind(source: Array, decoded: Array, region: Region, behind: CountsMap) -> Misfit:
    """As :func:`measure`, of the counts behind the values of a block of whole patterns.

    Raises
    ------
    VerificationError
        Shape or dtype differ, or a mark, or a value that is no count, was not kept.
    """
    check_form(source, decoded, region)
    found = Misfit()
    n_pixels, native = behind.zero.size, source.dtype.newbyteorder("=")
    mine, other = (np.ascontiguousarray(v, native).reshape(-1, n_pixels) for v in (source, decoded))
    rows = max(1, _ROWS // n_pixels)
    bits = f"u{native.itemsize}"
    for first in range(0, len(mine), rows):
        a, b = mine[first : first + rows], other[first : first + rows]
        counts, none, scales = counts_behind(a, behind)
        lost = none & (a.view(bits) != b.view(bits))
        if lost.any():
            _refuse(source, decoded, region, first * n_pixels + int(np.argmax(lost)))
        if not none.all():
            found = found.merge(_apart(counts[~none], behind.rates(b, scales)[~none]))
    return found


def _apart(counts: Array, decoded: Array) -> Misfit:
    apart = anscombe(np.maximum(decoded, 0)) - anscombe(np.maximum(counts, 0))
    return Misfit(
        values=counts.size,
        squares=float((apart**2).sum(dtype=np.float64)),
        largest=float(np.abs(apart).max()),
        counts=float(counts.sum(dtype=np.float64)),
        difference=float(decoded.sum(dtype=np.float64) - counts.sum(dtype=np.float64)),
    )


def _refuse(source: Array, decoded: Array, region: Region, flat: int) -> NoReturn:
    local = tuple(int(i) for i in np.unravel_index(flat, source.shape))
    index = tuple(i + s.start for i, s in zip(local, region, strict=True))
    raise VerificationError(
        f"the store does not keep the mark at {index}: {decoded[local]} instead of {source[local]}; "
        "repair it with stemcodecs repair",
        index,
    )
