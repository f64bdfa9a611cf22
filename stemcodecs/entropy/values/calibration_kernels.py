"""Compiled loops from calibrated values to counts, the inverse of :mod:`stemcodecs.entropy.values.restore_kernels`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int32, int64, uint16

from stemcodecs.compiled import kernel
from stemcodecs.entropy.values.restore_kernels import TILE, formula

_NUDGE = 2.0**-24 * 1.5
"""Relative step to the next float of single precision."""


@kernel
def integer_counts(values, bits, top, specials, gain, offset, fraction, shift, counts, wrong):
    """Inverse of :func:`stemcodecs.entropy.values.restore_kernels.integer_values`; returns how many have no count.

    values : integers, bits : the same, unsigned; wrong : int64, flat indices of values without a count, as many as
    there is room for. In their place stands the count before.

    Floats of 53 bits hold every product here (a count of 17 bits times a gain of 31), so that equal means equal.
    """
    n = 0
    before = uint16(0)
    lowest, highest = float(top - 65536), float(top - specials.shape[0] - 1)
    unit = 2.0**fraction
    per_unit = 1.0 / unit
    # The middle of what rounds to a value.
    inverse, start, factor, begin = 1.0 / gain, (unit - 1.0) / 2 - offset, gain * 1.0, offset * 1.0
    real, whole, back = np.empty(TILE), np.empty(TILE), np.empty(TILE)
    codes = np.empty(TILE, np.int32)
    for i in range(values.shape[0]):
        add = float(shift[i])
        for first in range(0, values.shape[1], TILE):
            row, found_counts = values[i, first : first + TILE], counts[i, first : first + TILE]
            inverses, starts = inverse[first : first + TILE], start[first : first + TILE]
            factors, begins = factor[first : first + TILE], begin[first : first + TILE]
            for p in range(row.shape[0]):
                # Converted before the shift, which narrow integers do in vectors; 53 bits hold both.
                real[p] = float(row[p]) - add
            for p in range(row.shape[0]):
                x = np.rint((real[p] * unit + starts[p]) * inverses[p])
                x = x if x > lowest else lowest
                whole[p] = x if x < highest else highest
            for p in range(row.shape[0]):
                back[p] = np.floor((whole[p] * factors[p] + begins[p]) * per_unit)
            misses = 0
            for p in range(row.shape[0]):
                misses += int64(back[p] != real[p])
            for p in range(row.shape[0]):
                codes[p] = int32(whole[p])
            for p in range(row.shape[0]):
                found_counts[p] = uint16(codes[p])
            if misses == 0:
                before = found_counts[row.shape[0] - 1]
                continue
            for p in range(row.shape[0]):
                at = first + p
                if back[p] == real[p]:
                    before = counts[i, at]
                    continue
                found = False
                for k in range(specials.shape[0]):
                    if bits[i, at] == specials[k]:
                        counts[i, at] = uint16(top - 1 - k)
                        found = True
                if not found:
                    if n < wrong.shape[0]:
                        wrong[n] = i * values.shape[1] + at
                    n += 1
                    counts[i, at] = before
                else:
                    before = counts[i, at]
    return n


@kernel
def float_counts(
    values, bits, top, specials, whole, dark, gain, scale, gain_divides, scale_divides, scale_first, back, back_scale,
    counts, wrong,
):  # fmt: skip
    """Inverse of :func:`stemcodecs.entropy.values.restore_kernels.float_values`; as :func:`integer_counts`.

    back, back_scale : float64, factors of each pixel and position that turn a value into a count, roughly.
    """
    n = 0
    n_pixels = values.shape[1]
    before = uint16(0)
    negatives, highest = float(top - 65536), float(top - specials.shape[0])
    guess, row = np.empty(TILE), np.empty(TILE, whole.dtype)
    restored = np.empty(TILE, values.dtype)
    raw = restored.view(bits.dtype)
    for i in range(values.shape[0]):
        factor = back_scale[i]
        for first in range(0, n_pixels, TILE):
            some, found_counts = values[i, first : first + TILE], counts[i, first : first + TILE]
            given, backs = bits[i, first : first + TILE], back[first : first + TILE]
            darks, gains = dark[first : first + TILE], gain[first : first + TILE]
            for p in range(some.shape[0]):
                guess[p] = float(some[p]) * backs[p] * factor
            for p in range(darks.shape[0]):
                guess[p] += float(darks[p])
            for p in range(some.shape[0]):
                x = np.rint(guess[p])
                # What no code stands for, NaN among it, gives a value that it is not.
                x = x if (x >= negatives) & (x < highest) else np.nan
                guess[p] = x
                # Zero counts have no sign.
                row[p] = x + 0.0
            strange = int64(0)
            for p in range(some.shape[0]):
                x = guess[p]
                strange |= int64(x != x)
                code: Any = x if x == x else 0.0
                found_counts[p] = uint16(int32(code))
            formula(row[: some.shape[0]], i, darks, gains, scale, gain_divides, scale_divides, scale_first)
            for p in range(some.shape[0]):
                restored[p] = row[p]
            wrong_bits = bits.dtype.type(0)
            for p in range(some.shape[0]):
                wrong_bits = bits.dtype.type(wrong_bits | (raw[p] ^ given[p]))
            if wrong_bits == 0 and strange == 0:
                before = found_counts[some.shape[0] - 1]
                continue
            for p in range(some.shape[0]):
                if raw[p] != given[p] or guess[p] != guess[p]:
                    found = False
                    for k in range(specials.shape[0]):
                        if given[p] == specials[k]:
                            before = uint16(top - 1 - k)
                            found = True
                    if not found:
                        if n < wrong.shape[0]:
                            wrong[n] = i * n_pixels + first + p
                        n += 1
                    found_counts[p] = before
                before = found_counts[p]
    return n


@kernel
def mark_present(values, lowest, step, present):
    """Flag every value ``lowest + step * k`` that occurs, k below 2**22; returns how many values are none of these."""
    outside = 0
    inverse = 1.0 / step
    for i in range(values.shape[0]):
        d = int64(values[i]) - lowest
        # A product takes a tenth of an integer division.
        k = int64(np.rint(float(d) * inverse)) if 0 <= d <= (present.shape[0] - 1) * step else int64(-1)
        if k < 0 or k * step != d:
            outside += 1
        else:
            present[k] = 1
    return outside


@kernel
def mark_codes(codes, seen):
    """Flag every code of 8 or 16 bits that occurs."""
    for i in range(codes.shape[0]):
        seen[codes[i]] = 1


@kernel
def ranks_of_codes(codes, rank, counts, wrong):
    """As :func:`ranks`, of values of 8 or 16 bits, whose places are their bits."""
    n = 0
    before = uint16(0)
    for first in range(0, codes.shape[0], TILE):
        some, found = codes[first : first + TILE], counts[first : first + TILE]
        misses = 0
        # Nothing here waits for the value before.
        for i in range(some.shape[0]):
            r = rank[some[i]]
            misses += r < 0
            found[i] = uint16(r)
        if misses:
            for i in range(some.shape[0]):
                r = rank[some[i]]
                if r < 0:
                    if n < wrong.shape[0]:
                        wrong[n] = first + i
                    n += 1
                    found[i] = before
                before = found[i]
        before = found[some.shape[0] - 1]
    return n


@kernel
def ranks(values, lowest, step, rank, counts, wrong):
    """Count of every value, by its place ``(value - lowest) / step`` in ``rank``, where -1 is none.

    Returns how many have none; ``wrong`` takes as many of their indices as there is room for, and the count before
    stands in their place.
    """
    n = 0
    before = uint16(0)
    inverse = 1.0 / step
    for i in range(values.shape[0]):
        d = int64(values[i]) - lowest
        k = int64(np.rint(float(d) * inverse)) if 0 <= d <= (rank.shape[0] - 1) * step else int64(-1)
        if k < 0 or k * step != d or rank[k] < 0:
            if n < wrong.shape[0]:
                wrong[n] = i
            n += 1
        else:
            before = uint16(rank[k])
        counts[i] = before
    return n


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
    real = np.empty(TILE, kind)
    # Of the same precision, so that no sum below is wider.
    constants = np.array([0.5, 0.0, 0.0]).astype(kind)
    half, nothing = constants[0], constants[1]
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
            constants[2] = add
            rough_add = constants[2]
            for p in range(size):
                real[p] = some[p]
            # Few values narrow anything: these are looked at again.
            for p in range(size):
                signed = real[p] - rough_add - rough_zero[p]
                whole = abs(np.rint(signed * rough_inverse[p]))
                far = abs(signed)
                narrow = (far - half > whole * rough_lower[p]) | (far + half < whole * rough_upper[p])
                narrows[p] = int32(narrow & (whole != nothing))
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
