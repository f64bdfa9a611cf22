"""Code one group: up to 64 scan positions, one lane each, pixel by pixel in raster order.

What happens at a pixel is told by its *method*, and all methods share one stream:

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
from numba import int32, int64, njit, uint16, uint32, uint64

from stemcodecs.entropy.rans import (
    BLOCK,
    INLINE,
    KERNEL,
    LANES,
    STATE_LOW,
    aligned,
    read_states,
    write_states,
)
from stemcodecs.entropy.steps import decode_bits, decode_step, encode_bits, encode_step, select_tables
from stemcodecs.entropy.vector import (
    any_bits,
    differing_bits,
    fill_lanes,
    join_values,
    pack_halves,
    pack_quarters,
    predict_rates,
    split_values,
    unpack_halves,
    unpack_quarters,
)

CONSTANT, PACKED4, PACKED2, STATIC, CONTEXT = range(5)
ABSOLUTE = 255
"""Value of a class's centre shift that says: symbols are the values themselves, not residuals."""
HALF = 128
"""Symbol that stands for a residual of zero."""

# Errors that decode_group returns instead of a word position.
OVERRUN = -1
BAD_PATCH = -2


@njit(**INLINE)
def centre_row(rate, centre_shift, centre):
    """Whole counts of the predicted rate, the zero of the residuals."""
    shift = int32(centre_shift)
    for j in range(LANES):
        centre[j] = min(max(rate[j], int32(0)) >> shift, int32(65535))


@njit(**INLINE)
def symbols_of_row(values, at, centre, shift, residual, symbols, low):
    """Split values into symbols and raw low bits; returns the bit mask of lanes whose symbol does not fit."""
    bias = int64(HALF << shift) if residual else int64(0)
    seen = split_values(values, at, centre, bias, shift, symbols, low)
    if 0 <= seen <= 255:
        return uint64(0)
    outside = uint64(0)
    for j in range(LANES):
        t = (int64(values[at + j]) - int64(centre[j]) + bias) >> shift
        if t < 0 or t > 255:
            outside |= uint64(1) << uint64(j)
            symbols[j] = uint16(0)
            low[j] = uint16(0)
    return outside


@njit(**INLINE)
def values_of_row(symbols, low, centre, shift, residual, values, at):
    """Inverse of :func:`symbols_of_row`, modulo 2**16."""
    join_values(symbols, low, centre, int64(HALF << shift) if residual else int64(0), shift, values, at)


@njit(**INLINE)
def pack_row(values, at, method, symbols):
    """Pack the 64 positions of a sparse pixel; returns the bit mask of lanes whose count is too large."""
    if method == PACKED4:
        limit = int64(3)
        seen = pack_quarters(values, at, symbols)
    else:
        limit = int64(15)
        seen = pack_halves(values, at, symbols)
    if seen <= limit:
        return uint64(0)
    outside = uint64(0)
    symbols[:] = 0
    for j in range(LANES):
        value = int64(values[at + j])
        if value > limit:
            outside |= uint64(1) << uint64(j)
        elif method == PACKED4:
            symbols[j & 15] |= uint16(value << (2 * (j >> 4)))
        else:
            symbols[16 * (j >> 5) + (j & 15)] |= uint16(value << (4 * ((j >> 4) & 1)))
    return outside


@njit(**INLINE)
def unpack_row(symbols, method, values, at):
    """Inverse of :func:`pack_row`."""
    if method == PACKED4:
        unpack_quarters(symbols, values, at)
    else:
        unpack_halves(symbols, values, at)


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


@njit(**KERNEL)
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


@njit(**INLINE)
def context_rate(rows, row, neighbours, coefficients, first, dose, selection, mixture, rate, other):
    """Rate at a pixel under the frames' weight sets: all set 0 (mixture 0), all set 1, or lane by lane.

    Fixed point, modulo 2**32: ``c0 + c1 * dose + sum(a_i * Y_i)``. rows : uint16[n, 64]; neighbours : int64[m], row
    offsets of the context; coefficients : int32, flat, m + 2 a weight set, the pixel's beginning at ``first``;
    dose : int32[64]; rate : int32[64], the result.
    """
    m = int64(neighbours.shape[0])
    if mixture == 1:
        first += m + 2
    predict_rates(rows, row, neighbours, m, coefficients, first, dose, rate)
    if mixture == 2:
        predict_rates(rows, row, neighbours, m, coefficients, first + m + 2, dose, other)
        for j in range(LANES):
            rate[j] = other[j] if selection[j] else rate[j]


@njit(**KERNEL)
def initial_states():
    """Sixty-four states at the lower bound, where an encoder starts and a decoder ends."""
    states = aligned(LANES, np.uint32)
    states[:] = STATE_LOW
    return states


@njit(**KERNEL)
def scratch():
    """Work rows of one group: symbols, low bits, centres, table offsets and two rates."""
    return (
        aligned(LANES, np.uint16),
        aligned(LANES, np.uint16),
        aligned(LANES, np.int32),
        aligned(LANES, np.int32),
        aligned(LANES, np.int32),
        aligned(LANES, np.int32),
    )


@njit(**KERNEL)
def changed_lanes(difference, method, step, i):
    """Positions whose bits differ between two packed symbols of lane ``i`` in a step."""
    lanes = uint64(0)
    if method == PACKED4:
        for v in range(4):
            if (difference >> (2 * v)) & 3:
                lanes |= uint64(1) << uint64(16 * v + i)
    else:
        for v in range(2):
            if (difference >> (4 * v)) & 15:
                lanes |= uint64(1) << uint64(32 * step + 16 * v + i)
    return lanes


@njit(**KERNEL)
def encode_group(
    simd, rows, origin, active, methods, tables_of, bases, shifts, classes, index_bases, index_shifts,
    centre_shifts, luts,
    neighbours, coefficients, dose, selection, mixture, tables, likeliest, bits, blocks, step_masks,
    words, pos, patch_at, patch_value,
):  # fmt: skip
    """Encode the pixels ``rows[origin:origin + n]`` of a group into ``words``, backwards from ``pos``.

    Returns the new word position and the number of patches, which come in decreasing ``patch_at``.
    ``patch_at`` must have room for every value of the group.
    """
    n = methods.shape[0]
    values = rows.reshape(-1)
    factors = coefficients.reshape(-1)
    width = int64(coefficients.shape[1] * coefficients.shape[2])
    states = initial_states()
    symbols, low, centre, offsets, rate, other = scratch()
    steps, lanes = count_steps(methods, step_masks, blocks)
    patches = int64(0)
    for p in range(n - 1, -1, -1):
        method = methods[p]
        at = int64(origin + p) * LANES
        if method == CONSTANT:
            # A model fitted elsewhere may take a pixel for constant that is not so here.
            if differing_bits(values, at, bases[p]):
                for j in range(LANES - 1, -1, -1):
                    if (active >> uint64(j)) & uint64(1) and values[at + j] != bases[p]:
                        patch_at[patches] = p * LANES + j
                        patch_value[patches] = values[at + j]
                        patches += 1
            continue
        shift = int64(shifts[p])
        first = tables_of[p] << 8
        direct = False
        if method >= STATIC:
            residual = False
            if method == CONTEXT:
                c = classes[p]
                context_rate(
                    rows, int64(origin + p), neighbours, factors, p * width, dose, selection, mixture, rate, other
                )
                select_tables(simd, rate, index_bases[c], index_shifts[c], luts, c, first, int64(8), offsets)
                residual = centre_shifts[c] != ABSOLUTE
                if residual:
                    centre_row(rate, centre_shifts[c], centre)
            else:
                fill_lanes(offsets, first)
            if residual or shift > 0 or bases[p] != 0 or any_bits(values, at) > 255:
                if not residual:
                    fill_lanes(centre, bases[p])
                outside = symbols_of_row(values, at, centre, shift, residual, symbols, low) & active
                if outside:
                    for j in range(LANES):
                        if (outside >> uint64(j)) & uint64(1):
                            symbols[j] = uint16(likeliest[offsets[j] >> 8])
            else:
                direct = True
                outside = uint64(0)
        else:
            fill_lanes(offsets, first)
            outside = pack_row(values, at, method, symbols) & active
        absent = uint64(0)
        for b in range(3, -1, -1):
            mask = step_masks[method, b]
            if mask == 0:
                continue
            steps -= 1
            block = (steps & (blocks - 1)) * BLOCK
            if shift > 0 and method >= STATIC:
                pos = encode_bits(simd, states, block, 16 * b, shift, mask, words, pos, low)
            if direct:
                # The values are the symbols.
                new = encode_step(
                    simd, states, block, tables, offsets, 16 * b, bits[p], mask, words, pos,
                    values, at + 16 * b,
                )  # fmt: skip
            else:
                new = encode_step(
                    simd, states, block, tables, offsets, 16 * b, bits[p], mask, words, pos,
                    symbols, 16 * b,
                )  # fmt: skip
            if new < 0:
                if direct:
                    for j in range(LANES):
                        symbols[j] = values[at + j]
                    direct = False
                bad = -1 - new
                for i in range(BLOCK):
                    if (bad >> i) & 1:
                        lane = 16 * b + i
                        was = symbols[lane]
                        symbols[lane] = uint16(likeliest[offsets[lane] >> 8])
                        if method >= STATIC:
                            absent |= uint64(1) << uint64(lane)
                        else:
                            absent |= changed_lanes(was ^ symbols[lane], method, b, i)
                new = encode_step(
                    simd, states, block, tables, offsets, 16 * b, bits[p], mask, words, pos,
                    symbols, 16 * b,
                )  # fmt: skip
            pos = new
        outside |= absent & active
        if outside:
            for j in range(LANES - 1, -1, -1):
                if (outside >> uint64(j)) & uint64(1):
                    patch_at[patches] = p * LANES + j
                    patch_value[patches] = values[at + j]
                    patches += 1
    pos = write_states(states, lanes, words, pos)
    return pos, patches


@njit(**KERNEL)
def decode_group(
    simd, rows, origin, active, methods, tables_of, bases, shifts, classes, index_bases, index_shifts,
    centre_shifts, luts,
    neighbours, coefficients, dose, selection, mixture, tables, bits, blocks, step_masks,
    words, pos, end, patch_at, patch_value,
):  # fmt: skip
    """Decode a group into ``rows[origin:origin + n]``; inverse of :func:`encode_group`.

    Returns 0, or :data:`OVERRUN` when the stream does not end exactly at ``end`` with every state back at its
    initial value, or :data:`BAD_PATCH` when patches are out of order or out of range.
    ``patch_at`` is increasing.
    """
    n = methods.shape[0]
    values = rows.reshape(-1)
    factors = coefficients.reshape(-1)
    width = int64(coefficients.shape[1] * coefficients.shape[2])
    states = initial_states()
    symbols, low, centre, offsets, rate, other = scratch()
    steps, lanes = count_steps(methods, step_masks, blocks)
    pos = read_states(states, lanes, words, pos)
    steps = int64(0)
    whole = active == ~uint64(0)
    patch = int64(0)
    patches = patch_at.shape[0]
    for p in range(n):
        method = methods[p]
        at = int64(origin + p) * LANES
        if method == CONSTANT:
            for j in range(LANES):
                values[at + j] = uint16(bases[p])
        else:
            # One pixel takes at most 4 x 2 x 16 words: the slack behind `end` covers it.
            if pos > end:
                return int64(OVERRUN)
            shift = int64(shifts[p])
            residual = False
            if method == CONTEXT:
                c = classes[p]
                context_rate(
                    rows, int64(origin + p), neighbours, factors, p * width, dose, selection, mixture, rate, other
                )
                select_tables(
                    simd, rate, index_bases[c], index_shifts[c], luts, c, tables_of[p], int64(bits[p]), offsets
                )
                residual = centre_shifts[c] != ABSOLUTE
                if residual:
                    centre_row(rate, centre_shifts[c], centre)
            else:
                fill_lanes(offsets, tables_of[p])
            direct = method >= STATIC and not residual and shift == 0 and bases[p] == 0
            for b in range(4):
                mask = step_masks[method, b]
                if mask == 0:
                    continue
                block = (steps & (blocks - 1)) * BLOCK
                steps += 1
                if direct:
                    pos = decode_step(
                        simd, states, block, tables, offsets, 16 * b, bits[p], mask, words, pos, values, at + 16 * b
                    )
                else:
                    pos = decode_step(
                        simd, states, block, tables, offsets, 16 * b, bits[p], mask, words, pos, symbols, 16 * b
                    )
                if shift > 0:
                    pos = decode_bits(simd, states, block, 16 * b, shift, mask, words, pos, low)
            if method < STATIC:
                unpack_row(symbols, method, values, at)
            elif not direct:
                if not residual:
                    fill_lanes(centre, bases[p])
                values_of_row(symbols, low, centre, shift, residual, values, at)
        while patch < patches and patch_at[patch] < (p + 1) * LANES:
            j = patch_at[patch] - p * LANES
            if j < 0:
                return int64(BAD_PATCH)
            values[at + j] = patch_value[patch]
            patch += 1
        if not whole:
            for j in range(LANES):
                if not (active >> uint64(j)) & uint64(1):
                    values[at + j] = uint16(0)
    if patch != patches:
        return int64(BAD_PATCH)
    if pos != end:
        return int64(OVERRUN)
    for i in range(LANES):
        if states[i] != uint32(STATE_LOW):
            return int64(OVERRUN)
    return int64(0)
