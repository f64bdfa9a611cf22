"""Layers of the network for 64 lanes, written as LLVM vector IR: int16 inputs and weights, int32 sums modulo 2**32.

Two inputs of a lane lie in one int32, so that one multiply-add instruction of the processor does two of them in every
lane. LLVM does not find that instruction by itself, so it is called by name, for the vectors that the *type* of the
first argument says (:func:`stemcodecs.learned.path.network_path`); with ``None`` no instruction of one processor is
named. All give the same bits.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from stemcodecs.entropy.kernels.vector_ir import I16, I32, V16, V32, Memory, constant, i64, splat, typed_intrinsic
from stemcodecs.learned.path import vector_bits

__all__ = ["ALL_QUARTERS", "any_in_use", "hidden_units", "output_units", "pack_pair"]

QUARTERS = range(4)
ALL_QUARTERS = 15
"""Bit mask of the lanes' quarters that an intrinsic works on."""
_PAIRS = ir.VectorType(I16, 32)
_MULTIPLY_ADD = {128: "llvm.x86.sse2.pmadd.wd", 256: "llvm.x86.avx2.pmadd.wd", 512: "llvm.x86.avx512.pmaddw.d.512"}
# Sums of so many units, of one quarter of the lanes or of 512 bits of all four, fit the registers together.
_UNITS_AT_ONCE = {0: 2, 128: 2, 256: 4, 512: 5}


def _mask(indices: range) -> ir.Constant:
    return ir.Constant(ir.VectorType(I32, len(indices)), [ir.Constant(I32, i) for i in indices])


def _multiply_add(b: Any, bits: int, x: Any, w: Any) -> Any:
    """``x_low * w_low + x_high * w_high`` of the two int16 in every int32."""
    if bits == 0:
        half = constant(V32, 16)
        low = b.mul(b.ashr(b.shl(x, half), half), b.ashr(b.shl(w, half), half))
        return b.add(low, b.mul(b.ashr(x, half), b.ashr(w, half)))
    x, w = b.bitcast(x, _PAIRS), b.bitcast(w, _PAIRS)
    undefined, n = ir.Constant(_PAIRS, ir.Undefined), bits // 16
    kind, result = ir.VectorType(I16, n), ir.VectorType(I32, n // 2)
    function = cgutils.get_or_insert_function(b.module, ir.FunctionType(result, [kind, kind]), _MULTIPLY_ADD[bits])
    parts = [
        b.call(function, [b.shuffle_vector(v, undefined, _mask(range(i, i + n))) for v in (x, w)])
        for i in range(0, 32, n)
    ]
    while len(parts) > 1:
        count = _mask(range(2 * parts[0].type.count))
        parts = [b.shuffle_vector(one, other, count) for one, other in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def any_in_use(b: Any, mask: Any, quarters: list[int]) -> Any:
    """Whether one of some quarters is in a bit mask."""
    return b.icmp_signed("!=", b.and_(mask, i64(sum(1 << q for q in quarters))), i64(0))


def _sums(m: Memory, bits: int, units: list[int], quarters: list[int], args: Any) -> list[list[Any]]:
    """Sums of some units over all inputs, in some quarters of the lanes: V32 by unit and quarter."""
    b, pairs = m.b, args[2]
    totals = []
    for unit in units:
        start = splat(b, b.sext(m.load(5, b.add(args[6], i64(unit)), I32), ir.IntType(64)))
        row = [cgutils.alloca_once(b, V32) for _ in quarters]
        for total in row:
            b.store(start, total)
        totals.append(row)
    with cgutils.for_range(b, pairs) as loop:
        at = b.mul(loop.index, i64(64))
        inputs = [m.load(1, m.lane(at, quarter), V32) for quarter in quarters]
        for unit, row in zip(units, totals, strict=True):
            index = b.add(b.add(args[4], b.mul(pairs, i64(unit))), loop.index)
            weight = splat(b, b.sext(m.load(3, index, I32), ir.IntType(64)))
            for total, x in zip(row, inputs, strict=True):
                b.store(b.add(b.load(total, typ=V32), _multiply_add(b, bits, x, weight)), total)
    return [[b.load(total, typ=V32) for total in row] for row in totals]


def _units(count: int, store: Any) -> Any:
    """Signature and code of a layer's intrinsic for ``count`` units; ``store`` gets their shifted sums."""

    def define(path: Any, x: Any, w: Any, bias: Any, out: Any) -> Any:
        i = types.int64
        signature = types.void(path, x, i, w, i, bias, i, i, out, i, i)

        def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
            m = Memory(context, b, signature, args)
            bits = vector_bits(signature.args[0])
            shift = splat(b, args[7])

            def run(quarters: list[int]) -> None:
                for unit in range(0, count, _UNITS_AT_ONCE[bits]):
                    units = list(range(unit, min(count, unit + _UNITS_AT_ONCE[bits])))
                    sums = _sums(m, bits, units, quarters, args)
                    shifted = [[b.ashr(total, shift) for total in row] for row in sums]
                    store(m, args, units, quarters, shifted)

            if bits == 512:
                # A weight is loaded once for all lanes, but few positions are in the first quarter alone.
                with b.if_else(any_in_use(b, args[10], [1, 2, 3])) as (several, one):
                    with several:
                        run([0, 1, 2, 3])
                    with one:
                        run([0])
            else:
                for quarter in QUARTERS:
                    with b.if_then(any_in_use(b, args[10], [quarter])):
                        run([quarter])
            return context.get_dummy_value()

        return signature, codegen

    return define


def _store_hidden(m: Memory, args: Any, units: list[int], quarters: list[int], values: Any) -> None:
    b, low, high = m.b, constant(V32, 0), constant(V32, 32767)
    for first in range(0, len(units), 2):
        for q, quarter in enumerate(quarters):
            pair = []
            for row in (values[first], values[first + 1]):
                v = b.select(b.icmp_signed(">", row[q], low), row[q], low)
                pair.append(b.select(b.icmp_signed("<", v, high), v, high))
            place = b.add(args[9], i64(32 * units[first] + 16 * quarter))
            m.store(b.or_(pair[0], b.shl(pair[1], constant(V32, 16))), 8, place)


def _store_outputs(m: Memory, args: Any, units: list[int], quarters: list[int], values: Any) -> None:
    for unit, row in zip(units, values, strict=True):
        for q, quarter in enumerate(quarters):
            m.store(row[q], 8, m.b.add(args[9], i64(64 * unit + 16 * quarter)))


# for r in range(4):
#     for i in range(64):
#         h = (bias[bias_at + r] + sum(int16 x_j[i] * int16 w_j[r] for j in range(2 * pairs))) >> shift
#         out[out_at + 64 * (r // 2) + i], half r % 2 = clip(h, 0, 32767)
@typed_intrinsic
def hidden_units(  # type: ignore[no-untyped-def]
    _typing, path, x, pairs, w, w_at, bias, bias_at, shift, out, out_at, quarters
):
    """Four units of a hidden layer: x, out : int32[pairs * 64], two int16 each; w : int32, ``pairs`` a unit; quarters :
    bit mask of those that hold a lane in use, the others may be left out.
    """
    return _units(4, _store_hidden)(path, x, w, bias, out)


# The same with 5 units, without the clip, each to int32 out[out_at + 64 * r + i].
@typed_intrinsic
def output_units(  # type: ignore[no-untyped-def]
    _typing, path, x, pairs, w, w_at, bias, bias_at, shift, out, out_at, quarters
):
    """The five units of the last layer."""
    return _units(5, _store_outputs)(path, x, w, bias, out)


# for i in range(64):
#     out[at + i] = uint16(residuals[first + i]) | residuals[second + i] << 16
@typed_intrinsic
def pack_pair(_typing, residuals, first, second, out, at):  # type: ignore[no-untyped-def]
    """Two rows of int16 as pairs: residuals : int16, flat; out : int32, flat."""
    signature = types.void(residuals, types.int64, types.int64, out, types.int64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = Memory(context, b, signature, args)
        for q in QUARTERS:
            low, high = (b.zext(m.load(0, m.lane(args[k], q), V16), V32) for k in (1, 2))
            m.store(b.or_(low, b.shl(high, constant(V32, 16))), 3, m.lane(args[4], q))
        return context.get_dummy_value()

    return signature, codegen
