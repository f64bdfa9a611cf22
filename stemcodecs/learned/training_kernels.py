"""Loss and gradient of a network on counts of a chunk, hand-written, for samples side by side.

Training is the only part that computes with floating-point numbers. No BLAS takes part: its threads would fight those
of the coder over layers as small as these, and its sums would depend on the machine's library.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import float32, float64, int64

from stemcodecs.compiled import kernel
from stemcodecs.entropy.kernels.borrowed import borrowed
from stemcodecs.entropy.model.group_layout import MAX_REFERENCES
from stemcodecs.learned.training_ir import ROWS, WIDTH, add_products

__all__ = [
    "NOTHING_BELOW",
    "SAMPLES",
    "UNITS",
    "TrainingData",
    "features_of",
    "loss_and_gradient",
    "padded",
    "residual",
    "weights_in",
]

SAMPLES = 32
"""Samples side by side."""
_OUTPUTS, UNITS = 5, 8
_FLOOR = 1.0 / 32768.0
"""Probability that every symbol has whatever the network says: of wide distributions, a bin of many values."""
_BIN = float32(0.18)
"""About how wide a bin is, in scales of the widest logistic of some weight."""
_SOME_WEIGHT = float32(1.0 / 128.0)
NOTHING_BELOW = float32(-1e9)
"""Of the smallest value: no root, or value, lies below it."""
_LN2 = 0.6931471805599453
_NORMAL = float32(0.6)
_DENSITY = float32(0.3989422804014327)
_TAIL = (float32(0.31938153), float32(-0.356563782), float32(1.781477937), float32(-1.821255978), float32(1.330274429))


class TrainingData(NamedTuple):
    """Counts and what is known of their positions and pixels.

    Attributes
    ----------
    plane : uint8 or uint16[n_positions, n_pixels]
    width : int
        Columns of the detector.
    roots : int64[n_pixels]
        Root of the mean, ten fraction bits; -1 for constant pixels.
    dose : int64[n_positions]
        Root of the dose, 4096 for the mean pattern.
    references : int64[n_positions, 4]
        Positions that a neighbour's reference leads to; -1 where there is none.
    chosen : int64[n]
        Positions that are learned from, in increasing order.
    means : int16[n, n_means, n_pixels]
        Means of scan neighbours of the chosen positions: residuals, which references above 4 lead to.
    neighbours : int64[n, 3]
        Reference, dy, dx.
    chained : bool
    pixel : float32[n_pixels, n_features]
        Features of the pixels.
    root6 : int32[65536]
    """

    plane: Any
    width: int
    roots: Any
    dose: Any
    references: Any
    chosen: Any
    means: Any
    neighbours: Any
    chained: bool
    pixel: Any
    root6: Any


@kernel
def padded(inputs):
    """Inputs of the first layer as they lie in the vector of weights: rows of sixteen."""
    return -(-inputs // WIDTH) * WIDTH


@kernel
def weights_in(inputs, hidden):
    """Weights and biases of a network, as they lie in one vector: layer by layer, the weights before the biases.

    Inputs of the first layer are :func:`padded`, and the last layer has three units that do nothing: they make rows
    and columns of whole vectors.
    """
    return hidden * (padded(inputs) + 1) + hidden * (hidden + 1) + UNITS * (hidden + 1)


@kernel
def residual(data, f, p):
    base = (data.roots[p] * data.dose[f]) >> 12
    e = int64(data.root6[data.plane[f, p]]) - (base >> 4)
    return min(max(e, int64(-32768)), int64(32767))


@kernel
def features_of(data, positions, pixels, out, low, up):
    """Features (six fraction bits, as the integer network sees them) of some counts, and between which roots they lie.

    positions : int64[n], indices of chosen ones; pixels : int64[n]; out : float32[n, features]; low, up : float32[n],
    half a count to each side, from the base; below 0 there is nothing.
    """
    data = borrowed(data)
    height = data.roots.shape[0] // data.width
    for s in range(positions.shape[0]):
        f, p = data.chosen[positions[s]], pixels[s]
        y = p // data.width
        x = p - y * data.width
        base = ((data.roots[p] * data.dose[f]) >> 12) / 1024.0
        count = float64(data.plane[f, p])
        up[s] = float32(np.sqrt(count + 0.875) - base)
        low[s] = float32(np.sqrt(count - 0.125) - base) if count > 0 else NOTHING_BELOW
        out[s, 0] = float32((data.dose[f] - 4096) >> 5)
        k = 1
        if data.chained:
            out[s, 1] = float32(64 if data.references[f, 0] >= 0 else 0)
            k = 2
        for i in range(data.neighbours.shape[0]):
            reference, dy, dx = data.neighbours[i, 0], data.neighbours[i, 1], data.neighbours[i, 2]
            yy, xx = y + dy, x + dx
            at = yy * data.width + xx
            inside = 0 <= yy < height and 0 <= xx < data.width
            value = float32(0)
            if reference > MAX_REFERENCES:
                if inside:
                    value = float32(data.means[positions[s], reference - MAX_REFERENCES - 1, at])
            else:
                other = data.references[f, reference - 1] if reference > 0 else f
                if inside and other >= 0 and data.roots[at] >= 0:
                    value = float32(residual(data, other, at))
            out[s, k] = value
            k += 1
        for i in range(data.pixel.shape[1]):
            out[s, k] = data.pixel[p, i]
            k += 1


@kernel
def _forward(weights, at, inputs, row, outputs, x, out, rectify):
    """One layer for the samples side by side: x : float32[inputs * SAMPLES], out alike.

    The layer's weights begin at ``at``, ``row`` of them a unit; its biases lie behind them.
    """
    bias = at + outputs * row
    for j in range(outputs):
        for s in range(SAMPLES):
            out[j * SAMPLES + s] = weights[bias + j]
    for j in range(0, outputs, ROWS):
        for s in range(0, SAMPLES, WIDTH):
            add_products(
                weights, int64(at + j * row), int64(row), int64(1), x, int64(s), int64(SAMPLES), int64(inputs),
                out, int64(j * SAMPLES + s), int64(SAMPLES),
            )  # fmt: skip
    if rectify:
        for i in range(outputs * SAMPLES):
            out[i] = max(out[i], float32(0))


@kernel
def _add_gradient(at, row, outputs, x, turned, g, gradient):
    """Gradients of one layer's weights and biases from those of its outputs; ``turned`` is room for x, turned round."""
    for i in range(row):
        for s in range(SAMPLES):
            turned[s * row + i] = x[i * SAMPLES + s]
    bias = at + outputs * row
    for j in range(outputs):
        total = float32(0)
        for s in range(SAMPLES):
            total += g[j * SAMPLES + s]
        gradient[bias + j] += total
    for j in range(0, outputs, ROWS):
        for i in range(0, row, WIDTH):
            add_products(
                g, int64(j * SAMPLES), int64(SAMPLES), int64(1), turned, int64(i), int64(row), int64(SAMPLES),
                gradient, int64(at + j * row + i), int64(row),
            )  # fmt: skip


@kernel
def _backward(weights, at, inputs, outputs, x, g, g_in):
    """Gradients of a layer's inputs, which are rectified sums: where they are 0, nothing passes back."""
    for i in range(inputs * SAMPLES):
        g_in[i] = float32(0)
    for i in range(0, inputs, ROWS):
        for s in range(0, SAMPLES, WIDTH):
            add_products(
                weights, int64(at + i), int64(1), int64(inputs), g, int64(s), int64(SAMPLES), int64(outputs),
                g_in, int64(i * SAMPLES + s), int64(SAMPLES),
            )  # fmt: skip
    for i in range(inputs * SAMPLES):
        if x[i] <= 0:
            g_in[i] = float32(0)


@kernel(fastmath=True)
def _sigmoid(a):
    return float32(1) / (float32(1) + np.exp(-min(max(a, float32(-30)), float32(30))))


@kernel(fastmath=True)
def _normal(a):
    """Cumulative probability and density of the normal component (M. Abramowitz and I. A. Stegun, 26.2.17)."""
    x = min(max(a, float32(-16)), float32(16)) * _NORMAL
    density = _DENSITY * np.exp(float32(-0.5) * x * x)
    t = float32(1) / (float32(1) + float32(0.2316419) * abs(x))
    tail = t * (_TAIL[0] + t * (_TAIL[1] + t * (_TAIL[2] + t * (_TAIL[3] + t * _TAIL[4])))) * density
    return (float32(1) - tail if x > 0 else tail), density * _NORMAL


@kernel(fastmath=True)
def _distribution(o, low, up, first, n, normal, g):
    """Bits of the first ``n`` samples, and their gradients in the outputs; those of the others are 0."""
    bits = 0.0
    for s in range(SAMPLES):
        if s >= n:
            for k in range(_OUTPUTS):
                g[k, s] = float32(0)
            continue
        zero = low[first + s] <= NOTHING_BELOW
        weight = _sigmoid(o[0, s])
        mass = widest = float32(0)
        parts_0 = parts_1 = float32(0)
        for k in range(2):
            w = weight if k == 0 else float32(1) - weight
            location = o[1 + k, s]
            scale = min(max(o[3 + k, s], float32(-4.1)), float32(5.5))
            inverse = np.exp(-scale)
            if w >= _SOME_WEIGHT:
                widest = max(widest, float32(1) / inverse)
            a = (up[first + s] - location) * inverse
            b = float32(0) if zero else (low[first + s] - location) * inverse
            if normal:
                sa, da = _normal(a)
                sb, db = _normal(b)
            else:
                sa, sb = _sigmoid(a), _sigmoid(b)
                da, db = sa * (float32(1) - sa), sb * (float32(1) - sb)
            if zero:
                sb = db = float32(0)
            part = sa - sb
            g[1 + k, s] = w * (db - da) * inverse
            g[3 + k, s] = w * ((float32(0) if zero else db * b) - da * a)
            if k == 0:
                parts_0 = part
            else:
                parts_1 = part
            mass += w * part
        # One value has its share of the bin's: else the tails of bright pixels would seem to cost nothing.
        bin_width = widest * _BIN
        value_width = bin_width if zero else min(up[first + s] - low[first + s], bin_width)
        p = mass + float32(_FLOOR) * (value_width / bin_width)
        bits -= np.log(p) / _LN2
        factor = float32(-1.0 / _LN2) / p
        g[0, s] = factor * weight * (float32(1) - weight) * (parts_0 - parts_1)
        for k in range(1, _OUTPUTS):
            g[k, s] *= factor
    return bits


@kernel
def loss_and_gradient(weights, inputs, hidden, normal, x, low, up, first, last, gradient, learn):
    """Bits of the samples ``first:last``, and, to learn, the gradient of their sum.

    weights : float32, flat, see :func:`weights_in`; hidden : a multiple of 16; x : float32[n, inputs], features; low,
    up : float32[n], between which the values lie; gradient : float32 as the weights, added to.
    """
    row = padded(inputs)
    room = max(row, hidden) * SAMPLES
    x_in, turned = np.zeros(row * SAMPLES, np.float32), np.zeros(room, np.float32)
    one, two = np.zeros(hidden * SAMPLES, np.float32), np.zeros(hidden * SAMPLES, np.float32)
    g_one, g_two = np.zeros(hidden * SAMPLES, np.float32), np.zeros(hidden * SAMPLES, np.float32)
    o, g = np.zeros(UNITS * SAMPLES, np.float32), np.zeros(UNITS * SAMPLES, np.float32)
    at_one = hidden * (row + 1)
    at_two = at_one + hidden * (hidden + 1)
    bits = 0.0
    for start in range(first, last, SAMPLES):
        n = min(SAMPLES, last - start)
        for s in range(SAMPLES):
            from_ = start + min(s, n - 1)
            for i in range(inputs):
                x_in[i * SAMPLES + s] = x[from_, i]
        _forward(weights, 0, inputs, row, hidden, x_in, one, True)
        _forward(weights, at_one, hidden, hidden, hidden, one, two, True)
        _forward(weights, at_two, hidden, hidden, UNITS, two, o, False)
        bits += _distribution(o.reshape(UNITS, SAMPLES), low, up, start, n, normal, g.reshape(UNITS, SAMPLES))
        if learn:
            _add_gradient(at_two, hidden, UNITS, two, turned, g, gradient)
            _backward(weights, at_two, hidden, UNITS, two, g, g_two)
            _add_gradient(at_one, hidden, hidden, one, turned, g_two, gradient)
            _backward(weights, at_one, hidden, hidden, one, g_two, g_one)
            _add_gradient(0, row, hidden, x_in, turned, g_one, gradient)
    return bits
