"""Which numbers the 16-bit counts of a plane stand for: found out from an array, and undone by a decoder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

__all__ = ["MAX_EXCEPTIONS", "MAX_SPECIALS", "PLANE_TOP", "NumberMap", "float_map", "integer_map", "marks"]

Array = np.ndarray[Any, Any]

PLANE_TOP = 65536
MAX_EXCEPTIONS = 2e-2
"""Share of values that may be kept as exceptions; with more of them the array is not counts."""
MAX_SPECIALS = 4
_EXCEPTION_BITS = 60
"""About what an exception takes, its place and its 8 bytes: weighs them against raw low bits."""
_SAMPLED_VALUES = 65536
"""Values by which a map is chosen; the whole array is checked against it afterwards."""
_ALWAYS = 0.9
"""Share of a mark's pixels that must be the same in three patterns: dead pixels stay, cosmic rays do not."""
_SPARE_NEGATIVES, _FULL = 2048, 4096
"""Codes that are kept free for negative values which the sample missed, unless the counts come this near to the top."""
_TAILS = (0.0, 5e-4, 1e-3, 1e-2)
"""Shares of the values that may be left out on either side, to be exceptions."""


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
    specials : tuple of int
        Bits of values that mark pixels rather than count (gaps between modules, dead pixels, NaN), integers
        sign-extended to 64 bits; the plane values below the negative ones stand for them, see :meth:`code`.
    """

    offset: int = 0
    negatives: int = 0
    low_bits: int = 0
    gain: float = 1.0
    divide: bool = False
    specials: tuple[int, ...] = ()

    def code(self, special: int) -> int:
        """Plane value of the ``special``-th mark."""
        return PLANE_TOP - self.negatives - 1 - special


def _sample(flat: Array) -> Array:
    # An odd step meets every column of the detector.
    return flat[:: max(1, flat.size // _SAMPLED_VALUES) | 1]


def _far_values(distinct: list[Any]) -> tuple[Any, ...]:
    """Up to four values that lie farther from all others than these lie apart; increasing input."""
    values = list(distinct)
    found: list[Any] = []
    # Above first: 2**32 - 1 and 65535 are the usual marks, negative ones are rarer.
    for side in (-1, 0):
        for m in range(1, MAX_SPECIALS + 1 - len(found)):
            if len(values) <= m:
                break
            far, rest = (values[-m:], values[:-m]) if side else (values[:m], values[m:])
            gap = far[0] - rest[-1] if side else rest[0] - far[-1]
            # Farther from the rest than the rest is wide: what lies nearer is the tail of the counts.
            if gap > max(rest[-1] - rest[0], PLANE_TOP // 2):
                found += far
                values = rest
                break
    return tuple(found)


def _is_mark(bits: Array, n_pixels: int, special: int) -> bool:
    """Whether a value sits on the same pixels in the first, middle and last pattern: elsewhere it is an exception."""
    # Three patterns decide: a dead pixel is dead in all of them, and reading more would cost a pass.
    last = bits.size // n_pixels - 1
    first, middle, end = (bits[k * n_pixels : (k + 1) * n_pixels] == special for k in (0, last // 2, last))
    return int((first & middle & end).sum()) >= _ALWAYS * max(int(first.sum()), int(middle.sum()), int(end.sum()), 1)


def marks(flat: Array, n_pixels: int, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Those of some values that mark pixels, as integers of the values or of their bits."""
    return tuple(v for v in values if _is_mark(flat, n_pixels, v))


def integer_map(flat: Array, n_pixels: int, low: int, high: int) -> NumberMap | None:
    """Map of integers, by the range of the bulk of them, or None if that is too wide.

    flat : patterns of ``n_pixels`` integers, one after the other; low, high : their range.
    """
    # Exact range first: then no value can be an exception, and nothing need be checked.
    if low >= 0 and high < PLANE_TOP:
        return NumberMap()
    if -PLANE_TOP < low < 0 and high < PLANE_TOP + low:
        return NumberMap(negatives=-low)
    if high - low < PLANE_TOP:
        return NumberMap(offset=low)
    # Here the range is wide, because of marks, outliers, or counts beyond 16 bits: the sample tells which.
    sample = np.sort(_sample(flat))
    specials = marks(flat, n_pixels, _far_values(sorted({low, high, *np.unique(sample).tolist()})))
    sample = sample[~np.isin(sample, np.array(specials, sample.dtype))] if specials else sample
    if sample.size == 0:
        return NumberMap(specials=tuple(s % 2**64 for s in specials))
    best, least = None, np.inf
    for tail in _TAILS:
        k = int(tail * sample.size)
        first, last = int(sample[k]), int(sample[-1 - k])
        # Without marks the range is known exactly; the sample may have missed its ends.
        if tail == 0 and not specials:
            first, last = low, high
        numbers, lowest = _window(first, last)
        if numbers is None:
            continue
        # A few outliers must not cost every value its low bits.
        reach = (PLANE_TOP - len(specials)) << numbers.low_bits
        inside = np.searchsorted(sample, [lowest, min(lowest + reach, int(sample[-1]) + 1)])
        cost = numbers.low_bits + _EXCEPTION_BITS * (1 - float(inside[1] - inside[0]) / sample.size)
        if cost < least:
            best, least = numbers, cost
    return None if best is None else replace(best, specials=tuple(s % 2**64 for s in specials))


def _window(first: int, last: int) -> tuple[NumberMap | None, int]:
    """Map of the integers from ``first`` to ``last`` with some room on both sides, and the lowest it can express."""
    if first >= 0 and last < PLANE_TOP // 2:
        return NumberMap(), 0
    if -PLANE_TOP // 4 < first < 0 and last < PLANE_TOP // 2:
        negatives = min(-2 * first, PLANE_TOP // 4)
        return NumberMap(negatives=negatives), -negatives
    # More than 16 bits: the lowest ones are noise of large counts, and are stored raw.
    low_bits = max(0, (last - first).bit_length() - 16)
    if low_bits > 15:
        return None, 0
    # What the bulk leaves free of the window lies half below it.
    lowest = max(first - ((PLANE_TOP << low_bits) - MAX_SPECIALS - 1 - (last - first)) // 2, -(2**63))
    lowest = max(lowest, 0) if first >= 0 else lowest
    return NumberMap(offset=lowest, low_bits=low_bits), lowest


def float_map(flat: Array, n_pixels: int) -> NumberMap | None:
    """Find the gain with which all (but a few) sampled floats are integers of 16 bits; see :func:`integer_map`."""
    sample = _sample(flat)
    finite = np.isfinite(sample)
    bits = f"u{flat.dtype.itemsize}"
    strange = tuple(np.unique(sample[~finite].view(bits)).tolist())
    strange = marks(flat.view(bits), n_pixels, strange) if len(strange) <= MAX_SPECIALS else ()
    # NaN and infinity are marks or exceptions, never counts.
    sample = sample[finite].astype(np.float64)
    if sample.size == 0:
        return None
    far = np.array(_far_values(np.unique(sample).tolist()), flat.dtype)
    fixed = marks(flat.view(bits), n_pixels, tuple(far.view(bits).tolist()))[: MAX_SPECIALS - len(strange)]
    numbers = _finite_map(sample[~np.isin(sample, np.array(fixed, bits).view(flat.dtype))], flat.dtype)
    return None if numbers is None else replace(numbers, specials=(*strange, *fixed))


def _finite_map(sample: Array, dtype: np.dtype[Any]) -> NumberMap | None:
    distinct = np.unique(np.abs(sample))
    distinct = distinct[distinct > 0]
    if distinct.size == 0:
        return NumberMap()
    for gain, divide in _gains(distinct, dtype):
        n = np.rint(sample * gain if divide else sample / gain)
        # Exact on the sample but for the share that may become exceptions; the whole array is checked by the caller.
        # The very operations of the decoder: a gain that is right but for rounding would not restore the bits.
        restored = (n / gain if divide else n * gain).astype(dtype).astype(np.float64)
        good = restored == sample
        if good.mean() < 1 - MAX_EXCEPTIONS:
            continue
        n = np.sort(n[good])
        for tail in _TAILS:
            k = int(tail * n.size)
            low, high = n[k], n[-1 - k]
            if low >= 0 and high < PLANE_TOP:
                # Room for rare negative values that the sample missed.
                negatives = 0 if high > PLANE_TOP - _FULL else min(_SPARE_NEGATIVES, PLANE_TOP - 1 - int(high))
                return NumberMap(gain=gain, divide=divide, negatives=negatives)
            if low > -PLANE_TOP // 2 and high < PLANE_TOP // 2:
                return NumberMap(gain=gain, divide=divide, negatives=PLANE_TOP // 2)
    return None


def _gains(distinct: Array, dtype: np.dtype[Any]) -> list[tuple[float, bool]]:
    """Candidate gains: one, and what an approximate greatest common divisor of the values suggests."""
    candidates: list[tuple[float, bool]] = [(1.0, False)]
    # Euclid's algorithm on numbers that were rounded: a rest below the rounding is a zero.
    tolerance = float(np.finfo(dtype).eps) * 4
    low, high = float(distinct[0]), float(distinct[-1])
    divisor = low
    # Some small values are enough: a multiple of few steps tells the step best.
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
    # Twice: the first time the multiples themselves may be off by one, because the divisor was rough.
    for _ in range(2):
        # Every value was rounded once: the gain lies where all the intervals of half a last digit overlap.
        half = np.spacing(values.astype(dtype)).astype(np.float64) / 2
        low_end, high_end = ((values - half) / counts).max(), ((values + half) / counts).min()
        refined = (low_end + high_end) / 2
        counts = np.maximum(np.rint(values / refined), 1)
    if low_end < high_end:
        candidates += [(gain, False) for gain in _shortest(low_end, high_end)]
    candidates += [(refined, False), (float(dtype.type(refined)), False)]
    # A camera that divides by a whole number rounds otherwise than one that multiplies by its inverse.
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
