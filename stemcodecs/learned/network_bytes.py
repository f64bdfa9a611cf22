"""Parts of a serialised network that architectures have in common: levels, neighbours and layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.entropy.model.model_bytes import Reader, Writer
from stemcodecs.entropy.model.range_coder import decode_map, decode_numbers, encode_map
from stemcodecs.errors import CorruptChunkError
from stemcodecs.learned.context_model import MAX_NEIGHBOURS, Dense

__all__ = [
    "read_layer",
    "read_levels",
    "read_neighbours",
    "write_layers",
    "write_levels",
    "write_neighbours",
]

Array = np.ndarray[Any, Any]


def write_levels(w: Writer, level_scale: int, levels: Array, constants: Array) -> None:
    """Levels, int64[det_y, det_x], and the values of constant pixels, int64[n_pixels]."""
    w.varint(level_scale)
    w.section(encode_map(levels))
    w.numbers(np.diff(constants[levels.ravel() < 0], prepend=0))


def read_levels(r: Reader, detector: tuple[int, int]) -> tuple[int, Array, Array]:
    """Inverse of :func:`write_levels`, levels and constants flat."""
    n = detector[0] * detector[1]
    level_scale = r.varint()
    levels = decode_map(r.coded(n), detector).ravel()
    constant = levels < 0
    values = r.numbers(int(constant.sum()))
    if values.size != constant.sum():
        raise CorruptChunkError("impossible network: constant pixels")
    constants = np.zeros(n, np.int64)
    constants[constant] = np.cumsum(values)
    return level_scale, levels, constants


def write_neighbours(w: Writer, neighbours: tuple[tuple[int, int, int], ...]) -> None:
    """Reference, dy and dx of each."""
    w.numbers(np.array(neighbours, np.int64).ravel(), np.tile([0, 1, 2], len(neighbours)))


def write_layers(w: Writer, layers: tuple[Dense, Dense, Dense]) -> None:
    """Layers, one after the other."""
    for layer in layers:
        w.varint(layer.shift)
        w.numbers(layer.weights)
        w.numbers(layer.bias)


def read_neighbours(r: Reader) -> tuple[tuple[int, int, int], ...]:
    """Inverse of :func:`write_neighbours`."""
    # Counted before they are decoded: the contexts are as many as the numbers.
    n = r.varint()
    if n % 3 or n > 3 * MAX_NEIGHBOURS:
        raise CorruptChunkError("impossible network: neighbours")
    if n == 0:
        return ()
    triples = decode_numbers(r.section(), n, np.tile([0, 1, 2], n // 3)).reshape(-1, 3)
    return tuple((int(g), int(y), int(x)) for g, y, x in triples)


def read_layer(r: Reader, outputs: int, inputs: int) -> Dense:
    """One layer of those of :func:`write_layers`."""
    shift = r.varint()
    weights, bias = r.numbers(outputs * inputs), r.numbers(outputs)
    if weights.size != outputs * inputs or bias.size != outputs:
        raise CorruptChunkError("impossible network: layers")
    return Dense(weights=weights.reshape(outputs, inputs), bias=bias, shift=shift)
