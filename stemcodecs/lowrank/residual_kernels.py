"""The coder of the residual: symbols of differences, counted, encoded and decoded. Everything that decoding repeats is
integer arithmetic.

Arrays are laid out as in :mod:`stemcodecs.lowrank.residual_context`. The rANS coder (Duda 2013, arXiv:1311.2540) has
32-bit states, 16-bit words, 12-bit probabilities and ``STREAMS`` interleaved states.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from stemcodecs.entropy.kernels.borrowed import borrowed
from stemcodecs.lowrank.residual_context import (
    DIRECT,
    FRACTION,
    LARGEST,
    Expectation,
    expected,
    leading_zeros,
    neighbours_of,
)

__all__ = [
    "ESCAPE",
    "PROBABILITY_BITS",
    "STREAMS",
    "TOTAL",
    "ResidualDecodeTables",
    "ResidualEncodeTables",
    "count_residual_sizes",
    "count_residual_symbols",
    "decode_residual_group",
    "encode_residual_group",
]

Array = np.ndarray[Any, Any]

STREAMS = 8
PROBABILITY_BITS = 12
TOTAL = 1 << PROBABILITY_BITS
LOWEST = 1 << 16
ESCAPE = 255
MIDDLE = 128


class ResidualEncodeTables(NamedTuple):
    """Histograms as the encoder looks them up.

    Attributes
    ----------
    shift : int64[CONTEXTS]
        Low digits of a difference that are sent raw, by context.
    table_of : int64[CONTEXTS]
        Histogram of a context.
    frequency, start : int64[n, 256]
        Of the symbols of every histogram; frequencies sum to TOTAL.
    """

    shift: Array
    table_of: Array
    frequency: Array
    start: Array


class ResidualDecodeTables(NamedTuple):
    """Histograms as the decoder looks them up: ``shift`` and ``table_of`` as in :class:`ResidualEncodeTables`;
    ``slots``, uint32[n, TOTAL], is frequency − 1, slot − start and symbol in 12, 12 and 8 bits.
    """

    shift: Array
    table_of: Array
    slots: Array


@njit(nogil=True, cache=True)
def count_residual_sizes(context: Array, offset: Array, sizes: Array) -> None:
    """How many binary digits the magnitudes of each context have."""
    for p in range(context.shape[0]):
        for lane in range(context.shape[1]):
            number = abs(np.int64(offset[p, lane]))
            sizes[context[p, lane], 64 - leading_zeros(number) if number > 0 else 0] += 1  # type: ignore[index]


@njit(nogil=True, cache=True)
def count_residual_symbols(context: Array, offset: Array, shift: Array, histogram: Array) -> int:
    """Histogram of the symbols of each context; returns the number of escapes."""
    escapes = 0
    for p in range(context.shape[0]):
        for lane in range(context.shape[1]):
            k = context[p, lane]
            s = np.int64(offset[p, lane]) >> shift[k]
            if k >= DIRECT:
                s += MIDDLE
            if s < 0 or s >= ESCAPE:
                s = ESCAPE
                escapes += 1
            histogram[k, s] += 1
    return escapes


@njit(nogil=True, cache=True)
def encode_residual_group(
    context: Array, offset: Array, tables: ResidualEncodeTables, words: Array, escapes: Array
) -> tuple[int, int]:
    """Code a group backwards into the end of ``words``; returns where the words begin and the
    number of escapes.

    The escapes fill ``escapes`` from its end, so that the decoder meets them in forward order.
    """
    pixels, lanes = context.shape
    context, offset, words, escapes = borrowed(context), borrowed(offset), borrowed(words), borrowed(escapes)
    shift, table_of, frequency, start = borrowed(tables)
    state = np.full(STREAMS, LOWEST, np.uint64)
    at = words.size
    escape_at = escapes.size
    for p in range(pixels - 1, -1, -1):
        for lane in range(lanes - 1, -1, -1):
            stream = lane % STREAMS
            x = state[stream]
            k = context[p, lane]
            low = shift[k]
            s = offset[p, lane] >> low
            if k >= DIRECT:
                s += MIDDLE
            if s < 0 or s >= ESCAPE:
                s = ESCAPE
                escape_at -= 1
                escapes[escape_at] = offset[p, lane]
            elif low > 0:
                if x >= np.uint64(1) << np.uint64(32 - low):
                    at -= 1
                    words[at] = x & np.uint64(0xFFFF)
                    x >>= np.uint64(16)
                x = (x << np.uint64(low)) | np.uint64(offset[p, lane] & ((1 << low) - 1))
            t = table_of[k]
            f = np.uint64(frequency[t, s])
            if x >= f << np.uint64(32 - PROBABILITY_BITS):
                at -= 1
                words[at] = x & np.uint64(0xFFFF)
                x >>= np.uint64(16)
            state[stream] = ((x // f) << np.uint64(PROBABILITY_BITS)) + x % f + np.uint64(start[t, s])
    for stream in range(STREAMS - 1, -1, -1):
        at -= 2
        words[at] = state[stream] & np.uint64(0xFFFF)
        words[at + 1] = state[stream] >> np.uint64(16)
    return at, escapes.size - escape_at


@njit(nogil=True, cache=True)
def decode_residual_group(
    words: Array, escapes: Array, rates: Array, expectation: Expectation, tables: ResidualDecodeTables, values: Array
) -> int:
    """Decode a group into ``values``; returns 0, or what is wrong: 1 words, 2 escapes, 3 level,
    4 end state. ``rates`` become deviations.
    """
    pixels, lanes = values.shape
    words, escapes, rates, values = borrowed(words), borrowed(escapes), borrowed(rates), borrowed(values)
    expectation, (shift, table_of, slots) = borrowed(expectation), borrowed(tables)
    value_of = expectation.value_of
    bounded = value_of.size > 0
    state = np.empty(STREAMS, np.uint64)
    at = 0
    if words.size < 2 * STREAMS:
        return 1
    for stream in range(STREAMS):
        state[stream] = np.uint64(words[at]) | (np.uint64(words[at + 1]) << np.uint64(16))
        at += 2
    escape_at = 0
    for p in range(pixels):
        around = neighbours_of(p, expectation.width)
        for lane in range(lanes):
            k, base = expected(rates, p, lane, around, expectation.weights, expectation.level_of)
            stream = lane % STREAMS
            x = state[stream]
            entry = slots[table_of[k], x & np.uint64(TOTAL - 1)]
            s = np.int64(entry & np.uint32(0xFF))
            x = np.uint64((entry >> np.uint32(20)) + np.uint32(1)) * (x >> np.uint64(PROBABILITY_BITS)) + np.uint64(
                (entry >> np.uint32(8)) & np.uint32(0xFFF)
            )
            if x < LOWEST:
                if at >= words.size:
                    return 1
                x = (x << np.uint64(16)) | np.uint64(words[at])
                at += 1
            if s == ESCAPE:
                if escape_at >= escapes.size:
                    return 2
                difference = escapes[escape_at]
                escape_at += 1
            else:
                if k >= DIRECT:
                    s -= MIDDLE
                low = shift[k]
                difference = s << low
                if low > 0:
                    difference |= np.int64(x & np.uint64((1 << low) - 1))
                    x >>= np.uint64(low)
                    if x < LOWEST:
                        if at >= words.size:
                            return 1
                        x = (x << np.uint64(16)) | np.uint64(words[at])
                        at += 1
            state[stream] = x
            level = base + difference
            if bounded:
                if level < 0 or level >= value_of.size:
                    return 3
                level = value_of[level]
            if level < 0 or level >= LARGEST:
                return 3
            values[p, lane] = level
            rates[p, lane] = (level << FRACTION) - rates[p, lane]
    for stream in range(STREAMS):
        if state[stream] != LOWEST:
            return 4
    if at != words.size or escape_at != escapes.size:
        return 4
    return 0
