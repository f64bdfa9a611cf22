"""How far a scan that was stored without a pointwise guarantee lies from its source."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any, NoReturn, Self

import numpy as np

from stemcodecs.errors import VerificationError
from stemcodecs.lowrank.marked import marked
from stemcodecs.lowrank.stabilize import anscombe
from stemcodecs.readers.scan import Region
from stemcodecs_pipelines.methods.base import check_form

__all__ = ["Misfit", "measure"]

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
        apart = anscombe(np.maximum(b, 0)) - anscombe(np.maximum(a, 0))
        found = found.merge(
            Misfit(
                values=a.size,
                squares=float((apart**2).sum(dtype=np.float64)),
                largest=float(np.abs(apart).max()),
                counts=float(a.sum(dtype=np.float64)),
                difference=float(b.sum(dtype=np.float64) - a.sum(dtype=np.float64)),
            )
        )
    return found


def _refuse(source: Array, decoded: Array, region: Region, flat: int) -> NoReturn:
    local = tuple(int(i) for i in np.unravel_index(flat, source.shape))
    index = tuple(i + s.start for i, s in zip(local, region, strict=True))
    raise VerificationError(
        f"the store does not keep the mark at {index}: {decoded[local]} instead of {source[local]}; "
        "repair it with stemcodecs repair",
        index,
    )
