"""Compiled steps of the search for a gain per pixel and a scale per pattern at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int32, int64, uint32

from stemcodecs.compiled import kernel

_BLOCK, _FEW = 64, 16
"""Pixels that are turned round together, and values of a pixel up to which each is put in its place."""
_FACTORS, _AT_FIRST, _SLACK = 2048, 10, 1 << 14
"""Factors that are tried together, gains on which most of them fail, and rounding of the first look in 2**-32."""


@kernel
def fitted_scales(some, scales, pixels, counts):
    """One step of the fit ``some = scale * pixel * count`` to whole counts: scales first, then pixels.

    some : float64[k, n], 0 where there is nothing; counts : float64[k, n], the result. Returns the largest relative
    change of a scale.
    """
    n = some.shape[1]
    total, times = np.zeros(n), np.zeros(n)
    inverse = 1.0 / pixels
    largest = 0.0
    for i in range(some.shape[0]):
        row, whole = some[i], counts[i]
        by = 1.0 / scales[i]
        change, fitted = 0.0, 0.0
        for p in range(n):
            ratio = row[p] * inverse[p] * by
            whole[p] = max(np.rint(ratio), 1.0)
        for p in range(n):
            ratio = row[p] * inverse[p] * by
            fits = (row[p] > 0) & (abs(ratio - whole[p]) < 0.2) & (whole[p] < 64)
            change += ratio / whole[p] - 1 if fits else 0.0
            fitted += 1.0 if fits else 0.0
        change /= max(fitted, 1.0)
        largest = max(largest, abs(change))
        scales[i] *= 1 + change
        by = 1.0 / scales[i]
        for p in range(n):
            ratio = row[p] * inverse[p] * by
            fits = (row[p] > 0) & (abs(ratio - whole[p]) < 0.2) & (whole[p] < 64)
            total[p] += ratio / whole[p] - 1 if fits else 0.0
            times[p] += 1.0 if fits else 0.0
    for p in range(n):
        pixels[p] *= 1 + total[p] / max(times[p], 1.0)
    return largest


@kernel
def lowest_clusters(rows, out):
    """Median of what lies near the lowest of every row: sorted positive values, infinity where there is none."""
    for r in range(rows.shape[0]):
        row = rows[r]
        lit = np.searchsorted(row, np.inf)
        if lit == 0:
            out[r] = 0.0
            continue
        low = row[lit // 20]
        first, end = np.searchsorted(row[:lit], 0.7 * low), np.searchsorted(row[:lit], 1.4 * low)
        out[r] = row[(first + end) // 2] if end > first else low


@kernel
def scaled_columns(values, rows, scales, out):
    """Values of some patterns without their scales, pixel by pixel: ``out`` is float64[n_pixels, rows]."""
    for first in range(0, values.shape[1], _BLOCK):
        end = min(first + _BLOCK, values.shape[1])
        # Lines of both arrays stay in the cache for as long as the block takes.
        for k in range(rows.shape[0]):
            some, scale = values[rows[k]], scales[rows[k]]
            for p in range(first, end):
                out[p, k] = some[p] / scale


@kernel
def rough_gains(rows, gains):
    """Gain of every row of values that are whole multiples of it but for a relative error of 1e-6; 0 if unknown."""
    a = np.empty(rows.shape[1])
    for r in range(rows.shape[0]):
        m = 0
        for v in rows[r]:
            if not (np.isfinite(v) and v > 0):
                continue
            if m < _FEW:
                # Dark pixels have few values: each is put in its place.
                k = m
                while k > 0 and a[k - 1] > v:
                    a[k] = a[k - 1]
                    k -= 1
                a[k] = v
            else:
                a[m] = v
            m += 1
        gains[r] = 0.0
        if m == 0:
            continue
        part = np.sort(a[:m]) if m > _FEW else a[:m]
        least = part[0]
        for i in range(1, m):
            d = part[i] - part[i - 1]
            if d > 1e-4 * part[i]:
                least = min(least, d)
        gains[r] = part[0] / np.rint(part[0] / least)


@kernel
def refined_gains(values, scales, gains, times):
    """Gains as means over all patterns, with as many values as ``times`` says; those that do not fit are left out."""
    total, inverse_gains = np.zeros(gains.shape[0]), np.zeros(gains.shape[0])
    for p in range(gains.shape[0]):
        # Dead pixels have none, and fit nothing.
        inverse_gains[p] = 1.0 / gains[p] if gains[p] > 0 else 0.0
    times[:] = 0
    for i in range(values.shape[0]):
        inverse = 1.0 / scales[i]
        some = values[i]
        for p in range(some.shape[0]):
            u = float(some[p]) * inverse * inverse_gains[p]
            n = np.rint(u)
            # Products with a power of two are exact; others are off by the same amount in every pattern.
            power = (n == 1.0) | (n == 2.0) | (n == 4.0) | (n == 8.0) | (n == 16.0)
            fits = power & (abs(u - n) < 1e-5 * n)
            total[p] += u / n if fits else 0.0
            times[p] += int64(fits)
    for p in range(gains.shape[0]):
        if times[p]:
            gains[p] *= total[p] / times[p]


FACTORS = 1 << 23
"""Factors that there are: the first gain may be any float of 24 digits."""


@kernel
def common_factor(gains, tolerances, misses, begin_at, end_at):
    """Factor that turns all gains into floats of 24 digits, or 0: gains and scales are only known up to one.

    gains : in 1 to 2, the best known first; tolerances : in units of the last digit; begin_at, end_at : which of the
    ``FACTORS`` are tried. Factors next to the right one move gains of about the same size by whole digits, nearly: the
    one with the least squares is taken. Returns these squares as well.
    """
    digits = 2.0**23
    best, least = 0.0, np.inf
    first_few = min(_AT_FIRST, gains.shape[0] - 1)
    wrong_of = np.empty(_FACTORS, np.int32)
    # Of 32 bits, as an index is not, and with it all that is computed from it.
    ramp = np.arange(_FACTORS).astype(np.uint32)
    for start in range(begin_at, end_at, _FACTORS):
        wrong_of[:] = 0
        # Most factors miss several of the first gains. The part behind the point, in 32 bits, grows by the same from
        # one factor to the next.
        for i in range(1, first_few + 1):
            ratio = gains[i] / gains[0]
            begin, end = ratio * (digits + start) / digits, ratio * (digits + start + _FACTORS) / digits
            power = 2.0 if begin < 1.0 else 1.0 if begin < 2.0 else 0.5
            if power != (2.0 if end < 1.0 else 1.0 if end < 2.0 else 0.5):
                continue
            phase, step = ratio * (digits + start) * power, ratio * power
            first = uint32(int64(np.rint((phase - np.floor(phase)) * 2.0**32)))
            more = uint32(int64(np.rint((step - np.floor(step)) * 2.0**32)))
            # How far it is from a whole number, and this shifted so that one comparison is enough.
            most = uint32(int64(tolerances[i] * 2.0**32 + _SLACK))
            first, twice = uint32(first + most), uint32(2 * most)
            for j in range(_FACTORS):
                off = uint32(first + uint32(ramp[j] * more))
                wrong_of[j] = int32(wrong_of[j] + int32(off > twice))
        for j in range(_FACTORS):
            if wrong_of[j] > misses:
                continue
            factor = (digits + float(start + j)) / (gains[0] * digits)
            wrong, squares = 0, 0.0
            for i in range(1, gains.shape[0]):
                g = gains[i] * factor
                scaled = g * digits * (2.0 if g < 1.0 else 1.0 if g < 2.0 else 0.5)
                miss = abs(scaled - np.rint(scaled))
                squares += miss * miss
                wrong += miss > tolerances[i]
                if wrong > misses or squares >= least:
                    break
            if wrong <= misses and squares < least:
                best, least = factor, squares
    return best, least


@kernel
def best_scales(values, gains, guesses, divides, first, scales):
    """The float of single precision next to each guess that restores most values of its pattern; returns the share of
    all restored. Computed in the precision of the values, which gains and scales have too.
    """
    kind = values.dtype.type
    restored, seen = 0, 0
    back = 1.0 / gains.astype(np.float64)
    for i in range(values.shape[0]):
        row = values[i]
        best: Any = -1
        total: Any = int32(0)
        for p in range(row.shape[0]):
            total = int32(total + int32(row[p] > 0))
        for k in range(5):
            s = kind(np.float32(guesses[i] * (1.0 + ((k + 1) // 2 * (1 if k % 2 else -1)) * 2.0**-24 * 1.5)))
            inverse = float(s) if divides else 1.0 / float(s)
            good: Any = int32(0)
            # Without branches, these are vector instructions.
            for p in range(row.shape[0]):
                n = kind(np.rint(float(row[p]) * back[p] * inverse))
                if first:
                    n = n / s if divides else n * s
                    n = n * gains[p]
                else:
                    n = n * gains[p]
                    n = n / s if divides else n * s
                good = int32(good + int32((n == row[p]) & (row[p] > 0)))
            if good > best:
                best = good
                scales[i] = s
            if good == total:
                break
        restored += best
        seen += total
    return restored / max(seen, 1)
