"""Numba kernels of the residual coder. Everything that decoding repeats is integer arithmetic.

Arrays are (pixels, lanes): values, levels and differences int32, rates int64; lane = scan position of
the group, so that the neighbours W, N, NW, NE of all lanes of a pixel are known before it. Rates
carry ``FRACTION_BITS`` binary digits. The rANS coder (Duda 2013, arXiv:1311.2540) has 32-bit states,
16-bit words, 12-bit probabilities and ``STREAMS`` interleaved states.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from stemcodecs.compiled import kernel
from stemcodecs.lowrank.stabilize import FRACTION_BITS, TABLE_END

__all__ = [
    "CONTEXTS",
    "DIRECT",
    "ESCAPE",
    "LARGEST",
    "PROBABILITY_BITS",
    "STREAMS",
    "TOTAL",
    "WEIGHT_CLASSES",
    "accumulate_neighbours",
    "count_sizes",
    "count_symbols",
    "decode_group",
    "encode_group",
    "model_group",
    "to_rates",
]

Array = np.ndarray[Any, Any]

STREAMS = 8
PROBABILITY_BITS = 12
TOTAL = 1 << PROBABILITY_BITS
LOWEST = 1 << 16
ESCAPE = 255
PER_OCTAVE = 16
CONTEXTS = 32 * PER_OCTAVE
"""Rate classes: 16 an octave from 2⁻¹² counts on."""
DIRECT = 16 * PER_OCTAVE
"""Below this class (16 counts) the value itself is coded, above it the difference to the
predicted rate.
"""
WEIGHT_CLASSES = 16
MIDDLE = 128
LARGEST = 1 << 31
"""Counts from here on are not coded, and predictions are cut there: all differences fit 32 bits, and weights times
deviations of at most 2⁴⁶ fit 64.
"""

_FRACTION = FRACTION_BITS
_TABLE_END = TABLE_END << FRACTION_BITS


@kernel
def to_rates(prediction: Array, table: Array, stabilised: bool) -> None:
    """Fixed-point predictions to fixed-point rates ≥ 0, in place."""
    flat = prediction.ravel()
    for i in range(flat.size):
        y = flat[i]
        if y < 0:
            y = 0
        if stabilised:
            # √ of the largest count is below 2³², so its stabilised value fits 2^(33+12); cap the
            # square.
            if y < _TABLE_END:
                y = table[y]
            else:
                if y > (1 << 30):
                    y = 1 << 30
                y = ((y * y) >> (2 + _FRACTION)) - (1 << (_FRACTION - 3))
        flat[i] = y


@intrinsic  # type: ignore[misc]
def _leading_zeros(typing_context: Any, number: Any) -> Any:
    """Of a 64-bit number that is not 0: one instruction, where a loop would take most of the time."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), generate


@kernel
def accumulate_neighbours(values: Array, rates: Array, width: int, gram: Array, moment: Array) -> None:
    """Normal equations of the deviation on its neighbours' deviations, per weight class (encoder
    only). ``rates`` become deviations.
    """
    pixels, lanes = values.shape
    r = np.zeros(4)
    for p in range(pixels):
        x = p % width
        for lane in range(lanes):
            rate = rates[p, lane]
            w = min(max(58 - _leading_zeros(rate | 1), 0), WEIGHT_CLASSES - 1)
            r[:] = 0.0
            if x > 0:
                r[0] = rates[p - 1, lane]
            if p >= width:
                q = p - width
                r[1] = rates[q, lane]
                if x > 0:
                    r[2] = rates[q - 1, lane]
                if x < width - 1:
                    r[3] = rates[q + 1, lane]
            # Inverse variance, with a sixteenth of a count for rates near 0.
            importance = 1.0 / (rate + 256.0)
            deviation = (values[p, lane] << _FRACTION) - rate
            rates[p, lane] = deviation
            for i in range(4):
                moment[w, i] += importance * r[i] * deviation
                for j in range(4):
                    gram[w, i, j] += importance * r[i] * r[j]


@kernel
def _around(p: int, width: int) -> tuple[int, int, int, int, int]:
    """Which neighbours of a pixel exist (as `_edges` has them), and the pixels W, N, NW, NE.

    A neighbour outside the detector counts with weight 0; any address inside does for it.
    """
    x = p % width
    known = (x > 0) + 2 * (p >= width) + 4 * (x < width - 1)
    return known, max(p - 1, 0), max(p - width, 0), max(p - width - 1, 0), max(p - width + 1, 0)


@kernel
def _class_of(rate: int) -> int:
    """Rate class, sixteen an octave: a floating-point exponent and four digits, by integer shifts."""
    length = 64 - _leading_zeros(rate)
    digits = rate >> (length - 5) if length > 5 else rate << (5 - length)
    return min(((length - 1) << 4) + (digits & 15), CONTEXTS - 1)


@kernel
def model_group(
    values: Array,
    levels: Array,
    rates: Array,
    width: int,
    weights: Array,
    level_of: Array,
    context: Array,
    offset: Array,
) -> None:
    """Context and coded difference of every value: what the decoder will know, and what it must
    be told. ``rates`` become deviations, values − rates.
    """
    pixels, lanes = values.shape
    bounded = level_of.size > 0
    edge = _edges(weights)
    for p in range(pixels):
        known, west, north, north_west, north_east = _around(p, width)
        for lane in range(lanes):
            rate = rates[p, lane]
            w = min(max(58 - _leading_zeros(rate | 1), 0), WEIGHT_CLASSES - 1)
            add = (
                edge[known, w, 0] * rates[west, lane]
                + edge[known, w, 1] * rates[north, lane]
                + edge[known, w, 2] * rates[north_west, lane]
                + edge[known, w, 3] * rates[north_east, lane]
            )
            rates[p, lane] = (values[p, lane] << _FRACTION) - rate
            # A correction takes seven eighths at most: with a rate near 0 any count would be a surprise.
            rate = max(rate + (add >> 12), rate >> 3, 1)
            k = _class_of(rate)
            context[p, lane] = k
            base = 0
            if k >= DIRECT:
                base = min(rate >> _FRACTION, LARGEST - 1)
                if bounded:
                    base = level_of[min(base, level_of.size - 1)]
            offset[p, lane] = levels[p, lane] - base


@kernel
def _edges(weights: Array) -> Array:
    """Weights for each combination of the neighbours that exist: 1 west, 2 north, 4 east."""
    edge = np.zeros((8, WEIGHT_CLASSES, 4), np.int64)
    for known in range(8):
        for w in range(WEIGHT_CLASSES):
            if known & 1:
                edge[known, w, 0] = weights[w, 0]
            if known & 2:
                edge[known, w, 1] = weights[w, 1]
                if known & 1:
                    edge[known, w, 2] = weights[w, 2]
                if known & 4:
                    edge[known, w, 3] = weights[w, 3]
    return edge


@kernel
def count_sizes(context: Array, offset: Array, sizes: Array) -> None:
    """How many binary digits the magnitudes of each context have."""
    for p in range(context.shape[0]):
        for lane in range(context.shape[1]):
            number = abs(np.int64(offset[p, lane]))
            sizes[context[p, lane], 64 - _leading_zeros(number) if number > 0 else 0] += 1  # type: ignore[index]


@kernel
def count_symbols(context: Array, offset: Array, shift: Array, histogram: Array) -> int:
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


@kernel
def encode_group(
    context: Array,
    offset: Array,
    shift: Array,
    table_of: Array,
    frequency: Array,
    start: Array,
    words: Array,
    escapes: Array,
) -> tuple[int, int]:
    """Code a group backwards into the end of ``words``; returns where the words begin and the
    number of escapes.

    The escapes fill ``escapes`` from its end, so that the decoder meets them in forward order.
    """
    pixels, lanes = context.shape
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
                # Low digits are symbols of equal frequency: a shift takes the place of the division.
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


@kernel
def decode_group(
    words: Array,
    escapes: Array,
    rates: Array,
    width: int,
    weights: Array,
    level_of: Array,
    value_of: Array,
    shift: Array,
    table_of: Array,
    slots: Array,
    values: Array,
) -> int:
    """Decode a group into ``values``; returns 0, or what is wrong: 1 words, 2 escapes, 3 level,
    4 end state. ``rates`` become deviations.
    """
    pixels, lanes = values.shape
    bounded = value_of.size > 0
    state = np.empty(STREAMS, np.uint64)
    at = 0
    if words.size < 2 * STREAMS:
        return 1
    for stream in range(STREAMS):
        state[stream] = np.uint64(words[at]) | (np.uint64(words[at + 1]) << np.uint64(16))
        at += 2
    escape_at = 0
    edge = _edges(weights)
    for p in range(pixels):
        known, west, north, north_west, north_east = _around(p, width)
        for lane in range(lanes):
            predicted = rates[p, lane]
            w = min(max(58 - _leading_zeros(predicted | 1), 0), WEIGHT_CLASSES - 1)
            add = (
                edge[known, w, 0] * rates[west, lane]
                + edge[known, w, 1] * rates[north, lane]
                + edge[known, w, 2] * rates[north_west, lane]
                + edge[known, w, 3] * rates[north_east, lane]
            )
            rate = max(predicted + (add >> 12), predicted >> 3, 1)
            k = _class_of(rate)
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
            base = 0
            if k >= DIRECT:
                base = min(rate >> _FRACTION, LARGEST - 1)
                if bounded:
                    base = level_of[min(base, level_of.size - 1)]
            level = base + difference
            if bounded:
                if level < 0 or level >= value_of.size:
                    return 3
                level = value_of[level]
            # Checked at every value: the next prediction is computed from it.
            if level < 0 or level >= LARGEST:
                return 3
            values[p, lane] = level
            rates[p, lane] = (level << _FRACTION) - predicted
    for stream in range(STREAMS):
        if state[stream] != LOWEST:
            return 4
    if at != words.size or escape_at != escapes.size:
        return 4
    return 0
