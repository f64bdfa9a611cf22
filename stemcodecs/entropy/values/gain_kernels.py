"""Compiled search for the offset and the gain of every pixel of integers: what rounds to all of its values."""

from __future__ import annotations

import numpy as np
from numba import int32, int64

from stemcodecs.compiled import kernel
from stemcodecs.entropy.values.restore_kernels import TILE

_NUDGE = 2.0**-24 * 1.5
"""Relative step to the next float of single precision."""


@kernel
def pixel_sums(values, shift, least, most, every, low, total, times):
    """Lowest, sum and number of the values of every pixel, after the shift of its pattern was taken off.

    Those below ``least`` or above ``most`` do not count; sum and number are of one pattern in ``every``.
    """
    row = np.empty(TILE, np.int64)
    # Statistics of some pixels stay in the fastest cache while all patterns go by.
    for first in range(0, values.shape[1], TILE):
        lows, totals, numbers = low[first : first + TILE], total[first : first + TILE], times[first : first + TILE]
        for i in range(values.shape[0]):
            add, some = shift[i], values[i, first : first + TILE]
            for p in range(some.shape[0]):
                row[p] = int64(some[p]) - add
            # Without branches, these are vector instructions.
            for p in range(some.shape[0]):
                counts = (row[p] >= least) & (row[p] <= most)
                lows[p] = row[p] if counts & (row[p] < lows[p]) else lows[p]
            if i % every:
                continue
            for p in range(some.shape[0]):
                counts = (row[p] >= least) & (row[p] <= most)
                totals[p] += row[p] if counts else int64(0)
                numbers[p] += int64(1) if counts else int64(0)


@kernel
def _followed(column, zero, guess):
    """Gain of sorted values, from a guess of it, and whether all of them are rounded multiples of that."""
    gain, low, high = guess, 0.0, np.inf
    n, last = int64(0), zero
    for i in range(column.shape[0]):
        if column[i] <= last:
            continue
        n += max(int64(1), int64(np.rint((column[i] - last) / gain)))
        last = column[i]
        gain = (last - zero) / n
        low, high = max(low, (last - zero - 0.5) / n), min(high, (last - zero + 0.5) / n)
    return (low + high) / 2 if low < high else gain, low < high


@kernel
def integer_gains(columns, zeros, guess, gains):
    """Gain of every pixel, roughly, from some of its values: the spacing of what rounds to integers; 0 if unknown.

    columns : integers[n_pixels, k], sorted; zeros : int64[n_pixels], value of no counts; guess : float64, about what
    most pixels have, or 0; gains : float64[n_pixels], the result.
    """
    for p in range(columns.shape[0]):
        column = columns[p]
        least = int64(1) << 62
        for i in range(1, column.shape[0]):
            d = column[i] - column[i - 1]
            if d > 0:
                least = min(least, d)
        d = column[0] - zeros[p]
        if d > 0:
            least = min(least, d)
        gains[p] = 0.0
        if least == int64(1) << 62:
            continue
        if guess > 0:
            gain, fits = _followed(column, zeros[p], guess)
            if fits:
                gains[p] = gain
                continue
        # The spacing of two values is a gain rounded up or down; the largest that fits, as parts of a gain fit too.
        for more in (0.9, 0.45, 0.0, -0.45):
            gain, fits = _followed(column, zeros[p], least + more)
            if fits or more == 0.0:
                gains[p] = gain
            if fits:
                break


@kernel
def gain_intervals(values, shift, least, most, zeros, gains, low, high, first_look):
    """Narrow the gains of every pixel down to those with which all its values round to what they are.

    Values below ``least`` or above ``most``, after the shift, do not count, nor do pixels without a gain.
    first_look : floats[0], of the precision in which a first look is taken, that of counts too low to differ by less.
    """
    least, most = float(least), float(most)
    inverse, zero, lower, upper = np.empty(TILE), np.empty(TILE), np.empty(TILE), np.empty(TILE)
    kind = first_look.dtype
    rough_inverse, rough_zero = np.empty(TILE, kind), np.empty(TILE, kind)
    rough_lower, rough_upper = np.empty(TILE, kind), np.empty(TILE, kind)
    # Of the same precision, so that no sum below is wider.
    constants = np.array([0.5, 0.0]).astype(kind)
    half = constants[0]
    narrows = np.zeros(TILE, np.int32)
    pairs = narrows.view(np.int64)
    for first in range(0, values.shape[1], TILE):
        size = min(TILE, values.shape[1] - first)
        for p in range(size):
            inverse[p] = 1.0 / gains[first + p] if gains[first + p] > 0 else 0.0
            zero[p], lower[p], upper[p] = zeros[first + p], low[first + p], high[first + p]
            rough_inverse[p], rough_zero[p] = inverse[p], zero[p]
            rough_lower[p], rough_upper[p] = lower[p], upper[p]
        for i in range(values.shape[0]):
            add, some = float(shift[i]), values[i, first : first + TILE]
            some_narrow = int32(0)
            constants[1] = add
            rough_add = constants[1]
            # Few values narrow anything: these are looked at again, and what lies near zero counts with them.
            for p in range(size):
                signed = kind.type(some[p]) - rough_add - rough_zero[p]
                whole = abs(np.rint(signed * rough_inverse[p]))
                far = abs(signed)
                narrow = (far - half > whole * rough_lower[p]) | (far + half < whole * rough_upper[p])
                narrows[p] = int32(narrow)
                some_narrow = int32(some_narrow | narrows[p])
            if some_narrow == 0:
                continue
            for pair in range(pairs.shape[0]):
                if pairs[pair] == 0:
                    continue
                for p in range(2 * pair, min(2 * pair + 2, size)):
                    if not narrows[p]:
                        continue
                    value = float(some[p]) - add
                    far = abs(value - zero[p])
                    whole = abs(np.rint((value - zero[p]) * inverse[p]))
                    if whole == 0.0 or value < least or value > most:
                        continue
                    # Multiplied out, as most that may do not.
                    if not (far - 0.5 > whole * lower[p] or far + 0.5 < whole * upper[p]):
                        continue
                    begin, end = (far - 0.5) / whole, (far + 0.5) / whole
                    # A value far off is an exception, not a reason to give up the gain.
                    if begin < upper[p] and end > lower[p]:
                        lower[p], upper[p] = max(lower[p], begin), min(upper[p], end)
                        rough_lower[p], rough_upper[p] = lower[p], upper[p]
                        # Rounded so that the same value is not looked at a second time: it is a frequent one.
                        while far - 0.5 > whole * float(rough_lower[p]) and lower[p] == begin:
                            rough_lower[p] *= 1.0 + _NUDGE
                        while far + 0.5 < whole * float(rough_upper[p]) and upper[p] == end:
                            rough_upper[p] *= 1.0 - _NUDGE
        for p in range(size):
            low[first + p], high[first + p] = lower[p], upper[p]
