"""The one product that training consists of, as LLVM vector IR: four rows of sixteen sums that stay in registers."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from stemcodecs.entropy.kernels.vector_ir import I32, Memory, i64, typed_intrinsic

__all__ = ["ROWS", "WIDTH", "add_products"]

ROWS, WIDTH = 4, 16
_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, WIDTH)


def _broadcast(b: Any, value: Any) -> Any:
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    first = b.insert_element(undefined, value, ir.Constant(I32, 0))
    return b.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, WIDTH), [ir.Constant(I32, 0)] * WIDTH))


# for r in range(4):
#     for i in range(16):
#         out[out_at + r * out_step + i] += sum(
#             scalars[at + r * row_step + k * step] * vectors[vector_at + k * vector_step + i] for k in range(n))
@typed_intrinsic
def add_products(  # type: ignore[no-untyped-def]
    _typing, scalars, at, row_step, step, vectors, vector_at, vector_step, n, out, out_at, out_step
):
    """Add products of numbers and rows of sixteen to four rows; all arrays are float32, flat, and unchecked."""
    i = types.int64
    signature = types.void(scalars, i, i, i, vectors, i, i, i, out, i, i)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = Memory(context, b, signature, args)
        multiply_add = b.module.declare_intrinsic(
            "llvm.fmuladd.v16f32", fnty=ir.FunctionType(_VECTOR, [_VECTOR, _VECTOR, _VECTOR])
        )
        places = [b.add(args[9], b.mul(args[10], i64(r))) for r in range(ROWS)]
        sums = [cgutils.alloca_once(b, _VECTOR) for _ in range(ROWS)]
        for place, total in zip(places, sums, strict=True):
            b.store(m.load(8, place, _VECTOR), total)
        with cgutils.for_range(b, args[7]) as loop:
            vector = m.load(4, b.add(args[5], b.mul(args[6], loop.index)), _VECTOR)
            here = b.add(args[1], b.mul(args[3], loop.index))
            for r, total in enumerate(sums):
                scalar = m.load(0, b.add(here, b.mul(args[2], i64(r))), _FLOAT)
                b.store(b.call(multiply_add, [_broadcast(b, scalar), vector, b.load(total, typ=_VECTOR)]), total)
        for place, total in zip(places, sums, strict=True):
            m.store(b.load(total, typ=_VECTOR), 8, place)
        return context.get_dummy_value()

    return signature, codegen
