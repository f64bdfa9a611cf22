"""Work on one row of 64 lanes, written as LLVM vector IR without any instruction of one processor in it.

Numba would turn the same loops into scalar code: it cannot see that an index into a flat array is not negative. And a
function of its own would count references to its arrays, which costs more than the work itself: intrinsics do not.
Every function takes flat arrays and the index ``at`` of the row's first lane, and checks nothing.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

I8, I16, I32, I64 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
V8, V16, V32 = ir.VectorType(I8, 16), ir.VectorType(I16, 16), ir.VectorType(I32, 16)
_LANES = 64
_QUARTERS = range(4)


def _i64(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


def _const(kind: ir.VectorType, value: int) -> ir.Constant:
    return ir.Constant(kind, [ir.Constant(kind.element, value)] * 16)


class _Memory:
    """Loads and stores of sixteen lanes in the arrays that an intrinsic received."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        self.context, self.b, self.signature, self.args = context, builder, signature, args

    def _itemsize(self, k: int) -> int:
        dtype = self.signature.args[k].dtype
        return 1 if isinstance(dtype, types.Boolean) else dtype.bitwidth // 8

    def pointer(self, k: int, index: Any, kind: ir.Type) -> Any:
        b = self.b
        array = self.signature.args[k]
        base = b.ptrtoint(self.context.make_array(array)(self.context, b, self.args[k]).data, I64)
        offset = b.mul(index, _i64(self._itemsize(k)))
        return b.inttoptr(b.add(base, offset), ir.PointerType(kind))

    def load(self, k: int, index: Any, kind: ir.Type) -> Any:
        value = self.b.load(self.pointer(k, index, kind), typ=kind)
        value.align = self._itemsize(k)
        return value

    def store(self, value: Any, k: int, index: Any) -> None:
        self.b.store(value, self.pointer(k, index, value.type), align=self._itemsize(k))

    def lane(self, at: Any, quarter: int) -> Any:
        return self.b.add(at, _i64(16 * quarter))

    def splat(self, value: Any) -> Any:
        """A 64-bit scalar in sixteen 32-bit lanes."""
        b = self.b
        undefined = ir.Constant(V32, ir.Undefined)
        first = b.insert_element(undefined, b.trunc(value, I32), ir.Constant(I32, 0))
        return b.shuffle_vector(first, undefined, _const(V32, 0))

    def any_bit(self, value: Any) -> Any:
        """OR of all lanes, sign-extended to 64 bits."""
        element = value.type.element
        name = f"llvm.vector.reduce.or.v16i{element.width}"
        reduce = self.b.module.declare_intrinsic(name, fnty=ir.FunctionType(element, [value.type]))
        return self.b.sext(self.b.call(reduce, [value]), I64)


@intrinsic
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
        m = _Memory(context, b, signature, args)
        row, mixture = args[1], args[7]
        neighbours = context.make_array(signature.args[2])(context, b, args[2])
        count = b.extract_value(neighbours.shape, 0)
        size = b.add(count, _i64(2))

        def rates(first: Any) -> list[Any]:
            def coefficient(i: Any) -> Any:
                return m.splat(b.sext(m.load(3, b.add(first, i), I32), I64))

            constant, slope = coefficient(_i64(0)), coefficient(_i64(1))
            sums = [cgutils.alloca_once(b, V32) for _ in _QUARTERS]
            for quarter, total in enumerate(sums):
                lanes = m.load(5, _i64(16 * quarter), V32)
                b.store(b.add(constant, b.mul(slope, lanes)), total)
            with cgutils.for_range(b, count) as loop:
                factor = coefficient(b.add(loop.index, _i64(2)))
                start = b.mul(b.add(row, m.load(2, loop.index, I64)), _i64(_LANES))
                for quarter, total in enumerate(sums):
                    lanes = b.zext(m.load(0, m.lane(start, quarter), V16), V32)
                    b.store(b.add(b.load(total, typ=V32), b.mul(factor, lanes)), total)
            return [b.load(total, typ=V32) for total in sums]

        second = b.add(args[4], size)
        for quarter, lanes in enumerate(rates(b.select(b.icmp_signed("==", mixture, _i64(1)), second, args[4]))):
            m.store(lanes, 8, _i64(16 * quarter))
        with b.if_then(b.icmp_signed("==", mixture, _i64(2))):
            for quarter, other in enumerate(rates(second)):
                at = _i64(16 * quarter)
                chosen = b.icmp_unsigned("!=", m.load(6, at, V8), _const(V8, 0))
                m.store(b.select(chosen, other, m.load(8, at, V32)), 8, at)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def centre_row(_typing, rate, shift, centre):  # type: ignore[no-untyped-def]
    """Whole counts of the predicted rate, the zero of the residuals: rate, centre : int32[64]."""
    signature = types.void(rate, types.int64, centre)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = _Memory(context, b, signature, args)
        shift, zero, top = m.splat(args[1]), _const(V32, 0), _const(V32, 65535)
        for q in _QUARTERS:
            r = m.load(0, _i64(16 * q), V32)
            r = b.ashr(b.select(b.icmp_signed(">", r, zero), r, zero), shift)
            m.store(b.select(b.icmp_signed("<", r, top), r, top), 2, _i64(16 * q))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def any_bits(_typing, values, at):  # type: ignore[no-untyped-def]
    """OR of the 64 values of a row: at least the largest of them, and less than twice that."""
    signature = types.int64(values, types.int64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = _Memory(context, b, signature, args)
        v = [m.load(0, m.lane(args[1], q), V16) for q in _QUARTERS]
        return b.and_(m.any_bit(b.or_(b.or_(v[0], v[1]), b.or_(v[2], v[3]))), _i64(0xFFFF))

    return signature, codegen


@intrinsic
def copy_values(_typing, values, at, symbols, to):  # type: ignore[no-untyped-def]
    """Copy the 64 values of a row to ``symbols[to:]``; returns their OR, at least the largest and below twice that."""
    signature = types.int64(values, types.int64, symbols, types.int64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = _Memory(context, b, signature, args)
        v = [m.load(0, m.lane(args[1], q), V16) for q in _QUARTERS]
        for q in _QUARTERS:
            m.store(v[q], 2, m.lane(args[3], q))
        seen = b.or_(b.or_(v[0], v[1]), b.or_(v[2], v[3]))
        return b.and_(m.any_bit(seen), _i64(0xFFFF))

    return signature, codegen


@intrinsic
def differing_bits(_typing, values, at, value):  # type: ignore[no-untyped-def]
    """OR of the bits in which the 64 values of a row differ from ``value``."""
    signature = types.int64(values, types.int64, types.int64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = _Memory(context, b, signature, args)
        same = b.trunc(m.splat(args[2]), V16)
        v = [b.xor(m.load(0, m.lane(args[1], q), V16), same) for q in _QUARTERS]
        seen = b.or_(b.or_(v[0], v[1]), b.or_(v[2], v[3]))
        return b.and_(m.any_bit(seen), _i64(0xFFFF))

    return signature, codegen


@intrinsic
def split_values(_typing, values, at, centre, bias, shift, symbols, low, to):  # type: ignore[no-untyped-def]
    """``d = value - centre + bias`` into ``symbols = d >> shift`` and ``low``, the bits below.

    centre : int32[64]; symbols, low : uint16, written from index ``to``. Returns the OR of the symbols before they are
    cut to 16 bits: below 0 or above 255 if any of them is not a symbol.
    """
    signature = types.int64(values, types.int64, centre, types.int64, types.int64, symbols, low, types.int64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = _Memory(context, b, signature, args)
        at, bias, shift, to = args[1], m.splat(args[3]), m.splat(args[4]), args[7]
        mask = b.sub(b.shl(_const(V32, 1), shift), _const(V32, 1))
        seen = _const(V32, 0)
        for q in _QUARTERS:
            value = b.zext(m.load(0, m.lane(at, q), V16), V32)
            d = b.add(b.sub(value, m.load(2, _i64(16 * q), V32)), bias)
            symbol = b.ashr(d, shift)
            seen = b.or_(seen, symbol)
            m.store(b.trunc(symbol, V16), 5, m.lane(to, q))
            m.store(b.trunc(b.and_(d, mask), V16), 6, m.lane(to, q))
        return m.any_bit(seen)

    return signature, codegen


@intrinsic
def join_values(_typing, symbols, low, centre, bias, shift, values, at):  # type: ignore[no-untyped-def]
    """Inverse of :func:`split_values`, modulo 2**16."""
    signature = types.void(symbols, low, centre, types.int64, types.int64, values, types.int64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = _Memory(context, b, signature, args)
        bias, shift, at = m.splat(args[3]), m.splat(args[4]), args[6]
        some = b.icmp_signed("!=", shift, _const(V32, 0))
        for q in _QUARTERS:
            symbol = b.zext(m.load(0, _i64(16 * q), V16), V32)
            bits = b.zext(m.load(1, _i64(16 * q), V16), V32)
            bits = b.select(some, bits, _const(V32, 0))
            d = b.sub(b.add(b.or_(b.shl(symbol, shift), bits), m.load(2, _i64(16 * q), V32)), bias)
            m.store(b.trunc(d, V16), 5, m.lane(at, q))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def pack_quarters(_typing, values, at, symbols, to):  # type: ignore[no-untyped-def]
    """Four counts below 4 a symbol, lane i with 16 + i, 32 + i, 48 + i; returns the OR of the counts."""
    signature = types.int64(values, types.int64, symbols, types.int64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = _Memory(context, b, signature, args)
        v = [m.load(0, m.lane(args[1], q), V16) for q in _QUARTERS]
        seen = b.or_(b.or_(v[0], v[1]), b.or_(v[2], v[3]))
        packed = [b.shl(v[q], _const(V16, 2 * q)) for q in _QUARTERS]
        m.store(b.or_(b.or_(packed[0], packed[1]), b.or_(packed[2], packed[3])), 2, m.lane(args[3], 0))
        return b.and_(m.any_bit(seen), _i64(0xFFFF))

    return signature, codegen


@intrinsic
def unpack_quarters(_typing, symbols, values, at):  # type: ignore[no-untyped-def]
    """Inverse of :func:`pack_quarters`."""
    signature = types.void(symbols, values, types.int64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = _Memory(context, b, signature, args)
        s = m.load(0, _i64(0), V16)
        for q in _QUARTERS:
            m.store(b.and_(b.lshr(s, _const(V16, 2 * q)), _const(V16, 3)), 1, m.lane(args[2], q))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def pack_halves(_typing, values, at, symbols, to):  # type: ignore[no-untyped-def]
    """Two counts below 16 a symbol, lane i with 16 + i and 32 + i with 48 + i; returns the OR of the counts."""
    signature = types.int64(values, types.int64, symbols, types.int64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = _Memory(context, b, signature, args)
        v = [m.load(0, m.lane(args[1], q), V16) for q in _QUARTERS]
        seen = b.or_(b.or_(v[0], v[1]), b.or_(v[2], v[3]))
        m.store(b.or_(v[0], b.shl(v[1], _const(V16, 4))), 2, m.lane(args[3], 0))
        m.store(b.or_(v[2], b.shl(v[3], _const(V16, 4))), 2, m.lane(args[3], 1))
        return b.and_(m.any_bit(seen), _i64(0xFFFF))

    return signature, codegen


@intrinsic
def unpack_halves(_typing, symbols, values, at):  # type: ignore[no-untyped-def]
    """Inverse of :func:`pack_halves`."""
    signature = types.void(symbols, values, types.int64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = _Memory(context, b, signature, args)
        for half in range(2):
            s = m.load(0, _i64(16 * half), V16)
            m.store(b.and_(s, _const(V16, 15)), 1, m.lane(args[2], 2 * half))
            m.store(b.and_(b.lshr(s, _const(V16, 4)), _const(V16, 15)), 1, m.lane(args[2], 2 * half + 1))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def fill_lanes(_typing, lanes, to, value):  # type: ignore[no-untyped-def]
    """Put one value into 64 lanes of an int32 array, from index ``to``."""
    signature = types.void(lanes, types.int64, types.int64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = _Memory(context, b, signature, args)
        for q in _QUARTERS:
            m.store(m.splat(args[2]), 0, m.lane(args[1], q))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def prefetch_row(_typing, values, at):  # type: ignore[no-untyped-def]
    """Ask for the 128 bytes of a row of uint16 before it is needed; any index serves."""
    signature = types.void(values, types.int64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = _Memory(context, b, signature, args)
        kind = ir.FunctionType(ir.VoidType(), [ir.PointerType(I8), I32, I32, I32])
        prefetch = b.module.declare_intrinsic("llvm.prefetch.p0", fnty=kind)
        read, keep, data = (ir.Constant(I32, i) for i in (0, 3, 1))
        for line in (0, 32):
            b.call(prefetch, [m.pointer(0, b.add(args[1], _i64(line)), I8), read, keep, data])
        return context.get_dummy_value()

    return signature, codegen
