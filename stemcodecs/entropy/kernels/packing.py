"""Sparse pixels: several small counts of a row of 64 lanes in one symbol, and back; as in
:mod:`stemcodecs.entropy.kernels.lanes`, from flat arrays and unchecked.
"""

from __future__ import annotations

from numba import types

from stemcodecs.entropy.kernels.vector_ir import V16, Memory, constant, i64, typed_intrinsic

_QUARTERS = range(4)


# for i in range(16):
#     a, b, c, d = values[at + i], values[at + 16 + i], values[at + 32 + i], values[at + 48 + i]
#     symbols[to + i] = uint16(a | b << 2 | c << 4 | d << 6); seen |= a | b | c | d
@typed_intrinsic
def pack_quarters(_typing, values, at, symbols, to):  # type: ignore[no-untyped-def]
    """Four counts below 4 a symbol, lane i with 16 + i, 32 + i, 48 + i; returns the OR of the counts."""
    signature = types.int64(values, types.int64, symbols, types.int64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = Memory(context, b, signature, args)
        v = [m.load(0, m.lane(args[1], q), V16) for q in _QUARTERS]
        seen = b.or_(b.or_(v[0], v[1]), b.or_(v[2], v[3]))
        packed = [b.shl(v[q], constant(V16, 2 * q)) for q in _QUARTERS]
        m.store(b.or_(b.or_(packed[0], packed[1]), b.or_(packed[2], packed[3])), 2, m.lane(args[3], 0))
        return b.and_(m.any_bit(seen), i64(0xFFFF))

    return signature, codegen


# for i in range(64):
#     values[at + i] = symbols[i % 16] >> 2 * (i // 16) & 3
@typed_intrinsic
def unpack_quarters(_typing, symbols, values, at):  # type: ignore[no-untyped-def]
    """Inverse of :func:`pack_quarters`."""
    signature = types.void(symbols, values, types.int64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = Memory(context, b, signature, args)
        s = m.load(0, i64(0), V16)
        for q in _QUARTERS:
            m.store(b.and_(b.lshr(s, constant(V16, 2 * q)), constant(V16, 3)), 1, m.lane(args[2], q))
        return context.get_dummy_value()

    return signature, codegen


# for i in range(32):
#     a, b = values[at + 32 * (i // 16) + i % 16], values[at + 32 * (i // 16) + 16 + i % 16]
#     symbols[to + i] = uint16(a | b << 4); seen |= a | b
@typed_intrinsic
def pack_halves(_typing, values, at, symbols, to):  # type: ignore[no-untyped-def]
    """Two counts below 16 a symbol, lane i with 16 + i and 32 + i with 48 + i; returns the OR of the counts."""
    signature = types.int64(values, types.int64, symbols, types.int64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = Memory(context, b, signature, args)
        v = [m.load(0, m.lane(args[1], q), V16) for q in _QUARTERS]
        seen = b.or_(b.or_(v[0], v[1]), b.or_(v[2], v[3]))
        m.store(b.or_(v[0], b.shl(v[1], constant(V16, 4))), 2, m.lane(args[3], 0))
        m.store(b.or_(v[2], b.shl(v[3], constant(V16, 4))), 2, m.lane(args[3], 1))
        return b.and_(m.any_bit(seen), i64(0xFFFF))

    return signature, codegen


# for i in range(64):
#     values[at + i] = symbols[16 * (i // 32) + i % 16] >> 4 * (i // 16 % 2) & 15
@typed_intrinsic
def unpack_halves(_typing, symbols, values, at):  # type: ignore[no-untyped-def]
    """Inverse of :func:`pack_halves`."""
    signature = types.void(symbols, values, types.int64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = Memory(context, b, signature, args)
        for half in range(2):
            s = m.load(0, i64(16 * half), V16)
            m.store(b.and_(s, constant(V16, 15)), 1, m.lane(args[2], 2 * half))
            m.store(b.and_(b.lshr(s, constant(V16, 4)), constant(V16, 15)), 1, m.lane(args[2], 2 * half + 1))
        return context.get_dummy_value()

    return signature, codegen
