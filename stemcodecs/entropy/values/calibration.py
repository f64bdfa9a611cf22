"""How calibrated values derive from counts: a list of values, or gains and offsets per pixel and per pattern.

A camera hands out counts times a gain, ADU minus a dark reference, counts shifted, reversed, rounded or divided by the
sum of their pattern. Each of these is undone here, bit by bit, so that the entropy coder sees the counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stemcodecs.entropy.values.number_map import PLANE_TOP, NumberMap
from stemcodecs.entropy.values.restore_kernels import (
    add_last_digits,
    float_values,
    insert_marks,
    integer_values,
    narrow_values,
    shifted_values,
    spaced_values,
    table_values,
)

__all__ = [
    "MAX_CORRECTIONS",
    "MAX_FRACTION",
    "Calibration",
    "Corrections",
    "FloatCalibration",
    "IntegerCalibration",
    "Restoration",
    "SharedCalibration",
    "ValueTable",
    "restore_calibrated",
    "without_base",
]

Array = np.ndarray[Any, Any]

MAX_CORRECTIONS = 2
"""Corrections for each value of an array: with more of them the list is no better than the values."""
MAX_FRACTION = 24
"""Most binary digits of an integer calibration behind the point."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ValueTable:
    """The values that occur, in the order of their counts.

    Attributes
    ----------
    values : int64[n], 1 to 65536 of them
        Value of count 0, 1, ...; modulo 2**64.
    width : int
        Bytes of the floats of which these are the bits, signed; 0 of integers.
    """

    values: Array
    width: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerCalibration:
    """Integers ``((gain[pixel] * count + offset[pixel]) >> fraction) + shift[position]``, or the complement of these.

    Attributes
    ----------
    fraction : int
        Binary digits behind the point of gains and offsets.
    gain : int64[n_pixels] or None
        None: one.
    offset : int64[n_pixels] or None
        None: what rounds to the nearest integer.
    shift : int64[n_positions] or None
        None: nothing.
    reversed : bool
        Whether values are the complement (``~``) of that: more counts are lower values, within the same dtype.
    base : int
        Added to all, signed 64-bit: what maps of 32 bits do not hold. Sums are modulo the width of the dtype.
    """

    fraction: int = 0
    gain: Array | None = None
    offset: Array | None = None
    shift: Array | None = None
    reversed: bool = False
    base: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Corrections:
    """How many last digits the values of each pixel and code lie beside a formula.

    Attributes
    ----------
    first : int64[n_pixels]
        Lowest code of each pixel that has a correction.
    lengths : int64[n_pixels]
        How many codes from there on have one.
    steps : int64[sum of lengths]
        The corrections, those of a pixel after those of the one before: floats that are passed over.
    """

    first: Array
    lengths: Array
    steps: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class FloatCalibration:
    """Floats ``(count - dark[pixel]) * gain[pixel] * scale[position]``, rounded after each operation.

    Attributes
    ----------
    dark, gain : float64[n_pixels] or None
        None: that operation is left out.
    scale : float64[n_positions] or None
        As ``gain``, of every pattern.
    gain_divides, scale_divides : bool
        Whether it is a division rather than a multiplication.
    scale_first : bool
        Whether the scale comes before the gain.
    single : bool
        Whether every operation is rounded to float32 rather than to float64.
    corrections : Corrections or None
        What is added to the results, in last digits of the dtype.
    signed_zeros : bool
        Whether there are two codes of zero counts, 0 and, for the one with the other sign, 1; those of others are one
        higher.
    """

    dark: Array | None = None
    gain: Array | None = None
    scale: Array | None = None
    gain_divides: bool = False
    scale_divides: bool = False
    scale_first: bool = False
    single: bool = True
    signed_zeros: bool = False
    corrections: Corrections | None = None


Calibration = ValueTable | IntegerCalibration | FloatCalibration


@dataclass(frozen=True, eq=False)
class SharedCalibration:
    """In the place of a chunk's own: that of the model which the chunks of an array share.

    Attributes
    ----------
    scale : float64[n_positions] or None
        Of the patterns of the chunk, where floats have any.
    shift : int64[n_positions] or None
        As ``scale``, of integers.
    """

    scale: Array | None = None
    shift: Array | None = None


def whole_integers(calibration: IntegerCalibration, n_pixels: int) -> tuple[Array, Array]:
    """Gains and offsets of all pixels: int64[n_pixels] each."""
    gain, offset = calibration.gain, calibration.offset
    if gain is None:
        gain = np.full(n_pixels, 1 << calibration.fraction, np.int64)
    if offset is None:
        offset = np.full(n_pixels, (1 << calibration.fraction) >> 1, np.int64)
    return gain, offset


def without_base(bits: Array, base: Any, calibration: IntegerCalibration) -> Array:
    """Unsigned bits of values, before the base was added and the complement taken."""
    bits = bits - base if base else bits
    return ~bits if calibration.reversed else bits


def largest_product(gain: Array, offset: Array) -> int:
    """Bound of what a count times a gain plus an offset is, without its sign."""
    far = max(int(offset.max(initial=0)), -int(offset.min(initial=0)))
    return 2 * PLANE_TOP * int(gain.max(initial=1)) + far


def float_parameters(calibration: FloatCalibration, positions: Array, n_pixels: int) -> tuple[Any, ...]:
    """Arguments of the float kernels: parameters of pixels and of some positions, in the precision to compute in."""
    kind = np.float32 if calibration.single else np.float64
    nothing = np.zeros(0, kind)
    dark = nothing if calibration.dark is None else calibration.dark.astype(kind)
    gain = nothing if calibration.gain is None else calibration.gain.astype(kind)
    scale = nothing if calibration.scale is None else calibration.scale[positions].astype(kind)
    return dark, gain, scale, calibration.gain_divides, calibration.scale_divides, calibration.scale_first


def whole_numbers(numbers: NumberMap, calibration: FloatCalibration) -> Array:
    """Number of every code, negative ones among them, in the precision to compute in."""
    codes = np.arange(PLANE_TOP)
    negative = codes >= PLANE_TOP - numbers.negatives
    whole = (codes - PLANE_TOP * negative).astype(np.float32 if calibration.single else np.float64)
    if calibration.signed_zeros:
        top = PLANE_TOP - numbers.negatives
        whole[1:top] = whole[: top - 1].copy()
        whole[1] = -0.0
    return whole


def special_bits(numbers: NumberMap, dtype: np.dtype[Any]) -> Array:
    """Bits of the marks, unsigned of the width of the dtype."""
    return np.array([s % 2 ** (8 * dtype.itemsize) for s in numbers.specials], f"u{dtype.itemsize}")


class Restoration:
    """Values of counts by one calibration: what all patterns of a chunk have in common is made ready once.

    Parameters
    ----------
    numbers : NumberMap
        Negatives and marks.
    calibration : Calibration
        How counts become values.
    dtype : dtype
        Native, of the values.
    n_pixels : int
        Of a pattern.
    """

    def __init__(self, numbers: NumberMap, calibration: Calibration, dtype: np.dtype[Any], n_pixels: int) -> None:
        self._numbers, self._calibration, self._dtype = numbers, calibration, dtype
        self._bits = np.dtype(f"u{dtype.itemsize}")
        self._top = PLANE_TOP - numbers.negatives
        self._specials = special_bits(numbers, dtype)
        if isinstance(calibration, ValueTable):
            self._table, self._spacing = self._value_table(calibration), self._even_spacing(calibration.values)
        elif isinstance(calibration, IntegerCalibration):
            self._gain, self._offset = whole_integers(calibration, n_pixels)
            self._base = self._bits.type(calibration.base % 2 ** (8 * dtype.itemsize))
            self._flip = self._bits.type(2 ** (8 * dtype.itemsize) - 1 if calibration.reversed else 0)
            if calibration.gain is None:
                # Whole gains of one: what is behind the point adds nothing to the counts.
                self._offset = (self._offset >> calibration.fraction).astype(self._bits)
            self._narrow = dtype.itemsize <= 4 and largest_product(self._gain, self._offset) < 2**31
            if self._narrow and calibration.gain is not None:
                self._gain, self._offset = self._gain.astype(np.int32), self._offset.astype(np.int32)
        else:
            self._whole = np.zeros(0, np.float32 if calibration.single else np.float64)
            if calibration.signed_zeros:
                self._whole = whole_numbers(numbers, calibration)
            nowhere = np.zeros(0, np.int64)
            self._parameters = float_parameters(replace(calibration, scale=None), nowhere, n_pixels)

    def restore(self, counts: Array, positions: Array, rows: Array, out: Array) -> None:
        """Write the values of some patterns; exceptions are not in them yet.

        Parameters
        ----------
        counts : uint16[n, n_pixels]
            Codes: from ``65536 - numbers.negatives`` on they are negative, below these lie the marks.
        positions : int64[n]
            Scan position of each pattern.
        rows : int64[n]
            Row of ``out`` that takes each, or -1.
        out : ndarray
            C-contiguous, of the dtype, with ``n_pixels`` columns; the result.
        """
        c = self._calibration
        bits = out.view(self._bits)
        if isinstance(c, ValueTable):
            if self._spacing is None:
                table_values(counts, self._table, rows, bits)
            else:
                spaced_values(counts, *self._spacing, rows, bits)
            return
        if isinstance(c, IntegerCalibration):
            self._integers(c, counts, positions, rows, bits)
        else:
            self._floats(c, counts, positions, rows, out)
        if self._specials.size:
            insert_marks(counts, self._top, self._specials, rows, bits)

    def _integers(self, c: IntegerCalibration, counts: Array, positions: Array, rows: Array, bits: Array) -> None:
        shift = np.zeros(len(positions), np.int64) if c.shift is None else c.shift[positions]
        changes = (self._flip, self._base, rows, bits)
        if c.gain is None:
            shifted_values(counts, self._top, self._offset, shift.astype(bits.dtype), *changes)
        else:
            kernel = narrow_values if self._narrow else integer_values
            kernel(counts, self._top, self._gain, self._offset, c.fraction, shift, *changes)

    def _floats(self, c: FloatCalibration, counts: Array, positions: Array, rows: Array, out: Array) -> None:
        dark, gain, scale, *divides = self._parameters
        if c.scale is not None:
            scale = c.scale[positions].astype(self._whole.dtype)
        # Half precision is computed with in single: Numba knows no other.
        values = out if out.itemsize > 2 else np.empty(counts.shape, self._whole.dtype)
        places = rows if values is out else np.arange(len(rows))
        with np.errstate(all="ignore"):
            float_values(counts, self._top, self._whole, dark, gain, scale, *divides, places, values)
            if values is not out:
                out[rows[rows >= 0]] = values[rows >= 0]
        if c.corrections is not None:
            d = c.corrections
            begins = np.cumsum(d.lengths) - d.lengths
            add_last_digits(counts, d.first, d.lengths, begins, d.steps, rows, out.view(f"i{out.itemsize}"))

    def _value_table(self, calibration: ValueTable) -> Array:
        table = np.zeros(PLANE_TOP, self._bits)
        table[: calibration.values.size] = calibration.values.astype(self._bits)
        for k, special in enumerate(self._specials):
            table[self._numbers.code(k)] = special
        return table

    def _even_spacing(self, entries: Array) -> tuple[Any, Any] | None:
        """First value and step of a table of evenly spaced values without marks, modulo the width, as the table is."""
        step = int(entries[1]) - int(entries[0]) if entries.size > 1 else 0
        if not step or self._specials.size or (np.diff(entries) != step).any():
            return None
        whole = 2 ** (8 * self._bits.itemsize)
        return self._bits.type(int(entries[0]) % whole), self._bits.type(step % whole)


def restore_calibrated(
    counts: Array, numbers: NumberMap, calibration: Calibration, dtype: np.dtype[Any], positions: Array
) -> Array:
    """Values of some patterns, of ``dtype``, shape (n, n_pixels), see :class:`Restoration`."""
    out = np.empty(counts.shape, dtype)
    Restoration(numbers, calibration, dtype, counts.shape[1]).restore(counts, positions, np.arange(len(out)), out)
    return out
