"""Arrays whose references are not counted.

Numba counts a reference to an array wherever a variable takes it, also in an inlined function, and in loops with many
branches it cannot take all of these counts out again: with them a kernel took half as long again. What a kernel
received lives until it returns, so that it may borrow it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["borrowed"]

T = TypeVar("T")


# borrowed = record; nothing that a program could see: the arrays have no owner that a reference could be counted of
@intrinsic
def _borrowed(_typing, record):  # type: ignore[no-untyped-def]
    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        def without_owner(kind: Any, value: Any) -> Any:
            array = context.make_array(kind)(context, b, value)
            array.meminfo = ir.Constant(array.meminfo.type, None)
            array.parent = ir.Constant(array.parent.type, None)
            return array._getvalue()

        value = args[0]
        if isinstance(record, types.Array):
            return without_owner(record, value)
        for k, kind in enumerate(record):
            if isinstance(kind, types.Array):
                value = b.insert_value(value, without_owner(kind, b.extract_value(value, k)), k)
        return value

    return record(record), codegen


if TYPE_CHECKING:

    def borrowed(record: T) -> T:
        """The same array, or named tuple of arrays, uncounted.

        Only for arguments of the kernel that calls it, which live until it returns: of an array that the kernel itself
        has made, Numba drops the last counted reference where it is last named, and the memory is gone.
        """
        return record

else:
    borrowed = _borrowed
