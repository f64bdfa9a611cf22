"""Pieces of LLVM vector IR that the intrinsics of this room are built from: sixteen lanes of a NumPy array at a time.

An *intrinsic* is machine code that Numba writes into the calling kernel. A function of its own would count references
to its arrays, which costs more than the work itself. Above every intrinsic stands what it does, in scalar Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

I1, I8, I16, I32, I64 = (ir.IntType(width) for width in (1, 8, 16, 32, 64))
V1, V8, V16, V32 = (ir.VectorType(kind, 16) for kind in (I1, I8, I16, I32))

P = ParamSpec("P")


def typed_intrinsic(definition: Callable[Concatenate[Any, P], Any]) -> Callable[P, Any]:
    """:func:`numba.extending.intrinsic`, with the arguments that kernels call it with: all but the typing context."""
    made: Any = intrinsic(definition)
    return made  # type: ignore[no-any-return]


def i64(value: int) -> ir.Constant:
    """A 64-bit integer."""
    return ir.Constant(I64, value)


def constant(kind: ir.VectorType, value: int) -> ir.Constant:
    """The same number in every lane."""
    return ir.Constant(kind, [ir.Constant(kind.element, value)] * kind.count)


def splat(b: Any, value: Any, kind: ir.VectorType = V32) -> Any:
    """A 64-bit scalar, cut to the width of a lane, in all sixteen lanes."""
    undefined = ir.Constant(kind, ir.Undefined)
    first = b.insert_element(undefined, b.trunc(value, kind.element), ir.Constant(I32, 0))
    return b.shuffle_vector(first, undefined, constant(V32, 0))


def is_native(signature: Any) -> bool:
    """Whether the *type* of the first argument, :func:`stemcodecs.entropy.kernels.cpu.simd_path`, asks for AVX-512."""
    return not isinstance(signature.args[0], types.NoneType)


class Memory:
    """The NumPy arrays that an intrinsic received, by the number of the argument; an index counts items, unchecked."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        self.context, self.b, self.signature, self.args = context, builder, signature, args

    def _itemsize(self, k: int) -> int:
        dtype = self.signature.args[k].dtype
        return 1 if isinstance(dtype, types.Boolean) else dtype.bitwidth // 8

    def base(self, k: int) -> Any:
        """Address of the first item."""
        return self.b.ptrtoint(
            self.context.make_array(self.signature.args[k])(self.context, self.b, self.args[k]).data, I64
        )

    def pointer(self, k: int, index: Any, kind: ir.Type) -> Any:
        """Pointer to the item at ``index``."""
        offset = self.b.mul(index, i64(self._itemsize(k)))
        return self.b.inttoptr(self.b.add(self.base(k), offset), ir.PointerType(kind))

    def load(self, k: int, index: Any, kind: ir.Type) -> Any:
        """A scalar or the sixteen items from ``index`` on."""
        value = self.b.load(self.pointer(k, index, kind), typ=kind)
        value.align = self._itemsize(k)
        return value

    def store(self, value: Any, k: int, index: Any) -> None:
        """Inverse of :meth:`load`."""
        self.b.store(value, self.pointer(k, index, value.type), align=self._itemsize(k))

    def lane(self, at: Any, quarter: int) -> Any:
        """Index of the first of sixteen lanes of a row that begins at ``at``."""
        return self.b.add(at, i64(16 * quarter))

    def any_bit(self, value: Any) -> Any:
        """OR of all lanes, sign-extended to 64 bits."""
        element = value.type.element
        name = f"llvm.vector.reduce.or.v16i{element.width}"
        reduce = self.b.module.declare_intrinsic(name, fnty=ir.FunctionType(element, [value.type]))
        return self.b.sext(self.b.call(reduce, [value]), I64)
