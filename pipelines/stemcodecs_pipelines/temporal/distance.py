"""How far decoded frames lie from their source."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from stemcodecs.readers.scan import Region
from stemcodecs_pipelines.methods.base import check_form

__all__ = ["MovieDistance", "measure"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class MovieDistance:
    """Difference of frames from their source, noise of the source included; merges over the blocks of a movie.

    Attributes
    ----------
    values : int
        Values compared.
    squares : float
        Sum of the squared differences.
    largest : int
        Largest of them.
    brightest : int
        Largest value of the source: the peak of PSNR.
    measurements, exact : int
        Measurements, and how many of them came back exactly, as at scene cuts.
    """

    values: int = 0
    squares: float = 0.0
    largest: int = 0
    brightest: int = 0
    measurements: int = 0
    exact: int = 0

    def merge(self, other: Self) -> Self:
        """Both blocks together."""
        return type(self)(
            values=self.values + other.values,
            squares=self.squares + other.squares,
            largest=max(self.largest, other.largest),
            brightest=max(self.brightest, other.brightest),
            measurements=self.measurements + other.measurements,
            exact=self.exact + other.exact,
        )

    @property
    def psnr(self) -> float:
        """Of the frames against their noisy source, in dB."""
        if not self.squares or not self.brightest:
            return math.inf
        return 10 * math.log10(self.brightest**2 * self.values / self.squares)

    def summary(self) -> str:
        """One line for people."""
        rms = math.sqrt(self.squares / self.values) if self.values else 0.0
        psnr = f", PSNR {self.psnr:.2f} dB" if math.isfinite(self.psnr) else ""
        return (
            f"no pointwise guarantee; over {self.values:,} values RMS difference from the noisy source {rms:.2f}, "
            f"the largest {self.largest}{psnr}; {self.exact} of {self.measurements} measurements came back exactly"
        )


def measure(source: Array, decoded: Array, region: Region, frames: int) -> MovieDistance:
    """Compare a block with what it decodes to.

    Raises
    ------
    VerificationError
        Shape or dtype differ.
    """
    check_form(source, decoded, region)
    found = MovieDistance()
    movies = zip(source.reshape(-1, *source.shape[-3:]), decoded.reshape(-1, *source.shape[-3:]), strict=True)
    for one, other in movies:
        for first in range(0, len(one), frames):
            a, b = one[first : first + frames], other[first : first + frames]
            apart = b.astype(np.int32) - a
            largest = int(np.abs(apart).max(initial=0))
            found = found.merge(
                MovieDistance(
                    values=a.size,
                    squares=float(np.square(apart, dtype=np.float64).sum()),
                    largest=largest,
                    brightest=int(a.max(initial=0)),
                    measurements=1,
                    exact=int(largest == 0),
                )
            )
    return found
