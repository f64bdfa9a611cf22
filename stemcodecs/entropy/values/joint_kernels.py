"""Compiled steps of the search for a gain per pixel and a scale per pattern at once."""

from __future__ import annotations

import numpy as np
from numba import int64

from stemcodecs.compiled import kernel


@kernel
def rough_gains(rows, gains):
    """Gain of every row of values that are whole multiples of it but for a relative error of 1e-6; 0 if unknown."""
    a = np.empty(rows.shape[1])
    for r in range(rows.shape[0]):
        m = 0
        for v in rows[r]:
            if np.isfinite(v) and v > 0:
                a[m] = v
                m += 1
        gains[r] = 0.0
        if m == 0:
            continue
        part = np.sort(a[:m])
        least = part[0]
        for i in range(1, m):
            d = part[i] - part[i - 1]
            if d > 1e-4 * part[i]:
                least = min(least, d)
        gains[r] = part[0] / np.rint(part[0] / least)


@kernel
def refined_gains(values, scales, gains, times):
    """Gains as means over all patterns, with as many values as ``times`` says; those that do not fit are left out."""
    total = np.zeros(gains.shape[0])
    times[:] = 0
    for i in range(values.shape[0]):
        inverse = 1.0 / scales[i]
        for p in range(values.shape[1]):
            v = float(values[i, p])
            if v > 0 and gains[p] > 0:
                u = v * inverse / gains[p]
                n = np.rint(u)
                # Products with a power of two are exact; others are off by the same amount in every pattern.
                power = n == 1.0 or n == 2.0 or n == 4.0 or n == 8.0 or n == 16.0
                if power and abs(u - n) < 1e-5 * n:
                    total[p] += u / n
                    times[p] += 1
    for p in range(gains.shape[0]):
        if times[p]:
            gains[p] *= total[p] / times[p]


@kernel
def common_factor(gains, tolerances, misses):
    """Factor that turns all gains into floats of 24 digits, or 0: gains and scales are only known up to one.

    gains : in 1 to 2, the best known first; tolerances : in units of the last digit. Factors next to the right one move
    gains of about the same size by whole digits, nearly: the one with the least squares is taken.
    """
    digits = 2.0**23
    best, least = 0.0, np.inf
    for j in range(int64(1) << 23):
        factor = (digits + j) / (gains[0] * digits)
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
    return best


@kernel
def best_scales(values, gains, guesses, divides, first, scales):
    """The float next to each guess that restores most values of its pattern; returns the share of all restored."""
    restored, seen = 0, 0
    for i in range(values.shape[0]):
        best = -1
        total = 0
        for k in range(5):
            s = np.float32(guesses[i] * (1.0 + ((k + 1) // 2 * (1 if k % 2 else -1)) * 2.0**-24 * 1.5))
            inverse = 1.0 / float(s) if divides else float(s)
            good = 0
            total = 0
            for p in range(values.shape[1]):
                if not values[i, p] > 0:
                    continue
                total += 1
                n = np.float32(np.rint(float(values[i, p]) / (float(gains[p]) * inverse)))
                if first:
                    n = n / s if divides else n * s
                    n = n * gains[p]
                else:
                    n = n * gains[p]
                    n = n / s if divides else n * s
                good += n == values[i, p]
            if good > best:
                best = good
                scales[i] = s
            if good == total:
                break
        restored += best
        seen += total
    return restored / max(seen, 1)
