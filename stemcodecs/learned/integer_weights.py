"""From the trained weights to integers: one power of two a layer, as few bits as cost next to nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.learned.context_model import OUTPUTS, PIXEL_WEIGHT_BITS, Dense
from stemcodecs.learned.training_kernels import UNITS, padded

__all__ = ["FloatNetwork", "float_network", "integer_layers", "pack", "packed_int32", "weight_pairs"]

Array = np.ndarray[Any, Any]

_OUTPUT_SCALES = np.array([128.0, 1024.0, 1024.0, 64 / np.log(2), 64 / np.log(2)])
"""Units of the outputs: logit, roots of counts, and octaves of scale, with 7, 10 and 6 fraction bits."""
_ACTIVATION_TOP = 1 << 14
"""Where the largest activations of a sample come to lie; twice as much is cut off."""
_RARE = 0.9999

FloatNetwork = tuple[tuple[Array, Array], tuple[Array, Array], tuple[Array, Array]]
"""Weights and biases of the layers, float64."""


def float_network(weights: Array, inputs: int, hidden: int, mean: Array, spread: Array) -> FloatNetwork:
    """Layers of a trained vector of weights, taking features that have not been normalised."""
    (w, b), second, (last, offsets) = unpack(weights, inputs, hidden)
    w = w[:, :inputs]
    return (w / spread, b - (w / spread) @ mean), second, (last[:OUTPUTS], offsets[:OUTPUTS])


def unpack(weights: Array, inputs: int, hidden: int) -> FloatNetwork:
    """Layers of a vector of weights, padded as :func:`stemcodecs.learned.training_kernels.weights_in` says."""
    at, layers = 0, []
    for n_out, n_in in ((hidden, padded(inputs)), (hidden, hidden), (UNITS, hidden)):
        w = weights[at : at + n_out * n_in].reshape(n_out, n_in).astype(np.float64)
        at += n_out * n_in
        layers.append((w, weights[at : at + n_out].astype(np.float64)))
        at += n_out
    return layers[0], layers[1], layers[2]


def pack(network: FloatNetwork, inputs: int, hidden: int) -> Array:
    """Inverse of :func:`unpack`: float32, zeros where it is padded."""
    shapes = ((hidden, padded(inputs)), (hidden, hidden), (UNITS, hidden))
    parts = []
    for (w, b), (n_out, n_in) in zip(network, shapes, strict=True):
        parts.append(np.pad(w, ((0, n_out - w.shape[0]), (0, n_in - w.shape[1]))).ravel())
        parts.append(np.pad(b, (0, n_out - b.size)))
    return np.concatenate(parts).astype(np.float32)


def integer_layers(
    network: FloatNetwork, features: Array, lanes: int, bits: int
) -> tuple[tuple[Dense, Dense, Dense], FloatNetwork] | None:
    """Layers in integers of at most so many bits, and the network that they amount to.

    Parameters
    ----------
    network : FloatNetwork
        What was trained.
    features : float32[n, inputs]
        A sample, to see how large activations become.
    lanes : int
        How many of the inputs are of lanes.
    bits : int
        Of the weights, with their sign.

    Returns
    -------
    layers, FloatNetwork
        None if a bias does not fit 32 bits.
    """
    scale = 1.0
    h = features.astype(np.float64)
    layers, rounded = [], []
    for i, (w, b) in enumerate(network):
        last = i == len(network) - 1
        if last:
            w, b = w * _OUTPUT_SCALES[:, None], b * _OUTPUT_SCALES
        own = w[:, :lanes] if i == 0 else w
        exponent = int(np.floor(np.log2((2 ** (bits - 1) - 1) / max(float(np.abs(own).max()), 1e-9))))
        exponent = min(exponent, 20)
        h = h @ w.T + b
        if last:
            after = 1.0
            exponent = max(exponent, int(-np.log2(scale)))
        else:
            h = np.maximum(h, 0)
            top = max(float(np.quantile(h, _RARE)), 1e-6)
            after = min(2.0 ** np.floor(np.log2(_ACTIVATION_TOP / top)), scale * 2.0**exponent)
        shift = min(round(float(np.log2(scale * 2.0**exponent / after))), 31)
        finer = np.full(w.shape[1], exponent)
        if i == 0:
            finer[lanes:] += PIXEL_WEIGHT_BITS
        weights = np.rint(w * 2.0**finer).astype(np.int64)
        bias = np.rint(b * scale * 2.0**exponent) + (1 << shift >> 1)
        narrow, wide = (weights[:, :lanes], weights[:, lanes:]) if i == 0 else (weights, weights[:, :0])
        if np.abs(narrow).max() > 32767 or max(np.abs(wide).max(initial=0), np.abs(bias).max()) >= 2**31:
            return None
        layers.append(Dense(weights=weights, bias=bias.astype(np.int64), shift=shift))
        back = _OUTPUT_SCALES if last else np.ones(len(b))
        rounded.append((weights / 2.0**finer / back[:, None], b / back))
        scale = after
    return (layers[0], layers[1], layers[2]), (rounded[0], rounded[1], rounded[2])


def packed_int32(values: Array) -> Array:
    """Integers modulo 2**32, flat, as the kernels take them."""
    return np.ascontiguousarray(values, np.int64).astype(np.uint32).view(np.int32).ravel()


def weight_pairs(weights: Array) -> Array:
    """Two weights of a unit in every int32; a missing last one is 0."""
    if weights.shape[1] % 2:
        weights = np.pad(weights, ((0, 0), (0, 1)))
    low, high = weights[:, ::2] & 0xFFFF, weights[:, 1::2] & 0xFFFF
    return packed_int32(low | high << 16)
