"""Steps of the rANS coder whose intervals come from a network: totals of 2**15, states from 2**16 to 2**32 - 1.

As :mod:`stemcodecs.entropy.kernels.rans_steps`, whose words, blocks and guarantees these share; a larger lower bound
keeps what the coder loses below what the frequencies resolve.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types, uint32, uint64
from numba.extending import register_jitable

from stemcodecs.compiled import kernel
from stemcodecs.entropy.kernels.rans import LANES, aligned
from stemcodecs.entropy.kernels.rans_steps import StateBlock
from stemcodecs.entropy.kernels.vector_ir import I64, V16, V32, constant, i64, typed_intrinsic
from stemcodecs.learned.mixture_ir import Q_FREQUENCY, Lookup, find_bin
from stemcodecs.learned.path import vector_bits

__all__ = ["LOWEST_STATE", "decode_counts", "encode_counts", "fresh_states", "read_lane_states"]

LOWEST_STATE = 1 << 16
_FLOATS = ir.VectorType(ir.FloatType(), 16)


class _States(StateBlock, Lookup):
    lowest = LOWEST_STATE

    def __init__(self, context: Any, b: Any, signature: Any, args: Any, block: int, active: int, words: int) -> None:
        super().__init__(context, b, signature, args, block, active, words)
        self.native = vector_bits(signature.args[0]) == 512


@register_jitable
def fresh_states():
    """Sixty-four states at the lower bound: uint32[64]."""
    states = aligned(LANES, np.uint32)
    states[:] = LOWEST_STATE
    return states


@kernel
def read_lane_states(states, lanes, words, pos):
    """States of the lanes in use (a bit mask) from the front of the stream; others are at the lower bound."""
    for i in range(LANES):
        states[i] = uint32(LOWEST_STATE)
        if (lanes >> uint64(i)) & uint64(1):
            states[i] = uint32(words[pos]) | (uint32(words[pos + 1]) << uint32(16))
            pos += 2
    return pos


# for i in range(16), where bit i of active is set, values are written for all:
#     x = states[block + i]; slot = x % 2**15; z with C(z) <= slot < C(z + 1), by `steps` halvings
#     x = (C(z + 1) - C(z)) * (x >> 15) + slot - C(z); refill(x)
#     low = x % 2**shift; x >>= shift; refill(x)
#     values[at + 16 * quarter + i] = (z0 + z) << shift | low
@typed_intrinsic
def decode_counts(  # type: ignore[no-untyped-def]
    _typing, path, states, block, mixture, sigmoid, threshold, quarter, steps, active, words, pos, values, at
):
    """Decode the counts of sixteen lanes; returns the new word position."""
    i = types.int64
    signature = i(path, states, i, mixture, sigmoid, threshold, i, i, i, words, i, values, i)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = _States(context, b, signature, args, block=2, active=8, words=9)
        x, quarter = m.states(), args[6]
        slot = b.and_(x, constant(V32, (1 << Q_FREQUENCY) - 1))
        z, lower, upper = find_bin(m, (3, 4, 5), quarter, slot, args[7])
        y = b.add(b.mul(b.sub(upper, lower), b.lshr(x, constant(V32, Q_FREQUENCY))), b.sub(slot, lower))
        x = m.refill(b.select(m.active, y, x))
        lane = b.mul(quarter, i64(16))
        z0, shift = (m.load(3, b.add(i64(64 * row), lane), V32) for row in (8, 9))
        mask = b.sub(b.shl(constant(V32, 1), shift), constant(V32, 1))
        value = b.or_(b.shl(b.add(z0, z), shift), b.and_(x, mask))
        m.store(b.trunc(value, V16), 11, b.add(args[12], lane))
        # Where no lane has low bits, nothing has to be moved.
        with b.if_else(b.icmp_signed("!=", m.any_bit(shift), i64(0))) as (some, none):
            with some:
                pos = m.pos
                moved = m.refill(b.select(m.active, b.lshr(x, shift), x))
                after, end = b.block, m.pos
            with none:
                other = b.block
        result, place = b.phi(V32), b.phi(I64)
        result.add_incoming(moved, after)
        result.add_incoming(x, other)
        place.add_incoming(end, after)
        place.add_incoming(pos, other)
        m.pos = place
        return m.finish(result)

    return signature, codegen


# for i in range(16), where bit i of active is set:
#     x = states[block + i]; width, value = low[at + i] >> 16, low[at + i] & 0xFFFF
#     spill(x, 1 << 32 - width); x = x << width | value                                    where width > 0
#     f, start = entries[at + i] >> 16, entries[at + i] & 0xFFFF
#     spill(x, f << 17); states[block + i] = (x // f << 15) + start + x % f
@typed_intrinsic
def encode_counts(  # type: ignore[no-untyped-def]
    _typing, path, states, block, entries, low, at, active, words, pos
):
    """Encode the counts of sixteen lanes from their intervals; returns the new word position."""
    i = types.int64
    signature = i(path, states, i, entries, low, i, i, words, i)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = _States(context, b, signature, args, block=2, active=6, words=7)
        x = m.states()
        bits = m.load(4, args[5], V32)
        width, value = b.lshr(bits, constant(V32, 16)), b.and_(bits, constant(V32, 0xFFFF))
        with b.if_else(b.icmp_signed("!=", m.any_bit(width), i64(0))) as (some, none):
            with some:
                pos = m.pos
                # Lanes without bits must not spill: for the step they hold 0.
                idle = b.icmp_signed("==", width, constant(V32, 0))
                room = b.sub(constant(V32, 32), b.select(idle, constant(V32, 1), width))
                spilled = m.spill(b.select(idle, constant(V32, 0), x), b.shl(constant(V32, 1), room))
                moved = b.select(idle, x, b.or_(b.shl(spilled, width), value))
                after, end = b.block, m.pos
            with none:
                other = b.block
        result, place = b.phi(V32), b.phi(I64)
        result.add_incoming(moved, after)
        result.add_incoming(x, other)
        place.add_incoming(end, after)
        place.add_incoming(pos, other)
        m.pos = place
        entry = m.load(3, args[5], V32)
        frequency, start = b.lshr(entry, constant(V32, 16)), b.and_(entry, constant(V32, 0xFFFF))
        y = m.spill(result, b.shl(frequency, constant(V32, 17)))
        # The quotient is below 2**17, so that a single-precision one is off by at most one.
        quotient = b.fptosi(b.fdiv(b.uitofp(y, _FLOATS), b.sitofp(frequency, _FLOATS)), V32)
        rest = b.sub(y, b.mul(quotient, frequency))
        above = b.icmp_signed(">=", rest, frequency)
        below = b.icmp_signed("<", rest, constant(V32, 0))
        quotient = b.select(above, b.add(quotient, constant(V32, 1)), quotient)
        quotient = b.select(below, b.sub(quotient, constant(V32, 1)), quotient)
        rest = b.select(above, b.sub(rest, frequency), rest)
        rest = b.select(below, b.add(rest, frequency), rest)
        coded = b.add(b.add(b.shl(quotient, constant(V32, Q_FREQUENCY)), start), rest)
        return m.finish(b.select(m.active, coded, m.states()))

    return signature, codegen
