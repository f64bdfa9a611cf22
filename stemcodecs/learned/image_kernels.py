"""Encode and decode one group of images with a network: up to 64 images, one lane each, pixel by pixel."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import int32, int64, uint64

from stemcodecs.compiled import kernel
from stemcodecs.entropy.kernels.borrowed import borrowed
from stemcodecs.entropy.kernels.rans import LANES, aligned, write_states
from stemcodecs.learned.dense_ir import pack_pair
from stemcodecs.learned.group_steps import (
    BAD_PATCH,
    OVERRUN,
    decode_value,
    empty_lanes,
    encode_value,
    is_at_end,
    lanes_in_use,
    note_patches,
    put_patches,
    quarters_in_use,
)
from stemcodecs.learned.image_features import image_rows
from stemcodecs.learned.layers import network_outputs
from stemcodecs.learned.mixture_ir import MIXTURE_ROWS, count_intervals
from stemcodecs.learned.rans15_steps import fresh_states, read_lane_states
from stemcodecs.learned.value_mixture_ir import describe_values

__all__ = ["ImageLanes", "ImageNetwork", "decode_image_group", "encode_image_group"]


class ImageNetwork(NamedTuple):
    """A network for images, unrolled for the kernels.

    Attributes
    ----------
    width, height, pixels : int
        Of an image.
    first_pixel : int
        What the first pixel is taken to be.
    neighbours : int64[n, 3]
        Reference, dy, dx.
    inputs : int
        Of the first layer, even.
    first, second, last : int32, flat
        Two inputs in an int32.
    first_bias, second_bias, last_bias : int32, flat
    shifts : int64[3]
    hidden : int
    sigmoid, mantissa : int32, flat
        See :mod:`stemcodecs.learned.tables`.
    """

    width: int
    height: int
    pixels: int
    first_pixel: int
    neighbours: Any
    inputs: int
    first: Any
    second: Any
    last: Any
    first_bias: Any
    second_bias: Any
    last_bias: Any
    shifts: Any
    hidden: int
    sigmoid: Any
    mantissa: Any


class ImageLanes(NamedTuple):
    """One group of images.

    Attributes
    ----------
    rows : uint16[n, 64]
        Pixels of the chain; those of the group from row ``origin`` on.
    origin : int
    active : uint64
        Bit mask of the lanes that hold an image.
    dose : int32[64]
        Root of the dose of every lane.
    back : int64[4]
        Steps back to the images that neighbours refer to; 0 where there is none.
    chained : bool
        Whether the network looks at images before.
    """

    rows: Any
    origin: int
    active: Any
    dose: Any
    back: Any
    chained: bool


class _Work(NamedTuple):
    """Values of one pixel in all lanes, and what the base missed in the last row of pixels."""

    features: Any
    first_moving: int
    errors: Any
    base: Any
    unit: Any
    inputs: Any
    one: Any
    two: Any
    outputs: Any
    mixture: Any


def _work(network: ImageNetwork, group: ImageLanes) -> _Work:
    hidden = network.hidden
    features = np.zeros(network.inputs * LANES, np.int16)
    first_moving = 1
    features[:LANES] = (group.dose - 4096) >> 5
    if group.chained:
        first_moving = 2
        features[LANES : 2 * LANES] = 64 if group.back[0] > 0 else 0
    return _Work(
        features,
        first_moving,
        np.zeros(network.width * LANES, np.int32),
        aligned(LANES, np.int32),
        aligned(LANES, np.int32),
        aligned(network.inputs // 2 * LANES, np.int32),
        aligned(hidden // 2 * LANES, np.int32),
        aligned(hidden // 2 * LANES, np.int32),
        aligned(5 * LANES, np.int32),
        aligned(MIXTURE_ROWS * LANES, np.int32),
    )


@kernel(forceinline=True)
def _predict(path, quarters, network, group, values, p, y, x, work):
    """Mixture and window of a pixel; returns the OR of the widths."""
    pairs = network.inputs // 2
    image_rows(network, group, values, p, y, x, work)
    for j in range(pairs):
        pack_pair(work.features, int64(2 * j * LANES), int64((2 * j + 1) * LANES), work.inputs, int64(j * LANES))
    network_outputs(path, quarters, network, pairs, 0, work)
    return describe_values(
        work.outputs, work.base, work.unit, network.sigmoid, network.mantissa, work.mixture, quarters
    )


@kernel(forceinline=True)
def _note_errors(values, at, x, work):
    for j in range(LANES):
        work.errors[x * LANES + j] = int32(values[at + j]) - work.base[j]


def encode_image_group(path, network, group, entries, low, stream, patches):
    """As :func:`stemcodecs.learned.group_kernels.encode_network_group`, of images."""
    return _encode(path, network, group, entries, low, stream, patches, _work(network, group), fresh_states())


@kernel
def _encode(path, network, group, entries, low, stream, patches, work, states):
    network, group, stream, patches = borrowed(network), borrowed(group), borrowed(stream), borrowed(patches)
    entries, low, work, states = borrowed(entries), borrowed(low), borrowed(work), borrowed(states)
    values, quarters = group.rows.reshape(-1), quarters_in_use(group.active)
    n = network.pixels
    found = 0
    y = x = int64(0)
    for p in range(n):
        at = int64(group.origin + p) * LANES
        _predict(path, quarters, network, group, values, int64(p), y, x, work)
        outside = count_intervals(
            work.mixture, network.sigmoid, None, values, at, entries, low, int64(p * LANES), quarters
        )
        found = note_patches(uint64(outside) & group.active, values, at, int64(p), patches, found)
        _note_errors(values, at, x, work)
        x += 1
        if x == network.width:
            x = int64(0)
            y += 1
    pos = int64(stream.end)
    for p in range(n - 1, -1, -1):
        pos = encode_value(path, states, entries, low, int64(p), group.active, stream, pos)
    return write_states(states, lanes_in_use(group.active, stream.blocks), stream.words, pos), found


def decode_image_group(path, network, group, stream, patches):
    """As :func:`stemcodecs.learned.group_kernels.decode_network_group`, of images."""
    return _decode(path, network, group, stream, patches, _work(network, group), fresh_states())


@kernel
def _decode(path, network, group, stream, patches, work, states):
    network, group, stream, patches = borrowed(network), borrowed(group), borrowed(stream), borrowed(patches)
    work, states = borrowed(work), borrowed(states)
    values, quarters = group.rows.reshape(-1), quarters_in_use(group.active)
    pos = read_lane_states(states, lanes_in_use(group.active, stream.blocks), stream.words, int64(stream.start))
    patch = int64(0)
    y = x = int64(0)
    for p in range(network.pixels):
        at = int64(group.origin + p) * LANES
        if pos > stream.end:
            return int64(OVERRUN)
        widths = _predict(path, quarters, network, group, values, int64(p), y, x, work)
        pos = decode_value(
            path, states, widths, work.mixture, network.sigmoid, None, group.active, stream, pos, values, at
        )  # fmt: skip
        patch = put_patches(patches, patch, int64(p), values, at)
        if patch < 0:
            return int64(BAD_PATCH)
        empty_lanes(group.active, values, at)
        _note_errors(values, at, x, work)
        x += 1
        if x == network.width:
            x = int64(0)
            y += 1
    return int64(0) if is_at_end(states, stream, patches, patch, pos) else int64(OVERRUN)
