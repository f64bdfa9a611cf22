"""Encode one group: up to 64 scan positions, one lane each, pixel by pixel, last pixel first.

What happens at a pixel is told by its method, see :mod:`stemcodecs.entropy.kernels.pixel_methods`; all methods share
one stream. rANS is a stack: what is encoded last is decoded first.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import int64, uint16, uint32, uint64

from stemcodecs.compiled import kernel
from stemcodecs.entropy.kernels.borrowed import borrowed
from stemcodecs.entropy.kernels.coding_tables import STRIDE
from stemcodecs.entropy.kernels.kernel_arguments import PixelSymbols
from stemcodecs.entropy.kernels.lanes import any_bits, differing_bits, fill_lanes, prefetch_row
from stemcodecs.entropy.kernels.pixel_methods import (
    CONSTANT,
    CONTEXT,
    PACKED4,
    STATIC,
    based_symbols,
    count_steps,
    packed_symbols,
    room_for_symbols,
    symbols_of_pixels,
)
from stemcodecs.entropy.kernels.rans import BLOCK, LANES, STATE_LOW, aligned, write_states
from stemcodecs.entropy.kernels.rans_steps import encode_bits, encode_step

__all__ = ["EncoderRoom", "encode_group", "encoder_room"]

AT_ONCE = 32
"""Pixels whose contexts are found before they are coded: they stay in the first-level cache."""


class _Coding(NamedTuple):
    """How one pixel is coded: its symbols are in ``symbols[to:]``, or, where ``direct``, the values themselves are."""

    method: int
    bits: int
    shift: int
    table: int
    at: np.int64
    to: np.int64
    direct: bool


class EncoderRoom(NamedTuple):
    """Arrays that an encoder works in, from one group to the next.

    States of the coder, uint32[64], pixels that are coded with a context, int64[AT_ONCE], and symbols of AT_ONCE pixels
    and one more.
    """

    states: Any
    pixels: Any
    found: PixelSymbols


def encoder_room() -> EncoderRoom:
    """Room for one encoder at a time."""
    return EncoderRoom(aligned(LANES, np.uint32), np.empty(AT_ONCE, np.int64), room_for_symbols(AT_ONCE + 1))


@kernel
def encode_group(simd, group, program, tables, stream, patches, room):
    """Encode the pixels ``rows[origin : origin + n]`` of a group into ``stream.words``, backwards from ``stream.end``.

    simd : :func:`stemcodecs.entropy.kernels.cpu.simd_path`; room : :func:`encoder_room`; the others as in
    :mod:`stemcodecs.entropy.kernels.kernel_arguments`. All are borrowed. Returns the new word position and the number
    of patches, which come in decreasing ``patches.at``; these must have room for every value of the group.
    """
    group, program, tables, stream = borrowed(group), borrowed(program), borrowed(tables), borrowed(stream)
    patches, found = borrowed(patches), borrowed(room.found)
    states, pixels = borrowed(room.states), borrowed(room.pixels)
    for i in range(LANES):
        states[i] = uint32(STATE_LOW)
    values, factors = group.rows.reshape(-1), program.coefficients.reshape(-1)
    steps, lanes = count_steps(program.methods, group.step_masks, stream.blocks)
    pos = int64(stream.end)
    n_patches = int64(0)
    for beyond in range(program.methods.shape[0], 0, -AT_ONCE):
        start = beyond - AT_ONCE if beyond > AT_ONCE else 0
        n_contexts = _context_pixels(program.methods, start, beyond, pixels)
        if n_contexts:
            symbols_of_pixels(simd, group, program, values, factors, pixels, n_contexts, found)
        slot = 0
        for p in range(beyond - 1, start - 1, -1):
            method, base, shift = program.methods[p], program.bases[p], program.shifts[p]
            at = int64(group.origin + p) * LANES
            prefetch_row(values, at - AT_ONCE * LANES)
            if method == CONSTANT:
                # A model fitted elsewhere may take a pixel for constant that is not so here.
                outside = _lanes_unlike(values, at, base) & group.active
            else:
                # Behind the symbols of the contexts there is room for one more pixel.
                to, direct = int64(AT_ONCE * LANES), False
                if method == CONTEXT:
                    to, outside = int64(slot) * LANES, found.outside[slot]
                    slot += 1
                elif method < STATIC:
                    outside = packed_symbols(values, at, method, found.symbols, to)
                elif shift == 0 and base == 0 and any_bits(values, at) <= 255:
                    outside, direct = uint64(0), True
                else:
                    outside = based_symbols(values, at, base, shift, found, to)
                outside &= group.active
                coding = _Coding(method, program.bits[p], shift, program.tables_of[p] * STRIDE, at, to, direct)
                if outside and method >= STATIC:
                    _replace_symbols(outside, coding, tables, found)
                steps, pos, absent = _encode_pixel(
                    simd, states, coding, group.step_masks, tables, found, values, stream, steps, pos
                )
                outside |= absent & group.active
            if outside:
                n_patches = _add_patches(outside, p, values, at, patches, n_patches)
    return write_states(states, lanes, stream.words, pos), n_patches


@kernel(forceinline=True)
def _context_pixels(methods, start, beyond, pixels):
    """Pixels of ``start:beyond`` that have a context, the last first; returns how many they are."""
    n = 0
    for p in range(beyond - 1, start - 1, -1):
        if methods[p] == CONTEXT:
            pixels[n] = p
            n += 1
    return n


@kernel(forceinline=True)
def _lanes_unlike(values, at, base):
    """Bit mask of the lanes of a constant pixel that hold another value."""
    lanes = uint64(0)
    if differing_bits(values, at, base):
        for j in range(LANES):
            if values[at + j] != base:
                lanes |= uint64(1) << uint64(j)
    return lanes


@kernel(forceinline=True)
def _encode_pixel(simd, states, coding, step_masks, tables, found, values, stream, steps, pos):
    """Encode the steps of one pixel, the last first.

    Returns the steps left, the new word position, and the bit mask of the lanes whose symbol had no probability and was
    replaced.
    """
    to, table, bits = coding.to, coding.table, coding.bits
    direct = coding.direct
    absent = uint64(0)
    for b in range(3, -1, -1):
        mask = step_masks[coding.method, b]
        if mask == 0:
            continue
        steps -= 1
        block = (steps & (stream.blocks - 1)) * BLOCK
        lane = to + 16 * b
        if coding.shift > 0:
            pos = encode_bits(simd, states, block, lane, coding.shift, mask, stream.words, pos, found.low)
        if direct:
            source = coding.at + 16 * b
            new = encode_step(
                simd, states, block, tables.entries, table, lane, bits, mask, stream.words, pos, values, source
            )
        elif coding.method == CONTEXT:
            new = encode_step(
                simd, states, block, tables.entries, found.offsets, lane, bits, mask, stream.words, pos,
                found.symbols, lane,
            )  # fmt: skip
        else:
            new = encode_step(
                simd, states, block, tables.entries, table, lane, bits, mask, stream.words, pos, found.symbols, lane
            )
        if new < 0:
            if direct:
                for j in range(LANES):
                    found.symbols[to + j] = values[coding.at + j]
                direct = False
            absent |= _replace_absent(-1 - new, b, coding, tables, found)
            new = encode_step(
                simd, states, block, tables.entries, found.offsets, lane, bits, mask, stream.words, pos,
                found.symbols, lane,
            )  # fmt: skip
        pos = new
    return steps, pos, absent


@kernel(forceinline=True)
def _replace_symbols(outside, coding, tables, found):
    """Give the lanes that do not fit the likeliest symbol of their table."""
    for j in range(LANES):
        if (outside >> uint64(j)) & uint64(1):
            table = int64(found.offsets[coding.to + j]) if coding.method == CONTEXT else coding.table
            found.symbols[coding.to + j] = uint16(tables.likeliest[table // STRIDE])


@kernel(forceinline=True)
def _replace_absent(bad, b, coding, tables, found):
    """Give the lanes ``bad`` of step ``b``, whose symbol has no probability, the likeliest one of their table.

    Returns the bit mask of the positions that these symbols no longer hold.
    """
    if coding.method != CONTEXT:
        fill_lanes(found.offsets, coding.to, coding.table)
    lanes = uint64(0)
    for i in range(BLOCK):
        if (bad >> i) & 1:
            lane = coding.to + 16 * b + i
            was = found.symbols[lane]
            found.symbols[lane] = uint16(tables.likeliest[found.offsets[lane] // STRIDE])
            if coding.method >= STATIC:
                lanes |= uint64(1) << uint64(16 * b + i)
            else:
                lanes |= _changed_positions(was ^ found.symbols[lane], coding.method, b, i)
    return lanes


@kernel
def _changed_positions(difference, method, step, i):
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


@kernel(forceinline=True)
def _add_patches(outside, p, values, at, patches, n):
    """Write the values of the lanes ``outside`` once more, the last first; returns the new number of patches."""
    for j in range(LANES - 1, -1, -1):
        if (outside >> uint64(j)) & uint64(1):
            patches.at[n] = p * LANES + j
            patches.values[n] = values[at + j]
            n += 1
    return n
