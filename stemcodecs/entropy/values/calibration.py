"""How calibrated values derive from counts: a list of values, or gains and offsets per pixel and per pattern.

A camera hands out counts times a gain, ADU minus a dark reference, counts shifted, reversed, rounded or divided by the
sum of their pattern. Each of these is undone here, bit by bit, so that the entropy coder sees the counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.entropy.values.calibration_kernels import add_last_digits, float_values, integer_values
from stemcodecs.entropy.values.number_map import PLANE_TOP, NumberMap
from stemcodecs.entropy.values.plane_kernels import look_up

__all__ = [
    "MAX_CORRECTIONS",
    "MAX_FRACTION",
    "Calibration",
    "Corrections",
    "FloatCalibration",
    "IntegerCalibration",
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
    """

    values: Array


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


def room_for_values(counts: Array, numbers: NumberMap, calibration: Calibration, dtype: np.dtype[Any]) -> Array:
    """Where :func:`restore_calibrated` writes the values of counts of this shape: in their place, or beside them."""
    # New pages take as long as the arithmetic. Marks are looked up in the codes once more, after it.
    later = bool(numbers.specials) or getattr(calibration, "corrections", None) is not None
    in_place = dtype.itemsize == counts.itemsize and (isinstance(calibration, ValueTable) or not later)
    return counts.view(dtype) if in_place else np.empty(counts.shape, dtype)


def restore_calibrated(
    counts: Array,
    numbers: NumberMap,
    calibration: Calibration,
    dtype: np.dtype[Any],
    positions: Array,
    out: Array | None = None,
) -> Array:
    """Values of some patterns.

    Parameters
    ----------
    counts : uint16[n, n_pixels]
        Codes: from ``65536 - numbers.negatives`` on they are negative, below these lie the marks. The result may take
        their place.
    numbers : NumberMap
        Negatives and marks.
    calibration : Calibration
        How counts become values.
    dtype : dtype
        Native, of the values.
    positions : int64[n]
        Scan position of each pattern.
    out : ndarray, optional
        Rows of :func:`room_for_values`, where the result goes.

    Returns
    -------
    ndarray
        Of ``dtype``, shape (n, n_pixels); exceptions are not in it yet.
    """
    specials = special_bits(numbers, dtype)
    out = room_for_values(counts, numbers, calibration, dtype) if out is None else out
    bits = out.view(f"u{dtype.itemsize}")
    top = PLANE_TOP - numbers.negatives
    if isinstance(calibration, ValueTable):
        table = np.zeros(PLANE_TOP, bits.dtype)
        table[: calibration.values.size] = calibration.values.astype(bits.dtype)
        for k, special in enumerate(specials):
            table[numbers.code(k)] = special
        _look_up_values(counts, table, calibration.values, specials, bits)
    elif isinstance(calibration, IntegerCalibration):
        gain, offset = whole_integers(calibration, counts.shape[1])
        if largest_product(gain, offset) < 2**31:
            gain, offset = gain.astype(np.int32), offset.astype(np.int32)
        shift = np.zeros(len(positions), np.int64) if calibration.shift is None else calibration.shift[positions]
        base = bits.dtype.type(calibration.base % 2 ** (8 * dtype.itemsize))
        specials = without_base(specials, base, calibration)
        integer_values(counts, top, specials, gain, offset, calibration.fraction, shift, bits)
        if calibration.reversed:
            np.invert(bits, out=bits)
        if base:
            np.add(bits, base, out=bits)
    else:
        precision = np.float32 if calibration.single else np.float64
        values = out if dtype.itemsize > 2 else np.empty(counts.shape, precision)
        with np.errstate(all="ignore"):
            parameters = float_parameters(calibration, positions, counts.shape[1])
            float_values(counts, whole_numbers(numbers, calibration), *parameters, values)
            if values is not out:
                out[...] = values
        if calibration.corrections is not None:
            c = calibration.corrections
            begins = np.cumsum(c.lengths) - c.lengths
            add_last_digits(counts, c.first, c.lengths, begins, c.steps, out.view(f"i{dtype.itemsize}"))
        if specials.size:
            for k, special in enumerate(specials):
                bits[counts == numbers.code(k)] = special
    return out


def _look_up_values(counts: Array, table: Array, entries: Array, specials: Array, bits: Array) -> None:
    # Arithmetic on vectors takes a third of a table of evenly spaced values, modulo the width as the table is.
    step = int(entries[1]) - int(entries[0]) if entries.size > 1 else 0
    if step and not specials.size and (np.diff(entries) == step).all():
        whole = 2 ** (8 * bits.dtype.itemsize)
        first, step = bits.dtype.type(int(entries[0]) % whole), bits.dtype.type(step % whole)
        np.multiply(counts, step, out=bits, casting="unsafe", dtype=bits.dtype)
        np.add(bits, first, out=bits)
    else:
        look_up(counts.reshape(-1), table, bits.reshape(-1))
