"""Tables that the decoder of a network looks up, made by integer arithmetic alone: the same on every machine.

``q`` in a name is the number of fraction bits. All are int32, as the kernels gather them.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

__all__ = ["SIGMOID_ONE", "Tables", "tables"]

Array = np.ndarray[Any, Any]

SIGMOID_ONE = 1 << 15
_SIGMOID_ENTRIES = 4096
_SIGMOID_STEPS = 128
"""Entries of the sigmoid to one unit of its argument."""
_OCTAVE = 64
_MANTISSA_ONE = 1 << 11
_COUNTS = 1 << 16
_THRESHOLDS = 1 << 17
"""Thresholds go beyond the largest count: the last bins of a window may lie there."""
_BITS = 192
"""Fraction bits of what the tables are computed in: far more than what could change a rounding."""


class Tables:
    """All tables.

    Attributes
    ----------
    sigmoid : int32[4096]
        ``round(2**15 / (1 + exp(-(i - 2047.5) / 128)))``.
    normal : int32[4096]
        ``round(2**15 * Phi(0.6 * (i - 2047.5) / 128))``: of a normal distribution about as wide as that logistic one.
    mantissa : int32[64]
        ``round(2**11 * 2**(-f / 64))``.
    root6 : int32[65536]
        ``floor(64 * sqrt(v + 3/8))`` of every count: where its variance does not depend on the count.
    threshold10 : int32[131072]
        ``floor(1024 * sqrt(y + 7/8))``: half-way between the counts y and y + 1.
    """

    def __init__(self) -> None:
        self.sigmoid = _sigmoid()
        self.normal = _normal()
        self.mantissa = _mantissa()
        self.root6 = np.array([math.isqrt(4096 * v + 1536) for v in range(_COUNTS)], np.int32)
        self.threshold10 = np.array([math.isqrt((y << 20) + 917504) for y in range(_THRESHOLDS)], np.int32)


@cache
def tables() -> Tables:
    """The tables, made once a process."""
    return Tables()


def _exponential(numerator: int, denominator: int) -> int:
    """``exp(-numerator / denominator)`` by its series, with ``_BITS`` fraction bits."""
    term, total, k = 1 << _BITS, 0, 0
    while term:
        total += term if k % 2 == 0 else -term
        k += 1
        term = term * numerator // (denominator * k)
    return total


def _sigmoid() -> Array:
    ratio = _exponential(1, _SIGMOID_STEPS)
    # exp(-1/256), and then a step at a time: i - 2047.5 is a half, three halves, …
    power = _exponential(1, 2 * _SIGMOID_STEPS)
    upper = []
    for _ in range(_SIGMOID_ENTRIES // 2):
        one = 1 << _BITS
        upper.append((2 * SIGMOID_ONE * one + one + power) // (2 * (one + power)))
        power = power * ratio >> _BITS
    return np.array([SIGMOID_ONE - v for v in reversed(upper)] + upper, np.int32)


def _normal() -> Array:
    # Phi(x) = 1/2 + density * (x + x**3 / 3 + x**5 / (3 * 5) + ...), of a = 0.6 * k / 256 for odd k: all terms are
    # positive, so that nothing cancels.
    two_pi = 2 * _pi()
    root = math.isqrt(two_pi << _BITS)
    upper = []
    for k in range(1, _SIGMOID_ENTRIES, 2):
        numerator, denominator = 3 * k, 10 * _SIGMOID_STEPS
        if numerator > 5 * denominator:
            # What is left above five standard deviations is less than half of one.
            upper.append(SIGMOID_ONE)
            continue
        term, total, n = (numerator << _BITS) // denominator, 0, 1
        while term:
            total += term
            n += 2
            term = term * numerator * numerator // (denominator * denominator * n)
        density = (_exponential(numerator * numerator, 2 * denominator * denominator) << _BITS) // root
        half = 1 << (_BITS - 1)
        upper.append((2 * SIGMOID_ONE * (half + (total * density >> _BITS)) + (1 << _BITS)) >> (_BITS + 1))
    return np.array([SIGMOID_ONE - v for v in reversed(upper)] + upper, np.int32)


def _pi() -> int:
    """By J. Machin's formula, with ``_BITS`` fraction bits."""

    def arc_tangent(inverse: int) -> int:
        term, total, n = (1 << _BITS) // inverse, 0, 1
        while term:
            total += term // n if n % 4 == 1 else -(term // n)
            term //= inverse * inverse
            n += 2
        return total

    return 16 * arc_tangent(5) - 4 * arc_tangent(239)


def _mantissa() -> Array:
    root = 1 << (_BITS - 1)
    for _ in range(6):  # the 64th root of one half
        root = math.isqrt(root << _BITS)
    power, out = 1 << _BITS, []
    for _ in range(_OCTAVE):
        out.append((_MANTISSA_ONE * power + (1 << (_BITS - 1))) >> _BITS)
        power = power * root >> _BITS
    return np.array(out, np.int32)
