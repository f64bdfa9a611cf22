"""Compiled loops from calibrated values to counts, the inverse of :mod:`stemcodecs.entropy.values.restore_kernels`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int32, int64, uint16

from stemcodecs.compiled import kernel
from stemcodecs.entropy.values.restore_kernels import TILE, formula


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
    if counts.itemsize == 1:
        highest = 255.0
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
