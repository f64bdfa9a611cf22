"""Turn scan positions x pixels into rows of 64 lanes, and back.

A group's rows hold one pixel each, with the scan positions side by side as lanes. Both directions move tiles of
8 positions x 32 pixels through registers (three stages of 8 x 8 interleaves in every 128-bit quarter), written as
LLVM vector IR without any instruction of one processor in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import int64, njit, types, uint16, uint32

from stemcodecs.entropy.kernels.rans import KERNEL, LANES
from stemcodecs.entropy.kernels.vector_ir import typed_intrinsic

TILE = 32
POSITIONS = 8
STRETCH = 2048
SUMMED = 4096
"""Pixels whose sums and ranges are found together, small enough for the first-level cache."""

_I8, _I16, _I32, _I64 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
_LINE = ir.VectorType(_I16, TILE)
_PIECE = ir.VectorType(_I16, POSITIONS)


def _shuffle(b: Any, first: Any, second: Any, indices: list[int]) -> Any:
    mask = ir.Constant(ir.VectorType(_I32, len(indices)), [ir.Constant(_I32, i) for i in indices])
    return b.shuffle_vector(first, second, mask)


def _interleave(b: Any, first: Any, second: Any, width: int, high: bool) -> Any:
    """Interleave units of ``width`` values from the low (or high) halves of every 128-bit quarter."""
    indices: list[int] = []
    for quarter in range(0, TILE, POSITIONS):
        for unit in range(0, POSITIONS // 2, width):
            start = quarter + unit + (POSITIONS // 2 if high else 0)
            indices += range(start, start + width)
            indices += range(TILE + start, TILE + start + width)
    return _shuffle(b, first, second, indices)


def _transpose_quarters(b: Any, lines: list[Any]) -> list[Any]:
    """Transpose the 8 x 8 values in each 128-bit quarter of eight lines (an involution)."""
    for width, distance in ((1, 1), (2, 2), (4, 4)):
        out: list[Any] = [None] * POSITIONS
        for i in range(POSITIONS):
            if i & distance:
                continue
            out[i] = _interleave(b, lines[i], lines[i + distance], width, high=False)
            out[i + distance] = _interleave(b, lines[i], lines[i + distance], width, high=True)
        lines = out
    # Three rounds leave the columns in bit-reversed order.
    return [lines[int(f"{i:03b}"[::-1], 2)] for i in range(POSITIONS)]


def _data(context: Any, b: Any, signature: Any, args: Any, k: int) -> Any:
    return b.ptrtoint(context.make_array(signature.args[k])(context, b, args[k]).data, _I64)


def _at(b: Any, base: Any, offset: Any, itemsize: int, kind: ir.Type) -> Any:
    address = b.add(base, b.mul(offset, ir.Constant(_I64, itemsize)))
    return b.inttoptr(address, ir.PointerType(kind))


# for i in range(8):
#     for p in range(32): rows[origin + p0 + p, first + i] = plane[starts[first + i] + p0 + p]
@typed_intrinsic
def _gather_tile(_typing, plane, starts, first, p0, rows, origin):  # type: ignore[no-untyped-def]
    """Copy 32 pixels of 8 positions, whose lines start at ``starts[first:first+8]``, into 32 rows."""
    signature = types.void(plane, starts, types.int64, types.int64, rows, types.int64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        itemsize = signature.args[0].dtype.bitwidth // 8
        source, start, target = (_data(context, b, signature, args, k) for k in (0, 1, 4))
        element = _I8 if itemsize == 1 else _I16
        lines = []
        for i in range(POSITIONS):
            k = b.add(args[2], ir.Constant(_I64, i))
            offset = b.add(b.load(_at(b, start, k, 8, _I64), typ=_I64), args[3])
            vector = ir.VectorType(element, TILE)
            line = b.load(_at(b, source, offset, itemsize, vector), typ=vector)
            line.align = itemsize
            lines.append(b.zext(line, _LINE) if itemsize == 1 else line)
        columns = _transpose_quarters(b, lines)
        for p in range(TILE):
            column, quarter = columns[p % POSITIONS], p // POSITIONS
            piece = _shuffle(b, column, column, list(range(quarter * 8, quarter * 8 + 8)))
            row = b.add(b.add(args[5], args[3]), ir.Constant(_I64, p))
            at = b.add(b.mul(row, ir.Constant(_I64, LANES)), args[2])
            b.store(piece, _at(b, target, at, 2, _PIECE), align=2)
        return context.get_dummy_value()

    return signature, codegen


# for i in range(8):
#     for p in range(32): plane[starts[first + i] + p0 + p] = rows[origin + p0 + p, first + i]
@typed_intrinsic
def _scatter_tile(_typing, rows, origin, plane, starts, first, p0):  # type: ignore[no-untyped-def]
    """Inverse of :func:`_gather_tile`."""
    signature = types.void(rows, types.int64, plane, starts, types.int64, types.int64)

    def codegen(context, b, signature, args):  # type: ignore[no-untyped-def]
        itemsize = signature.args[2].dtype.bitwidth // 8
        source, target, start = (_data(context, b, signature, args, k) for k in (0, 2, 3))
        columns = []
        for c in range(POSITIONS):
            pieces = []
            for quarter in range(TILE // POSITIONS):
                row = b.add(b.add(args[1], args[5]), ir.Constant(_I64, quarter * POSITIONS + c))
                at = b.add(b.mul(row, ir.Constant(_I64, LANES)), args[4])
                piece = b.load(_at(b, source, at, 2, _PIECE), typ=_PIECE)
                piece.align = 2
                pieces.append(piece)
            halves = [_shuffle(b, pieces[i], pieces[i + 1], list(range(16))) for i in (0, 2)]
            columns.append(_shuffle(b, halves[0], halves[1], list(range(32))))
        for i, line in enumerate(_transpose_quarters(b, columns)):
            k = b.add(args[4], ir.Constant(_I64, i))
            offset = b.add(b.load(_at(b, start, k, 8, _I64), typ=_I64), args[5])
            if itemsize == 1:
                line = b.trunc(line, ir.VectorType(_I8, TILE))
            b.store(line, _at(b, target, offset, itemsize, line.type), align=itemsize)
        return context.get_dummy_value()

    return signature, codegen


@njit(**KERNEL)
def gather_rows(plane, positions, rows, origin, begin, end):
    """Copy the pixels ``begin:end`` of a group's positions into ``rows[origin + begin:]``.

    plane : uint8 or uint16[n_positions, n_pixels], C-contiguous; positions : int64[64], -1 for a lane without a
    position, which reads as zeros; rows : uint16[n, 64].
    """
    n = plane.shape[1]
    flat = plane.reshape(-1)
    starts = positions * int64(n)
    # Eight lines at a time over a stretch that stays in the second-level cache: few streams, which prefetch well.
    for q0 in range(begin, end, STRETCH):
        q1 = min(end, q0 + STRETCH)
        for first in range(0, LANES, POSITIONS):
            held = True
            for i in range(POSITIONS):
                held &= positions[first + i] >= 0
            for p0 in range(q0, q1, TILE):
                p1 = min(q1, p0 + TILE)
                if held and p1 - p0 == TILE:
                    _gather_tile(flat, starts, int64(first), int64(p0), rows, int64(origin))
                    continue
                for j in range(first, first + POSITIONS):
                    for p in range(p0, p1):
                        rows[origin + p, j] = flat[starts[j] + p] if positions[j] >= 0 else uint16(0)


@njit(**KERNEL)
def scatter_rows(rows, origin, positions, plane):
    """Copy a group back to its positions; inverse of :func:`gather_rows`."""
    n = plane.shape[1]
    flat = plane.reshape(-1)
    starts = positions * int64(n)
    for q0 in range(0, n, STRETCH):
        q1 = min(n, q0 + STRETCH)
        for first in range(0, LANES, POSITIONS):
            held = True
            for i in range(POSITIONS):
                held &= positions[first + i] >= 0
            for p0 in range(q0, q1, TILE):
                p1 = min(q1, p0 + TILE)
                if held and p1 - p0 == TILE:
                    _scatter_tile(rows, int64(origin), flat, starts, int64(first), int64(p0))
                    continue
                for j in range(first, first + POSITIONS):
                    if positions[j] >= 0:
                        for p in range(p0, p1):
                            flat[starts[j] + p] = rows[origin + p, j]


@njit(**KERNEL)
def plane_statistics(plane, first, last, pixel_sum, pixel_low, pixel_high, position_sum):
    """Sums and ranges over positions of the pixels ``first:last``, and their share of the sums of the positions.

    plane : uint8 or uint16[n_positions, n_pixels]; pixel_sum : int64[n_pixels]; pixel_low, pixel_high :
    uint16[n_pixels]; position_sum : int64[n_positions]. All are added to.
    """
    total = np.zeros(SUMMED, np.uint32)
    low = np.zeros(SUMMED, np.uint16)
    high = np.zeros(SUMMED, np.uint16)
    n_positions = plane.shape[0]
    for p0 in range(first, last, SUMMED):
        n = min(last - p0, SUMMED)
        total[:] = 0
        low[:] = 65535
        high[:] = 0
        # 65,536 counts of 16 bits fit into 32 bits.
        for s0 in range(0, n_positions, 65536):
            s1 = min(n_positions, s0 + 65536)
            fours = s0 + (s1 - s0) // 4 * 4
            # Four positions at once: memory delivers twice as fast as from one, and the sums are touched a quarter as
            # often.
            for s in range(s0, fours, 4):
                a, b = plane[s, p0 : p0 + n], plane[s + 1, p0 : p0 + n]
                c, d = plane[s + 2, p0 : p0 + n], plane[s + 3, p0 : p0 + n]
                sum_a, sum_b, sum_c, sum_d = uint32(0), uint32(0), uint32(0), uint32(0)
                for i in range(n):
                    va, vb, vc, vd = uint32(a[i]), uint32(b[i]), uint32(c[i]), uint32(d[i])
                    sum_a += va
                    sum_b += vb
                    sum_c += vc
                    sum_d += vd
                    total[i] += va + vb + vc + vd
                    low[i] = min(low[i], uint16(min(min(a[i], b[i]), min(c[i], d[i]))))
                    high[i] = max(high[i], uint16(max(max(a[i], b[i]), max(c[i], d[i]))))
                position_sum[s] += int64(sum_a)
                position_sum[s + 1] += int64(sum_b)
                position_sum[s + 2] += int64(sum_c)
                position_sum[s + 3] += int64(sum_d)
            for s in range(fours, s1):
                line = plane[s, p0 : p0 + n]
                whole = uint32(0)
                for i in range(n):
                    value = line[i]
                    whole += uint32(value)
                    total[i] += uint32(value)
                    low[i] = min(low[i], uint16(value))
                    high[i] = max(high[i], uint16(value))
                position_sum[s] += int64(whole)
            for i in range(n):
                pixel_sum[p0 + i] += int64(total[i])
                total[i] = 0
        for i in range(n):
            pixel_low[p0 + i] = min(pixel_low[p0 + i], low[i])
            pixel_high[p0 + i] = max(pixel_high[p0 + i], high[i])
