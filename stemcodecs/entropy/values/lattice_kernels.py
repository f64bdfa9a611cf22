"""Compiled searches for the numbers of which floats are exact multiples, up to the rounding of every operation.

The values of one pixel (or of one pattern) are given as a row of float64. A first guess comes from the smallest
difference between two of them; each value then narrows the gain down to an interval, as it was rounded by at most half
a last digit; the few floats in what all intervals share are tried on all values.
"""

from __future__ import annotations

import numpy as np

from stemcodecs.compiled import kernel

UNKNOWN, FOUND, FAILED = 0, 1, 2
_WIDE = 2048
"""Pixels whose statistics are at hand at once."""
_FEW = 64
"""Different values up to which each is put in its place; more of them are sorted together."""
_NEIGHBOURS = 3
"""Floats on either side of the middle of an interval that are tried."""


@kernel(forceinline=True)
def _step(x, k, single):
    """The ``k``-th float after a positive one."""
    if single:
        return np.float64(x) * (1.0 + k * 2.0**-24 * 1.5)
    return x * (1.0 + k * 2.0**-53 * 1.5)


@kernel(forceinline=True)
def _rounded(x, single):
    return np.float64(np.float32(x)) if single else x


@kernel
def distinct_values(row, out, magnitudes):
    """Finite values of a row (or their magnitudes other than 0), sorted, once each; returns how many."""
    m = 0
    for k in range(row.shape[0]):
        v = abs(row[k]) if magnitudes else row[k]
        if not np.isfinite(v) or (magnitudes and v == 0.0):
            continue
        # Most values are one of a few that are there already.
        low, high = 0, m
        while low < high:
            middle = (low + high) // 2
            if out[middle] < v:
                low = middle + 1
            else:
                high = middle
        if low < m and out[low] == v:
            continue
        if m == _FEW:
            return _sorted_values(row, out, magnitudes)
        for i in range(m, low, -1):
            out[i] = out[i - 1]
        out[low] = v
        m += 1
    return m


@kernel
def _sorted_values(row, out, magnitudes):
    """As :func:`distinct_values`, where they are many."""
    n = 0
    for v in row:
        if np.isfinite(v) and not (magnitudes and v == 0.0):
            out[n] = abs(v) if magnitudes else v
            n += 1
    part = np.sort(out[:n])
    m = 0
    for i in range(n):
        if m == 0 or part[i] != out[m - 1]:
            out[m] = part[i]
            m += 1
    return m


@kernel
def _reproduces(a, n, gain, single, divide):
    """Whether a gain gives all values of whole numbers, bit by bit."""
    if single:
        g = np.float32(gain)
        for i in range(a.shape[0]):
            v = np.float32(n[i]) / g if divide else np.float32(n[i]) * g
            if np.float64(v) != a[i]:
                return False
        return True
    same = 0
    for i in range(a.shape[0]):
        same += (n[i] / gain if divide else n[i] * gain) == a[i]
    return same == a.shape[0]


@kernel
def _exact_gain(a, n, epsilon, single, divide):
    """A float with which ``n`` gives ``a``, or 0."""
    low, high = 0.0, np.inf
    for i in range(a.shape[0]):
        half = a[i] * epsilon
        low = max(low, (a[i] - half) / n[i])
        high = min(high, (a[i] + half) / n[i])
    if low > high:
        return 0.0
    middle = (low + high) / 2
    if divide:
        middle = 1.0 / middle
        whole = np.rint(middle)
        if whole > 0 and _reproduces(a, n, whole, single, divide):
            return whole
    for k in range(2 * _NEIGHBOURS + 1):
        # Nearest first: 0, 1, -1, 2, -2, ...
        g = _rounded(_step(middle, (k + 1) // 2 * (1 if k % 2 else -1), single), single)
        if g > 0 and _reproduces(a, n, g, single, divide):
            return g
    return 0.0


@kernel
def lattice_gains(rows, single, divide, gains, status):
    """Gain (or divisor) of every row with which all its values are those of whole numbers: FOUND, FAILED, UNKNOWN.

    UNKNOWN are rows without a value other than 0.
    """
    epsilon = 2.0**-24 if single else 2.0**-53
    a = np.empty(rows.shape[1])
    n = np.empty(rows.shape[1])
    for r in range(rows.shape[0]):
        m = distinct_values(rows[r], a, True)
        gains[r], status[r] = 0.0, UNKNOWN
        if m == 0:
            continue
        status[r] = FAILED
        least = a[0]
        for i in range(1, m):
            least = min(least, a[i] - a[i - 1])
        if least < a[m - 1] * 4e-6:
            continue
        for part in range(1, 4):
            first = np.rint(a[0] * part / least)
            gain = a[0] / first
            good = True
            for i in range(m):
                n[i] = np.rint(a[i] / gain)
                good &= abs(a[i] / gain - n[i]) < 0.02
            if good:
                exact = _exact_gain(a[:m], n[:m], epsilon, single, divide)
                if exact > 0:
                    gains[r], status[r] = exact, FOUND
                    break


@kernel
def _dark_gain(u, x, dark, single):
    """Gain with which ``(x - dark) * gain`` gives ``u``, rounded after each operation, or 0."""
    epsilon = 2.0**-24 if single else 2.0**-53
    low, high = 0.0, np.inf
    for i in range(u.shape[0]):
        y = _rounded(x[i] - dark, single)
        if y == 0.0 or u[i] == 0.0:
            if y != u[i]:
                return 0.0
            continue
        if (y < 0) != (u[i] < 0):
            return 0.0
        half = abs(u[i]) * epsilon
        low = max(low, (abs(u[i]) - half) / abs(y))
        high = min(high, (abs(u[i]) + half) / abs(y))
        if low > high:
            return 0.0
    for k in range(2 * _NEIGHBOURS + 1):
        g = _rounded(_step((low + high) / 2, (k + 1) // 2 * (1 if k % 2 else -1), single), single)
        good = True
        for i in range(u.shape[0]):
            y = _rounded(x[i] - dark, single)
            if _rounded(y * g, single) != u[i]:
                good = False
                break
        if good:
            return g
    return 0.0


@kernel
def dark_lattices(rows, single, pedestal, darks, gains, status):
    """Dark reference and gain of every row, so that its values are ``(x - dark) * gain`` of whole numbers x.

    Whole numbers have a pedestal that no dark reference is far from: its whole part cannot be told from the values.
    """
    u, x = np.empty(rows.shape[1]), np.empty(rows.shape[1])
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
        # Whole numbers by their differences, then a straight line through them; small values are the most exact.
        x[0] = 0.0
        for i in range(1, m):
            x[i] = x[i - 1] + max(1.0, np.rint((u[i] - u[i - 1]) / gain))
        gain = (u[m - 1] - u[0]) / x[m - 1]
        for _ in range(2):
            for i in range(1, m):
                x[i] = np.rint((u[i] - u[0]) / gain)
            sw, sx, su, sxx, sxu = 0.0, 0.0, 0.0, 0.0, 0.0
            for i in range(m):
                w = 1.0 / (u[i] * u[i] + gain * gain)
                sw += w
                sx += w * x[i]
                su += w * u[i]
                sxx += w * x[i] * x[i]
                sxu += w * x[i] * u[i]
            determinant = sw * sxx - sx * sx
            if determinant <= 0:
                break
            gain = (sw * sxu - sx * su) / determinant
        zero = (su - gain * sx) / sw / gain
        whole = pedestal - np.rint(-zero)
        for i in range(m):
            x[i] += whole
        guess = whole - zero
        for digits in (12.0, 17.0, 20.0):
            unit = 2.0**-digits
            start = np.rint(guess / unit)
            for k in range(25):
                dark = _rounded((start + (k + 1) // 2 * (1 if k % 2 else -1)) * unit, single)
                exact = _dark_gain(u[:m], x[:m], dark, single)
                if exact > 0:
                    darks[r], gains[r], status[r] = dark, exact, FOUND
                    break
            if status[r] == FOUND:
                break


@kernel
def least_magnitudes(values, least):
    """Lower ``least``, of the dtype of the values, to the smallest magnitude of every pixel but 0 and NaN."""
    infinite = least.dtype.type(np.inf)
    last = values.shape[0] - 1
    for first in range(0, values.shape[1], _WIDE):
        lows = least[first : first + _WIDE]
        # Two patterns at once: memory delivers faster. Behind the end the last one comes again.
        for i in range(0, values.shape[0], 2):
            a, b = values[i, first : first + _WIDE], values[min(i + 1, last), first : first + _WIDE]
            for p in range(lows.shape[0]):
                x, y = abs(a[p]), abs(b[p])
                x = x if x > 0 else infinite
                y = y if y > 0 else infinite
                x = x if x < y else y
                lows[p] = x if x < lows[p] else lows[p]
