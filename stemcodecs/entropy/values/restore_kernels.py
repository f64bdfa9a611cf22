"""Compiled loops from counts to calibrated values.

Decoding must give the same bits everywhere: integers are computed modulo 2**64, floats by single IEEE operations, each
rounded to the precision of its operands. No operation here may be contracted or reordered.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int32, int64
from numba.extending import intrinsic

from stemcodecs.compiled import kernel

__all__ = [
    "TILE",
    "add_last_digits",
    "float_values",
    "formula",
    "insert_marks",
    "integer_values",
    "narrow_values",
    "shift_right",
    "shifted_values",
    "spaced_values",
    "table_values",
]

TILE = 512
"""Pixels whose parameters and values are at hand at once: they fit into the first cache of any processor."""


# bits = shift_right(bits, digits): int32 both, digits below 32. Numba itself shifts 64 bits, half as many to a vector.
@intrinsic
def _shift_right(_typing, bits, digits):  # type: ignore[no-untyped-def]
    def codegen(_context, b, _signature, args):  # type: ignore[no-untyped-def]
        return b.ashr(*args)

    return int32(int32, int32), codegen


shift_right: Any = _shift_right


@kernel
def integer_values(counts, top, gain, offset, fraction, shift, flip, base, rows, out):
    """Values of counts, those of marks aside.

    counts : uint16[n, n_pixels]; top : the first negative code; gain, offset : int64[n_pixels]; shift : int64[n];
    flip : all bits to take the complement, or none; base : added then; rows : int64[n], row of the result of each
    pattern, or -1; out : the result. ``flip``, ``base`` and ``out`` are unsigned, of the width of the dtype.
    """
    row = np.empty(TILE, np.int64)
    kind = out.dtype.type
    for i in range(counts.shape[0]):
        if rows[i] < 0:
            continue
        add = shift[i]
        for first in range(0, counts.shape[1], TILE):
            # Views, because a sum as an index may be negative for all that the compiler knows, and costs the vectors.
            codes, values = counts[i, first : first + TILE], out[rows[i], first : first + TILE]
            gains, offsets = gain[first : first + TILE], offset[first : first + TILE]
            # Loops without branches become vector instructions.
            for p in range(codes.shape[0]):
                c = int64(codes[p])
                row[p] = c - (int64(65536) if c >= top else int64(0))
            for p in range(codes.shape[0]):
                row[p] = row[p] * gains[p] + offsets[p]
            if fraction:
                for p in range(codes.shape[0]):
                    # At most 24 by the format, and the mask says so to the compiler.
                    row[p] = row[p] >> (fraction & 31)
            for p in range(codes.shape[0]):
                values[p] = (kind(row[p] + add) ^ flip) + base


@kernel
def narrow_values(counts, top, gain, offset, fraction, shift, flip, base, rows, out):
    """As :func:`integer_values`, where 32 bits hold all products and sums: twice as many to a vector.

    gain, offset : int32[n_pixels]; ``out`` has no more than 32 bits.
    """
    digits, negative = int32(fraction & 31), int32(top)
    kind = out.dtype.type
    for i in range(counts.shape[0]):
        if rows[i] < 0:
            continue
        add = int32(shift[i])
        for first in range(0, counts.shape[1], TILE):
            codes, values = counts[i, first : first + TILE], out[rows[i], first : first + TILE]
            gains, offsets = gain[first : first + TILE], offset[first : first + TILE]
            # Every result is cut to 32 bits: the compiler takes wider ones else.
            for p in range(codes.shape[0]):
                c = int32(codes[p])
                c = int32(c - (int32(65536) if c >= negative else int32(0)))
                x = shift_right(int32(int32(c * gains[p]) + offsets[p]), digits)
                values[p] = kind(kind(kind(int32(x + add)) ^ flip) + base)


@kernel
def shifted_values(counts, top, offset, shift, flip, base, rows, out):
    """As :func:`integer_values`, without gains: offset[n_pixels] and shift[n] are of the kind of ``out``, too."""
    kind = out.dtype.type
    for i in range(counts.shape[0]):
        if rows[i] < 0:
            continue
        add = shift[i]
        for first in range(0, counts.shape[1], TILE):
            codes, values = counts[i, first : first + TILE], out[rows[i], first : first + TILE]
            offsets = offset[first : first + TILE]
            if top == 65536 or out.itemsize <= 2:
                # Modulo 2**16 a negative code is its number.
                for p in range(codes.shape[0]):
                    values[p] = kind(kind(kind(kind(codes[p]) + offsets[p]) + add) ^ flip) + base
            else:
                for p in range(codes.shape[0]):
                    c = int64(codes[p])
                    c -= int64(65536) if c >= top else int64(0)
                    values[p] = kind(kind(kind(kind(c) + offsets[p]) + add) ^ flip) + base


@kernel
def table_values(counts, table, rows, out):
    """Values of counts by a table of 65536."""
    for i in range(counts.shape[0]):
        if rows[i] >= 0:
            codes, values = counts[i], out[rows[i]]
            for p in range(codes.shape[0]):
                values[p] = table[codes[p]]


@kernel
def spaced_values(counts, first, step, rows, out):
    """As :func:`table_values`, of evenly spaced values; their first and their step are of the kind of ``out``."""
    kind = out.dtype.type
    for i in range(counts.shape[0]):
        if rows[i] >= 0:
            codes, values = counts[i], out[rows[i]]
            for p in range(codes.shape[0]):
                values[p] = kind(kind(codes[p]) * step) + first


@kernel
def insert_marks(counts, top, specials, rows, out):
    """Replace values whose code is that of a mark by the bits of the mark."""
    marks = top - specials.shape[0]
    for i in range(counts.shape[0]):
        if rows[i] < 0:
            continue
        codes, values = counts[i], out[rows[i]]
        for p in range(codes.shape[0]):
            c = int64(codes[p])
            if marks <= c < top:
                values[p] = specials[top - 1 - c]


@kernel
def _scaled(row, factors, divides):
    # One operation a loop, so that each becomes one vector instruction.
    if divides:
        for p in range(row.shape[0]):
            row[p] = row[p] / factors[p]
    else:
        for p in range(row.shape[0]):
            row[p] = row[p] * factors[p]


@kernel
def _scaled_alike(row, factor, divides):
    if divides:
        for p in range(row.shape[0]):
            row[p] = row[p] / factor
    else:
        for p in range(row.shape[0]):
            row[p] = row[p] * factor


@kernel
def formula(row, i, dark, gain, scale, gain_divides, scale_divides, scale_first):
    """Values of a pattern in place of its whole numbers, in the precision of all of these."""
    if dark.shape[0]:
        for p in range(row.shape[0]):
            row[p] = row[p] - dark[p]
    if scale_first and scale.shape[0]:
        _scaled_alike(row, scale[i], scale_divides)
    if gain.shape[0]:
        _scaled(row, gain, gain_divides)
    if not scale_first and scale.shape[0]:
        _scaled_alike(row, scale[i], scale_divides)


@kernel
def float_values(counts, top, whole, dark, gain, scale, gain_divides, scale_divides, scale_first, rows, out):
    """Values of counts, those of marks aside, by operations in the precision of ``whole`` and of all parameters.

    whole : the number of each code; of size 0 where it is the code itself, less 65536 from ``top`` on.
    """
    room = np.empty(TILE, whole.dtype)
    negative = int32(top)
    for i in range(counts.shape[0]):
        if rows[i] < 0:
            continue
        for first in range(0, counts.shape[1], TILE):
            codes, values = counts[i, first : first + TILE], out[rows[i], first : first + TILE]
            darks, gains = dark[first : first + TILE], gain[first : first + TILE]
            row = room[: codes.shape[0]]
            if whole.shape[0]:
                for p in range(codes.shape[0]):
                    row[p] = whole[codes[p]]
            else:
                for p in range(codes.shape[0]):
                    c = int32(codes[p])
                    row[p] = int32(c - (int32(65536) if c >= negative else int32(0)))
            formula(row, i, darks, gains, scale, gain_divides, scale_divides, scale_first)
            for p in range(codes.shape[0]):
                values[p] = row[p]


@kernel
def add_last_digits(counts, first, lengths, begins, steps, rows, out):
    """Move floats, given as signed bits, by the correction of their pixel and code, where there is one."""
    # Negative floats run backwards; this turns them round, and itself back.
    turn = ~int64(0) ^ (int64(-1) << int64(8 * out.itemsize - 1))
    for i in range(counts.shape[0]):
        if rows[i] < 0:
            continue
        codes, bits = counts[i], out[rows[i]]
        for p in range(codes.shape[0]):
            k = int64(codes[p]) - first[p]
            if 0 <= k < lengths[p]:
                step = steps[begins[p] + k]
                if step != 0:
                    b = int64(bits[p])
                    b = (b ^ turn if b < 0 else b) + step
                    bits[p] = b ^ turn if b < 0 else b
