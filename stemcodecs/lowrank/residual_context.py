"""What a count is expected from, its predicted rate and its neighbours: the same integers for encoder and decoder.

Arrays are (pixels, lanes): values, levels and differences int32, rates int64; lane = scan position of the group, so
that the neighbours W, N, NW, NE of all lanes of a pixel are known before it. Rates carry ``FRACTION_BITS`` binary
digits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types

from stemcodecs.entropy.kernels.borrowed import borrowed
from stemcodecs.entropy.kernels.vector_ir import typed_intrinsic
from stemcodecs.lowrank.stabilize import FRACTION_BITS, TABLE_END

__all__ = [
    "CONTEXTS",
    "DIRECT",
    "FRACTION",
    "LARGEST",
    "WEIGHT_CLASSES",
    "Expectation",
    "accumulate_neighbours",
    "expected",
    "leading_zeros",
    "model_residual_group",
    "neighbours_of",
    "to_rates",
    "weights_by_edge",
]

Array = np.ndarray[Any, Any]

PER_OCTAVE = 16
CONTEXTS = 32 * PER_OCTAVE
"""Rate classes: 16 an octave from 2⁻¹² counts on."""
DIRECT = 16 * PER_OCTAVE
"""Below this class (16 counts) the value itself is coded, above it the difference to the
predicted rate.
"""
WEIGHT_CLASSES = 16
LARGEST = 1 << 31
"""Counts from here on are not coded, and predictions are cut there: all differences fit 32 bits, and weights times
deviations of at most 2⁴⁶ fit 64.
"""

FRACTION = FRACTION_BITS
_TABLE_END = TABLE_END << FRACTION_BITS


class Expectation(NamedTuple):
    """What a count is expected from, besides its predicted rate: the same for encoder and decoder.

    Attributes
    ----------
    width : int
        Detector columns.
    weights : int64[8, WEIGHT_CLASSES, 4]
        Of the deviations W, N, NW, NE, in units of 1/4096, by class of rate and by which neighbours exist, see
        :func:`weights_by_edge`.
    level_of, value_of : int32[n], int32[m]
        Level of a count and count of a level where counts are coded within a bound; else empty.
    """

    width: int
    weights: Array
    level_of: Array
    value_of: Array


@njit(nogil=True, cache=True)
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
                y = ((y * y) >> (2 + FRACTION)) - (1 << (FRACTION - 3))
        flat[i] = y


# 64 - number.bit_length()
@typed_intrinsic
def leading_zeros(typing_context: Any, number: Any) -> Any:
    """Of a 64-bit number that is not 0: one instruction, where a loop would take most of the time."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), generate


@njit(nogil=True, cache=True)
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
            w = min(max(58 - leading_zeros(rate | 1), 0), WEIGHT_CLASSES - 1)
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
            importance = 1.0 / (rate + 256.0)
            deviation = (values[p, lane] << FRACTION) - rate
            rates[p, lane] = deviation
            for i in range(4):
                moment[w, i] += importance * r[i] * deviation
                for j in range(4):
                    gram[w, i, j] += importance * r[i] * r[j]


@njit(nogil=True, cache=True)
def neighbours_of(p: int, width: int) -> tuple[int, int, int, int, int]:
    """Which neighbours of a pixel exist (as `weights_by_edge` has them), and the pixels W, N, NW, NE.

    A neighbour outside the detector counts with weight 0; any address inside does for it.
    """
    x = p % width
    known = (x > 0) + 2 * (p >= width) + 4 * (x < width - 1)
    return known, max(p - 1, 0), max(p - width, 0), max(p - width - 1, 0), max(p - width + 1, 0)


@njit(nogil=True, cache=True)
def _class_of(rate: int) -> int:
    """Rate class, sixteen an octave: a floating-point exponent and four digits, by integer shifts."""
    length = 64 - leading_zeros(rate)
    digits = rate >> (length - 5) if length > 5 else rate << (5 - length)
    return min(((length - 1) << 4) + (digits & 15), CONTEXTS - 1)


@njit(nogil=True, cache=True)
def weights_by_edge(weights: Array) -> Array:
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


@njit(nogil=True, cache=True, forceinline=True)
def expected(rates: Array, p: int, lane: int, around: Any, edge: Array, level_of: Array) -> tuple[int, int]:
    """Context of a value, and what its coded difference counts from: of all that is known before it.

    rates : those to come, and the deviations of the values already coded; around : of the pixel, see
    :func:`neighbours_of`; edge : see :func:`weights_by_edge`.
    """
    known, west, north, north_west, north_east = around
    predicted = rates[p, lane]
    w = min(max(58 - leading_zeros(predicted | 1), 0), WEIGHT_CLASSES - 1)
    add = (
        edge[known, w, 0] * rates[west, lane]
        + edge[known, w, 1] * rates[north, lane]
        + edge[known, w, 2] * rates[north_west, lane]
        + edge[known, w, 3] * rates[north_east, lane]
    )
    rate = max(predicted + (add >> 12), predicted >> 3, 1)
    k = _class_of(rate)
    base = 0
    if k >= DIRECT:
        base = min(rate >> FRACTION, LARGEST - 1)
        if level_of.size > 0:
            base = level_of[min(base, level_of.size - 1)]
    return k, base


@njit(nogil=True, cache=True)
def model_residual_group(
    values: Array, levels: Array, rates: Array, expectation: Expectation, context: Array, offset: Array
) -> None:
    """Context and coded difference of every value: what the decoder will know, and what it must
    be told. ``rates`` become deviations, values − rates.
    """
    pixels, lanes = values.shape
    values, levels, rates, expectation = borrowed(values), borrowed(levels), borrowed(rates), borrowed(expectation)
    context, offset = borrowed(context), borrowed(offset)
    for p in range(pixels):
        around = neighbours_of(p, expectation.width)
        for lane in range(lanes):
            k, base = expected(rates, p, lane, around, expectation.weights, expectation.level_of)
            context[p, lane] = k
            offset[p, lane] = levels[p, lane] - base
            rates[p, lane] = (values[p, lane] << FRACTION) - rates[p, lane]
