"""Check the bound value by value, and report error, bias of the total counts, and added noise."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import sqrt
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stemcodecs.quantize.levels import radius
from stemcodecs.quantize.poisson_quantizer import PoissonQuantizer

__all__ = ["Deviation"]

_Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """How far decoded values lie from their originals; merges over the blocks of a scan.

    Attributes
    ----------
    values : int
        Values compared.
    exact : int
        Of these, values that the quantiser must keep exactly (below the offset, saturated, not
        finite).
    violations : int
        Values outside the bound; 0 if the guarantee holds.
    first_violation : tuple of int or None
        Index of the first of them.
    largest_sigma : float
        Largest |v' − v| / σ among the quantised values.
    adu, difference, squares : int
        Sums over the quantised values within the bound of x = v − offset, v' − v and (v' − v)².
    gain : float
        ADU per count.
    """

    values: int = 0
    exact: int = 0
    violations: int = 0
    first_violation: tuple[int, ...] | None = None
    largest_sigma: float = 0.0
    adu: int = 0
    difference: int = 0
    squares: int = 0
    gain: float = 1.0

    @property
    def bias(self) -> float:
        """Change of the total counts, as a fraction of them."""
        return self.difference / self.adu if self.adu else 0.0

    @property
    def added_variance(self) -> float:
        """Mean squared error over the mean shot-noise variance."""
        return self.squares / (self.gain * self.adu) if self.adu else 0.0

    @classmethod
    def of(
        cls,
        source: _Array,
        decoded: _Array,
        quantizer: PoissonQuantizer,
        origin: tuple[int, ...] = (),
    ) -> Self:
        """Compare a block with its decoded values.

        Parameters
        ----------
        source, decoded : arrays of the same shape and dtype
            Raw values in ADU.
        quantizer : PoissonQuantizer
            States the bound.
        origin : tuple of int
            Index of the block's first element in the scan.

        Returns
        -------
        Deviation

        Raises
        ------
        ValueError
            If shapes or dtypes differ.
        """
        if source.shape != decoded.shape or source.dtype != decoded.dtype:
            raise ValueError(f"{decoded.dtype}{decoded.shape} is no decoding of {source.dtype}{source.shape}")
        top = quantizer.top(source.dtype.newbyteorder("="))
        k2 = quantizer.k2
        # Where these hold, the products of the kernel cannot overflow 64 bits; elsewhere roots are taken exactly.
        compiled = k2.numerator < 1 << 31 and k2.denominator < 1 << 23 and k2 < 1 << 8
        if source.dtype.kind in "iu" and compiled:
            from stemcodecs.quantize.level_kernels import compare

            native = source.dtype.newbyteorder("=")
            a, b = (np.ascontiguousarray(v).reshape(-1).astype(native, copy=False) for v in (source, decoded))
            found = compare(a, b, quantizer.offset, top, k2.numerator, k2.denominator)
        else:
            found = _compare(source.reshape(-1), decoded.reshape(-1), quantizer.offset, top, k2)
        exact, violations, first, adu, difference, squares, worst = found
        gain = float(quantizer.adu_per_count)
        index = None
        if violations:
            start = origin or (0,) * source.ndim
            local = np.unravel_index(first, source.shape)
            index = tuple(int(i) + o for i, o in zip(local, start, strict=True))
        return cls(
            values=source.size,
            exact=int(exact),
            violations=int(violations),
            first_violation=index,
            largest_sigma=sqrt(worst / gain),
            adu=int(adu),
            difference=int(difference),
            squares=int(squares),
            gain=gain,
        )

    def merge(self, other: Self) -> Self:
        """Both blocks together."""
        firsts = [f for f in (self.first_violation, other.first_violation) if f is not None]
        return type(self)(
            values=self.values + other.values,
            exact=self.exact + other.exact,
            violations=self.violations + other.violations,
            # Index order, so that the report does not depend on which block was done first.
            first_violation=min(firsts, default=None),
            largest_sigma=max(self.largest_sigma, other.largest_sigma),
            adu=self.adu + other.adu,
            difference=self.difference + other.difference,
            squares=self.squares + other.squares,
            gain=other.gain if other.values else self.gain,
        )

    def summary(self) -> str:
        """One line for people."""
        state = "the bound holds" if not self.violations else f"{self.violations} values break the bound"
        return (
            f"{state} for {self.values} values: largest error {self.largest_sigma:.4f} σ, "
            f"total counts {100 * self.bias:+.3f} %, added noise variance "
            f"{100 * self.added_variance:.2f} % of the shot noise, {self.exact} values kept exactly"
        )


def _compare(
    source: _Array, decoded: _Array, offset: int, top: int, k2: Fraction
) -> tuple[int, int, int, int, int, int, float]:
    """What the compiled comparison gives, for floats and for bounds beyond its 64 bits."""
    with np.errstate(invalid="ignore"):
        quantised = (source >= offset) & (source <= offset + top)
        broken = ~quantised & ~((source == decoded) | ((source != source) & (decoded != decoded)))
        # What is no whole number, or too large for 64-bit integers.
        usable = (np.floor(decoded) == decoded) & (np.abs(decoded) < float(1 << 53))
        broken |= quantised & ~(usable & (np.floor(source) == source))
    compared = np.flatnonzero(quantised & ~broken)
    x = source[compared].astype(np.int64) - offset
    d = decoded[compared].astype(np.int64) - offset - x
    beyond = np.abs(d) > radius(x, k2)
    broken[compared[beyond]] = True
    changed = d != 0
    with np.errstate(divide="ignore"):
        worst = (np.float64(d[changed]) ** 2 / x[changed]).max(initial=0.0)
    kept = d[~beyond]
    sizes, counts = np.unique(np.abs(kept), return_counts=True)
    return (
        source.size - int(np.count_nonzero(quantised)),
        int(np.count_nonzero(broken)),
        int(np.argmax(broken)) if broken.size else 0,
        int(x[~beyond].sum()),
        int(kept.sum()),
        sum(int(n) ** 2 * int(c) for n, c in zip(sizes, counts, strict=True)),
        float(worst),
    )
