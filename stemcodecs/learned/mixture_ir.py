"""From the outputs of the network to intervals of the coder, 64 lanes at a time, as LLVM vector IR: integers only.

A count is distributed as a mixture of two logistics, or two normals, in its root. A lane has a *window* of 8 to 128
bins of ``2**shift`` counts each, which begins at bin ``z0``; the cumulative frequency of bin z in it is

    C(z) = F - (F * width >> 15) + z,    F = F(threshold10[((z0 + z) << shift) - 1])

with ``F`` from 0 to 2**15: it rises by at least 1 from bin to bin, whatever the network says, because locations are
clipped so that nothing wraps round.

Where the thresholds are ``None``, the values are those of images, and the logistics are in the values themselves: in
units of ``2**unit``, from a base (:mod:`stemcodecs.learned.value_mixture_ir`).

Everything here reads flat arrays, unchecked: ``tables`` are those of :mod:`stemcodecs.learned.tables`; ``mixture`` is
int32[13 * 64], rows of 64 lanes: two weights, two locations, two mantissas, two shifts, z0, shift, width, and of images
base and unit.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from stemcodecs.entropy.kernels.vector_ir import I32, I64, V16, V32, Memory, constant, i64, splat, typed_intrinsic
from stemcodecs.learned.dense_ir import any_in_use

__all__ = [
    "LOGISTIC_WINDOW",
    "MIXTURE_ROWS",
    "NORMAL_WINDOW",
    "Q_FREQUENCY",
    "Lookup",
    "base_row",
    "count_intervals",
    "describe_counts",
    "each_quarter",
    "residual_row",
]

MIXTURE_ROWS = 13
Q_FREQUENCY = 15
LOWEST_LOCATION, HIGHEST_LOCATION = -(1 << 18), (1 << 19) - 1
LOWEST_SCALE, HIGHEST_SCALE = -384, 511
LOGISTIC_WINDOW, NORMAL_WINDOW = (12, 128, 0, 16), (8, 64, 1, 8)
"""Of each kind of component: scales above the mean location that a window from 0 must reach; bins of the others;
whether those are twice as coarse; fewest bins. Normal components have no tails that a window must not cut."""
WIDTHS = (8, 16, 32, 64)
MOST_BIN_BITS = 9
LEAST_WEIGHT = 256
"""Components of less than 1/128 of the weight do not widen the window."""
WEIGHT, LOCATION, MANTISSA, SHIFT, Z0, BIN, WIDTH, BASE, UNIT = 0, 2, 4, 6, 8, 9, 10, 11, 12
QUARTERS = range(4)
_PAIRS = ir.VectorType(I64, 8)


class Lookup(Memory):
    """Arrays of an intrinsic, with the functions that look tables up."""

    def smaller(self, one: Any, other: Any) -> Any:
        """The smaller of two vectors."""
        return self.b.select(self.b.icmp_signed("<", one, other), one, other)

    def larger(self, one: Any, other: Any) -> Any:
        """The larger of two vectors."""
        return self.b.select(self.b.icmp_signed(">", one, other), one, other)

    def clip(self, v: Any, low: int, high: int) -> Any:
        """Between two numbers."""
        return self.smaller(self.larger(v, constant(V32, low)), constant(V32, high))

    def gather(self, k: int, index: Any) -> Any:
        """Sixteen entries of an int32 table; no index is negative."""
        b, base = self.b, self.base(k)
        result = ir.Constant(V32, ir.Undefined)
        # Sixteen scalar loads: a fifth faster than the gather instruction. Indices leave the vector in pairs.
        pairs = b.bitcast(index, _PAIRS)
        for pair in range(8):
            both = b.extract_element(pairs, ir.Constant(I32, pair))
            for lane, at in ((2 * pair, b.and_(both, i64(0xFFFFFFFF))), (2 * pair + 1, b.lshr(both, i64(32)))):
                address = b.add(base, b.shl(at, i64(2)))
                value = b.load(b.inttoptr(address, ir.PointerType(I32)), typ=I32)
                result = b.insert_element(result, value, ir.Constant(I32, lane))
        return result

    def sigmoid(self, k: int, argument: Any) -> Any:
        """Of an argument with seven fraction bits, from 0 to 2**15."""
        return self.gather(k, self.b.add(self.clip(argument, -2048, 2047), constant(V32, 2048)))

    def row(self, k: int, row: int, quarter: int) -> Any:
        """Quarter of a row of 64 lanes."""
        return self.load(k, i64(64 * row + 16 * quarter), V32)

    def store_row(self, value: Any, k: int, row: int, quarter: int) -> None:
        """Inverse of :meth:`row`."""
        self.store(value, k, i64(64 * row + 16 * quarter))

    def cumulative(self, mixture: int, sigmoid: int, threshold: int, quarter: int, z: Any) -> Any:
        """``C(z)`` for ``0 < z < width``; ``quarter`` may be a 64-bit value of the program."""
        b = self.b

        def at(row: int) -> Any:
            if isinstance(quarter, int):
                return self.row(mixture, row, quarter)
            return self.load(mixture, b.add(i64(64 * row), b.mul(quarter, i64(16))), V32)

        bin_start = b.shl(b.add(at(Z0), z), at(BIN))
        if isinstance(self.signature.args[threshold], types.NoneType):
            # Half a value below the bin, with ten fraction bits; far away it no longer matters how far.
            twice = b.sub(b.shl(b.sub(bin_start, at(BASE)), constant(V32, 1)), constant(V32, 1))
            t = self.clip(b.ashr(b.shl(twice, constant(V32, 9)), at(UNIT)), -HIGHEST_LOCATION, HIGHEST_LOCATION)
        else:
            t = self.gather(threshold, b.sub(bin_start, constant(V32, 1)))
        total = None
        for k in range(2):
            scaled = b.ashr(b.mul(b.sub(t, at(LOCATION + k)), at(MANTISSA + k)), at(SHIFT + k))
            part = b.mul(at(WEIGHT + k), self.sigmoid(sigmoid, scaled))
            total = part if total is None else b.add(total, part)
        f = b.lshr(total, constant(V32, 15))
        return b.add(b.sub(f, b.lshr(b.mul(f, at(WIDTH)), constant(V32, Q_FREQUENCY))), z)


# for i in range(64):
#     base[i] = uint32(root * dose[i]) >> 12
@typed_intrinsic
def base_row(_typing, root, dose, base):  # type: ignore[no-untyped-def]
    """What the pixel and the dose predict, ten fraction bits; dose : int32[64], the root of the dose, below 2**14."""
    signature = types.void(types.int64, dose, base)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = Lookup(context, b, signature, args)
        root = splat(b, args[0])
        for q in QUARTERS:
            m.store_row(b.lshr(b.mul(root, m.row(1, 0, q)), constant(V32, 12)), 2, 0, q)
        return context.get_dummy_value()

    return signature, codegen


# for i in range(64):
#     residuals[to + i] = clip(root6[values[at + i]] - (base[i] >> 4), -32768, 32767)
@typed_intrinsic
def residual_row(_typing, values, at, base, root6, residuals, to):  # type: ignore[no-untyped-def]
    """How far decoded counts lie from their base: values : uint16, flat; residuals : int16, flat."""
    signature = types.void(values, types.int64, base, root6, residuals, types.int64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = Lookup(context, b, signature, args)
        for q in QUARTERS:
            count = b.zext(m.load(0, m.lane(args[1], q), V16), V32)
            e = b.sub(m.gather(3, count), b.ashr(m.row(2, 0, q), constant(V32, 4)))
            m.store(b.trunc(m.clip(e, -32768, 32767), V16), 4, m.lane(args[5], q))
        return context.get_dummy_value()

    return signature, codegen


def _describe_quarter(m: Lookup, q: int) -> Any:
    """Mixture and window of sixteen lanes; returns the widths."""
    b = m.b
    above, wide_width, finer, narrowest = (
        splat(b, b.sext(m.load(4, i64(k), I32), ir.IntType(64))) for k in range(len(LOGISTIC_WINDOW))
    )
    first = m.sigmoid(2, m.row(0, 0, q))
    weights = [first, b.sub(constant(V32, 1 << 15), first)]
    mean, widest = None, constant(V32, LOWEST_SCALE)
    for k, weight in enumerate(weights):
        location = m.clip(b.add(m.row(1, 0, q), m.row(0, 1 + k, q)), LOWEST_LOCATION, HIGHEST_LOCATION)
        scale = m.clip(m.row(0, 3 + k, q), LOWEST_SCALE, HIGHEST_SCALE)
        m.store_row(weight, 5, WEIGHT + k, q)
        m.store_row(location, 5, LOCATION + k, q)
        m.store_row(m.gather(3, b.and_(scale, constant(V32, 63))), 5, MANTISSA + k, q)
        m.store_row(b.add(b.ashr(scale, constant(V32, 6)), constant(V32, 14)), 5, SHIFT + k, q)
        part = b.mul(weight, b.ashr(location, constant(V32, 4)))
        mean = part if mean is None else b.add(mean, part)
        counts = b.icmp_signed(">=", weight, constant(V32, LEAST_WEIGHT))
        widest = b.select(counts, m.larger(widest, scale), widest)
    c = m.clip(b.ashr(mean, constant(V32, 11)), 0, (1 << 18) - 1)
    minus = b.sub(constant(V32, 0), widest)
    octave = b.sub(constant(V32, 6), b.ashr(minus, constant(V32, 6)))
    s = b.lshr(b.shl(m.gather(3, b.and_(minus, constant(V32, 63))), octave), constant(V32, 7))
    top = m.smaller(b.add(c, b.mul(s, above)), constant(V32, (1 << 18) - 1))
    top = b.lshr(top, constant(V32, 5))
    top = b.lshr(b.mul(top, top), constant(V32, 10))
    spread = b.mul(b.lshr(c, constant(V32, 6)), b.lshr(s, constant(V32, 6)))
    spread = b.shl(b.lshr(spread, constant(V32, 7)), finer)
    bits = constant(V32, 0)
    for k in range(3, 3 + MOST_BIN_BITS):
        bits = b.add(bits, b.zext(b.icmp_signed(">=", spread, constant(V32, 1 << k)), V32))
    root = b.lshr(c, constant(V32, 3))
    centre = b.lshr(b.lshr(b.mul(root, root), constant(V32, 14)), bits)
    z0 = m.larger(b.sub(centre, b.lshr(wide_width, constant(V32, 1))), constant(V32, 0))
    wide = b.icmp_signed(">=", top, constant(V32, WIDTHS[-1]))
    width = wide_width
    for narrow in reversed(WIDTHS):
        fits = b.icmp_signed("<", top, constant(V32, narrow))
        width = b.select(fits, m.larger(constant(V32, narrow), narrowest), width)
    m.store_row(b.select(wide, z0, constant(V32, 0)), 5, Z0, q)
    m.store_row(b.select(wide, bits, constant(V32, 0)), 5, BIN, q)
    m.store_row(width, 5, WIDTH, q)
    return width


def each_quarter(m: Lookup, mask: Any, code: Any) -> Any:
    """The OR of what ``code`` gives for each quarter of the lanes in a bit mask, in 64 bits."""
    b = m.b
    found = cgutils.alloca_once_value(b, i64(0))
    for q in QUARTERS:
        with b.if_then(any_in_use(b, mask, [q])):
            value = code(m, q)
            b.store(b.or_(b.load(found, typ=I64), value), found)
    return b.load(found, typ=I64)


# For every lane, weights, locations and scales of outputs int32[5 * 64], and the window that they call for; FORMAT.md
# has it number by number.
@typed_intrinsic
def describe_counts(  # type: ignore[no-untyped-def]
    _typing, outputs, base, sigmoid, mantissa, window, mixture, quarters
):
    """Outputs of the network to ``mixture``, by the rule of the windows; returns the OR of the widths, below twice the
    largest. Quarters of the lanes that are not in the bit mask are left out.
    """
    signature = types.int64(outputs, base, sigmoid, mantissa, window, mixture, types.int64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        return each_quarter(
            Lookup(context, b, signature, args), args[6], lambda m, q: m.any_bit(_describe_quarter(m, q))
        )

    return signature, codegen


def _intervals_of_quarter(m: Lookup, q: int, at: Any, to: Any) -> Any:
    """Intervals of sixteen lanes; returns the bit mask of those outside their window, in its place of 64 bits."""
    b = m.b
    shift, width = m.row(0, BIN, q), m.row(0, WIDTH, q)
    y = b.zext(m.load(3, m.lane(at, q), V16), V32)
    wanted = b.sub(b.lshr(y, shift), m.row(0, Z0, q))
    last = b.sub(width, constant(V32, 1))
    z = m.smaller(m.larger(wanted, constant(V32, 0)), last)
    changed = b.bitcast(b.icmp_signed("!=", z, wanted), ir.IntType(16))
    one, after = constant(V32, 1), b.add(z, constant(V32, 1))
    lower = b.select(
        b.icmp_signed(">", z, constant(V32, 0)), m.cumulative(0, 1, 2, q, m.larger(z, one)), constant(V32, 0)
    )
    upper = b.select(
        b.icmp_signed("<", after, width), m.cumulative(0, 1, 2, q, m.smaller(after, last)),
        constant(V32, 1 << Q_FREQUENCY),
    )  # fmt: skip
    m.store(b.or_(b.shl(b.sub(upper, lower), constant(V32, 16)), lower), 5, m.lane(to, q))
    mask = b.sub(b.shl(one, shift), one)
    m.store(b.or_(b.shl(shift, constant(V32, 16)), b.and_(y, mask)), 6, m.lane(to, q))
    return b.shl(b.zext(changed, I64), i64(16 * q))


# for i in range(64):
#     y = values[at + i]; z = (y >> shift[i]) - z0[i]; z, outside |= (clip(z, 0, width[i] - 1), bit i if it changed)
#     entries[to + i] = (C(z + 1) - C(z)) << 16 | C(z); low[to + i] = shift[i] << 16 | y % 2**shift[i]
@typed_intrinsic
def count_intervals(  # type: ignore[no-untyped-def]
    _typing, mixture, sigmoid, threshold, values, at, entries, low, to, quarters
):
    """Intervals of the counts of a row; returns the mask of the lanes whose count lies outside their window. Quarters
    of the lanes that are not in the bit mask are left out.
    """
    signature = types.int64(mixture, sigmoid, threshold, values, types.int64, entries, low, types.int64, types.int64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        m = Lookup(context, b, signature, args)
        return each_quarter(m, args[8], lambda m, q: _intervals_of_quarter(m, q, args[4], args[7]))

    return signature, codegen


def find_bin(m: Lookup, arrays: tuple[int, int, int], quarter: Any, slot: Any, steps: Any) -> tuple[Any, Any, Any]:
    """Bin whose interval holds the slot of sixteen lanes, by halving ``steps`` times: bin, C(bin), C(bin + 1).

    arrays : arguments of the mixture, the sigmoid and the thresholds.
    """
    b = m.b
    width = m.load(arrays[0], b.add(i64(64 * WIDTH), b.mul(quarter, i64(16))), V32)
    start = (constant(V32, 0), constant(V32, 0), constant(V32, 1 << Q_FREQUENCY), b.lshr(width, constant(V32, 1)))
    state = [cgutils.alloca_once(b, V32) for _ in start]
    for place, value in zip(state, start, strict=True):
        b.store(value, place)
    with cgutils.for_range(b, steps):
        z, lower, upper, half = (b.load(place, typ=V32) for place in state)
        # Lanes of a narrower window are done before the others, and go on asking for what they need not.
        live = b.icmp_signed(">", half, constant(V32, 0))
        middle = b.add(z, half)
        c = m.cumulative(*arrays, quarter, b.select(live, middle, constant(V32, 1)))
        up = b.and_(live, b.icmp_signed("<=", c, slot))
        down = b.and_(live, b.icmp_signed(">", c, slot))
        after = (b.select(up, middle, z), b.select(up, c, lower), b.select(down, c, upper))
        for place, value in zip(state, (*after, b.lshr(half, constant(V32, 1))), strict=True):
            b.store(value, place)
    z, lower, upper, _ = (b.load(place, typ=V32) for place in state)
    return z, lower, upper
