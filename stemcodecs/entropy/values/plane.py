"""Any numeric array as a plane of 16-bit counts, with all that is needed to restore it bit for bit.

Detector counts are small integers whatever dtype they are stored in: int32 by many cameras, float32 by Nion Swift, with
-1 in detector gaps, a gain, an offset, or a few saturated values. This module finds that out and undoes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.entropy.values.calibration import Calibration
from stemcodecs.entropy.values.number_map import MAX_EXCEPTIONS, PLANE_TOP, NumberMap, float_map, integer_map
from stemcodecs.entropy.values.plane_kernels import code_floats, code_integers, look_up

__all__ = ["NumberMap", "Plane", "apply_map", "insert_exceptions", "restore", "to_plane", "wide_bits"]

Array = np.ndarray[Any, Any]

_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Plane:
    """An array as 16-bit counts.

    Attributes
    ----------
    numbers : NumberMap
        How to restore values.
    counts : uint8 or uint16[n]
        The plane, in the array's C order.
    low : uint16[n] or None
        Raw low bits.
    exceptions_at, exceptions : int64[m], uint64[m]
        Values that the map cannot restore, by flat index, as the bits of the value (sign-extended for integers).
    calibration : Calibration or None
        How to restore values instead of by ``numbers``, whose negatives and marks it shares.
    """

    numbers: NumberMap
    counts: Array
    low: Array | None
    exceptions_at: Array
    exceptions: Array
    calibration: Calibration | None = None


def _nothing() -> tuple[Array, Array]:
    return np.zeros(0, np.int64), np.zeros(0, np.uint64)


def to_plane(array: Array) -> Plane | None:
    """Express a C-contiguous numeric array as counts, or return None if it holds something else."""
    flat = array.reshape(-1)
    if flat.dtype.kind == "b":
        flat = flat.view(np.uint8)
    if flat.dtype.byteorder not in "=|" and not flat.dtype.isnative:
        flat = flat.astype(flat.dtype.newbyteorder("="))
    # Most detectors: the values are the plane, and nothing is copied.
    if flat.dtype in (np.uint8, np.uint16):
        at, values = _nothing()
        return Plane(numbers=NumberMap(), counts=flat, low=None, exceptions_at=at, exceptions=values)
    if flat.size == 0:
        return None
    n_pixels = math.prod(array.shape[-2:]) if array.ndim > 2 else array.size
    if flat.dtype.kind == "f":
        # Signalling NaNs raise a floating-point flag when they are cast; their bits are kept as exceptions.
        with np.errstate(all="ignore"):
            return _float_plane(flat, n_pixels)
    return _integer_plane(flat, n_pixels)


def _integer_plane(flat: Array, n_pixels: int) -> Plane | None:
    low, high = int(flat.min()), int(flat.max())
    numbers = integer_map(flat, n_pixels, low, high)
    if numbers is None:
        return None
    if numbers.low_bits:
        return _wide_plane(flat, numbers)
    bits = flat.view(f"u{flat.dtype.itemsize}")
    offset = bits.dtype.type(numbers.offset % 2 ** (8 * flat.dtype.itemsize))
    # Every value has a code by construction, so that one vectorised subtraction is enough.
    if high - low < PLANE_TOP:
        at, values = _nothing()
        counts = bits if offset == 0 else bits - offset
        # Of 8 and 16 bits they are a plane as they are.
        counts = counts if counts.itemsize <= 2 else counts.astype(np.uint16)
        return Plane(numbers=numbers, counts=counts, low=None, exceptions_at=at, exceptions=values)
    return _checked_plane(flat, numbers)


def _float_plane(flat: Array, n_pixels: int) -> Plane | None:
    numbers = float_map(flat, n_pixels)
    if numbers is None:
        return None
    return _checked_plane(flat, numbers)


def _checked_plane(flat: Array, numbers: NumberMap) -> Plane | None:
    """Map every value; those without a code are exceptions."""
    counts = np.empty(flat.size, np.uint16)
    # Room for as many exceptions as are allowed: the loop stops when it is full, and the array is no counts.
    wrong = np.empty(int(MAX_EXCEPTIONS * flat.size) + 8, np.int64)
    # The table of the decoder is also the check of the encoder: what does not come back from it is an exception.
    n = _code(flat, numbers, _table(numbers, flat.dtype), counts, wrong)
    if n > wrong.size:
        return None
    at = wrong[:n].copy()
    values = wide_bits(flat[at])
    return Plane(numbers=numbers, counts=counts, low=None, exceptions_at=at, exceptions=values)


def _code(flat: Array, numbers: NumberMap, table: Array, counts: Array, wrong: Array) -> int:
    """Counts by a map without raw low bits, see :func:`stemcodecs.entropy.values.plane_kernels.code_integers`."""
    codes = np.array([numbers.code(k) for k in range(len(numbers.specials))], np.int64)
    bits = flat.view(f"u{flat.dtype.itemsize}")
    if flat.dtype.kind == "f":
        # Half precision is computed with in single: Numba knows no other.
        values = flat.astype(np.float32) if flat.dtype.itemsize == 2 else flat
        n = code_floats(values, bits, numbers.gain, numbers.divide, table, table[codes], codes, counts, wrong)
    else:
        offset = bits.dtype.type(numbers.offset % 2 ** (8 * flat.dtype.itemsize))
        n = code_integers(bits, offset, table, table[codes], codes, counts, wrong)
    return int(n)


def apply_map(array: Array, numbers: NumberMap) -> tuple[Array, int]:
    """Express an array as counts by a map that was found for others, without raw low bits.

    Returns
    -------
    counts : uint8 or uint16[n]
        In C order; 0 for values that the map does not know.
    int
        How many these are.
    """
    flat = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(-1)
    if flat.dtype.kind == "b":
        flat = flat.view(np.uint8)
    if flat.dtype in (np.uint8, np.uint16):
        return flat, 0
    counts, wrong = np.empty(flat.size, np.uint16), np.empty(min(_BLOCK, flat.size), np.int64)
    table = _table(numbers, flat.dtype)
    unknown = 0
    with np.errstate(all="ignore"):
        for start in range(0, flat.size, _BLOCK):
            part = slice(start, start + _BLOCK)
            n = _code(flat[part], numbers, table, counts[part], wrong)
            counts[start + wrong[:n]] = 0
            unknown += n
    return counts, unknown


def _wide_plane(flat: Array, numbers: NumberMap) -> Plane | None:
    """Integers with raw low bits, block by block."""
    counts, raw = np.empty(flat.size, np.uint16), np.empty(flat.size, np.uint16)
    at, values = [], []
    found = 0
    for start in range(0, flat.size, _BLOCK):
        # 64-bit intermediates of a whole chunk would take four times its size.
        block = slice(start, min(flat.size, start + _BLOCK))
        bits = wide_bits(flat[block])
        plane, raw[block] = _split(bits, numbers)
        for k, special in enumerate(numbers.specials):
            plane[bits == np.uint64(special)] = numbers.code(k)
        wrong = np.flatnonzero(_join(plane, raw[block], numbers) != bits)
        if wrong.size:
            at.append(wrong + start)
            values.append(bits[wrong])
            found += wrong.size
            if found > MAX_EXCEPTIONS * flat.size + 8:
                return None
            # What stands in the plane instead should not surprise its model: the value before.
            before = np.arange(plane.size)
            before[wrong] = 0
            plane = plane[np.maximum.accumulate(before)]
        counts[block] = plane
    exceptions = (np.concatenate(at), np.concatenate(values)) if at else _nothing()
    return Plane(numbers=numbers, counts=counts, low=raw, exceptions_at=exceptions[0], exceptions=exceptions[1])


def wide_bits(values: Array) -> Array:
    """Bits of values in 64: integers in two's complement, floats zero-extended."""
    if values.dtype.kind == "i":
        return values.astype(np.int64).view(np.uint64)
    return values.view(f"u{values.dtype.itemsize}").astype(np.uint64)


def _split(bits: Array, numbers: NumberMap) -> tuple[Array, Array]:
    u = bits - np.uint64(numbers.offset % 2**64)
    shift = np.uint64(numbers.low_bits)
    low = (u & ((np.uint64(1) << shift) - np.uint64(1))).astype(np.uint16)
    return ((u >> shift) & np.uint64(0xFFFF)).astype(np.uint16), low


def _join(counts: Array, low: Array | None, numbers: NumberMap) -> Array:
    """Integers of a plane, as 64 bits in two's complement."""
    u = counts.astype(np.uint64)
    if numbers.negatives:
        u[counts >= PLANE_TOP - numbers.negatives] -= np.uint64(PLANE_TOP)
    if numbers.low_bits and low is not None:
        u = (u << np.uint64(numbers.low_bits)) | low
    u += np.uint64(numbers.offset % 2**64)
    for k, special in enumerate(numbers.specials):
        u[counts == numbers.code(k)] = special
    return u


def _table(numbers: NumberMap, dtype: np.dtype[Any]) -> Array:
    """Bits of the value of every code, where there are no raw low bits: unsigned, of the width of the dtype."""
    codes = np.arange(PLANE_TOP)
    bits = np.dtype(f"u{dtype.itemsize}")
    if dtype.kind != "f":
        # Cut to the width of the dtype: two's complement.
        return _join(codes, None, numbers).astype(bits)
    n = codes - PLANE_TOP * (codes >= PLANE_TOP - numbers.negatives).astype(np.float64)
    # One correctly rounded operation in double precision, then one rounding: the same on every machine.
    with np.errstate(over="ignore"):
        table = (n / numbers.gain if numbers.divide else n * numbers.gain).astype(dtype).view(bits)
    for k, special in enumerate(numbers.specials):
        table[numbers.code(k)] = special % 2 ** (8 * dtype.itemsize)
    return table


def restore(
    counts: Array, low: Array | None, numbers: NumberMap, dtype: np.dtype[Any], at: Array, exceptions: Array
) -> Array:
    """Inverse of :func:`to_plane`: a flat array of a native ``dtype``."""
    if dtype in (np.uint8, np.uint16) or dtype.kind == "b":
        return counts.astype(np.uint8).view(bool) if dtype.kind == "b" else counts.astype(dtype, copy=False)
    out = np.empty(counts.size, dtype)
    bits = out.view(f"u{dtype.itemsize}")
    # A table of 65,536 values stays in the cache: faster than arithmetic for each value.
    if low is None:
        look_up(counts, _table(numbers, dtype), bits)
    else:
        for start in range(0, counts.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            bits[block] = _join(counts[block], low[block], numbers).astype(bits.dtype)
    insert_exceptions(out, at, exceptions)
    return out


def insert_exceptions(out: Array, at: Array, exceptions: Array) -> None:
    """Replace values, by flat index, by those that no map could restore."""
    bits = out.view(f"u{out.dtype.itemsize}")
    bits[at] = exceptions.astype(bits.dtype)
