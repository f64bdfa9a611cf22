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
from stemcodecs.entropy.kernels.kernel_arguments import PixelSymbols
from stemcodecs.entropy.kernels.lanes import centre_row, context_rate, copy_values, fill_lanes, split_values
from stemcodecs.entropy.kernels.packing import pack_halves, pack_quarters
from stemcodecs.entropy.kernels.rans import LANES, aligned
from stemcodecs.entropy.kernels.rate_tables import select_tables

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


@kernel
def count_steps(methods, step_masks, blocks):
    """Steps of a whole group, and the lanes (bit mask) that any of them uses: steps take the blocks in turn."""
    lanes = uint64(0)
    steps = int64(0)
    for p in range(methods.shape[0]):
        for b in range(4):
            mask = step_masks[methods[p], b]
            if mask:
                lanes |= uint64(mask) << uint64(16 * (steps & (blocks - 1)))
                steps += 1
    return steps, lanes


def room_for_symbols(n: int) -> PixelSymbols:
    """Room for n pixels."""
    return PixelSymbols(
        aligned(n * LANES, np.uint16),
        aligned(n * LANES, np.uint16),
        aligned(n * LANES, np.int32),
        np.zeros(n, np.uint64),
        aligned(LANES, np.int32),
        aligned(LANES, np.int32),
    )


@kernel(forceinline=True)
def context_tables(simd, group, program, factors, p, first, stride, work, to):
    """Tables of the lanes of a context pixel, into ``work.offsets[to:]``: ``first`` is that of the class's first.

    factors : the program's coefficients, flat. To flatten an array calls a function, which must not happen here.
    Returns whether symbols are residuals; then ``work.centre`` holds what they are residuals to.
    """
    c = program.classes[p]
    own = p * int64(program.coefficients.shape[1] * program.coefficients.shape[2])
    context_rate(
        group.rows, int64(group.origin + p), group.neighbours, factors, own, group.dose, group.selection,
        group.mixture, work.rate,
    )  # fmt: skip
    base, shift = program.index_bases[c], program.index_shifts[c]
    select_tables(simd, work.rate, base, shift, program.luts, c, first, stride, work.offsets, to)
    residual = program.centre_shifts[c] != ABSOLUTE
    if residual:
        centre_row(work.rate, program.centre_shifts[c], work.centre)
    return residual


@kernel(forceinline=True)
def packed_symbols(values, at, method, symbols, to):
    """Symbols of a sparse pixel; returns the bit mask of the lanes that do not fit."""
    if method == PACKED4:
        fits = pack_quarters(values, at, symbols, to) <= 3
    else:
        fits = pack_halves(values, at, symbols, to) <= 15
    return uint64(0) if fits else pack_with_care(values, at, method, symbols, to)


@kernel(forceinline=True)
def split_symbols(values, at, bias, shift, work, to):
    """Symbols and low bits of a pixel, counted from ``work.centre``; returns the lanes (bit mask) that do not fit."""
    seen = split_values(values, at, work.centre, bias, shift, work.symbols, work.low, to)
    if 0 <= seen <= 255:
        return uint64(0)
    return split_with_care(values, at, work.centre, bias, shift, work.symbols, work.low, to)


@kernel(forceinline=True)
def based_symbols(values, at, base, shift, work, to):
    """:func:`split_symbols`, counted from one base for all lanes."""
    fill_lanes(work.centre, int64(0), base)
    return split_symbols(values, at, int64(0), shift, work, to)


@kernel(forceinline=True)
def symbols_of_pixels(simd, group, program, values, factors, pixels, n, found):
    """What an encoder codes at some pixels: nothing here waits for the coder, so that pixels overlap in the processor.

    values, factors : the group's rows and the program's coefficients, flat; pixels : int64, the first ``n`` are taken,
    none of them constant; found : :class:`PixelSymbols`, the result.
    """
    for k in range(n):
        p = pixels[k]
        method = program.methods[p]
        at, to = int64(group.origin + p) * LANES, int64(k) * LANES
        first = program.tables_of[p] * STRIDE
        base, shift = program.bases[p], program.shifts[p]
        residual = False
        if method == CONTEXT:
            residual = context_tables(simd, group, program, factors, p, first, int64(STRIDE), found, to)
        else:
            fill_lanes(found.offsets, to, first)
        if method < STATIC:
            found.outside[k] = packed_symbols(values, at, method, found.symbols, to)
        elif residual:
            found.outside[k] = split_symbols(values, at, int64(HALF << shift), shift, found, to)
        elif shift == 0 and base == 0 and copy_values(values, at, found.symbols, to) <= 255:
            found.outside[k] = uint64(0)
        else:
            found.outside[k] = based_symbols(values, at, base, shift, found, to)
