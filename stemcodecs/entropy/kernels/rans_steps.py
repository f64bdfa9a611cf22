"""Steps of the interleaved rANS coder, sixteen lanes at a time, written as LLVM vector IR.

A *step* codes one symbol in each active lane of one block. State ``x`` stays in ``[2**15, 2**31)``; a symbol of
frequency ``f`` out of ``2**bits`` and cumulative frequency ``c`` turns it into
``(x // f << bits) + c + x % f`` (Duda, arXiv:1311.2540; interleaving: Giesen, arXiv:1402.3392).

Every step comes in two forms, which move the same bytes: one uses the compress, expand and permute instructions of
AVX-512, the other no instruction of one processor. Numba picks by the *type* of the first argument, which is that of
:func:`stemcodecs.entropy.kernels.cpu.simd_path`: ``bool`` for AVX-512, ``None`` for the portable form. The code is
written into the calling kernel: a call would cost as much as the step.

Nothing here checks a bound. The callers guarantee that

* ``words`` has 64 words of slack on both sides of ``pos``,
* ``offsets`` point at tables: ``2**bits`` entries to decode, 256 to encode, and symbols are below 256.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from stemcodecs.entropy.kernels.rans import LUT_SIZE, STATE_LOW

I1, I16, I32, I64 = ir.IntType(1), ir.IntType(16), ir.IntType(32), ir.IntType(64)
V1, V16, V32 = (ir.VectorType(t, 16) for t in (I1, I16, I32))
V16X32 = ir.VectorType(I16, 32)
VF32 = ir.VectorType(ir.FloatType(), 16)


def _const(vector: ir.VectorType, value: int) -> ir.Constant:
    return ir.Constant(vector, [ir.Constant(vector.element, value)] * 16)


def _splat(builder: Any, value: Any, vector: ir.VectorType) -> Any:
    undef = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undef, value, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, undef, _const(V32, 0))


class _Operands:
    """Addresses into the NumPy arrays that an intrinsic received."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        self.context, self.builder, self.signature, self.args = context, builder, signature, args

    def address(self, argument: int, index: Any, itemsize: int) -> Any:
        array = self.context.make_array(self.signature.args[argument])(self.context, self.builder, self.args[argument])
        base = self.builder.ptrtoint(array.data, I64)
        if index is None:
            return base
        return self.builder.add(base, self.builder.mul(index, ir.Constant(I64, itemsize)))

    def pointer(self, argument: int, index: Any, itemsize: int, vector: ir.Type) -> Any:
        address = self.address(argument, index, itemsize)
        return self.builder.inttoptr(address, ir.PointerType(vector))

    def load(self, argument: int, index: Any, itemsize: int, vector: ir.VectorType) -> Any:
        value = self.builder.load(self.pointer(argument, index, itemsize, vector), typ=vector)
        value.align = itemsize
        return value

    def store(self, value: Any, argument: int, index: Any, itemsize: int, vector: ir.VectorType) -> None:
        self.builder.store(value, self.pointer(argument, index, itemsize, vector), align=itemsize)

    def gather(self, argument: int, index: Any) -> Any:
        """Sixteen 32-bit entries of a table."""
        b = self.builder
        base = self.address(argument, None, 4)
        result = ir.Constant(V32, ir.Undefined)
        # Sixteen scalar loads: on Zen 4 a fifth faster than the gather instruction. Indices leave the vector in pairs,
        # for that is what such loads wait for.
        pairs = b.bitcast(index, ir.VectorType(I64, 8))
        for pair in range(8):
            both = b.extract_element(pairs, ir.Constant(I32, pair))
            for lane, at in (
                (2 * pair, b.and_(both, ir.Constant(I64, 0xFFFFFFFF))),
                (2 * pair + 1, b.lshr(both, ir.Constant(I64, 32))),
            ):
                address = b.add(base, b.shl(at, ir.Constant(I64, 2)))
                value = b.load(b.inttoptr(address, ir.PointerType(I32)), typ=I32)
                result = b.insert_element(result, value, ir.Constant(I32, lane))
        return result


def _count(b: Any, mask: Any) -> Any:
    return b.zext(b.ctpop(b.bitcast(mask, I16)), I64)


def _lane_bits(b: Any, mask: Any) -> list[Any]:
    """The bits of a lane mask as 64-bit integers, lane 0 first."""
    whole = b.zext(b.bitcast(mask, I16), I64)
    return [b.and_(b.lshr(whole, ir.Constant(I64, i)), ir.Constant(I64, 1)) for i in range(16)]


def _refill(ops: _Operands, native: bool, x: Any, active: Any, words: int, pos: Any) -> tuple[Any, Any]:
    """Read one 16-bit word, in lane order, into every active lane that fell below the lower bound."""
    b = ops.builder
    low = b.and_(b.icmp_unsigned("<", x, _const(V32, STATE_LOW)), active)
    if native:
        word = b.zext(ops.load(words, pos, 2, V16), V32)
        expand = b.module.declare_intrinsic(
            "llvm.x86.avx512.mask.expand.v16i32", fnty=ir.FunctionType(V32, [V32, V32, V1])
        )
        word = b.call(expand, [word, _const(V32, 0), low])
        pos = b.add(pos, _count(b, low))
    else:
        word = ir.Constant(V16, ir.Undefined)
        for lane, bit in enumerate(_lane_bits(b, low)):
            word = b.insert_element(word, ops.load(words, pos, 2, I16), ir.Constant(I32, lane))
            pos = b.add(pos, bit)
        word = b.zext(word, V32)
    return b.select(low, b.or_(b.shl(x, _const(V32, 16)), word), x), pos


def _spill(ops: _Operands, native: bool, x: Any, full: Any, words: int, pos: Any) -> tuple[Any, Any]:
    """Write the low word of every lane in ``full``, in lane order, below ``pos``."""
    b = ops.builder
    if native:
        count = _count(b, full)
        pos = b.sub(pos, count)
        compress = b.module.declare_intrinsic(
            "llvm.x86.avx512.mask.compress.v16i32", fnty=ir.FunctionType(V32, [V32, V32, V1])
        )
        word = b.trunc(b.call(compress, [x, _const(V32, 0), full]), V16)
        # The first `count` of sixteen; computed in 32 bits, where a shift by sixteen is defined.
        count32 = b.trunc(count, I32)
        first = b.trunc(b.sub(b.shl(ir.Constant(I32, 1), count32), ir.Constant(I32, 1)), I16)
        store = b.module.declare_intrinsic(
            "llvm.masked.store.v16i16.p0",
            fnty=ir.FunctionType(ir.VoidType(), [V16, ir.PointerType(V16), I32, V1]),
        )
        b.call(store, [word, ops.pointer(words, pos, 2, V16), ir.Constant(I32, 2), b.bitcast(first, V1)])
    else:
        low = b.trunc(x, V16)
        for lane, bit in reversed(list(enumerate(_lane_bits(b, full)))):
            # Every lane writes; only those in `full` keep their place.
            word = b.extract_element(low, ir.Constant(I32, lane))
            ops.store(word, words, b.sub(pos, ir.Constant(I64, 1)), 2, I16)
            pos = b.sub(pos, bit)
    return b.select(full, b.lshr(x, _const(V32, 16)), x), pos


def _is_native(signature: Any) -> bool:
    return not isinstance(signature.args[0], types.NoneType)


@intrinsic
def decode_step(  # type: ignore[no-untyped-def]
    _typing, simd, states, block, tables, offsets, at, bits, active, words, pos, symbols, symbols_at
):
    """Decode one symbol in each active lane of a block; returns the new word position.

    states : uint32[64], advanced in place; block : first lane; tables : uint32 decode entries;
    offsets : int32[64], offset of each lane's table, read from index ``at``; bits : probability bits;
    active : bit mask of lanes; words, pos : the stream; symbols : uint16, written at ``symbols_at``.
    """
    signature = types.int64(
        simd,
        states,
        types.int64,
        tables,
        offsets,
        types.int64,
        types.int64,
        types.int64,
        words,
        types.int64,
        symbols,
        types.int64,
    )

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        ops = _Operands(context, b, signature, args)
        block, at, bits, active_bits, pos = args[2], args[5], args[6], args[7], args[9]
        active = b.bitcast(b.trunc(active_bits, I16), V1)
        bits32 = _splat(b, b.trunc(bits, I32), V32)
        x = ops.load(1, block, 4, V32)
        slot = b.and_(x, b.sub(b.shl(_const(V32, 1), bits32), _const(V32, 1)))
        entry = ops.gather(3, b.add(slot, ops.load(4, at, 4, V32)))
        ops.store(b.trunc(b.and_(entry, _const(V32, 255)), V16), 10, args[11], 2, V16)
        frequency = b.add(b.lshr(entry, _const(V32, 20)), _const(V32, 1))
        bias = b.and_(b.lshr(entry, _const(V32, 8)), _const(V32, 4095))
        y = b.add(b.mul(frequency, b.lshr(x, bits32)), bias)
        x, pos = _refill(ops, _is_native(signature), b.select(active, y, x), active, 8, pos)
        ops.store(x, 1, block, 4, V32)
        return pos

    return signature, codegen


@intrinsic
def encode_step(  # type: ignore[no-untyped-def]
    _typing, simd, states, block, tables, offsets, at, bits, active, words, pos, symbols, symbols_at
):
    """Encode one symbol in each active lane; returns the new word position, or ``-1 - lanes`` untouched.

    A negative return names the lanes (bit mask) whose symbol has no probability in its table. ``offsets`` may be one
    integer, where all lanes use the same table.
    """
    same = isinstance(offsets, types.Integer)
    signature = types.int64(
        simd,
        states,
        types.int64,
        tables,
        types.int64 if same else offsets,
        types.int64,
        types.int64,
        types.int64,
        words,
        types.int64,
        symbols,
        types.int64,
    )

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        ops = _Operands(context, b, signature, args)
        block, at, bits, active_bits, pos = args[2], args[5], args[6], args[7], args[9]
        active = b.bitcast(b.trunc(active_bits, I16), V1)
        bits32 = _splat(b, b.trunc(bits, I32), V32)
        table = _splat(b, b.trunc(args[4], I32), V32) if same else ops.load(4, at, 4, V32)
        entry = ops.gather(3, b.add(b.zext(ops.load(10, args[11], 2, V16), V32), table))
        frequency = b.lshr(entry, _const(V32, 16))
        start = b.and_(entry, _const(V32, 0xFFFF))
        absent = b.and_(b.icmp_unsigned("==", frequency, _const(V32, 0)), active)
        absent_bits = b.bitcast(absent, I16)
        result = cgutils.alloca_once(b, I64)
        with b.if_else(b.icmp_unsigned("!=", absent_bits, ir.Constant(I16, 0))) as (bad, good):
            with bad:
                b.store(b.sub(ir.Constant(I64, -1), b.zext(absent_bits, I64)), result)
            with good:
                x = ops.load(1, block, 4, V32)
                limit = b.shl(frequency, b.sub(_const(V32, 31), bits32))
                full = b.and_(b.icmp_unsigned(">=", x, limit), active)
                y, new_pos = _spill(ops, _is_native(signature), x, full, 8, pos)
                # The quotient is below 2**21, so that a single-precision one is off by at most one.
                quotient = b.fptosi(b.fdiv(b.sitofp(y, VF32), b.sitofp(frequency, VF32)), V32)
                rest = b.sub(y, b.mul(quotient, frequency))
                above = b.icmp_signed(">=", rest, frequency)
                below = b.icmp_signed("<", rest, _const(V32, 0))
                quotient = b.select(above, b.add(quotient, _const(V32, 1)), quotient)
                quotient = b.select(below, b.sub(quotient, _const(V32, 1)), quotient)
                rest = b.select(above, b.sub(rest, frequency), rest)
                rest = b.select(below, b.add(rest, frequency), rest)
                z = b.add(b.add(b.shl(quotient, bits32), start), rest)
                ops.store(b.select(active, z, x), 1, block, 4, V32)
                b.store(new_pos, result)
        return b.load(result, typ=I64)

    return signature, codegen


@intrinsic
def decode_bits(_typing, simd, states, block, at, width, active, words, pos, values):  # type: ignore[no-untyped-def]
    """Decode ``width`` (1 to 15) equally likely bits in each active lane into ``values`` (uint16[64])."""
    signature = types.int64(
        simd, states, types.int64, types.int64, types.int64, types.int64, words, types.int64, values
    )

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        ops = _Operands(context, b, signature, args)
        block, at, width, active_bits, pos = args[2], args[3], args[4], args[5], args[7]
        active = b.bitcast(b.trunc(active_bits, I16), V1)
        width32 = _splat(b, b.trunc(width, I32), V32)
        x = ops.load(1, block, 4, V32)
        value = b.and_(x, b.sub(b.shl(_const(V32, 1), width32), _const(V32, 1)))
        ops.store(b.trunc(value, V16), 8, at, 2, V16)
        x, pos = _refill(ops, _is_native(signature), b.select(active, b.lshr(x, width32), x), active, 6, pos)
        ops.store(x, 1, block, 4, V32)
        return pos

    return signature, codegen


@intrinsic
def encode_bits(_typing, simd, states, block, at, width, active, words, pos, values):  # type: ignore[no-untyped-def]
    """Encode ``width`` (1 to 15) equally likely bits in each active lane; returns the new word position."""
    signature = types.int64(
        simd, states, types.int64, types.int64, types.int64, types.int64, words, types.int64, values
    )

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        ops = _Operands(context, b, signature, args)
        block, at, width, active_bits, pos = args[2], args[3], args[4], args[5], args[7]
        active = b.bitcast(b.trunc(active_bits, I16), V1)
        width32 = _splat(b, b.trunc(width, I32), V32)
        x = ops.load(1, block, 4, V32)
        limit = b.shl(_const(V32, 1), b.sub(_const(V32, 31), width32))
        full = b.and_(b.icmp_unsigned(">=", x, limit), active)
        y, pos = _spill(ops, _is_native(signature), x, full, 6, pos)
        y = b.or_(b.shl(y, width32), b.zext(ops.load(8, at, 2, V16), V32))
        ops.store(b.select(active, y, x), 1, block, 4, V32)
        return pos

    return signature, codegen


def _look_up_registers(ops: _Operands, row: Any, indices: list[Any]) -> list[Any]:
    """Sixteen-bit entries ``row + index`` of a table of 128, which fits into four registers."""
    b = ops.builder
    quarters = [ops.load(4, b.add(row, ir.Constant(I64, 32 * i)), 2, V16X32) for i in range(4)]
    permute = b.module.declare_intrinsic(
        "llvm.x86.avx512.vpermi2var.hi.512", fnty=ir.FunctionType(V16X32, [V16X32] * 3)
    )
    join = ir.Constant(ir.VectorType(I32, 32), [ir.Constant(I32, i) for i in range(32)])
    sixty_three = ir.Constant(V16X32, [ir.Constant(I16, 63)] * 32)
    out = []
    for pair in (0, 2):
        index = b.shuffle_vector(b.trunc(indices[pair], V16), b.trunc(indices[pair + 1], V16), join)
        low = b.call(permute, [quarters[0], index, quarters[1]])
        high = b.call(permute, [quarters[2], index, quarters[3]])
        k = b.select(b.icmp_unsigned(">", index, sixty_three), high, low)
        for first in (0, 16):
            lanes = ir.Constant(V32, [ir.Constant(I32, first + i) for i in range(16)])
            out.append(b.shuffle_vector(k, k, lanes))
    return out


def _look_up_memory(ops: _Operands, row: Any, indices: list[Any]) -> list[Any]:
    """The same, one load a lane."""
    b = ops.builder
    out = []
    for index in indices:
        k = ir.Constant(V16, ir.Undefined)
        for lane in range(16):
            at = b.add(row, b.zext(b.extract_element(index, ir.Constant(I32, lane)), I64))
            k = b.insert_element(k, ops.load(4, at, 2, I16), ir.Constant(I32, lane))
        out.append(k)
    return out


@intrinsic
def select_tables(_typing, simd, rate, base, shift, lut, class_, first, stride, offsets, to):  # type: ignore[no-untyped-def]
    """Table offset of every lane from its rate: ``first + lut[class, index] * stride``.

    rate : int32[64]; lut : int16[n, 128]; offsets : int32, written from index ``to``. The index is
    ``(rate - base) >> shift``, clamped to 0..127, and looks up registers rather than memory.
    """
    signature = types.void(
        simd, rate, types.int64, types.int64, lut, types.int64, types.int64, types.int64, offsets, types.int64
    )

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        ops = _Operands(context, b, signature, args)
        base, shift, first, stride = (_splat(b, b.trunc(args[k], I32), V32) for k in (2, 3, 6, 7))
        row = b.mul(args[5], ir.Constant(I64, LUT_SIZE))
        indices = []
        for at in range(0, 64, 16):
            r = b.ashr(b.sub(ops.load(1, ir.Constant(I64, at), 4, V32), base), shift)
            r = b.select(b.icmp_signed(">", r, _const(V32, 0)), r, _const(V32, 0))
            indices.append(b.select(b.icmp_signed("<", r, _const(V32, LUT_SIZE - 1)), r, _const(V32, LUT_SIZE - 1)))
        look_up = _look_up_registers if _is_native(signature) else _look_up_memory
        for at, k in zip(range(0, 64, 16), look_up(ops, row, indices), strict=True):
            ops.store(b.add(b.mul(b.zext(k, V32), stride), first), 8, b.add(args[9], ir.Constant(I64, at)), 4, V32)
        return context.get_dummy_value()

    return signature, codegen
