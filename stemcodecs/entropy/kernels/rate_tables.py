"""Which table each lane of a context pixel uses: one look-up by the predicted rate, in two forms that agree.

As in :mod:`stemcodecs.entropy.kernels.rans_steps`, one form uses AVX-512 and the other no instruction of one processor.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from stemcodecs.entropy.kernels.rans import LUT_SIZE
from stemcodecs.entropy.kernels.vector_ir import (
    I16,
    I32,
    I64,
    V16,
    V32,
    Memory,
    constant,
    i64,
    is_native,
    splat,
    typed_intrinsic,
)

_LUT = 4
"""Argument of the look-up table."""
V16X32 = ir.VectorType(I16, 32)


# for i in range(64):
#     index = min(max((rate[i] - base) >> shift, 0), 127)
#     offsets[to + i] = first + lut[class_, index] * stride
@typed_intrinsic
def select_tables(_typing, simd, rate, base, shift, lut, class_, first, stride, offsets, to):  # type: ignore[no-untyped-def]
    """Table offset of every lane from its rate.

    rate : int32[64]; lut : int16[n, 128], of which one row fits into registers; offsets : int32, written from ``to``.
    """
    signature = types.void(
        simd, rate, types.int64, types.int64, lut, types.int64, types.int64, types.int64, offsets, types.int64
    )

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = Memory(context, b, signature, args)
        base, shift, first, stride = (splat(b, args[k]) for k in (2, 3, 6, 7))
        row = b.mul(args[5], i64(LUT_SIZE))
        indices = []
        for at in range(0, 64, 16):
            r = b.ashr(b.sub(m.load(1, i64(at), V32), base), shift)
            r = b.select(b.icmp_signed(">", r, constant(V32, 0)), r, constant(V32, 0))
            indices.append(b.select(b.icmp_signed("<", r, constant(V32, LUT_SIZE - 1)), r, constant(V32, LUT_SIZE - 1)))
        look_up = _look_up_registers if is_native(signature) else _look_up_memory
        for at, k in zip(range(0, 64, 16), look_up(m, row, indices), strict=True):
            m.store(b.add(b.mul(b.zext(k, V32), stride), first), 8, b.add(args[9], i64(at)))
        return context.get_dummy_value()

    return signature, codegen


def _look_up_registers(m: Memory, row: Any, indices: list[Any]) -> list[Any]:
    """Sixteen-bit entries ``row + index`` of a table of 128, which fits into four registers."""
    b = m.b
    quarters = [m.load(_LUT, b.add(row, i64(32 * i)), V16X32) for i in range(4)]
    permute = b.module.declare_intrinsic(
        "llvm.x86.avx512.vpermi2var.hi.512", fnty=ir.FunctionType(V16X32, [V16X32] * 3)
    )
    join = ir.Constant(ir.VectorType(I32, 32), [ir.Constant(I32, i) for i in range(32)])
    out = []
    for pair in (0, 2):
        index = b.shuffle_vector(b.trunc(indices[pair], V16), b.trunc(indices[pair + 1], V16), join)
        low = b.call(permute, [quarters[0], index, quarters[1]])
        high = b.call(permute, [quarters[2], index, quarters[3]])
        k = b.select(b.icmp_unsigned(">", index, constant(V16X32, 63)), high, low)
        for first in (0, 16):
            lanes = ir.Constant(V32, [ir.Constant(I32, first + i) for i in range(16)])
            out.append(b.shuffle_vector(k, k, lanes))
    return out


def _look_up_memory(m: Memory, row: Any, indices: list[Any]) -> list[Any]:
    """The same, one load a lane."""
    b = m.b
    out = []
    for index in indices:
        k = ir.Constant(V16, ir.Undefined)
        for lane in range(16):
            at = b.add(row, b.zext(b.extract_element(index, ir.Constant(I32, lane)), I64))
            k = b.insert_element(k, m.load(_LUT, at, I16), ir.Constant(I32, lane))
        out.append(k)
    return out
