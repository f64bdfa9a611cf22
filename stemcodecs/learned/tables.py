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
    mantissa : int32[64]
        ``round(2**11 * 2**(-f / 64))``.
    root6 : int32[65536]
        ``floor(64 * sqrt(v + 3/8))`` of every count: where its variance does not depend on the count.
    threshold10 : int32[131072]
        ``floor(1024 * sqrt(y + 7/8))``: half-way between the counts y and y + 1.
    """

    def __init__(self) -> None:
        self.sigmoid = _sigmoid()
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


def _mantissa() -> Array:
    root = 1 << (_BITS - 1)
    for _ in range(6):  # the 64th root of one half
        root = math.isqrt(root << _BITS)
    power, out = 1 << _BITS, []
    for _ in range(_OCTAVE):
        out.append((_MANTISSA_ONE * power + (1 << (_BITS - 1))) >> _BITS)
        power = power * root >> _BITS
    return np.array(out, np.int32)
