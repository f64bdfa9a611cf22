"""Compiled loops between integers of 8 and 16 bits and counts: in 32 bits, so that twice as many fit into a vector.

They give what :mod:`stemcodecs.entropy.values.calibration_kernels` gives, count by count.
"""

from __future__ import annotations

import numpy as np
from numba import float32, int32, int64, uint16, uint32

from stemcodecs.compiled import kernel
from stemcodecs.entropy.values.restore_kernels import TILE, shift_right

_WIDE = 2048
"""Pixels whose statistics are at hand at once: with patterns read in longer pieces, which prefetch well."""

_BLOCK = 64
"""Pixels that are turned round together."""


@kernel
def narrow_counts(values, bits, top, specials, gain, offset, fraction, shift, counts, wrong):
    """As :func:`integer_counts`, of values of 8 or 16 bits, where 32 bits hold them with their fraction and every gain
    is one or more: single precision guesses the count, 32-bit integers prove it: twice as many to a vector.

    gain, offset : int32[n_pixels], gain of size 0: one, without a fraction; shift : int32[n_positions].
    """
    n = 0
    before = uint16(0)
    lowest, highest = int32(top - 65536), int32(top - specials.shape[0] - 1)
    if counts.itemsize == 1:
        highest = int32(255)
    unit = 2.0**fraction
    start, inverse = (unit - 1.0) / 2 - offset, 1.0 / gain
    single_start, single_inverse, single_unit = start.astype(np.float32), inverse.astype(np.float32), float32(unit)
    largest, far = int64(1), int64(0)
    for p in range(offset.shape[0]):
        largest = max(largest, int64(gain[p])) if gain.shape[0] else largest
        far = max(far, abs(int64(offset[p])))
    # Counts beyond have values that no narrow integer has: whatever stands for them is found wrong.
    room = (int64(2147483647) - far) // largest
    single_lowest, single_highest = float32(max(int64(lowest), -room)), float32(min(int64(highest), room))
    digits = int32(fraction & 31)
    for i in range(values.shape[0]):
        add = shift[i]
        for first in range(0, values.shape[1], TILE):
            row, found_counts = values[i, first : first + TILE], counts[i, first : first + TILE]
            offsets = offset[first : first + TILE]
            # Every sum is cut to 32 bits: the compiler takes wider ones else, and half as many to a vector.
            wrong_bits = int32(0)
            if gain.shape[0] == 0:
                for p in range(row.shape[0]):
                    count = int32(int32(row[p]) - int32(offsets[p] + add))
                    outside = int32(count - lowest) | int32(highest - count)
                    wrong_bits = int32(wrong_bits | (outside & int32(-2147483648)))
                    found_counts[p] = uint16(count)
            else:
                gains, inverses = gain[first : first + TILE], single_inverse[first : first + TILE]
                starts = single_start[first : first + TILE]
                for p in range(row.shape[0]):
                    real = int32(int32(row[p]) - add)
                    x = np.rint((float32(real) * single_unit + starts[p]) * inverses[p])
                    x = x if x > single_lowest else single_lowest
                    count = int32(x if x < single_highest else single_highest)
                    back = shift_right(int32(int32(count * gains[p]) + offsets[p]), digits)
                    wrong_bits = int32(wrong_bits | int32(back ^ real))
                    found_counts[p] = uint16(count)
            if wrong_bits == 0:
                before = found_counts[row.shape[0] - 1]
                continue
            for p in range(row.shape[0]):
                at = first + p
                real = int64(row[p]) - add
                factor = int64(gain[at]) if gain.shape[0] else int64(1)
                # No two counts have the same value: one that is proved is the one.
                guess = int64(counts[i, at])
                guess -= int64(65536) if guess > highest else int64(0)
                if guess >= lowest and (guess * factor + offset[at]) >> digits == real:
                    before = counts[i, at]
                    continue
                # In double precision, where none is taken for its neighbour.
                x = np.rint((real * unit + start[at]) * (inverse[at] if gain.shape[0] else 1.0))
                count = int64(min(max(x, float(lowest)), float(highest)))
                if (count * factor + offset[at]) >> digits == real:
                    before = uint16(count)
                else:
                    found = False
                    for k in range(specials.shape[0]):
                        if bits[i, at] == specials[k]:
                            before = uint16(top - 1 - k)
                            found = True
                    if not found:
                        if n < wrong.shape[0]:
                            wrong[n] = i * values.shape[1] + at
                        n += 1
                counts[i, at] = before
    return n


@kernel
def narrow_lows(values, shift, least, most, low):
    """Lowest value of every pixel, as :func:`stemcodecs.entropy.values.gain_kernels.pixel_sums` finds it, of values of
    8 or 16 bits, where shifts have 20 bits: all but the values are int32.
    """
    last = values.shape[0] - 1
    for first in range(0, values.shape[1], _WIDE):
        lows = low[first : first + _WIDE]
        # Four patterns at once: memory delivers twice as fast as from one. Behind the end the last one comes again.
        for i in range(0, values.shape[0], 4):
            i1, i2, i3 = min(i + 1, last), min(i + 2, last), min(i + 3, last)
            a, b = values[i, first : first + _WIDE], values[i1, first : first + _WIDE]
            c, d = values[i2, first : first + _WIDE], values[i3, first : first + _WIDE]
            add_a, add_b, add_c, add_d = shift[i], shift[i1], shift[i2], shift[i3]
            for p in range(lows.shape[0]):
                xa, xb = int32(int32(a[p]) - add_a), int32(int32(b[p]) - add_b)
                xc, xd = int32(int32(c[p]) - add_c), int32(int32(d[p]) - add_d)
                xa = xa if (xa >= least) & (xa <= most) else int32(2147483647)
                xb = xb if (xb >= least) & (xb <= most) else int32(2147483647)
                xc = xc if (xc >= least) & (xc <= most) else int32(2147483647)
                xd = xd if (xd >= least) & (xd <= most) else int32(2147483647)
                lows[p] = min(lows[p], min(min(xa, xb), min(xc, xd)))


@kernel
def narrow_sums(values, shift, least, most, every, total, times):
    """Sum and number of the values of every pixel in one pattern of ``every``, as :func:`narrow_lows`, where no sum
    leaves 32 bits.
    """
    for first in range(0, values.shape[1], _WIDE):
        totals, numbers = total[first : first + _WIDE], times[first : first + _WIDE]
        for i in range(0, values.shape[0], every):
            add, some = shift[i], values[i, first : first + _WIDE]
            for p in range(totals.shape[0]):
                x = int32(int32(some[p]) - add)
                inside = int32(-((x >= least) & (x <= most)))
                totals[p] = int32(totals[p] + int32(x & inside))
                numbers[p] = int32(numbers[p] - inside)


@kernel(forceinline=True)
def _place(code, start, inverse, turn, mask, width):
    """Place of a value in a table of evenly spaced ones, see :func:`spaced_counts`; all are uint32."""
    product = uint32(uint32(uint32(code) - start) * inverse) & mask
    turned = uint32(product >> (turn & uint32(15)))
    return uint32(turned | (uint32(product << uint32((width - turn) & uint32(31))) & mask))


@kernel
def spaced_counts(codes, start, inverse, turn, mask, n_values, counts, wrong):
    """As :func:`ranks_of_codes`, of a table of ``n_values`` evenly spaced values, modulo the width of the codes.

    The step is an odd number times ``2**turn``: ``inverse`` is that of the odd one, and turning the product by
    ``turn`` bits gives less than ``n_values`` for multiples of the step alone (Warren, Hacker's Delight, 10-16).
    mask : all bits of the width; start : the first value. All are uint32.
    """
    n = 0
    before = uint16(0)
    width = uint32(16) if mask == uint32(65535) else uint32(8)
    last = int32(n_values - uint32(1))
    for first in range(0, codes.shape[0], TILE):
        some, found = codes[first : first + TILE], counts[first : first + TILE]
        outside = int32(0)
        for i in range(some.shape[0]):
            turned = _place(some[i], start, inverse, turn, mask, width)
            outside = int32(outside | int32(last - int32(turned)))
            found[i] = uint16(turned)
        if outside < 0:
            for i in range(some.shape[0]):
                # Not what was stored, which may have lost bits of a place beyond the table.
                if _place(some[i], start, inverse, turn, mask, width) >= n_values:
                    if n < wrong.shape[0]:
                        wrong[n] = first + i
                    n += 1
                    found[i] = before
                before = found[i]
        before = found[some.shape[0] - 1]
    return n


@kernel
def columns_of(values, rows, shift, out):
    """Values of some patterns, less their shift, pixel by pixel: ``out`` is signed integers[n_pixels, rows]."""
    for first in range(0, values.shape[1], _BLOCK):
        end = min(first + _BLOCK, values.shape[1])
        # Lines of both arrays stay in the cache for as long as the block takes.
        for k in range(rows.shape[0]):
            some, add = values[rows[k]], shift[rows[k]]
            for p in range(first, end):
                out[p, k] = int64(some[p]) - add
