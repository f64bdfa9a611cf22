"""Loss and gradient of a network on counts of a chunk, hand-written, for samples side by side.

Training is the only part that computes with floating-point numbers. No BLAS takes part: its threads would fight those
of the coder over layers as small as these, and its sums would depend on the machine's library.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import float32, int64

from stemcodecs.compiled import kernel
from stemcodecs.entropy.kernels.borrowed import borrowed

__all__ = ["SAMPLES", "TrainingData", "features_of", "loss_and_gradient", "residual", "weights_in"]

SAMPLES = 32
"""Samples side by side."""
_OUTPUTS = 5
_FLOOR = 1.0 / 32768.0
"""Probability that every symbol has whatever the network says."""
_LN2 = 0.6931471805599453


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
    neighbours: Any
    chained: bool
    pixel: Any
    root6: Any


@kernel
def weights_in(inputs, hidden):
    """Weights and biases of a network, as they lie in one vector: layer by layer, the weights before the biases."""
    return hidden * (inputs + 1) + hidden * (hidden + 1) + _OUTPUTS * (hidden + 1)


@kernel
def residual(data, f, p):
    base = (data.roots[p] * data.dose[f]) >> 12
    e = int64(data.root6[data.plane[f, p]]) - (base >> 4)
    return min(max(e, int64(-32768)), int64(32767))


@kernel
def features_of(data, positions, pixels, out, base):
    """Features (six fraction bits, as the integer network sees them) and base (in counts' roots) of some counts.

    positions, pixels : int64[n]; out : float32[n, features]; base : float32[n].
    """
    data = borrowed(data)
    height = data.roots.shape[0] // data.width
    for s in range(positions.shape[0]):
        f, p = positions[s], pixels[s]
        y = p // data.width
        x = p - y * data.width
        base[s] = float32((data.roots[p] * data.dose[f]) >> 12) / float32(1024)
        out[s, 0] = float32((data.dose[f] - 4096) >> 5)
        k = 1
        if data.chained:
            out[s, 1] = float32(64 if data.references[f, 0] >= 0 else 0)
            k = 2
        for i in range(data.neighbours.shape[0]):
            reference, dy, dx = data.neighbours[i, 0], data.neighbours[i, 1], data.neighbours[i, 2]
            other = data.references[f, reference - 1] if reference > 0 else f
            yy, xx = y + dy, x + dx
            inside = other >= 0 and 0 <= yy < height and 0 <= xx < data.width
            value = float32(0)
            if inside:
                at = yy * data.width + xx
                if data.roots[at] >= 0:
                    value = float32(residual(data, other, at))
            out[s, k] = value
            k += 1
        for i in range(data.pixel.shape[1]):
            out[s, k] = data.pixel[p, i]
            k += 1


@kernel(fastmath=True)
def _forward(weights, at, inputs, outputs, x, out, rectify):
    """One layer for the samples side by side: x : float32[inputs, SAMPLES]; the layer's weights begin at ``at``."""
    bias = at + outputs * inputs
    for j in range(outputs):
        start = weights[bias + j]
        for s in range(SAMPLES):
            out[j, s] = start
        for i in range(inputs):
            w = weights[at + j * inputs + i]
            for s in range(SAMPLES):
                out[j, s] += w * x[i, s]
        if rectify:
            for s in range(SAMPLES):
                out[j, s] = max(out[j, s], float32(0))


@kernel(fastmath=True)
def _backward(weights, at, inputs, outputs, x, g, gradient, g_in, wanted):
    """Gradients of one layer's weights from those of its outputs, and of its inputs if they are wanted."""
    bias = at + outputs * inputs
    if wanted:
        for i in range(inputs):
            for s in range(SAMPLES):
                g_in[i, s] = float32(0)
    for j in range(outputs):
        total = float32(0)
        for s in range(SAMPLES):
            total += g[j, s]
        gradient[bias + j] += total
        for i in range(inputs):
            dot = float32(0)
            for s in range(SAMPLES):
                dot += g[j, s] * x[i, s]
            gradient[at + j * inputs + i] += dot
        if wanted:
            for i in range(inputs):
                w = weights[at + j * inputs + i]
                for s in range(SAMPLES):
                    g_in[i, s] += w * g[j, s]
    if wanted:
        for i in range(inputs):
            for s in range(SAMPLES):
                # The inputs are rectified sums: where they are 0, nothing passes back.
                g_in[i, s] = g_in[i, s] if x[i, s] > 0 else float32(0)


@kernel(fastmath=True)
def _sigmoid(a):
    return float32(1) / (float32(1) + np.exp(-min(max(a, float32(-30)), float32(30))))


@kernel(fastmath=True)
def _distribution(o, base, counts, first, n, g):
    """Bits of the first ``n`` samples, and their gradients in the outputs; those of the others are 0."""
    bits = 0.0
    for s in range(SAMPLES):
        if s >= n:
            for k in range(_OUTPUTS):
                g[k, s] = float32(0)
            continue
        count = float32(counts[first + s])
        zero = count == 0
        up = np.sqrt(count + float32(0.875))
        low = np.sqrt(max(count - float32(0.125), float32(0)))
        weight = _sigmoid(o[0, s])
        mass = float32(0)
        parts_0 = parts_1 = float32(0)
        for k in range(2):
            w = weight if k == 0 else float32(1) - weight
            location = base[first + s] + o[1 + k, s]
            scale = min(max(o[3 + k, s], float32(-4.1)), float32(5.5))
            inverse = np.exp(-scale)
            a, b = (up - location) * inverse, (low - location) * inverse
            sa = _sigmoid(a)
            sb = float32(0) if zero else _sigmoid(b)
            part = sa - sb
            da, db = sa * (float32(1) - sa), sb * (float32(1) - sb)
            g[1 + k, s] = w * (db - da) * inverse
            g[3 + k, s] = w * ((float32(0) if zero else db * b) - da * a)
            if k == 0:
                parts_0 = part
            else:
                parts_1 = part
            mass += w * part
        p = mass + float32(_FLOOR)
        bits -= np.log(p) / _LN2
        factor = float32(-1.0 / _LN2) / p
        g[0, s] = factor * weight * (float32(1) - weight) * (parts_0 - parts_1)
        for k in range(1, _OUTPUTS):
            g[k, s] *= factor
    return bits


@kernel
def loss_and_gradient(weights, inputs, hidden, x, base, counts, first, last, gradient, learn):
    """Bits of the samples ``first:last``, and, to learn, the gradient of their sum.

    weights : float32, flat, see :func:`weights_in`; x : float32[n, inputs], normalised features; base : float32[n];
    counts : uint16[n]; gradient : float32 as the weights, added to.
    """
    zeros = np.zeros
    x_in = zeros((inputs, SAMPLES), np.float32)
    one, two = zeros((hidden, SAMPLES), np.float32), zeros((hidden, SAMPLES), np.float32)
    g_one, g_two = zeros((hidden, SAMPLES), np.float32), zeros((hidden, SAMPLES), np.float32)
    o, g = zeros((_OUTPUTS, SAMPLES), np.float32), zeros((_OUTPUTS, SAMPLES), np.float32)
    at_one = hidden * (inputs + 1)
    at_two = at_one + hidden * (hidden + 1)
    bits = 0.0
    for start in range(first, last, SAMPLES):
        n = min(SAMPLES, last - start)
        for s in range(SAMPLES):
            from_ = start + min(s, n - 1)
            for i in range(inputs):
                x_in[i, s] = x[from_, i]
        _forward(weights, 0, inputs, hidden, x_in, one, True)
        _forward(weights, at_one, hidden, hidden, one, two, True)
        _forward(weights, at_two, hidden, _OUTPUTS, two, o, False)
        bits += _distribution(o, base, counts, start, n, g)
        if learn:
            _backward(weights, at_two, hidden, _OUTPUTS, two, g, gradient, g_two, True)
            _backward(weights, at_one, hidden, hidden, one, g_two, gradient, g_one, True)
            _backward(weights, 0, inputs, hidden, x_in, g_one, gradient, x_in, False)
    return bits
