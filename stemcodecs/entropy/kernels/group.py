"""Code one group: up to 64 scan positions, one lane each, pixel by pixel in raster order.

What happens at a pixel is told by its method, see :mod:`stemcodecs.entropy.kernels.pixel_methods`; all
methods share one stream.
"""

from __future__ import annotations

import numpy as np
from numba import int64, uint16, uint32, uint64

from stemcodecs.compiled import kernel
from stemcodecs.entropy.kernels.coding_tables import STRIDE
from stemcodecs.entropy.kernels.lanes import (
    any_bits,
    centre_row,
    context_rate,
    differing_bits,
    fill_lanes,
    join_values,
    pack_halves,
    pack_quarters,
    prefetch_row,
    split_values,
    unpack_halves,
    unpack_quarters,
)
from stemcodecs.entropy.kernels.pixel_methods import (
    ABSOLUTE,
    CONSTANT,
    CONTEXT,
    HALF,
    PACKED2,
    PACKED4,
    STATIC,
    pack_with_care,
    split_with_care,
    symbols_of_pixels,
)
from stemcodecs.entropy.kernels.rans import (
    BLOCK,
    LANES,
    STATE_LOW,
    aligned,
    read_states,
    write_states,
)
from stemcodecs.entropy.kernels.rans_steps import decode_bits, decode_step, encode_bits, encode_step, select_tables

AT_ONCE = 32
"""Pixels whose contexts an encoder finds before it codes them: they stay in the first-level cache."""

# Errors that decode_group returns instead of a word position.
OVERRUN = -1
BAD_PATCH = -2


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


@kernel
def initial_states():
    """Sixty-four states at the lower bound, where an encoder starts and a decoder ends."""
    states = aligned(LANES, np.uint32)
    states[:] = STATE_LOW
    return states


@kernel
def scratch():
    """Work rows of one group: symbols, low bits, centres, table offsets and rates."""
    return (
        aligned(LANES, np.uint16),
        aligned(LANES, np.uint16),
        aligned(LANES, np.int32),
        aligned(LANES, np.int32),
        aligned(LANES, np.int32),
    )


@kernel
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


@kernel
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
    states = initial_states()
    _, _, centre, _, rate = scratch()
    pixels = np.empty(AT_ONCE, np.int64)
    outsides = np.empty(AT_ONCE, np.uint64)
    symbols = aligned((AT_ONCE + 1) * LANES, np.uint16)
    low = aligned((AT_ONCE + 1) * LANES, np.uint16)
    offsets = aligned((AT_ONCE + 1) * LANES, np.int32)
    steps, lanes = count_steps(methods, step_masks, blocks)
    patches = int64(0)
    for beyond in range(n, 0, -AT_ONCE):
        start = beyond - AT_ONCE if beyond > AT_ONCE else 0
        found = 0
        for p in range(beyond - 1, start - 1, -1):
            if methods[p] == CONTEXT:
                pixels[found] = p
                found += 1
        if found:
            symbols_of_pixels(
                simd, rows, origin, pixels, found, methods, tables_of, bases, shifts, classes,
                index_bases, index_shifts, centre_shifts, luts, neighbours, coefficients, dose, selection, mixture,
                rate, centre, symbols, low, offsets, outsides,
            )  # fmt: skip
        slot = 0
        for p in range(beyond - 1, start - 1, -1):
            method = methods[p]
            at = int64(origin + p) * LANES
            prefetch_row(values, at - AT_ONCE * LANES)
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
            first = int64(AT_ONCE) * LANES
            direct = False
            if method == CONTEXT:
                outside = outsides[slot]
                first = int64(slot) * LANES
                slot += 1
            elif method == PACKED4:
                fits = pack_quarters(values, at, symbols, first) <= 3
                outside = uint64(0) if fits else pack_with_care(values, at, method, symbols, first)
            elif method == PACKED2:
                fits = pack_halves(values, at, symbols, first) <= 15
                outside = uint64(0) if fits else pack_with_care(values, at, method, symbols, first)
            elif shift == 0 and bases[p] == 0 and any_bits(values, at) <= 255:
                direct = True
                outside = uint64(0)
            else:
                fill_lanes(centre, int64(0), bases[p])
                seen = split_values(values, at, centre, int64(0), shift, symbols, low, first)
                fits = 0 <= seen <= 255
                outside = (
                    uint64(0) if fits else split_with_care(values, at, centre, int64(0), shift, symbols, low, first)
                )
            outside &= active
            table = tables_of[p] * STRIDE
            if outside and method >= STATIC:
                for j in range(LANES):
                    if (outside >> uint64(j)) & uint64(1):
                        t = offsets[first + j] if method == CONTEXT else table
                        symbols[first + j] = uint16(likeliest[t // STRIDE])
            absent = uint64(0)
            for b in range(3, -1, -1):
                mask = step_masks[method, b]
                if mask == 0:
                    continue
                steps -= 1
                block = (steps & (blocks - 1)) * BLOCK
                lane = first + 16 * b
                if shift > 0:
                    pos = encode_bits(simd, states, block, lane, shift, mask, words, pos, low)
                if direct:
                    # The values are the symbols.
                    new = encode_step(
                        simd, states, block, tables, table, lane, bits[p], mask, words, pos, values, at + 16 * b
                    )
                elif method == CONTEXT:
                    new = encode_step(
                        simd, states, block, tables, offsets, lane, bits[p], mask, words, pos, symbols, lane
                    )
                else:
                    new = encode_step(
                        simd, states, block, tables, table, lane, bits[p], mask, words, pos, symbols, lane
                    )
                if new < 0:
                    if direct:
                        for j in range(LANES):
                            symbols[first + j] = values[at + j]
                        direct = False
                    if method != CONTEXT:
                        fill_lanes(offsets, first, table)
                    bad = -1 - new
                    for i in range(BLOCK):
                        if (bad >> i) & 1:
                            was = symbols[lane + i]
                            symbols[lane + i] = uint16(likeliest[offsets[lane + i] // STRIDE])
                            if method >= STATIC:
                                absent |= uint64(1) << uint64(16 * b + i)
                            else:
                                absent |= changed_lanes(was ^ symbols[lane + i], method, b, i)
                    new = encode_step(
                        simd, states, block, tables, offsets, lane, bits[p], mask, words, pos, symbols, lane
                    )
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


@kernel
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
    symbols, low, centre, offsets, rate = scratch()
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
                context_rate(rows, int64(origin + p), neighbours, factors, p * width, dose, selection, mixture, rate)
                select_tables(
                    simd,
                    rate,
                    index_bases[c],
                    index_shifts[c],
                    luts,
                    c,
                    tables_of[p],
                    int64(1) << bits[p],
                    offsets,
                    int64(0),
                )
                residual = centre_shifts[c] != ABSOLUTE
                if residual:
                    centre_row(rate, centre_shifts[c], centre)
            else:
                fill_lanes(offsets, int64(0), tables_of[p])
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
                if method == PACKED4:
                    unpack_quarters(symbols, values, at)
                else:
                    unpack_halves(symbols, values, at)
            elif not direct:
                if not residual:
                    fill_lanes(centre, int64(0), bases[p])
                join_values(symbols, low, centre, int64(HALF << shift) if residual else int64(0), shift, values, at)
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
