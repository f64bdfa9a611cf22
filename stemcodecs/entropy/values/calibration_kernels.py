"""Compiled loops between calibrated values and counts.

Decoding must give the same bits everywhere: integers are computed modulo 2**64, floats by single IEEE operations, each
rounded to the precision of its operands. No operation here may be contracted or reordered.
"""

from __future__ import annotations

import numpy as np
from numba import int64, uint16

from stemcodecs.compiled import kernel


@kernel
def integer_values(counts, top, specials, gain, offset, fraction, shift, out):
    """Values of counts: ``out`` is unsigned, of the width of the dtype; ``top`` is the first negative code."""
    marks = top - specials.shape[0]
    row = np.empty(counts.shape[1], np.int64)
    for i in range(counts.shape[0]):
        add = shift[i]
        # Loops without branches become vector instructions.
        for p in range(counts.shape[1]):
            c = int64(counts[i, p])
            row[p] = c - (int64(65536) if c >= top else int64(0))
        for p in range(counts.shape[1]):
            row[p] = ((row[p] * gain[p] + offset[p]) >> fraction) + add
        for p in range(counts.shape[1]):
            out[i, p] = row[p]
        if specials.shape[0]:
            for p in range(counts.shape[1]):
                c = int64(counts[i, p])
                if marks <= c < top:
                    out[i, p] = specials[top - 1 - c]


@kernel
def integer_counts(values, bits, top, specials, gain, offset, fraction, shift, counts, wrong):
    """Inverse of :func:`integer_values`; returns how many values have no count.

    values : integers, bits : the same, unsigned; wrong : int64, flat indices of values without a count, as many as
    there is room for. In their place stands the count before.
    """
    n = 0
    before = uint16(0)
    negatives = 65536 - top
    highest = top - specials.shape[0]
    unit = 2.0**fraction
    inverse, start = 1.0 / gain, (unit - 1.0) / 2 - offset
    for i in range(values.shape[0]):
        add = shift[i]
        for p in range(values.shape[1]):
            r = int64(values[i, p]) - add
            # The middle of what rounds to r.
            x = int64(np.rint((float(r) * unit + start[p]) * inverse[p]))
            if -negatives <= x < highest and ((x * gain[p] + offset[p]) >> fraction) == r:
                counts[i, p] = uint16(x)
                before = counts[i, p]
                continue
            found = False
            for k in range(specials.shape[0]):
                if bits[i, p] == specials[k]:
                    counts[i, p] = uint16(top - 1 - k)
                    found = True
            if not found:
                if n < wrong.shape[0]:
                    wrong[n] = i * values.shape[1] + p
                n += 1
                counts[i, p] = before
            else:
                before = counts[i, p]
    return n


@kernel
def _scaled(row, factors, divides):
    # One operation a loop, so that each becomes one vector instruction.
    if divides:
        for p in range(row.shape[0]):
            row[p] = row[p] / factors[p]
    else:
        for p in range(row.shape[0]):
            row[p] = row[p] * factors[p]


@kernel
def _scaled_alike(row, factor, divides):
    if divides:
        for p in range(row.shape[0]):
            row[p] = row[p] / factor
    else:
        for p in range(row.shape[0]):
            row[p] = row[p] * factor


@kernel
def _pattern(row, i, dark, gain, scale, gain_divides, scale_divides, scale_first):
    """Values of a pattern in place of its whole numbers, in the precision of all of these."""
    if dark.shape[0]:
        for p in range(row.shape[0]):
            row[p] = row[p] - dark[p]
    if scale_first and scale.shape[0]:
        _scaled_alike(row, scale[i], scale_divides)
    if gain.shape[0]:
        _scaled(row, gain, gain_divides)
    if not scale_first and scale.shape[0]:
        _scaled_alike(row, scale[i], scale_divides)


@kernel
def float_values(counts, whole, dark, gain, scale, gain_divides, scale_divides, scale_first, out):
    """Values of counts, those of marks aside; ``whole`` has the number of each code, in the precision to compute in."""
    row = np.empty(counts.shape[1], whole.dtype)
    for i in range(counts.shape[0]):
        for p in range(counts.shape[1]):
            row[p] = whole[counts[i, p]]
        _pattern(row, i, dark, gain, scale, gain_divides, scale_divides, scale_first)
        for p in range(counts.shape[1]):
            out[i, p] = row[p]


@kernel
def float_counts(
    values, bits, top, specials, whole, dark, gain, scale, gain_divides, scale_divides, scale_first, back, back_scale,
    counts, wrong,
):  # fmt: skip
    """Inverse of :func:`float_values`; as :func:`integer_counts`.

    back, back_scale : float64, factors of each pixel and position that turn a value into a count, roughly.
    """
    n = 0
    n_pixels = values.shape[1]
    before = uint16(0)
    negatives, highest = float(65536 - top), float(top - specials.shape[0])
    guess = np.empty(n_pixels)
    row = np.empty(n_pixels, whole.dtype)
    restored = np.empty(n_pixels, values.dtype)
    raw = restored.view(bits.dtype)
    for i in range(values.shape[0]):
        factor = back_scale[i]
        for p in range(n_pixels):
            guess[p] = float(values[i, p]) * back[p] * factor
        if dark.shape[0]:
            for p in range(n_pixels):
                guess[p] += float(dark[p])
        for p in range(n_pixels):
            x = np.rint(guess[p])
            guess[p] = x if -negatives <= x < highest else np.nan
            code = uint16(int64(x)) if -negatives <= x < highest else uint16(0)
            counts[i, p] = code
            row[p] = whole[code]
        _pattern(row, i, dark, gain, scale, gain_divides, scale_divides, scale_first)
        for p in range(n_pixels):
            restored[p] = row[p]
        for p in range(n_pixels):
            if raw[p] == bits[i, p] and guess[p] == guess[p]:
                before = counts[i, p]
                continue
            found = False
            for k in range(specials.shape[0]):
                if bits[i, p] == specials[k]:
                    counts[i, p] = uint16(top - 1 - k)
                    found = True
            if not found:
                if n < wrong.shape[0]:
                    wrong[n] = i * n_pixels + p
                n += 1
                counts[i, p] = before
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
    for i in range(codes.shape[0]):
        r = rank[codes[i]]
        if r < 0:
            if n < wrong.shape[0]:
                wrong[n] = i
            n += 1
        else:
            before = uint16(r)
        counts[i] = before
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
def pixel_sums(values, shift, least, most, low, total, times):
    """Lowest, sum and number of the values of every pixel, after the shift of its pattern was taken off.

    Those below ``least`` or above ``most`` do not count.
    """
    for i in range(values.shape[0]):
        for p in range(values.shape[1]):
            v = int64(values[i, p]) - shift[i]
            if least <= v <= most:
                low[p] = min(low[p], v)
                total[p] += v
                times[p] += 1


@kernel
def integer_gains(columns, zeros, gains):
    """Gain of every pixel, roughly, from some of its values: the spacing of what rounds to integers; 0 if unknown.

    columns : int64[n_pixels, k], sorted; zeros : int64[n_pixels], value of no counts.
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
        gain = float(least)
        n, last = int64(0), zeros[p]
        for i in range(column.shape[0]):
            if column[i] <= last:
                continue
            n += max(int64(1), int64(np.rint((column[i] - last) / gain)))
            last = column[i]
            gain = (last - zeros[p]) / n
        gains[p] = gain


@kernel
def gain_intervals(values, shift, least, most, zeros, gains, low, high):
    """Narrow the gains of every pixel down to those with which all its values round to what they are.

    Values below ``least`` or above ``most``, after the shift, do not count.
    """
    for i in range(values.shape[0]):
        for p in range(values.shape[1]):
            g = gains[p]
            if g <= 0:
                continue
            v = int64(values[i, p]) - shift[i]
            d = float(v - zeros[p])
            n = np.rint(d / g)
            if n == 0.0 or v < least or v > most:
                continue
            a, b = (d - 0.5) / n, (d + 0.5) / n
            if n < 0:
                a, b = b, a
            # A value far off is an exception, not a reason to give up the gain.
            if a < high[p] and b > low[p]:
                low[p] = max(low[p], a)
                high[p] = min(high[p], b)
