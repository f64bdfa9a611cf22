"""Compiled searches for gains of which only the rounded products are known, computed in more digits than they have.

Half precision is computed with in single, and single precision often in double: then many numbers give the same
values, and a short one of these is as good as the right one.
"""

from __future__ import annotations

import math

import numpy as np

from stemcodecs.compiled import kernel
from stemcodecs.entropy.values.lattice_kernels import FAILED, FOUND, UNKNOWN, distinct_values

_ROUNDS = 48
"""Of a ternary search: two thirds of the bracket are left by each, less than the last digit by all."""


@kernel
def _half_digit(value, digits, least):
    """Half the last digit of a positive float; ``least``: that of subnormal ones."""
    _, exponent = math.frexp(value)
    return max(2.0 ** (exponent - digits - 1), least)


@kernel
def _shortest(low, high):
    """A number of few binary digits inside of an interval of positive numbers, or 0."""
    _, exponent = math.frexp(high)
    middle = (low + high) / 2
    for digits in range(4, 54):
        unit = 2.0 ** (exponent - digits)
        number = np.rint(middle / unit) * unit
        if low < number < high:
            return number
    return 0.0


@kernel
def _gives(a, m, gain, digits, least_half):
    """Whether rounded multiples of a gain are these values."""
    for i in range(m):
        product = np.rint(a[i] / gain) * gain
        unit = 2.0 * _half_digit(product, digits, least_half)
        if np.rint(product / unit) * unit != a[i]:
            return False
    return True


@kernel
def loose_gains(rows, digits, least_half, most, gains, status):
    """Gain of every row of which all its values are rounded multiples: FOUND, FAILED, or UNKNOWN if all are 0.

    rows : float64[n, k] of ``digits`` binary digits, which lose one from ``least_half`` on; most : counts beyond
    which nothing is told any more.
    """
    a = np.empty(rows.shape[1])
    for r in range(rows.shape[0]):
        m = distinct_values(rows[r], a, True)
        gains[r], status[r] = 0.0, UNKNOWN
        if m == 0:
            continue
        status[r] = FAILED
        least = a[0]
        for i in range(1, m):
            least = min(least, a[i] - a[i - 1])
        if least * most < a[m - 1]:
            continue
        for part in range(1, 4):
            first = np.rint(a[0] * part / least)
            half = _half_digit(a[0], digits, least_half)
            low, high = (a[0] - half) / first, (a[0] + half) / first
            for i in range(1, m):
                n = np.rint(2 * a[i] / (low + high))
                half = _half_digit(a[i], digits, least_half)
                low, high = max(low, (a[i] - half) / n), min(high, (a[i] + half) / n)
                if low > high:
                    break
            if low > high:
                continue
            gain = _shortest(low, high)
            # Products of short numbers often lie just between two floats: then a gain is at the end of its interval.
            for end in (low, high):
                if gain == 0 and _gives(a, m, end, digits, least_half):
                    gain = end
            if gain > 0:
                gains[r], status[r] = gain, FOUND
                break


@kernel
def _room(u, x, halves, inverse, darks):
    """How far the dark reference may be moved with a gain of ``1 / inverse``; ``darks`` takes its bounds."""
    low, high = -np.inf, np.inf
    for i in range(u.shape[0]):
        low = max(low, x[i] - (u[i] + halves[i]) * inverse)
        high = min(high, x[i] - (u[i] - halves[i]) * inverse)
    darks[0], darks[1] = low, high
    return high - low


@kernel
def loose_lines(rows, digits, pedestal, tolerance, darks, gains, status):
    """Dark reference and gain of every row, so that ``(x - dark) * gain`` of whole numbers x, in double precision,
    rounds to its values of ``digits`` binary digits.

    pedestal : as of :func:`stemcodecs.entropy.values.lattice_kernels.dark_lattices`.
    tolerance : counts by which a line may miss a value, or 0: it must give them all.
    """
    u, x, halves = np.empty(rows.shape[1]), np.empty(rows.shape[1]), np.empty(rows.shape[1])
    bounds = np.empty(2)
    for r in range(rows.shape[0]):
        m = distinct_values(rows[r], u, False)
        darks[r], gains[r], status[r] = pedestal, 1.0, UNKNOWN
        if m < 3:
            continue
        status[r] = FAILED
        largest = max(abs(u[0]), abs(u[m - 1]))
        gain = np.inf
        for i in range(1, m):
            gain = min(gain, u[i] - u[i - 1])
        if gain < largest * 4e-6:
            continue
        # Whole numbers by their differences, which the whole range then makes exact.
        x[0] = 0.0
        for i in range(1, m):
            x[i] = x[i - 1] + max(1.0, np.rint((u[i] - u[i - 1]) / gain))
        for _ in range(2):
            gain = (u[m - 1] - u[0]) / x[m - 1]
            for i in range(1, m):
                x[i] = np.rint((u[i] - u[0]) / gain)
        zero = x[0] - u[0] / gain
        whole = pedestal - np.rint(-zero)
        for i in range(m):
            x[i] += whole
        for i in range(m):
            halves[i] = _half_digit(abs(u[i]), digits, 0.0) if u[i] != 0.0 else 0.0
        # The room is concave in the inverse of the gain: its top is found by thirds.
        error = 4.0 * _half_digit(largest, digits, 0.0) / max(u[m - 1] - u[0], gain)
        left, right = (1.0 - error) / gain, (1.0 + error) / gain
        for _ in range(_ROUNDS):
            third = (right - left) / 3
            if third <= abs(left) * 1e-17:
                break
            if _room(u[:m], x[:m], halves, left + third, bounds) < _room(u[:m], x[:m], halves, right - third, bounds):
                left += third
            else:
                right -= third
        best = (left + right) / 2
        if tolerance > 0:
            # The line that misses the least, in numbers as short as the values.
            room = _room(u[:m], x[:m], halves, best, bounds)
            if -room / 2 < tolerance:
                gains[r], darks[r], status[r] = 1.0 / best, (bounds[0] + bounds[1]) / 2, FOUND
                if digits == 24:
                    gains[r], darks[r] = np.float64(np.float32(gains[r])), np.float64(np.float32(darks[r]))
            continue
        if _room(u[:m], x[:m], halves, best, bounds) <= 0:
            continue
        # A gain in fewer digits, if it leaves room.
        short = np.float64(np.float32(1.0 / best))
        if _room(u[:m], x[:m], halves, 1.0 / short, bounds) > 0:
            gains[r] = short
        else:
            gains[r] = 1.0 / best
            _room(u[:m], x[:m], halves, best, bounds)
        negative = bounds[1] < 0
        low, high = (-bounds[1], -bounds[0]) if negative else (bounds[0], bounds[1])
        dark = _shortest(low, high) if low > 0 else (low + high) / 2
        if dark == 0.0:
            dark = (low + high) / 2
        darks[r] = -dark if negative else dark
        status[r] = FOUND
