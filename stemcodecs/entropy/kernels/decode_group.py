"""Decode one group: the inverse of :mod:`stemcodecs.entropy.kernels.encode_group`, first pixel first."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import int64, uint16, uint32, uint64

from stemcodecs.compiled import kernel
from stemcodecs.entropy.kernels.borrowed import borrowed
from stemcodecs.entropy.kernels.kernel_arguments import GroupRows, Patches, Program, Stream
from stemcodecs.entropy.kernels.lanes import fill_lanes, join_values
from stemcodecs.entropy.kernels.packing import unpack_halves, unpack_quarters
from stemcodecs.entropy.kernels.pixel_methods import (
    CONSTANT,
    CONTEXT,
    HALF,
    PACKED4,
    STATIC,
    context_tables,
    count_steps,
    room_for_symbols,
)
from stemcodecs.entropy.kernels.rans import BLOCK, LANES, STATE_LOW, aligned, read_states
from stemcodecs.entropy.kernels.rans_steps import decode_bits, decode_step

__all__ = ["decode_group"]


class _Coding(NamedTuple):
    """How one pixel is coded; where ``direct``, its symbols are the values themselves, which begin at ``at``."""

    method: int
    bits: int
    shift: int
    at: int
    direct: bool


# Errors that decode_group returns instead of 0.
OVERRUN = -1
BAD_PATCH = -2


def decode_group(simd: Any, group: GroupRows, program: Program, tables: Any, stream: Stream, patches: Patches) -> int:
    """Decode a group into ``rows[origin : origin + n]``; inverse of
    :func:`stemcodecs.entropy.kernels.encode_group.encode_group`.

    tables : uint32, decode entries of all histograms; ``patches.at`` is increasing; the others as in
    :mod:`stemcodecs.entropy.kernels.kernel_arguments`. Returns 0, or :data:`OVERRUN` when the stream does not end
    exactly at ``stream.end`` with every state back at its initial value, or :data:`BAD_PATCH` when patches are out of
    order or out of range.
    """
    states = aligned(LANES, np.uint32)
    return int(_decode(simd, group, program, tables, stream, patches, states, room_for_symbols(1)))


@kernel
def _decode(simd, group, program, tables, stream, patches, states, work):
    """:func:`decode_group`, with arrays to work in: it borrows them like the others."""
    group, program, tables, stream = borrowed(group), borrowed(program), borrowed(tables), borrowed(stream)
    patches, states, work = borrowed(patches), borrowed(states), borrowed(work)
    values, factors = group.rows.reshape(-1), program.coefficients.reshape(-1)
    _, lanes = count_steps(program.methods, group.step_masks, stream.blocks)
    pos = read_states(states, lanes, stream.words, int64(stream.start))
    steps, patch = int64(0), int64(0)
    for p in range(program.methods.shape[0]):
        method, base, shift = program.methods[p], program.bases[p], program.shifts[p]
        at = int64(group.origin + p) * LANES
        if method == CONSTANT:
            for j in range(LANES):
                values[at + j] = uint16(base)
        else:
            # One pixel takes at most 4 x 2 x 16 words: the slack behind `end` covers it.
            if pos > stream.end:
                return int64(OVERRUN)
            bits, first = program.bits[p], program.decode_starts[p]
            residual = False
            if method == CONTEXT:
                residual = context_tables(simd, group, program, factors, p, first, int64(1) << bits, work, int64(0))
            else:
                fill_lanes(work.offsets, int64(0), first)
            direct = method >= STATIC and not residual and shift == 0 and base == 0
            steps, pos = _decode_pixel(
                simd, states, group.step_masks, _Coding(method, bits, shift, at, direct), tables, work, values, stream,
                steps, pos,
            )  # fmt: skip
            if method == PACKED4:
                unpack_quarters(work.symbols, values, at)
            elif method < STATIC:
                unpack_halves(work.symbols, values, at)
            elif residual:
                join_values(work.symbols, work.low, work.centre, int64(HALF << shift), shift, values, at)
            elif not direct:
                fill_lanes(work.centre, int64(0), base)
                join_values(work.symbols, work.low, work.centre, int64(0), shift, values, at)
        while patch < patches.at.shape[0] and patches.at[patch] < (p + 1) * LANES:
            j = patches.at[patch] - p * LANES
            if j < 0:
                return int64(BAD_PATCH)
            values[at + j] = patches.values[patch]
            patch += 1
        if group.active != ~uint64(0):
            _clear_lanes(values, at, group.active)
    if patch != patches.at.shape[0]:
        return int64(BAD_PATCH)
    if pos != stream.end:
        return int64(OVERRUN)
    for i in range(LANES):
        if states[i] != uint32(STATE_LOW):
            return int64(OVERRUN)
    return int64(0)


@kernel(forceinline=True)
def _decode_pixel(simd, states, step_masks, coding, tables, work, values, stream, steps, pos):
    """Decode the steps of one pixel with the tables at ``work.offsets``; returns the steps so far and the new position.

    Symbols go to ``work.symbols`` and their low bits to ``work.low``; where ``coding.direct``, they are the values.
    """
    bits = coding.bits
    for b in range(4):
        mask = step_masks[coding.method, b]
        if mask == 0:
            continue
        block, lane = (steps & (stream.blocks - 1)) * BLOCK, 16 * b
        steps += 1
        if coding.direct:
            pos = decode_step(
                simd, states, block, tables, work.offsets, lane, bits, mask, stream.words, pos, values, coding.at + lane
            )
        else:
            pos = decode_step(
                simd, states, block, tables, work.offsets, lane, bits, mask, stream.words, pos, work.symbols, lane
            )
        if coding.shift > 0:
            pos = decode_bits(simd, states, block, lane, coding.shift, mask, stream.words, pos, work.low)
    return steps, pos


@kernel(forceinline=True)
def _clear_lanes(values, at, active):
    """Zeros in the lanes that hold no position."""
    for j in range(LANES):
        if not (active >> uint64(j)) & uint64(1):
            values[at + j] = uint16(0)
