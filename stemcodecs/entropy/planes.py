"""Any numeric array as a plane of 16-bit counts, with all that is needed to restore it bit for bit.

Detector counts are small integers whatever dtype they are stored in: int32 by many cameras, float32 by Nion Swift, with
-1 in detector gaps, a gain, an offset, or a few saturated values. This module finds that out and undoes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.entropy.number_map import MAX_EXCEPTIONS, PLANE_TOP, NumberMap, float_map, integer_map

__all__ = ["NumberMap", "Plane", "restore", "to_plane"]

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
    """

    numbers: NumberMap
    counts: Array
    low: Array | None
    exceptions_at: Array
    exceptions: Array


def _nothing() -> tuple[Array, Array]:
    return np.zeros(0, np.int64), np.zeros(0, np.uint64)


def to_plane(array: Array) -> Plane | None:
    """Express a C-contiguous numeric array as counts, or return None if it holds something else."""
    flat = array.reshape(-1)
    if flat.dtype.kind == "b":
        flat = flat.view(np.uint8)
    if flat.dtype.byteorder not in "=|" and not flat.dtype.isnative:
        flat = flat.astype(flat.dtype.newbyteorder("="))
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
    numbers = integer_map(flat, n_pixels)
    if numbers is None:
        return None
    signed = flat.dtype.kind == "i"

    def bits_of(values: Array) -> Array:
        return values.astype(np.int64).view(np.uint64) if signed else values.astype(np.uint64)

    def counts_of(values: Array) -> tuple[Array, Array]:
        return _split(bits_of(values), numbers)

    return _plane(flat, numbers, bits_of, counts_of, lambda counts, low: _join(counts, low, numbers))


def _float_plane(flat: Array, n_pixels: int) -> Plane | None:
    numbers = float_map(flat, n_pixels)
    if numbers is None:
        return None
    bits = f"u{flat.dtype.itemsize}"

    def counts_of(values: Array) -> tuple[Array, Array]:
        return _float_counts(values, numbers), np.zeros(0, np.uint16)

    def bits_of(values: Array) -> Array:
        return values.view(bits).astype(np.uint64)

    return _plane(
        flat, numbers, bits_of, counts_of, lambda counts, low: bits_of(_float_values(counts, numbers, flat.dtype))
    )


def _plane(
    flat: Array, numbers: NumberMap, bits_of: Callable[[Array], Array],
    counts_of: Callable[[Array], tuple[Array, Array]], back: Callable[[Array, Array], Array],
) -> Plane | None:  # fmt: skip
    """Map an array block by block, and keep what does not come back as exceptions."""
    counts = np.empty(flat.size, np.uint16)
    raw = np.empty(flat.size, np.uint16) if numbers.low_bits else None
    at, values = [], []
    found = 0
    for start in range(0, flat.size, _BLOCK):
        block = slice(start, min(flat.size, start + _BLOCK))
        bits = bits_of(flat[block])
        plane, low = counts_of(flat[block])
        for k, special in enumerate(numbers.specials):
            plane[bits == np.uint64(special)] = numbers.code(k)
        wrong = np.flatnonzero(_with_specials(back(plane, low), plane, numbers) != bits)
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
        if raw is not None:
            raw[block] = low
    exceptions = (np.concatenate(at), np.concatenate(values)) if at else _nothing()
    return Plane(numbers=numbers, counts=counts, low=raw, exceptions_at=exceptions[0], exceptions=exceptions[1])


def _with_specials(bits: Array, counts: Array, numbers: NumberMap) -> Array:
    """Put the marks into restored values, given as bits."""
    for k, special in enumerate(numbers.specials):
        bits[counts == numbers.code(k)] = special
    return bits


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
    return u + np.uint64(numbers.offset % 2**64)


def _float_counts(values: Array, numbers: NumberMap) -> Array:
    wide = values.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        n = np.rint(wide * numbers.gain if numbers.divide else wide / numbers.gain)
    n = np.where(np.isfinite(n) & (np.abs(n) < PLANE_TOP), n, 0).astype(np.int64)
    return (n & 0xFFFF).astype(np.uint16)


def _float_values(counts: Array, numbers: NumberMap, dtype: np.dtype[Any]) -> Array:
    n = counts.astype(np.float64)
    if numbers.negatives:
        n[counts >= PLANE_TOP - numbers.negatives] -= PLANE_TOP
    # One correctly rounded operation in double precision, then one rounding: the same on every machine.
    with np.errstate(over="ignore"):
        return (n / numbers.gain if numbers.divide else n * numbers.gain).astype(dtype)


def restore(
    counts: Array, low: Array | None, numbers: NumberMap, dtype: np.dtype[Any], at: Array, exceptions: Array
) -> Array:
    """Inverse of :func:`to_plane`: a flat array of a native ``dtype``."""
    if dtype in (np.uint8, np.uint16) or dtype.kind == "b":
        return counts.astype(np.uint8).view(bool) if dtype.kind == "b" else counts.astype(dtype, copy=False)
    out = np.empty(counts.size, dtype)
    bits = out.view(f"u{dtype.itemsize}")
    for start in range(0, counts.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        if dtype.kind == "f":
            out[block] = _float_values(counts[block], numbers, dtype)
        else:
            # Cut to the width of the dtype: two's complement.
            bits[block] = _join(counts[block], None if low is None else low[block], numbers).astype(bits.dtype)
        for k, special in enumerate(numbers.specials):
            bits[block][counts[block] == numbers.code(k)] = special % 2 ** (8 * dtype.itemsize)
    if at.size:
        bits[at] = exceptions.astype(bits.dtype)
    return out
