"""Work on one row of 64 lanes, written as LLVM vector IR without any instruction of one processor in it.

Numba would turn the same loops into scalar code: it cannot see that an index into a flat array is not negative.
Every function takes flat arrays and the index ``at`` of the row's first lane, and checks nothing.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from stemcodecs.entropy.kernels.rans import LANES
from stemcodecs.entropy.kernels.vector_ir import (
    I8,
    I32,
    I64,
    V8,
    V16,
    V32,
    Memory,
    constant,
    i64,
    splat,
    typed_intrinsic,
)

_QUARTERS = range(4)


# for i in range(64):
#     a = coefficients[first + (len(neighbours) + 2) * (selection[i] if mixture == 2 else mixture) :]
#     rate[i] = int32(a[0] + a[1] * dose[i] + sum(a[2 + k] * rows[row + n, i] for k, n in enumerate(neighbours)))
@typed_intrinsic
def context_rate(  # type: ignore[no-untyped-def]
    _typing, rows, row, neighbours, coefficients, first, dose, selection, mixture, rate
):
    """Rate at a pixel under the frames' weight sets: all set 0 (mixture 0), all set 1, or lane by lane (2).

    Fixed point, modulo 2**32: ``c0 + c1 * dose + sum(a_i * Y_i)``. rows : uint16[n, 64]; neighbours : int64[m], row
    offsets of the context; coefficients : int32, flat, m + 2 a weight set, the pixel's beginning at ``first``;
    dose : int32[64]; selection : bool[64]; rate : int32[64], the result.
    """
    signature = types.void(rows, types.int64, neighbours, coefficients, types.int64, dose, selection, types.int64, rate)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = Memory(context, b, signature, args)
        row, mixture = args[1], args[7]
        neighbours = context.make_array(signature.args[2])(context, b, args[2])
        count = b.extract_value(neighbours.shape, 0)
        size = b.add(count, i64(2))

        def rates(first: Any) -> list[Any]:
            def coefficient(i: Any) -> Any:
                return splat(b, b.sext(m.load(3, b.add(first, i), I32), I64))

            constant, slope = coefficient(i64(0)), coefficient(i64(1))
            sums = [cgutils.alloca_once(b, V32) for _ in _QUARTERS]
            for quarter, total in enumerate(sums):
                lanes = m.load(5, i64(16 * quarter), V32)
                b.store(b.add(constant, b.mul(slope, lanes)), total)
            with cgutils.for_range(b, count) as loop:
                factor = coefficient(b.add(loop.index, i64(2)))
                start = b.mul(b.add(row, m.load(2, loop.index, I64)), i64(LANES))
                for quarter, total in enumerate(sums):
                    lanes = b.zext(m.load(0, m.lane(start, quarter), V16), V32)
                    b.store(b.add(b.load(total, typ=V32), b.mul(factor, lanes)), total)
            return [b.load(total, typ=V32) for total in sums]

        second = b.add(args[4], size)
        for quarter, lanes in enumerate(rates(b.select(b.icmp_signed("==", mixture, i64(1)), second, args[4]))):
            m.store(lanes, 8, i64(16 * quarter))
        with b.if_then(b.icmp_signed("==", mixture, i64(2))):
            for quarter, other in enumerate(rates(second)):
                at = i64(16 * quarter)
                chosen = b.icmp_unsigned("!=", m.load(6, at, V8), constant(V8, 0))
                m.store(b.select(chosen, other, m.load(8, at, V32)), 8, at)
        return context.get_dummy_value()

    return signature, codegen


# for i in range(64):
#     centre[i] = min(max(rate[i], 0) >> shift, 65535)
@typed_intrinsic
def centre_row(_typing, rate, shift, centre):  # type: ignore[no-untyped-def]
    """Whole counts of the predicted rate, the zero of the residuals: rate, centre : int32[64]."""
    signature = types.void(rate, types.int64, centre)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = Memory(context, b, signature, args)
        shift, zero, top = splat(b, args[1]), constant(V32, 0), constant(V32, 65535)
        for q in _QUARTERS:
            r = m.load(0, i64(16 * q), V32)
            r = b.ashr(b.select(b.icmp_signed(">", r, zero), r, zero), shift)
            m.store(b.select(b.icmp_signed("<", r, top), r, top), 2, i64(16 * q))
        return context.get_dummy_value()

    return signature, codegen


# for i in range(64):
#     seen |= values[at + i]
@typed_intrinsic
def any_bits(_typing, values, at):  # type: ignore[no-untyped-def]
    """OR of the 64 values of a row: at least the largest of them, and less than twice that."""
    signature = types.int64(values, types.int64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = Memory(context, b, signature, args)
        v = [m.load(0, m.lane(args[1], q), V16) for q in _QUARTERS]
        return b.and_(m.any_bit(b.or_(b.or_(v[0], v[1]), b.or_(v[2], v[3]))), i64(0xFFFF))

    return signature, codegen


# for i in range(64):
#     symbols[to + i] = values[at + i]; seen |= values[at + i]
@typed_intrinsic
def copy_values(_typing, values, at, symbols, to):  # type: ignore[no-untyped-def]
    """Copy the 64 values of a row to ``symbols[to:]``; returns their OR, at least the largest and below twice that."""
    signature = types.int64(values, types.int64, symbols, types.int64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = Memory(context, b, signature, args)
        v = [m.load(0, m.lane(args[1], q), V16) for q in _QUARTERS]
        for q in _QUARTERS:
            m.store(v[q], 2, m.lane(args[3], q))
        seen = b.or_(b.or_(v[0], v[1]), b.or_(v[2], v[3]))
        return b.and_(m.any_bit(seen), i64(0xFFFF))

    return signature, codegen


# for i in range(64):
#     seen |= values[at + i] ^ uint16(value)
@typed_intrinsic
def differing_bits(_typing, values, at, value):  # type: ignore[no-untyped-def]
    """OR of the bits in which the 64 values of a row differ from ``value``."""
    signature = types.int64(values, types.int64, types.int64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = Memory(context, b, signature, args)
        same = b.trunc(splat(b, args[2]), V16)
        v = [b.xor(m.load(0, m.lane(args[1], q), V16), same) for q in _QUARTERS]
        seen = b.or_(b.or_(v[0], v[1]), b.or_(v[2], v[3]))
        return b.and_(m.any_bit(seen), i64(0xFFFF))

    return signature, codegen


# for i in range(64):
#     d = int32(values[at + i]) - centre[i] + bias; seen |= d >> shift
#     symbols[to + i], low[to + i] = uint16(d >> shift), uint16(d & ((1 << shift) - 1))
@typed_intrinsic
def split_values(_typing, values, at, centre, bias, shift, symbols, low, to):  # type: ignore[no-untyped-def]
    """``d = value - centre + bias`` into ``symbols = d >> shift`` and ``low``, the bits below.

    centre : int32[64]; symbols, low : uint16, written from index ``to``. Returns the OR of the symbols before they are
    cut to 16 bits: below 0 or above 255 if any of them is not a symbol.
    """
    signature = types.int64(values, types.int64, centre, types.int64, types.int64, symbols, low, types.int64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = Memory(context, b, signature, args)
        at, bias, shift, to = args[1], splat(b, args[3]), splat(b, args[4]), args[7]
        mask = b.sub(b.shl(constant(V32, 1), shift), constant(V32, 1))
        seen = constant(V32, 0)
        for q in _QUARTERS:
            value = b.zext(m.load(0, m.lane(at, q), V16), V32)
            d = b.add(b.sub(value, m.load(2, i64(16 * q), V32)), bias)
            symbol = b.ashr(d, shift)
            seen = b.or_(seen, symbol)
            m.store(b.trunc(symbol, V16), 5, m.lane(to, q))
            m.store(b.trunc(b.and_(d, mask), V16), 6, m.lane(to, q))
        return m.any_bit(seen)

    return signature, codegen


# for i in range(64):
#     d = symbols[i] << shift | (low[i] if shift else 0)
#     values[at + i] = uint16(d + centre[i] - bias)
@typed_intrinsic
def join_values(_typing, symbols, low, centre, bias, shift, values, at):  # type: ignore[no-untyped-def]
    """Inverse of :func:`split_values`, modulo 2**16."""
    signature = types.void(symbols, low, centre, types.int64, types.int64, values, types.int64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = Memory(context, b, signature, args)
        bias, shift, at = splat(b, args[3]), splat(b, args[4]), args[6]
        some = b.icmp_signed("!=", shift, constant(V32, 0))
        for q in _QUARTERS:
            symbol = b.zext(m.load(0, i64(16 * q), V16), V32)
            bits = b.zext(m.load(1, i64(16 * q), V16), V32)
            bits = b.select(some, bits, constant(V32, 0))
            d = b.sub(b.add(b.or_(b.shl(symbol, shift), bits), m.load(2, i64(16 * q), V32)), bias)
            m.store(b.trunc(d, V16), 5, m.lane(at, q))
        return context.get_dummy_value()

    return signature, codegen


# for i in range(64):
#     lanes[to + i] = int32(value)
@typed_intrinsic
def fill_lanes(_typing, lanes, to, value):  # type: ignore[no-untyped-def]
    """Put one value into 64 lanes of an int32 array, from index ``to``."""
    signature = types.void(lanes, types.int64, types.int64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = Memory(context, b, signature, args)
        for q in _QUARTERS:
            m.store(splat(b, args[2]), 0, m.lane(args[1], q))
        return context.get_dummy_value()

    return signature, codegen


# Nothing that a program could see: the processor fetches values[at : at + 64] ahead of time.
@typed_intrinsic
def prefetch_row(_typing, values, at):  # type: ignore[no-untyped-def]
    """Ask for the 128 bytes of a row of uint16 before it is needed; any index serves."""
    signature = types.void(values, types.int64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = Memory(context, b, signature, args)
        kind = ir.FunctionType(ir.VoidType(), [ir.PointerType(I8), I32, I32, I32])
        prefetch = b.module.declare_intrinsic("llvm.prefetch.p0", fnty=kind)
        read, keep, data = (ir.Constant(I32, i) for i in (0, 3, 1))
        for line in (0, 32):
            b.call(prefetch, [m.pointer(0, b.add(args[1], i64(line)), I8), read, keep, data])
        return context.get_dummy_value()

    return signature, codegen
