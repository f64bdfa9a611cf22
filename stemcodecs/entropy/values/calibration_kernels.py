"""Compiled loops between calibrated values and counts.

Decoding must give the same bits everywhere: integers are computed modulo 2**64, floats by single IEEE operations, each
rounded to the precision of its operands. No operation here may be contracted or reordered.
"""

from __future__ import annotations

import numpy as np
from numba import int64, njit, uint16

from stemcodecs.entropy.kernels.rans import INLINE, KERNEL


@njit(**INLINE)
def _signed(code, top):
    return int64(code) - 65536 if code >= top else int64(code)


@njit(**KERNEL)
def integer_values(counts, top, specials, gain, offset, fraction, shift, out):
    """Values of counts: ``out`` is unsigned, of the width of the dtype; ``top`` is the first negative code."""
    marks = top - specials.shape[0]
    for i in range(counts.shape[0]):
        add = shift[i]
        for p in range(counts.shape[1]):
            c = int64(counts[i, p])
            if marks <= c < top:
                out[i, p] = specials[top - 1 - c]
            else:
                out[i, p] = ((_signed(c, top) * gain[p] + offset[p]) >> fraction) + add


@njit(**KERNEL)
def integer_counts(values, bits, top, specials, gain, offset, fraction, shift, counts, wrong, failed):
    """Inverse of :func:`integer_values`; returns how many values have no count.

    values : integers, bits : the same, unsigned; wrong : int64, flat indices of values without a count, as many as
    there is room for; failed : int64[n_pixels], how many there are of each pixel. In their place stands the count before.
    """
    n = 0
    before = uint16(0)
    negatives = 65536 - top
    highest = top - specials.shape[0]
    unit = 2.0**fraction
    for i in range(values.shape[0]):
        add = shift[i]
        for p in range(values.shape[1]):
            r = int64(values[i, p]) - add
            # The middle of what rounds to r.
            x = int64(np.rint((float(r) * unit + (unit - 1.0) / 2 - float(offset[p])) / float(gain[p])))
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
                failed[p] += 1
                counts[i, p] = before
            else:
                before = counts[i, p]
    return n


@njit(**INLINE)
def _forward(x, i, p, dark, gain, scale, gain_divides, scale_divides, scale_first):
    """One value; ``x`` is a float of the precision of the parameters, and so is every intermediate result."""
    if dark.shape[0]:
        x = x - dark[p]
    if scale_first and scale.shape[0]:
        x = x / scale[i] if scale_divides else x * scale[i]
    if gain.shape[0]:
        x = x / gain[p] if gain_divides else x * gain[p]
    if not scale_first and scale.shape[0]:
        x = x / scale[i] if scale_divides else x * scale[i]
    return x


@njit(**KERNEL)
def float_values(counts, whole, dark, gain, scale, gain_divides, scale_divides, scale_first, out):
    """Values of counts, those of marks aside; ``whole`` has the number of each code, in the precision to compute in."""
    for i in range(counts.shape[0]):
        for p in range(counts.shape[1]):
            x = whole[counts[i, p]]
            out[i, p] = _forward(x, i, p, dark, gain, scale, gain_divides, scale_divides, scale_first)


@njit(**KERNEL)
def float_counts(
    values, bits, top, specials, whole, dark, gain, scale, gain_divides, scale_divides, scale_first, back, back_scale,
    counts, restored, wrong, failed,
):  # fmt: skip
    """Inverse of :func:`float_values`; as :func:`integer_counts`.

    back, back_scale : float64, factors of each pixel and position that turn a value into a count, roughly; restored :
    one float of the dtype of ``values``, to round to it.
    """
    n = 0
    before = uint16(0)
    negatives = 65536 - top
    highest = top - specials.shape[0]
    raw = restored.view(bits.dtype)
    for i in range(values.shape[0]):
        factor = back_scale[i]
        for p in range(values.shape[1]):
            x = float(values[i, p]) * back[p] * factor
            if dark.shape[0]:
                x += float(dark[p])
            x = np.rint(x)
            if -negatives <= x < highest:
                code = uint16(int64(x))
                restored[0] = _forward(whole[code], i, p, dark, gain, scale, gain_divides, scale_divides, scale_first)
                if raw[0] == bits[i, p]:
                    counts[i, p] = before = code
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
                failed[p] += 1
                counts[i, p] = before
    return n


@njit(**KERNEL)
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


@njit(**KERNEL)
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


@njit(**KERNEL)
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


@njit(**KERNEL)
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


@njit(**KERNEL)
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
