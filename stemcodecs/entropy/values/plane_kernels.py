"""Compiled loops between the values of an array and the 16-bit codes that stand for them."""

from __future__ import annotations

import numpy as np
from numba import int64, njit, uint16

from stemcodecs.entropy.kernels.rans import INLINE, KERNEL


@njit(**INLINE)
def _other_code(i, bits, specials, codes, before, wrong, n):
    """Code of the value ``i`` whose likely code stands for another; and how many values have had none so far.

    A value without a code takes that of the value before, so that it surprises no model, and its place goes to
    ``wrong``, where there is room.
    """
    for k in range(specials.shape[0]):
        if bits[i] == specials[k]:
            return uint16(codes[k]), n
    if n < wrong.shape[0]:
        wrong[n] = i
    return before, n + 1


@njit(**KERNEL)
def code_integers(bits, offset, table, specials, codes, counts, wrong):
    """``counts[i]``, so that ``table[counts[i]] == bits[i]``; returns how many values have none.

    bits, table, specials, offset : unsigned, of the width of the values; codes : of the specials; counts : uint16, the
    result, with the value before where there is no code; wrong : int64, the places of these. It stops where they are
    more than there is room for.
    """
    n = 0
    before = uint16(0)
    for i in range(bits.shape[0]):
        c = uint16(bits[i] - offset)
        if table[c] != bits[i]:
            c, n = _other_code(i, bits, specials, codes, before, wrong, n)
            if n > wrong.shape[0]:
                return n
        counts[i] = c
        before = c
    return n


@njit(**KERNEL)
def code_floats(values, bits, gain, divide, table, specials, codes, counts, wrong):
    """As :func:`code_integers`, for floats that are whole multiples of a gain."""
    n = 0
    before = uint16(0)
    for i in range(bits.shape[0]):
        wide = np.float64(values[i])
        whole = np.rint(wide * gain if divide else wide / gain)
        c = uint16(int64(whole)) if -65536.0 < whole < 65536.0 else uint16(0)
        if table[c] != bits[i]:
            c, n = _other_code(i, bits, specials, codes, before, wrong, n)
            if n > wrong.shape[0]:
                return n
        counts[i] = c
        before = c
    return n


@njit(**KERNEL)
def look_up(indices, table, out):
    """``out[i] = table[indices[i]]``; the caller has checked that every index is in the table."""
    for i in range(indices.shape[0]):
        out[i] = table[indices[i]]
