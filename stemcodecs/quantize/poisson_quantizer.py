"""What a user chooses about the quantisation, and what metadata must say to decode it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from math import floor
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from stemcodecs.errors import ConfigurationError
from stemcodecs.quantize.dtype_range import value_limits
from stemcodecs.quantize.levels import Levels, huang_levels, optimal_levels, preset_bound

if TYPE_CHECKING:
    from stemcodecs.quantize.code_table import CodeTable
    from stemcodecs.quantize.decoders import LevelSums

__all__ = ["DEFAULT_R", "KEYS", "PoissonQuantizer", "exact_fraction"]

DEFAULT_R = 0.5
_DECODERS = ("midpoint", "centroid")
# The widest bins that a bound allows leave one value to decode to, and nothing for a centroid to choose. So with
# centroids counts up to 4 are kept apart: at r = 0.5 that is one level more, and the bias of the total counts at
# mean 0.5 falls from 0.29 % to 0.03 %. It costs up to 0.3 bits per pixel at means about 5.
_EXACT_BELOW = {"midpoint": 1, "centroid": 5}


def exact_fraction(name: str, value: float | str) -> Fraction:
    """A positive rational from a number as it is written: 0.1 means one tenth, "1/3" a third."""
    try:
        # The decimal that was written: the float 0.1 is a little more than a tenth, and levels must not depend on it.
        result = Fraction(value if isinstance(value, str) else repr(value))
    except (ValueError, ZeroDivisionError, TypeError):
        raise ConfigurationError(f"{name} = {value!r} is not a number; write 0.5 or '1/3'") from None
    if result <= 0:
        raise ConfigurationError(f"{name} = {value!r} must be positive; to keep every value, store losslessly")
    return result


@dataclass(frozen=True, kw_only=True)
class PoissonQuantizer:
    """Quantise counts so that each decoded value lies within r standard deviations of the original.

    A stored value v (ADU) stands for N = (v − offset) / gain counts, whose shot noise is √N counts,
    that is σ = √(gain · (v − offset)) ADU. Every value with v ≥ offset and below ``saturation`` is
    restored to some v' with |v' − v| ≤ r·σ; every other value is kept exactly or refused.

    Attributes
    ----------
    preset : {"optimal", "huang-511", "huang-255", "huang-191"}
        Construction of the levels; see :mod:`stemcodecs.quantize.levels`.
    r : float or str, optional
        Bound in σ (0.5 unless given; "1/3" for fractions). The huang presets fix theirs: √(1/8),
        √(1/2) and 1.
    gain : float or str
        ADU per count, taken as the decimal it is written as.
    offset : int
        ADU at zero counts.
    exact_below : int, optional
        Whole counts below this keep a level each. Unless given, 1 with midpoint decoding (zero
        stays zero) and 5 with centroid decoding. The huang presets fix theirs.
    saturation : int, optional
        Values (ADU) from here on are kept exactly: saturated pixels and gap markers. Unless given,
        the largest value of an integer dtype; floats up to 2²⁴ (float32) or 2³² − 1 (float64) are
        quantised.
    decoder : {"midpoint", "centroid"}
        What a level decodes to: the middle of its bin, or the mean of the scan's values in it,
        clipped to the bound.
    centroids : str, optional
        Learned offsets from the midpoints (:func:`stemcodecs.quantize.decoders.pack_offsets`), for
        a decoder "centroid" whose table is shared by a whole array.
    """

    preset: str = "optimal"
    r: float | str | None = None
    gain: float | str = 1
    offset: int = 0
    exact_below: int | None = None
    saturation: int | None = None
    decoder: str = "midpoint"
    centroids: str | None = None

    def __post_init__(self) -> None:
        fixed = preset_bound(self.preset)
        if self.decoder not in _DECODERS:
            raise ConfigurationError(f"unknown decoder {self.decoder!r}; choose {' or '.join(_DECODERS)}")
        if self.centroids is not None and self.decoder != "centroid":
            raise ConfigurationError("centroids are given, but the decoder is 'midpoint'; set decoder='centroid'")
        if fixed is not None and not (self.r is None and self.exact_below is None):
            raise ConfigurationError(
                f"preset {self.preset!r} fixes its bound and its exact counts; "
                "leave out r and exact_below, or use preset 'optimal'"
            )
        if fixed is None and self.r is None:
            # As metadata will say it, so that a codec read back equals the one that was stored.
            object.__setattr__(self, "r", DEFAULT_R)
        for name in ("offset", "exact_below", "saturation"):
            value = getattr(self, name)
            if value is None and name != "offset":
                continue
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise ConfigurationError(f"{name} = {value!r} must be a whole number")
            object.__setattr__(self, name, int(value))
        for name in ("r", "gain"):
            value = getattr(self, name)
            # NumPy scalars would print as "np.float64(...)" and are no JSON.
            if isinstance(value, np.generic):
                object.__setattr__(self, name, value.item())
        if self.exact_below is not None and self.exact_below < 1:
            raise ConfigurationError("exact_below must be at least 1: a decoded zero must have been a zero")
        _ = self.r_squared, self.adu_per_count

    @property
    def r_squared(self) -> Fraction:
        """The bound in σ, squared, as an exact fraction."""
        if self.r is not None:
            return exact_fraction("r", self.r) ** 2
        fixed = preset_bound(self.preset)
        assert fixed is not None
        return fixed

    @property
    def adu_per_count(self) -> Fraction:
        """The gain as an exact fraction."""
        return exact_fraction("gain", self.gain)

    @property
    def k2(self) -> Fraction:
        """r²·gain: the bound is (v' − v)² ≤ k2·(v − offset)."""
        return self.r_squared * self.adu_per_count

    @property
    def _lowest_levels(self) -> int:
        return _EXACT_BELOW[self.decoder] if self.exact_below is None else self.exact_below

    def top(self, dtype: np.dtype[Any]) -> int:
        """Largest quantised value above the offset, in ADU."""
        lowest, highest = value_limits(dtype)
        saturation = self.saturation
        if saturation is None:
            saturation = highest if dtype.kind in "iu" else highest + 1
        if not lowest <= self.offset < saturation <= highest + 1:
            raise ConfigurationError(
                f"offset {self.offset} and saturation {saturation} do not fit {dtype}: "
                f"they need {lowest} <= offset < saturation <= {highest + 1}"
            )
        return saturation - 1 - self.offset

    def levels(self, dtype: npt_dtype) -> Levels:
        """The levels for values of a dtype; built once per process.

        Raises
        ------
        UnsupportedDtypeError
            For a dtype outside :func:`~stemcodecs.quantize.dtype_range.value_limits`.
        ConfigurationError
            If offset or saturation do not fit the dtype, or the bound needs too many levels.
        """
        top = self.top(np.dtype(dtype))
        return _levels(self.preset, self.k2, self.adu_per_count, top, self._lowest_levels)

    def table(self, dtype: npt_dtype) -> CodeTable:
        """Codes and values of a dtype; built once per process."""
        return _table(self, np.dtype(dtype).newbyteorder("="))

    def with_centroids(self, sums: LevelSums, dtype: npt_dtype) -> Self:
        """The same bins, decoding to the centroids of a first pass; the codes stay as they are.

        Parameters
        ----------
        sums : LevelSums
            Merged over the scan, from ``table(dtype).level_sums(block)``.
        dtype : dtype
            Of the scan.
        """
        from stemcodecs.quantize.decoders import pack_offsets

        levels = self.levels(dtype)
        # Written out: with centroids the default would be another, and the codes must stay as they are.
        exact_below = self._lowest_levels if preset_bound(self.preset) is None else None
        return replace(
            self,
            decoder="centroid",
            exact_below=exact_below,
            centroids=pack_offsets(sums.offsets(levels)),
        )

    def to_dict(self) -> dict[str, Any]:
        """What differs from the defaults, and always preset and bound: they are the guarantee."""
        known = {key: getattr(self, key) for key in KEYS}
        shown = {"preset", "r"} if self.preset == "optimal" else {"preset"}
        return {k: v for k, v in known.items() if k in shown or v != _DEFAULTS[k]}

    @classmethod
    def from_dict(cls, configuration: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_dict`; the caller has refused unknown keys."""
        return cls(**{key: configuration[key] for key in KEYS if key in configuration})

    def guarantee(self) -> str:
        """One line for people and for a store's attributes."""
        fixed = preset_bound(self.preset)
        bound = str(self.r) if fixed is None else f"√({fixed})" if fixed != 1 else "1"
        noise = "√N counts"
        if self.adu_per_count != 1 or self.offset:
            sign = "+" if self.offset < 0 else "−"
            noise = f"√N counts, N = (v {sign} {abs(self.offset)})/{self.gain} for the stored value v"
        exact = 1 if fixed is not None else self._lowest_levels
        kept = "zero counts" if exact == 1 else f"counts below {exact}"
        limit = "the largest integer of the dtype" if self.saturation is None else str(self.saturation)
        return (
            f"|v' − v| ≤ {bound} σ for every value, σ = {noise}; {kept}, values below the "
            f"offset and values from saturation ({limit}) on are exact"
        )


npt_dtype = np.dtype[Any] | type | str
KEYS = tuple(PoissonQuantizer.__dataclass_fields__)
_DEFAULTS = {key: field.default for key, field in PoissonQuantizer.__dataclass_fields__.items()}


@lru_cache(maxsize=16)
def _levels(preset: str, k2: Fraction, gain: Fraction, top: int, exact_below: int) -> Levels:
    if preset == "optimal":
        return optimal_levels(k2, top, floor((exact_below - 1) * gain) + 1)
    return huang_levels(preset, gain, top)


@lru_cache(maxsize=16)
def _table(quantizer: PoissonQuantizer, dtype: np.dtype[Any]) -> CodeTable:
    # Compiled kernels are imported here, so that reading metadata does not load Numba.
    from stemcodecs.quantize.code_table import CodeTable

    return CodeTable(
        levels=quantizer.levels(dtype), dtype=dtype, offset=quantizer.offset, centroids=quantizer.centroids
    )
