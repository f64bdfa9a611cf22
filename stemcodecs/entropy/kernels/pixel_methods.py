"""What happens to the 64 positions of a detector pixel, by the pixel's *method*:

========== =======================================================================================
CONSTANT   one value for every position; nothing is coded
PACKED4    counts below 4: four positions make one symbol of 4 x 2 bits
PACKED2    counts below 16: two positions make one symbol of 2 x 4 bits
STATIC     one symbol per position from the pixel's histogram: ``(value - base) >> shift``, low bits raw
CONTEXT    as STATIC, but the histogram (and for RESIDUAL classes also the base) follows a rate that is
           predicted from already decoded values
========== =======================================================================================

A value that its histogram cannot express is replaced by a likely one and *patched* afterwards.
All arithmetic that the decoder repeats is on integers.
"""

from __future__ import annotations

import numpy as np
from numba import int64, uint16, uint64

from stemcodecs.compiled import kernel
from stemcodecs.entropy.kernels.coding_tables import STRIDE
from stemcodecs.entropy.kernels.lanes import (
    centre_row,
    context_rate,
    copy_values,
    fill_lanes,
    pack_halves,
    pack_quarters,
    split_values,
)
from stemcodecs.entropy.kernels.rans import LANES
from stemcodecs.entropy.kernels.rans_steps import select_tables

CONSTANT, PACKED4, PACKED2, STATIC, CONTEXT = range(5)
ABSOLUTE = 255
"""Value of a class's centre shift that says: symbols are the values themselves, not residuals."""
HALF = 128
"""Symbol that stands for a residual of zero."""


def step_masks(active: int) -> np.ndarray:
    """Lanes that take part in each step of a pixel, by method: int64[5, 4], 16 bits a step.

    active : int
        Bit mask of the lanes that hold a scan position. A packed step joins the lanes that share a symbol.
    """
    m = [(active >> (16 * b)) & 0xFFFF for b in range(4)]
    masks = np.zeros((5, 4), np.int64)
    masks[PACKED4, 0] = m[0] | m[1] | m[2] | m[3]
    masks[PACKED2, :2] = m[0] | m[1], m[2] | m[3]
    masks[STATIC] = masks[CONTEXT] = m
    return masks


@kernel
def split_with_care(values, at, centre, bias, shift, symbols, low, to):
    """:func:`split_values` where some lanes do not fit: they get symbol 0; returns their bit mask."""
    outside = uint64(0)
    for j in range(LANES):
        t = (int64(values[at + j]) - int64(centre[j]) + bias) >> shift
        if t < 0 or t > 255:
            outside |= uint64(1) << uint64(j)
            symbols[to + j] = uint16(0)
            low[to + j] = uint16(0)
    return outside


@kernel
def pack_with_care(values, at, method, symbols, to):
    """Pack a sparse pixel where some counts are too large: they are left out; returns the bit mask of their lanes."""
    limit = int64(3 if method == PACKED4 else 15)
    outside = uint64(0)
    for j in range(LANES):
        symbols[to + j] = uint16(0)
    for j in range(LANES):
        value = int64(values[at + j])
        if value > limit:
            outside |= uint64(1) << uint64(j)
        elif method == PACKED4:
            symbols[to + (j & 15)] |= uint16(value << (2 * (j >> 4)))
        else:
            symbols[to + 16 * (j >> 5) + (j & 15)] |= uint16(value << (4 * ((j >> 4) & 1)))
    return outside


@kernel(forceinline=True)
def symbols_of_pixels(
    simd, rows, origin, pixels, n, methods, tables_of, bases, shifts, classes, index_bases, index_shifts,
    centre_shifts, luts, neighbours, coefficients, dose, selection, mixture,
    rate, centre, symbols, low, offsets, outside,
):  # fmt: skip
    """What an encoder codes at some pixels: nothing here waits for the coder, so that pixels overlap in the processor.

    pixels : int64, the first ``n`` are taken, none of them constant; symbols, low : uint16[m * 64]; offsets :
    int32[m * 64], beginning of each lane's table in steps of STRIDE; outside : uint64[m], bit mask of the lanes that do
    not fit. Symbols of a packed pixel are in its first 16 or 32 lanes.
    """
    values = rows.reshape(-1)
    factors = coefficients.reshape(-1)
    width = int64(coefficients.shape[1] * coefficients.shape[2])
    for k in range(n):
        p = pixels[k]
        method = methods[p]
        at, to = int64(origin + p) * LANES, int64(k) * LANES
        shift = int64(shifts[p])
        first = tables_of[p] * STRIDE
        residual = False
        if method == CONTEXT:
            c = classes[p]
            context_rate(rows, int64(origin + p), neighbours, factors, p * width, dose, selection, mixture, rate)
            select_tables(simd, rate, index_bases[c], index_shifts[c], luts, c, first, int64(STRIDE), offsets, to)
            residual = centre_shifts[c] != ABSOLUTE
            if residual:
                centre_row(rate, centre_shifts[c], centre)
        else:
            fill_lanes(offsets, to, first)
        if method == PACKED4:
            fits = pack_quarters(values, at, symbols, to) <= 3
            outside[k] = uint64(0) if fits else pack_with_care(values, at, method, symbols, to)
            continue
        if method == PACKED2:
            fits = pack_halves(values, at, symbols, to) <= 15
            outside[k] = uint64(0) if fits else pack_with_care(values, at, method, symbols, to)
            continue
        if not residual:
            if shift == 0 and bases[p] == 0 and copy_values(values, at, symbols, to) <= 255:
                outside[k] = uint64(0)
                continue
            fill_lanes(centre, int64(0), bases[p])
        bias = int64(HALF << shift) if residual else int64(0)
        seen = split_values(values, at, centre, bias, shift, symbols, low, to)
        fits = 0 <= seen <= 255
        outside[k] = uint64(0) if fits else split_with_care(values, at, centre, bias, shift, symbols, low, to)
