"""Any numeric array as a plane of 16-bit counts, with all that is needed to restore it bit for bit.

Detector counts are small integers whatever dtype they are stored in: int32 by many cameras, float32 by Nion Swift, with
-1 in detector gaps, a gain, an offset, or a few saturated values. This module finds that out and undoes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["NumberMap", "Plane", "restore", "to_plane"]

Array = np.ndarray[Any, Any]

PLANE_TOP = 65536
MAX_EXCEPTIONS = 1e-3
"""Share of values that may be kept as exceptions; with more of them the array is not counts."""
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class NumberMap:
    """How the values of an array become 16-bit counts.

    ``value = (count - offset') * gain`` in the words of a detector. In detail: for an integer ``n``, with
    ``u = n - offset`` modulo 2**64, the plane holds ``(u >> low_bits) & 0xFFFF``, and the decoder takes plane values
    of at least ``65536 - negatives`` as negative. A float is ``n * gain``, or ``n / gain`` if ``divide``.

    Attributes
    ----------
    offset : int
        Subtracted from integers, signed 64-bit.
    negatives : int
        How many of the highest plane values stand for negative integers.
    low_bits : int
        Bits of every integer that are stored raw, 0 to 15.
    gain : float
        1.0 for integer arrays.
    divide : bool
        Whether floats are ``n / gain`` rather than ``n * gain``.
    """

    offset: int = 0
    negatives: int = 0
    low_bits: int = 0
    gain: float = 1.0
    divide: bool = False


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
    if flat.dtype.kind == "f":
        # Signalling NaNs raise a floating-point flag when they are cast; their bits are kept as exceptions.
        with np.errstate(all="ignore"):
            return _float_plane(flat)
    return _integer_plane(flat)


def _integer_map(low: int, high: int, quantiles: tuple[int, int]) -> NumberMap | None:
    if low >= 0 and high < PLANE_TOP:
        return NumberMap()
    if -PLANE_TOP < low < 0 and high < PLANE_TOP + low:
        return NumberMap(negatives=-low)
    if high - low < PLANE_TOP:
        return NumberMap(offset=low)
    # A few outliers must not cost every value its low bits: size the window by the bulk.
    first, last = quantiles
    if first >= 0 and last < PLANE_TOP // 2:
        return NumberMap()
    if first < 0 and first > -PLANE_TOP // 4 and last < PLANE_TOP // 2:
        return NumberMap(negatives=-first)
    margin = (last - first) // 4 + 1
    first = max(low, first - margin)
    last = min(high, last + margin)
    low_bits = max(0, (last - first).bit_length() - 16)
    return NumberMap(offset=first, low_bits=low_bits) if low_bits <= 15 else None


def _sample(flat: Array) -> Array:
    return flat[:: max(1, flat.size // 65536)]


def _integer_plane(flat: Array) -> Plane | None:
    low, high = int(flat.min()), int(flat.max())
    sample = np.sort(_sample(flat))
    k = sample.size // 2000
    numbers = _integer_map(low, high, (int(sample[k]), int(sample[-1 - k])))
    if numbers is None:
        return None
    counts = np.empty(flat.size, np.uint16)
    raw = np.empty(flat.size, np.uint16) if numbers.low_bits else None
    at, values = [], []
    found = 0
    for start in range(0, flat.size, _BLOCK):
        block = slice(start, min(flat.size, start + _BLOCK))
        bits = flat[block].astype(np.int64).view(np.uint64) if flat.dtype.kind == "i" else flat[block].astype(np.uint64)
        counts[block], low_part = _split(bits, numbers)
        if raw is not None:
            raw[block] = low_part
        wrong = np.flatnonzero(_join(counts[block], low_part, numbers) != bits)
        if wrong.size:
            at.append(wrong + start)
            values.append(bits[wrong])
            found += wrong.size
            if found > MAX_EXCEPTIONS * flat.size + 8:
                return None
    exceptions = (np.concatenate(at), np.concatenate(values)) if at else _nothing()
    return Plane(numbers=numbers, counts=counts, low=raw, exceptions_at=exceptions[0], exceptions=exceptions[1])


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


def _float_plane(flat: Array) -> Plane | None:
    numbers = _float_map(flat)
    if numbers is None:
        return None
    bits_dtype = np.dtype(f"u{flat.dtype.itemsize}")
    counts = np.empty(flat.size, np.uint16)
    at, values = [], []
    found = 0
    for start in range(0, flat.size, _BLOCK):
        block = slice(start, min(flat.size, start + _BLOCK))
        counts[block] = _float_counts(flat[block], numbers)
        bits = flat[block].view(bits_dtype)
        wrong = np.flatnonzero(_float_values(counts[block], numbers, flat.dtype).view(bits_dtype) != bits)
        if wrong.size:
            at.append(wrong + start)
            values.append(bits[wrong].astype(np.uint64))
            found += wrong.size
            if found > MAX_EXCEPTIONS * flat.size + 8:
                return None
    exceptions = (np.concatenate(at), np.concatenate(values)) if at else _nothing()
    return Plane(numbers=numbers, counts=counts, low=None, exceptions_at=exceptions[0], exceptions=exceptions[1])


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


def _float_map(flat: Array) -> NumberMap | None:
    """Find the gain with which all (but a few) sampled floats are integers of 16 bits."""
    sample = _sample(flat).astype(np.float64)
    sample = sample[np.isfinite(sample)]
    if sample.size == 0:
        return None
    distinct = np.unique(np.abs(sample))
    distinct = distinct[distinct > 0]
    if distinct.size == 0:
        return NumberMap()
    for gain, divide in _gains(distinct, flat.dtype):
        n = np.rint(sample * gain if divide else sample / gain)
        # Exact on the sample but for the share that may become exceptions; the whole array is checked by the caller.
        restored = (n / gain if divide else n * gain).astype(flat.dtype).astype(np.float64)
        good = restored == sample
        if good.mean() < 1 - MAX_EXCEPTIONS:
            continue
        low, high = n[good].min(), n[good].max()
        if low >= 0 and high < PLANE_TOP:
            # Room for rare negative values that the sample missed.
            negatives = 0 if high > PLANE_TOP - 4096 else min(2048, PLANE_TOP - 1 - int(high))
            return NumberMap(gain=gain, divide=divide, negatives=negatives)
        if low > -PLANE_TOP // 2 and high < PLANE_TOP // 2:
            return NumberMap(gain=gain, divide=divide, negatives=PLANE_TOP // 2)
    return None


def _gains(distinct: Array, dtype: np.dtype[Any]) -> list[tuple[float, bool]]:
    """Candidate gains: one, and what an approximate greatest common divisor of the values suggests."""
    candidates: list[tuple[float, bool]] = [(1.0, False)]
    tolerance = float(np.finfo(dtype).eps) * 4
    low, high = float(distinct[0]), float(distinct[-1])
    divisor = low
    for value in distinct[: 4096 : max(1, min(distinct.size, 4096) // 64)]:
        a, b = float(value), divisor
        while b > max(tolerance * high, low * 1e-4):
            a, b = b, a - b * np.rint(a / b)
            b = abs(b)
        divisor = a
    if not np.isfinite(divisor) or divisor <= 0 or high / divisor >= 2 * PLANE_TOP:
        return candidates
    counts = np.rint(distinct / divisor)
    keep = (counts > 0) & (counts < 2 * PLANE_TOP)
    values, counts = distinct[keep], counts[keep]
    for _ in range(2):
        # Every value was rounded once: the gain lies where all the intervals of half a last digit overlap.
        half = np.spacing(values.astype(dtype)).astype(np.float64) / 2
        low_end, high_end = ((values - half) / counts).max(), ((values + half) / counts).min()
        refined = (low_end + high_end) / 2
        counts = np.maximum(np.rint(values / refined), 1)
    if low_end < high_end:
        candidates += [(gain, False) for gain in _shortest(low_end, high_end)]
    candidates += [(refined, False), (float(dtype.type(refined)), False)]
    inverse = np.rint(1 / refined)
    if 1 < inverse < 2**31:
        candidates.append((float(inverse), True))
    return candidates


def _shortest(low: float, high: float) -> list[float]:
    """The decimal number with the fewest digits in an interval: what a person or an instrument would have set."""
    middle = (low + high) / 2
    for digits in range(1, 17):
        gain = float(f"{middle:.{digits}g}")
        if low < gain < high:
            return [gain]
    return []


def restore(
    counts: Array, low: Array | None, numbers: NumberMap, dtype: np.dtype[Any], at: Array, exceptions: Array
) -> Array:
    """Inverse of :func:`to_plane`: a flat array of a native ``dtype``."""
    if dtype.kind == "f":
        out = _float_values(counts, numbers, dtype)
        if at.size:
            out.view(f"u{dtype.itemsize}")[at] = exceptions.astype(f"u{dtype.itemsize}")
        return out
    if dtype in (np.uint8, np.uint16) or dtype.kind == "b":
        return counts.astype(np.uint8).view(bool) if dtype.kind == "b" else counts.astype(dtype, copy=False)
    out = np.empty(counts.size, dtype)
    for start in range(0, counts.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        joined = _join(counts[block], None if low is None else low[block], numbers)
        out[block] = joined.view(np.int64).astype(dtype) if dtype.kind == "i" else joined.astype(dtype)
    if at.size:
        out[at] = exceptions.view(np.int64).astype(dtype) if dtype.kind == "i" else exceptions.astype(dtype)
    return out
