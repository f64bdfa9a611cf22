"""Steps of the interleaved rANS coder, sixteen lanes at a time, written as LLVM vector IR.

A *step* codes one symbol in each active lane of one block. State ``x`` stays in ``[2**15, 2**31)``; a symbol of
frequency ``f`` out of ``2**bits`` and cumulative frequency ``c`` turns it into
``(x // f << bits) + c + x % f`` (Duda, arXiv:1311.2540; interleaving: Giesen, arXiv:1402.3392).

Every step comes in two forms, which move the same bytes: one uses the compress and expand instructions of AVX-512, the
other no instruction of one processor. Numba picks by the *type* of the first argument, which is that of
:func:`stemcodecs.entropy.kernels.cpu.simd_path`: ``bool`` for AVX-512, ``None`` for the portable form. The code is
written into the calling kernel: a call would cost as much as the step.

Nothing here checks a bound. The callers guarantee that

* sixteen words on both sides of ``pos`` may be read and, by an encoder, written: a step moves at most sixteen, and
  may touch as many that are not its own. A decoder asks only before each pixel whether it has passed the end of the
  stream, and a pixel moves at most 128 words in eight steps, so that 128 + 16 words behind the end must be there;
  :data:`stemcodecs.entropy.kernels.scratch.SLACK` gives 256 on both sides,
* ``offsets`` point at tables: ``2**bits`` entries to decode, 256 to encode, and symbols are below 256.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from stemcodecs.entropy.kernels.rans import STATE_LOW
from stemcodecs.entropy.kernels.vector_ir import (
    I16,
    I32,
    I64,
    V1,
    V16,
    V32,
    Memory,
    constant,
    i64,
    is_native,
    splat,
    typed_intrinsic,
)

__all__ = ["StateBlock", "decode_bits", "decode_step", "encode_bits", "encode_step"]

VF32 = ir.VectorType(ir.FloatType(), 16)
PAIRS = ir.VectorType(I64, 8)
_STATES = 1
"""Argument of the states in every step."""


class StateBlock(Memory):
    """Sixteen states of one block, which of them are active, and the stream that they share."""

    lowest = STATE_LOW
    """States below it are refilled."""

    def __init__(self, context: Any, b: Any, signature: Any, args: Any, block: int, active: int, words: int) -> None:
        super().__init__(context, b, signature, args)
        self.native = is_native(signature)
        self.block, self.words, self.pos = args[block], words, args[words + 1]
        self.active = b.bitcast(b.trunc(args[active], I16), V1)

    def states(self) -> Any:
        """The states before the step."""
        return self.load(_STATES, self.block, V32)

    def finish(self, x: Any) -> Any:
        """Store the new states; the step returns the word position."""
        self.store(x, _STATES, self.block)
        return self.pos

    def gather(self, k: int, index: Any) -> Any:
        """Sixteen 32-bit entries of a table."""
        b, base = self.b, self.base(k)
        result = ir.Constant(V32, ir.Undefined)
        # Sixteen scalar loads: on Zen 4 a fifth faster than the gather instruction. Indices leave the vector in pairs,
        # for that is what such loads wait for.
        pairs = b.bitcast(index, PAIRS)
        for pair in range(8):
            both = b.extract_element(pairs, ir.Constant(I32, pair))
            for lane, at in ((2 * pair, b.and_(both, i64(0xFFFFFFFF))), (2 * pair + 1, b.lshr(both, i64(32)))):
                address = b.add(base, b.shl(at, i64(2)))
                value = b.load(b.inttoptr(address, ir.PointerType(I32)), typ=I32)
                result = b.insert_element(result, value, ir.Constant(I32, lane))
        return result

    # for i in range(16):
    #     if active[i] and x[i] < 2**15: x[i], pos = x[i] << 16 | words[pos], pos + 1
    def refill(self, x: Any) -> Any:
        """Read one 16-bit word, in lane order, into every active lane that fell below the lower bound."""
        b = self.b
        low = b.and_(b.icmp_unsigned("<", x, constant(V32, self.lowest)), self.active)
        if self.native:
            word = b.zext(self.load(self.words, self.pos, V16), V32)
            expand = b.module.declare_intrinsic(
                "llvm.x86.avx512.mask.expand.v16i32", fnty=ir.FunctionType(V32, [V32, V32, V1])
            )
            word = b.call(expand, [word, constant(V32, 0), low])
            self.pos = b.add(self.pos, _count(b, low))
        else:
            word = ir.Constant(V16, ir.Undefined)
            for lane, bit in enumerate(_lane_bits(b, low)):
                word = b.insert_element(word, self.load(self.words, self.pos, I16), ir.Constant(I32, lane))
                self.pos = b.add(self.pos, bit)
            word = b.zext(word, V32)
        return b.select(low, b.or_(b.shl(x, constant(V32, 16)), word), x)

    # for i in reversed(range(16)):
    #     if active[i] and x[i] >= limit[i]: pos -= 1; words[pos] = uint16(x[i]); x[i] >>= 16
    def spill(self, x: Any, limit: Any) -> Any:
        """Write the low word of every active lane that has reached its limit, in lane order, below ``pos``."""
        b = self.b
        full = b.and_(b.icmp_unsigned(">=", x, limit), self.active)
        if self.native:
            count = _count(b, full)
            self.pos = b.sub(self.pos, count)
            compress = b.module.declare_intrinsic(
                "llvm.x86.avx512.mask.compress.v16i32", fnty=ir.FunctionType(V32, [V32, V32, V1])
            )
            word = b.trunc(b.call(compress, [x, constant(V32, 0), full]), V16)
            # The first `count` of sixteen; computed in 32 bits, where a shift by sixteen is defined.
            count32 = b.trunc(count, I32)
            first = b.trunc(b.sub(b.shl(ir.Constant(I32, 1), count32), ir.Constant(I32, 1)), I16)
            store = b.module.declare_intrinsic(
                "llvm.masked.store.v16i16.p0",
                fnty=ir.FunctionType(ir.VoidType(), [V16, ir.PointerType(V16), I32, V1]),
            )
            place = self.pointer(self.words, self.pos, V16)
            b.call(store, [word, place, ir.Constant(I32, 2), b.bitcast(first, V1)])
        else:
            low = b.trunc(x, V16)
            for lane, bit in reversed(list(enumerate(_lane_bits(b, full)))):
                # Every lane writes; only those in `full` keep their place.
                word = b.extract_element(low, ir.Constant(I32, lane))
                self.store(word, self.words, b.sub(self.pos, i64(1)))
                self.pos = b.sub(self.pos, bit)
        return b.select(full, b.lshr(x, constant(V32, 16)), x)


def _count(b: Any, mask: Any) -> Any:
    return b.zext(b.ctpop(b.bitcast(mask, I16)), I64)


def _lane_bits(b: Any, mask: Any) -> list[Any]:
    """The bits of a lane mask as 64-bit integers, lane 0 first."""
    whole = b.zext(b.bitcast(mask, I16), I64)
    return [b.and_(b.lshr(whole, i64(i)), i64(1)) for i in range(16)]


def _ones(b: Any, width: Any) -> Any:
    """``(1 << width) - 1`` in every lane."""
    return b.sub(b.shl(constant(V32, 1), width), constant(V32, 1))


# for i in range(16), where bit i of active is set, symbols are written for all:
#     x = states[block + i]; entry = tables[offsets[at + i] + x % 2**bits]; symbols[symbols_at + i] = entry & 255
#     x = ((entry >> 20) + 1) * (x >> bits) + (entry >> 8 & 4095); refill(x)
@typed_intrinsic
def decode_step(  # type: ignore[no-untyped-def]
    _typing, simd, states, block, tables, offsets, at, bits, active, words, pos, symbols, symbols_at
):
    """Decode one symbol in each active lane of a block; returns the new word position.

    states : uint32[64], advanced in place; block : first lane; tables : uint32 decode entries;
    offsets : int32[64], offset of each lane's table, read from index ``at``; bits : probability bits;
    active : bit mask of lanes; words, pos : the stream; symbols : uint16, written at ``symbols_at``.
    """
    i = types.int64
    signature = i(simd, states, i, tables, offsets, i, i, i, words, i, symbols, i)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        lanes = StateBlock(context, b, signature, args, block=2, active=7, words=8)
        x, bits = lanes.states(), splat(b, args[6])
        slot = b.and_(x, _ones(b, bits))
        entry = lanes.gather(3, b.add(slot, lanes.load(4, args[5], V32)))
        lanes.store(b.trunc(b.and_(entry, constant(V32, 255)), V16), 10, args[11])
        frequency = b.add(b.lshr(entry, constant(V32, 20)), constant(V32, 1))
        bias = b.and_(b.lshr(entry, constant(V32, 8)), constant(V32, 4095))
        y = b.add(b.mul(frequency, b.lshr(x, bits)), bias)
        return lanes.finish(lanes.refill(b.select(lanes.active, y, x)))

    return signature, codegen


# for i in range(16), where bit i of active is set:
#     entry = tables[offsets[at + i] + symbols[symbols_at + i]]; f, start = entry >> 16, entry & 0xFFFF
#     if f == 0 in any lane: return -1 - (bit mask of these lanes), with nothing changed
#     x = states[block + i]; spill(x, f << 31 - bits); states[block + i] = (x // f << bits) + start + x % f
@typed_intrinsic
def encode_step(  # type: ignore[no-untyped-def]
    _typing, simd, states, block, tables, offsets, at, bits, active, words, pos, symbols, symbols_at
):
    """Encode one symbol in each active lane; returns the new word position, or ``-1 - lanes`` untouched.

    A negative return names the lanes (bit mask) whose symbol has no probability in its table. ``offsets`` may be one
    integer, where all lanes use the same table.
    """
    same = isinstance(offsets, types.Integer)
    i = types.int64
    signature = i(simd, states, i, tables, i if same else offsets, i, i, i, words, i, symbols, i)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        lanes = StateBlock(context, b, signature, args, block=2, active=7, words=8)
        bits = splat(b, args[6])
        table = splat(b, args[4]) if same else lanes.load(4, args[5], V32)
        entry = lanes.gather(3, b.add(b.zext(lanes.load(10, args[11], V16), V32), table))
        frequency = b.lshr(entry, constant(V32, 16))
        start = b.and_(entry, constant(V32, 0xFFFF))
        absent = b.bitcast(b.and_(b.icmp_unsigned("==", frequency, constant(V32, 0)), lanes.active), I16)
        result = cgutils.alloca_once(b, I64)
        with b.if_else(b.icmp_unsigned("!=", absent, ir.Constant(I16, 0))) as (bad, good):
            with bad:
                b.store(b.sub(i64(-1), b.zext(absent, I64)), result)
            with good:
                x = lanes.states()
                y = lanes.spill(x, b.shl(frequency, b.sub(constant(V32, 31), bits)))
                # The quotient is below 2**21, so that a single-precision one is off by at most one.
                quotient = b.fptosi(b.fdiv(b.sitofp(y, VF32), b.sitofp(frequency, VF32)), V32)
                rest = b.sub(y, b.mul(quotient, frequency))
                above = b.icmp_signed(">=", rest, frequency)
                below = b.icmp_signed("<", rest, constant(V32, 0))
                quotient = b.select(above, b.add(quotient, constant(V32, 1)), quotient)
                quotient = b.select(below, b.sub(quotient, constant(V32, 1)), quotient)
                rest = b.select(above, b.sub(rest, frequency), rest)
                rest = b.select(below, b.add(rest, frequency), rest)
                z = b.add(b.add(b.shl(quotient, bits), start), rest)
                b.store(lanes.finish(b.select(lanes.active, z, x)), result)
        return b.load(result, typ=I64)

    return signature, codegen


# for i in range(16), where bit i of active is set, values are written for all:
#     x = states[block + i]; values[at + i] = x % 2**width; states[block + i] = refill(x >> width)
@typed_intrinsic
def decode_bits(_typing, simd, states, block, at, width, active, words, pos, values):  # type: ignore[no-untyped-def]
    """Decode ``width`` (1 to 15) equally likely bits in each active lane into ``values`` (uint16[64])."""

    def move(lanes: StateBlock, b: Any, x: Any, width: Any, at: Any) -> Any:
        lanes.store(b.trunc(b.and_(x, _ones(b, width)), V16), 8, at)
        return lanes.refill(b.select(lanes.active, b.lshr(x, width), x))

    return _equally_likely_bits(simd, states, words, values, move)


# for i in range(16), where bit i of active is set:
#     x = states[block + i]; spill(x, 1 << 31 - width); states[block + i] = x << width | values[at + i]
@typed_intrinsic
def encode_bits(_typing, simd, states, block, at, width, active, words, pos, values):  # type: ignore[no-untyped-def]
    """Encode ``width`` (1 to 15) equally likely bits in each active lane; returns the new word position."""

    def move(lanes: StateBlock, b: Any, x: Any, width: Any, at: Any) -> Any:
        y = lanes.spill(x, b.shl(constant(V32, 1), b.sub(constant(V32, 31), width)))
        y = b.or_(b.shl(y, width), b.zext(lanes.load(8, at, V16), V32))
        return b.select(lanes.active, y, x)

    return _equally_likely_bits(simd, states, words, values, move)


def _equally_likely_bits(simd: Any, states: Any, words: Any, values: Any, move: Any) -> Any:
    """Signature and code of a step without a table, given what it does to the states of a block."""
    i = types.int64

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        lanes = StateBlock(context, b, signature, args, block=2, active=5, words=6)
        return lanes.finish(move(lanes, b, lanes.states(), splat(b, args[4]), args[3]))

    return i(simd, states, i, i, i, i, words, i, values), codegen
