"""Codes of values and values of codes; nothing is clamped: a value has a code or is refused.

Levels come first: codes 0..n−1 for n levels. The values that are kept exactly follow, as *escapes*
numbered from 0: for floats NaN (two bit patterns), +inf and −inf; then, in turns, the next value
below the offset and the next from the dtype's largest downwards, because −1 and the largest value
are what detectors use as marks. So every value of an integer dtype has a code, all codes fit the
unsigned integer of the same width, and the frequent marks have the smallest codes.
"""

from __future__ import annotations

import zlib
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from stemcodecs.errors import (
    ConfigurationError,
    CorruptChunkError,
    UnsupportedDtypeError,
    ValueRangeError,
)
from stemcodecs.quantize import level_kernels as kernels
from stemcodecs.quantize.decoders import LevelSums, unpack_offsets
from stemcodecs.quantize.dtype_range import value_limits
from stemcodecs.quantize.levels import Int64, Levels

__all__ = ["CodeTable", "smallest_unsigned"]

_Array = npt.NDArray[Any]
_DIRECT = 1 << 16
# Two neighbouring bytes looked up at once take half the time, as long as the part of the table in use fits the cache.
_PAIRED_BELOW = 64
_PAIRED_FROM = 1 << 18
# Bit patterns of the not-finite values with a code: the NaN of IEEE 754 and of x86 (sign set), +inf
# and −inf.
_SPECIAL_BITS: dict[int, _Array] = {
    4: np.array([0x7FC00000, 0xFFC00000, 0x7F800000, 0xFF800000], dtype=np.uint32),
    8: np.array([0x7FF8 << 48, 0xFFF8 << 48, 0x7FF0 << 48, 0xFFF0 << 48], dtype=np.uint64),
}


def smallest_unsigned(largest_code: int) -> np.dtype[Any]:
    """Smallest of uint8, uint16, uint32 that holds the code."""
    return np.dtype(np.uint8 if largest_code < 1 << 8 else np.uint16 if largest_code < 1 << 16 else np.uint32)


class CodeTable:
    """Codes of a quantiser for arrays of one dtype.

    Parameters
    ----------
    levels : Levels
        The bins.
    dtype : dtype
        Of the values, in native byte order.
    offset : int
        ADU at zero counts.
    centroids : str, optional
        Learned offsets of the decoded values from the bins' midpoints.

    Attributes
    ----------
    n_codes : int
        Number of distinct codes, levels and escapes.
    """

    def __init__(self, *, levels: Levels, dtype: np.dtype[Any], offset: int = 0, centroids: str | None = None) -> None:
        self.dtype = dtype
        self.offset = offset
        self.levels = levels
        self._lowest, self._highest = value_limits(dtype)
        self._specials = 4 if dtype.kind == "f" else 0
        self._n_below = self.offset - self._lowest
        self._n_above = self._highest - self.offset - self.levels.top
        self.n_codes = self.levels.count + self._specials + self._n_below + self._n_above
        self.values = self.levels.midpoints.copy()
        """Decoded value of each level, ADU above the offset."""
        if centroids is not None:
            self.values += unpack_offsets(centroids, self.levels)
        lows = self.levels.lows
        self._direct = self.levels.level_of(np.arange(min(_DIRECT, self.levels.top + 1))).astype(np.uint32)
        starts = np.arange(0, self.levels.top + 1, _DIRECT)
        self._blocks = np.append(self.levels.level_of(starts), len(lows) - 1).astype(np.uint32)

    @cached_property
    def definition(self) -> int:
        """CRC-32 of what codes mean: offset, top and all levels' lows, as little-endian int64."""
        numbers = np.array([self.offset, self.levels.top], dtype="<i8").tobytes()
        return zlib.crc32(self.levels.lows.astype("<i8").tobytes(), zlib.crc32(numbers))

    def encode(self, values: _Array, code_dtype: np.dtype[Any]) -> _Array:
        """Codes of all values, levels first.

        Raises
        ------
        ValueRangeError
            If a value has no code, or none that fits ``code_dtype``.
        """
        flat = self._flat(values)
        if self._tabulated:
            # Every value has a code as wide as itself; whether they fit is seen from the codes.
            same_width = np.dtype(f"u{self.dtype.itemsize}")
            codes = np.empty(flat.size, dtype=same_width)
            table = _encode_table(self, self.levels.count, same_width)
            kernels.look_up(flat.view(same_width), table, codes)
        else:
            codes = np.empty(flat.size, dtype=np.uint32)
            if self._levels_into(flat, codes):
                mask = codes == kernels.OUTSIDE
                codes[mask] = self._escape_codes(flat[mask], self.levels.count)
        self._refuse_wide_codes(flat, codes, code_dtype)
        return codes.astype(code_dtype, copy=False).reshape(values.shape)

    def encode_compact(self, values: _Array) -> tuple[_Array, int]:
        """Codes of one chunk in the smallest dtype, escapes right after the chunk's last level.

        Returns
        -------
        codes : array of uint8, uint16 or uint32
            Shaped as ``values``.
        n_levels : int
            Codes from here on are escapes.
        """
        flat = self._flat(values)
        if self._tabulated:
            top = self.offset + self.levels.top
            largest, outside = kernels.span(flat, self.offset, top)
            n_levels = int(self.levels.level_of(np.array(largest - self.offset))) + 1
            largest_code = n_levels - 1
            if outside:
                escapes = self._escapes(flat[(flat < self.offset) | (flat > top)])
                largest_code = n_levels + int(escapes.max())
            code_dtype = smallest_unsigned(largest_code)
            codes = np.empty(flat.size, dtype=code_dtype)
            # Where escapes begin does not matter without any: chunks then share one table.
            table = _encode_table(self, n_levels if outside else self.levels.count, code_dtype)
            kernels.look_up(flat.view(f"u{self.dtype.itemsize}"), table, codes)
        else:
            codes = np.empty(flat.size, dtype=np.uint32)
            outside = self._levels_into(flat, codes)
            n_levels = int(codes.max(initial=0)) + 1 if not outside else 1
            if outside:
                mask = codes == kernels.OUTSIDE
                n_levels = int(codes.max(initial=0, where=~mask)) + 1
                codes[mask] = self._escape_codes(flat[mask], n_levels)
            codes = codes.astype(smallest_unsigned(int(codes.max(initial=0))), copy=False)
        return codes.reshape(values.shape), n_levels

    def _flat(self, values: _Array) -> _Array:
        if values.dtype.newbyteorder("=") != self.dtype:
            raise UnsupportedDtypeError(f"values of dtype {values.dtype} for codes of {self.dtype}; convert them first")
        return np.ascontiguousarray(values).reshape(-1).astype(self.dtype, copy=False)

    @property
    def _tabulated(self) -> bool:
        return self.dtype.kind in "iu" and self.dtype.itemsize <= 2

    def _levels_into(self, flat: _Array, codes: _Array) -> int:
        kernel = kernels.encode_floats if self.dtype.kind == "f" else kernels.encode_integers
        lows = self.levels.lows
        return int(kernel(flat, self.offset, self.levels.top, self._direct, self._blocks, lows, codes))

    def _escape_codes(self, values: _Array, n_levels: int) -> _Array:
        codes = self._escapes(values) + n_levels
        self._refuse_wide_codes(values, codes, np.dtype(np.uint32))
        return codes.astype(np.uint32)

    def _escapes(self, values: _Array) -> Int64:
        """Escape numbers of values outside the levels."""
        result = np.empty(values.size, dtype=np.int64)
        whole = np.ones(values.size, dtype=np.bool_)
        if self.dtype.kind == "f":
            bits = values.view(f"u{self.dtype.itemsize}")
            with np.errstate(invalid="ignore"):
                whole = (np.floor(values) == values) & (np.abs(values) <= self._highest)
            special = np.zeros(values.size, dtype=np.bool_)
            for number, pattern in enumerate(_SPECIAL_BITS[self.dtype.itemsize]):
                result[bits == pattern] = number
                special |= bits == pattern
            unknown = np.flatnonzero(~whole & ~special)
            if unknown.size:
                raise ValueRangeError(
                    f"value {values[unknown[0]]} is no whole number of ADU up to {self._highest}; "
                    "rescale the data to whole numbers, or store them losslessly "
                    "with stemcodecs.pixel_histogram"
                )
        integers = values[whole].astype(np.int64)
        below = integers < self.offset
        j = np.where(below, self.offset - 1 - integers, self._highest - integers)
        shared = min(self._n_below, self._n_above)
        result[whole] = self._specials + np.where(j < shared, 2 * j + ~below, shared + j)
        return result

    def _refuse_wide_codes(self, values: _Array, codes: _Array, code_dtype: np.dtype[Any]) -> None:
        limit = np.iinfo(code_dtype).max
        if codes.max(initial=0) > limit:
            value = values[np.argmax(codes > limit)]
            raise ValueRangeError(
                f"value {value} is outside the quantised range "
                f"{self.offset}..{self.offset + self.levels.top} and has no code that fits "
                f"{code_dtype}; raise saturation, or set code_dtype to a wider integer"
            )

    def decode(
        self, codes: _Array, n_levels: int | None = None, values: Int64 | None = None, overwrite: bool = False
    ) -> _Array:
        """Values of codes, an array of the table's dtype.

        Parameters
        ----------
        codes : array of unsigned integers
            As :meth:`encode` or :meth:`encode_compact` gave them.
        n_levels : int, optional
            What :meth:`encode_compact` returned; all levels unless given.
        values : array of int64, optional
            Decoded value of each level above the offset, in place of :attr:`values`.
        overwrite : bool
            The values may take the codes' place in memory; otherwise the array is a fresh one.

        Raises
        ------
        CorruptChunkError
            If a code has no value.
        """
        n_levels = self.levels.count if n_levels is None else n_levels
        values = self.values if values is None else values
        flat = np.ascontiguousarray(codes).reshape(-1)
        largest = int(flat.max(initial=0))
        n_escapes = largest + 1 - n_levels
        if n_levels > self.levels.count or n_escapes > self.n_codes - self.levels.count:
            raise CorruptChunkError(f"code {largest} has no value")
        of_levels = (values[: min(n_levels, largest + 1)] + self.offset).astype(self.dtype)
        if n_escapes <= _DIRECT:
            table = np.concatenate([of_levels, self._escaped(np.arange(max(0, n_escapes)))])
            # Fresh memory costs as much as the look-up itself.
            in_place = overwrite and flat.dtype.itemsize == self.dtype.itemsize and flat.flags.writeable
            out = flat.view(self.dtype) if in_place else np.empty(flat.size, dtype=self.dtype)
            _look_up(flat, table, out)
        else:
            # A few escapes with huge numbers, as from uint32 data with arbitrary large exact
            # values.
            out = np.empty(flat.size, dtype=self.dtype)
            kernels.look_up(np.minimum(flat, n_levels - 1), of_levels, out)
            escaped = flat >= n_levels
            out[escaped] = self._escaped(flat[escaped].astype(np.int64) - n_levels)
        return out.reshape(codes.shape)

    def _escaped(self, numbers: Int64) -> _Array:
        """Values of escape numbers, inverse of :meth:`_escapes`."""
        shared = min(self._n_below, self._n_above)
        e = numbers - self._specials
        in_turns = e < 2 * shared
        j = np.where(in_turns, e // 2, e - shared)
        below = np.where(in_turns, e % 2 == 0, self._n_below > self._n_above)
        result = np.where(below, self.offset - 1 - j, self._highest - j).astype(self.dtype)
        if self._specials:
            special = numbers < self._specials
            patterns = _SPECIAL_BITS[self.dtype.itemsize]
            result.view(patterns.dtype)[special] = patterns[numbers[special]]
        return result

    def code_dtype(self, wanted: str | None = None) -> np.dtype[Any]:
        """Dtype of a filter's codes: the smallest for all levels and an escape if there can be one.

        Raises
        ------
        ConfigurationError
            If ``wanted`` cannot hold the levels, or is wider than the values.
        """
        needed = self.levels.count - 1 + (self.n_codes > self.levels.count)
        if wanted is None:
            return smallest_unsigned(needed)
        if wanted not in ("uint8", "uint16", "uint32"):
            raise ConfigurationError(f"code_dtype {wanted!r}: choose uint8, uint16 or uint32")
        dtype = np.dtype(wanted)
        if self.levels.count - 1 > np.iinfo(dtype).max:
            raise ConfigurationError(f"{self.levels.count} levels do not fit {wanted}; use {smallest_unsigned(needed)}")
        if dtype.itemsize > self.dtype.itemsize:
            raise ConfigurationError(f"codes of {wanted} would be wider than the {self.dtype} values they stand for")
        return dtype

    def level_sums(self, values: _Array) -> LevelSums:
        """Statistics for centroids of a block of values; they merge over the blocks of a scan."""
        flat = self._flat(values)
        if self._tabulated:
            counts = np.zeros(1 << 8 * self.dtype.itemsize, dtype=np.int64)
            kernels.histogram(flat.view(f"u{self.dtype.itemsize}"), counts)
            seen = np.flatnonzero(counts).astype(f"u{self.dtype.itemsize}")
            x = seen.view(self.dtype).astype(np.int64) - self.offset
            inside = (x >= 0) & (x <= self.levels.top)
            return LevelSums.of_histogram(x[inside], counts[seen[inside]], self.levels)
        level = np.empty(flat.size, dtype=np.uint32)
        if self._levels_into(flat, level):
            inside = level != kernels.OUTSIDE
            level, flat = level[inside], flat[inside]
        distance = flat.astype(np.int64) - self.offset - self.levels.lows[level]
        return LevelSums.of(level, distance, self.levels.count)

    @cached_property
    def has_choice(self) -> bool:
        """Whether any bin leaves a centroid a choice; bins of the fewest levels often do not."""
        return bool(np.any(self.levels.smallest < self.levels.largest))


def _look_up(codes: _Array, table: _Array, out: _Array) -> None:
    """``out = table[codes]``; ``out`` may be the codes' own memory."""
    done = 0
    if codes.dtype == np.uint8 and len(table) <= _PAIRED_BELOW and codes.size >= _PAIRED_FROM and table.itemsize <= 4:
        whole = np.zeros(256, dtype=table.dtype)
        whole[: len(table)] = table
        wide = np.dtype(f"u{2 * table.itemsize}")
        done = codes.size // 2 * 2
        kernels.look_up(codes[:done].view(np.uint16), whole[_PAIRS].reshape(-1).view(wide), out[:done].view(wide))
    kernels.look_up(codes[done:], table, out[done:])


_PAIRS = np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2)
"""The two bytes of each 16-bit number, in the order of memory."""


@lru_cache(maxsize=32)
def _encode_table(table: CodeTable, n_levels: int, code_dtype: np.dtype[Any]) -> _Array:
    """Code of each bit pattern of an 8- or 16-bit dtype.

    0 stands where the code does not fit; the caller has seen to it that no such value occurs.
    """
    width = table.dtype.itemsize
    values = np.arange(1 << 8 * width, dtype=f"u{width}").view(table.dtype)
    x = values.astype(np.int64) - table.offset
    inside = (x >= 0) & (x <= table.levels.top)
    codes = np.empty(values.size, dtype=np.int64)
    codes[inside] = table.levels.level_of(x[inside])
    codes[~inside] = table._escapes(values[~inside]) + n_levels
    codes[codes > np.iinfo(code_dtype).max] = 0
    return codes.astype(code_dtype)
