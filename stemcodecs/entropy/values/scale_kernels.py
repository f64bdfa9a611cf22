"""Compiled search for the scale of a single pattern whose pixels' gains are known: a dose, a monitor.

What a value is without the gain of its pixel is a whole multiple of one spacing, but for rounding. Some values of the
pattern tell the spacing, and these again which float it was made with. Each pattern is looked at by itself, by single
IEEE operations: its scale is the same in whatever chunk it stands, and on every machine.
"""

from __future__ import annotations

import numpy as np
from numba import int64

from stemcodecs.compiled import kernel

_LOOKED_AT, _SPARSE = 512, 64
"""Lit values of a pattern that tell its spacing; with fewer than the second number of them all pixels are looked at."""
_ENOUGH = 0.8
"""Share of these that must be whole multiples: hot pixels are none."""
_PARTS = 8
"""Parts into which a difference of two values is divided in search of the spacing."""
_NEIGHBOURS = 3
"""Floats on either side of a guess that are tried."""
_ROUNDED = 1e-6
"""Relative error that a value may have of a few roundings to single precision."""


@kernel
def _lit(row, back, every, out):
    """Positive values of every so many pixels, without their gains; returns how many, at most as there is room for."""
    m = 0
    for p in range(0, row.shape[0], every):
        v = np.float64(row[p]) * back[p]
        if np.isfinite(v) and v > 0 and m < out.shape[0]:
            out[m] = v
            m += 1
    return m


@kernel
def _by_differences(a, spacing, first):
    """A spacing, found by how far sorted values lie beyond one of them: bright patterns have no small multiples."""
    total, times = 0.0, 0.0
    for u in a[first:]:
        d = u - a[first]
        n = np.rint(d / spacing)
        if n >= 1 and abs(d - n * spacing) < 0.1 * spacing:
            total += d
            times += n
            # Each difference makes the spacing good enough for the next larger one.
            spacing = total / times
    return spacing


@kernel
def _by_multiples(a, spacing):
    """A spacing, found by sorted values: small multiples first."""
    total, times, misses = 0.0, 0.0, 0
    for u in a:
        n = np.rint(u / spacing)
        if n >= 1 and abs(u - n * spacing) < 0.1 * spacing:
            total += u
            times += n
            spacing = total / times
        else:
            misses += 1
            if misses > (1 - _ENOUGH) * a.shape[0] + 1:
                return 0.0
    return spacing


@kernel
def _refined(a, spacing):
    """A spacing to all digits that the values have; 0 where too few are multiples of it."""
    if not spacing > 0:
        return 0.0
    for tolerance in (1e-3, 1e-5, 1e-6):
        total, times = 0.0, 0.0
        for u in a:
            n = np.rint(u / spacing)
            if n >= 1 and abs(u / spacing - n) < tolerance * n:
                # Sums of differences lose no digits.
                total += u / n - spacing
                times += 1
        if times == 0:
            return 0.0
        spacing += total / times
    fits = 0
    for u in a:
        n = np.rint(u / spacing)
        fits += (n >= 1) & (abs(u / spacing - n) < _ROUNDED * n)
    return spacing if fits >= _ENOUGH * a.shape[0] else 0.0


@kernel
def _largest(a, spacing):
    """The largest multiple of a spacing of which nearly all values are multiples too."""
    for prime in (2, 3, 5, 7):
        while True:
            fits = 0
            for u in a:
                fits += int64(np.rint(u / spacing)) % prime == 0
            if fits < _ENOUGH * a.shape[0]:
                break
            spacing *= prime
    return spacing


@kernel
def pattern_spacings(values, back, spacings, lit):
    """Spacing of the values of every pattern without the gains of their pixels; 0 where they have none.

    values : floats[k, n_pixels]; back : float64[n_pixels], inverse gains; spacings : float64[k], the result; lit :
    int64[k], how many values told it.
    """
    room, gaps = np.empty(_LOOKED_AT), np.empty(_LOOKED_AT)
    bases = np.empty(5)
    # An odd step meets every column of the detector.
    step = max(1, values.shape[1] // (8 * _LOOKED_AT)) | 1
    for i in range(values.shape[0]):
        m = _lit(values[i], back, step, room)
        if m < _SPARSE and step > 1:
            m = _lit(values[i], back, 1, room)
        spacings[i], lit[i] = 0.0, m
        if m == 0:
            continue
        a = np.sort(room[:m])
        n = 0
        for j in range(1, m):
            d = a[j] - a[j - 1]
            if d > 4 * _ROUNDED * a[j]:
                gaps[n] = d
                n += 1
        # Single counts, where these are; else the difference of two values, few of which are of dead or hot pixels.
        bases[0] = a[m // 20]
        between = np.sort(gaps[:n])
        for k in range(4):
            bases[k + 1] = between[(n * (8, 4, 1, 0)[k]) // 16] if n else a[0]
        for base in bases:
            for part in range(1, _PARTS + 1):
                found = _refined(a, _by_multiples(a, base / part))
                # A value that is none may have spoilt it.
                for first in (m // 20, m // 4):
                    if found == 0:
                        found = _refined(a, _by_differences(a, base / part, first))
                if found > 0:
                    spacings[i] = _refined(a, _largest(a, found))
                    break
            if spacings[i] > 0:
                break


@kernel
def exact_scales(values, gains, back, guesses, gain_divides, divides, first, scales, shares):
    """The float next to each guess that restores most values of its pattern, bit by bit, and the share of these.

    gains : as many as pixels, of the precision to compute in, as is ``scales``, the result; back : their inverse,
    float64; divides, first : whether the scale divides, and whether it comes before the gain.
    """
    kind = scales.dtype.type
    single = scales.itemsize == 4
    above, below = kind(np.inf), kind(0)
    step = max(1, values.shape[1] // (8 * _LOOKED_AT)) | 1
    for i in range(values.shape[0]):
        scales[i], shares[i] = kind(0), 0.0
        guess = guesses[i]
        if not (0 < guess < np.inf):
            continue
        best, every = -1, step
        upper = lower = kind(guess)
        for k in range(2 * _NEIGHBOURS + 2):
            # A sum of counts is a whole number, and is tried first; then the nearest floats.
            if k == 0:
                s = kind(np.rint(guess))
            elif k == 1:
                s = kind(guess)
                if not single:
                    # A monitor of single precision, of which double precision has few.
                    nearest = kind(np.float32(guess))
                    s = nearest if abs(nearest / guess - 1.0) < 2.0**-40 else s
            elif k % 2:
                upper = np.nextafter(upper, above)
                s = upper
            else:
                lower = np.nextafter(lower, below)
                s = lower
            if not s > 0:
                continue
            inverse = 1.0 / np.float64(s) if not divides else np.float64(s)
            good, seen = 0, 0
            for p in range(0, values.shape[1], every):
                v = values[i, p]
                if not (v > 0 and v < np.inf and back[p] > 0):
                    continue
                seen += 1
                x = kind(np.rint(np.float64(v) * back[p] * inverse))
                if first:
                    x = x / s if divides else x * s
                    x = x / gains[p] if gain_divides else x * gains[p]
                else:
                    x = x / gains[p] if gain_divides else x * gains[p]
                    x = x / s if divides else x * s
                good += x == v
                if seen == _LOOKED_AT:
                    break
            if seen < _SPARSE and every > 1:
                every = 1
            if good > best and seen:
                best = good
                scales[i], shares[i] = s, good / seen
            if seen and good == seen:
                break
