"""The bytes of a network: levels and maps by the map coder, weights by the adaptive coder."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.entropy.model.model_bytes import Reader, Writer
from stemcodecs.entropy.model.range_coder import decode_map, decode_numbers, encode_map
from stemcodecs.errors import CorruptChunkError
from stemcodecs.learned.context_model import (
    LARGEST_FEATURE,
    MAX_HIDDEN,
    MAX_MAPS,
    MAX_MEANS,
    OUTPUTS,
    PIXEL_FEATURES,
    ContextModel,
    lane_features,
)
from stemcodecs.learned.network_bytes import (
    read_layer,
    read_levels,
    read_neighbours,
    write_layers,
    write_levels,
    write_neighbours,
)

__all__ = ["CONTEXT", "CONTEXT_MEANS", "map_bytes", "read_network", "write_network"]

Array = np.ndarray[Any, Any]

CONTEXT, CONTEXT_MEANS, CONTEXT_NORMAL = 1, 4, 5
"""Architectures of networks for counts: logistic components without and with means of scan neighbours, and normal
components with any number of means."""


def map_bytes(image: Array) -> int:
    """What a map of the detector takes."""
    return len(encode_map(image))


def write_network(model: ContextModel) -> bytes:
    """Serialise a network."""
    w = Writer()
    w.varint(CONTEXT_NORMAL if model.normal else CONTEXT_MEANS if model.means else CONTEXT)
    write_levels(w, model.level_scale, model.levels.reshape(model.detector), model.constants)
    w.varint(len(model.maps))
    for image in model.maps:
        # Maps are small integers times a power of two: the factor is written once.
        shift = _common_shift(image)
        w.varint(shift)
        w.section(encode_map(image.reshape(model.detector) >> shift))
    if model.means or model.normal:
        w.numbers(np.array(model.means, np.int64).ravel(), np.tile([0, 1], len(model.means)))
    write_neighbours(w, model.neighbours)
    w.varint(model.hidden)
    write_layers(w, model.layers)
    return w.getvalue()


def _common_shift(image: Array) -> int:
    bits = int(np.bitwise_or.reduce(np.abs(image).ravel(), initial=0))
    return (bits & -bits).bit_length() - 1 if bits else 0


def read_network(data: bytes | memoryview, detector: tuple[int, int]) -> ContextModel:
    """Inverse of :func:`write_network`.

    Raises
    ------
    CorruptChunkError
        If the bytes are not a network for this detector that the kernels can run.
    """
    r = Reader(data)
    architecture = r.varint()
    if architecture not in (CONTEXT, CONTEXT_MEANS, CONTEXT_NORMAL):
        raise CorruptChunkError(
            f"a network of architecture {architecture}, which this stemcodecs does not know: upgrade stemcodecs, or "
            "the chunk is damaged"
        )
    level_scale, levels, constants = read_levels(r, detector)
    n_maps = r.varint()
    if n_maps > MAX_MAPS:
        raise CorruptChunkError("impossible network: maps")
    maps = tuple(_read_map(r, detector) for _ in range(n_maps))
    means = () if architecture == CONTEXT else _read_means(r, at_least=int(architecture == CONTEXT_MEANS))
    neighbours = read_neighbours(r)
    hidden = r.varint()
    if not 4 <= hidden <= MAX_HIDDEN:
        raise CorruptChunkError("impossible network: hidden units")
    inputs = lane_features(neighbours) + PIXEL_FEATURES + n_maps
    layers = tuple(read_layer(r, *shape) for shape in ((hidden, inputs), (hidden, hidden), (OUTPUTS, hidden)))
    r.end()
    model = ContextModel(
        detector=detector, level_scale=level_scale, levels=levels, constants=constants, maps=maps,
        neighbours=neighbours, layers=(layers[0], layers[1], layers[2]), means=means,
        normal=architecture == CONTEXT_NORMAL,
    )  # fmt: skip
    # The kernels index by these numbers without looking.
    model.check()
    return model


def _read_map(r: Reader, detector: tuple[int, int]) -> Array:
    shift = r.varint()
    image = decode_map(r.coded(detector[0] * detector[1]), detector)
    if shift > 15 or np.abs(image).max(initial=0) > LARGEST_FEATURE >> shift:
        raise CorruptChunkError("impossible network: maps")
    return image << shift


def _read_means(r: Reader, at_least: int) -> tuple[tuple[int, int], ...]:
    n = r.varint()
    if n % 2 or not 2 * at_least <= n <= 2 * MAX_MEANS:
        raise CorruptChunkError("impossible network: means")
    if n == 0:
        return ()
    pairs = decode_numbers(r.section(), n, np.tile([0, 1], n // 2)).reshape(-1, 2)
    return tuple((int(decay), int(reach)) for decay, reach in pairs)
