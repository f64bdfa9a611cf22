"""Encode and decode one group with a network: 64 scan positions, one lane each, pixel by pixel."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import int16, int32, int64, uint64

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
from stemcodecs.learned.layers import network_outputs
from stemcodecs.learned.mixture_ir import MIXTURE_ROWS, base_row, count_intervals, describe_counts, residual_row
from stemcodecs.learned.rans15_steps import fresh_states, read_lane_states

__all__ = ["Lanes", "Network", "decode_network_group", "encode_network_group", "feature_rows_of_lanes"]


class Network(NamedTuple):
    """A network unrolled for the kernels.

    Attributes
    ----------
    width : int
        Columns of the detector.
    roots : int64[n_pixels]
        Root of the mean of every pixel, ten fraction bits; -1 if it is constant.
    constants : uint16[n_pixels]
        Value of constant pixels.
    first_bias : int32, flat
        Of the first layer, by pixel: what the features of the pixel add to it.
    first, second, last : int32, flat
        Weights, two inputs in an int32.
    second_bias, last_bias : int32, flat
    shifts : int64[3]
        Of the layers.
    hidden : int
        Units of each of the first two layers.
    sigmoid, mantissa, root6, threshold10 : int32, flat
        See :mod:`stemcodecs.learned.tables`.
    cumulative : int32, flat
        Of a component of the mixture: the table ``sigmoid`` or ``normal``.
    window : int32[4]
        Rule of the windows, see :mod:`stemcodecs.learned.mixture_ir`.
    """

    width: int
    roots: Any
    constants: Any
    first_bias: Any
    first: Any
    second: Any
    last: Any
    second_bias: Any
    last_bias: Any
    shifts: Any
    hidden: int
    sigmoid: Any
    mantissa: Any
    root6: Any
    threshold10: Any
    cumulative: Any
    window: Any


class Lanes(NamedTuple):
    """One group: its counts, its residuals, and what is known of its lanes.

    Attributes
    ----------
    rows : uint16[n, 64]
        Counts, from row ``origin`` on.
    origin : int
    active : uint64
        Bit mask of the lanes that hold a position.
    dose : int32[64]
        Root of the dose of every lane, 4096 for the mean pattern.
    residuals : int16[n, 64]
        Of the chain, see :class:`stemcodecs.learned.context_model.ResidualRows`; zero where nothing is decoded yet.
    first_residual, stride : int
        Row of the first pixel, and rows between two rows of the detector.
    feature_rows, feature_moves : int64[even]
        Rows of the lane features, and whether they move with the pixel.
    """

    rows: Any
    origin: int
    active: Any
    dose: Any
    residuals: Any
    first_residual: int
    stride: int
    feature_rows: Any
    feature_moves: Any


class _Layers(NamedTuple):
    """Values of one pixel: inputs, hidden units (two int16 in an int32), outputs, base, mixture."""

    inputs: Any
    one: Any
    two: Any
    outputs: Any
    base: Any
    mixture: Any


def _layers(pairs: int, hidden: int) -> _Layers:
    return _Layers(
        aligned(pairs * LANES, np.int32),
        aligned(hidden // 2 * LANES, np.int32),
        aligned(hidden // 2 * LANES, np.int32),
        aligned(5 * LANES, np.int32),
        aligned(LANES, np.int32),
        aligned(MIXTURE_ROWS * LANES, np.int32),
    )


@kernel(forceinline=True)
def _predict(path, quarters, network, group, flat, p, row, work):
    """Mixture and window of the counts of a pixel whose residual is in ``row``; returns the OR of the widths."""
    pairs = group.feature_rows.shape[0] // 2
    base_row(network.roots[p], group.dose, work.base)
    for j in range(pairs):
        one = group.feature_rows[2 * j] + group.feature_moves[2 * j] * row
        two = group.feature_rows[2 * j + 1] + group.feature_moves[2 * j + 1] * row
        pack_pair(flat, one * LANES, two * LANES, work.inputs, int64(j * LANES))
    network_outputs(path, quarters, network, pairs, p * network.hidden, work)
    return describe_counts(
        work.outputs, work.base, network.sigmoid, network.mantissa, network.window, work.mixture, quarters
    )


def encode_network_group(path, network, group, entries, low, stream, patches):
    """Encode a group; returns the word position where its stream begins, and the number of patches.

    entries, low : uint32, flat, 64 a pixel, to work in; stream : as of
    :func:`stemcodecs.entropy.kernels.encode_group.encode_group`, written from its end backwards; patches : written in
    increasing order.
    """
    return _encode(
        path, network, group, entries, low, stream, patches, _layers(group.feature_rows.shape[0] // 2, network.hidden),
        fresh_states(),
    )  # fmt: skip


@kernel
def _encode(path, network, group, entries, low, stream, patches, work, states):
    network, group, stream, patches = borrowed(network), borrowed(group), borrowed(stream), borrowed(patches)
    entries, low, work, states = borrowed(entries), borrowed(low), borrowed(work), borrowed(states)
    values, flat, quarters = group.rows.reshape(-1), group.residuals.reshape(-1), quarters_in_use(group.active)
    n = network.roots.shape[0]
    found = 0
    y = x = int64(0)
    for p in range(n):
        row = group.first_residual + y * group.stride + x
        at = int64(group.origin + p) * LANES
        if network.roots[p] < 0:
            outside = uint64(0)
            for j in range(LANES):
                if values[at + j] != network.constants[p]:
                    outside |= uint64(1) << uint64(j)
            found = note_patches(outside & group.active, values, at, int64(p), patches, found)
        else:
            _predict(path, quarters, network, group, flat, p, row, work)
            outside = count_intervals(
                work.mixture, network.cumulative, network.threshold10, values, at, entries, low, int64(p * LANES),
                quarters,
            )  # fmt: skip
            found = note_patches(uint64(outside) & group.active, values, at, int64(p), patches, found)
            residual_row(values, at, work.base, network.root6, flat, row * LANES)
        x += 1
        if x == network.width:
            x = int64(0)
            y += 1
    pos = int64(stream.end)
    for p in range(n - 1, -1, -1):
        if network.roots[p] >= 0:
            pos = encode_value(path, states, entries, low, int64(p), group.active, stream, pos)
    return write_states(states, lanes_in_use(group.active, stream.blocks), stream.words, pos), found


def decode_network_group(path, network, group, stream, patches):
    """Decode a group into its rows, and its residuals; 0 if it came out whole, else ``OVERRUN`` or ``BAD_PATCH``."""
    return _decode(
        path, network, group, stream, patches, _layers(group.feature_rows.shape[0] // 2, network.hidden), fresh_states()
    )


@kernel
def _decode(path, network, group, stream, patches, work, states):
    network, group, stream, patches = borrowed(network), borrowed(group), borrowed(stream), borrowed(patches)
    work, states = borrowed(work), borrowed(states)
    values, flat, quarters = group.rows.reshape(-1), group.residuals.reshape(-1), quarters_in_use(group.active)
    pos = read_lane_states(states, lanes_in_use(group.active, stream.blocks), stream.words, int64(stream.start))
    patch = int64(0)
    y = x = int64(0)
    for p in range(network.roots.shape[0]):
        row = group.first_residual + y * group.stride + x
        at = int64(group.origin + p) * LANES
        constant = network.roots[p] < 0
        if constant:
            for j in range(LANES):
                values[at + j] = network.constants[p]
        else:
            if pos > stream.end:
                return int64(OVERRUN)
            widths = _predict(path, quarters, network, group, flat, p, row, work)
            pos = decode_value(
                path, states, widths, work.mixture, network.cumulative, network.threshold10, group.active, stream, pos,
                values, at,
            )  # fmt: skip
        patch = put_patches(patches, patch, int64(p), values, at)
        if patch < 0:
            return int64(BAD_PATCH)
        empty_lanes(group.active, values, at)
        if not constant:
            residual_row(values, at, work.base, network.root6, flat, row * LANES)
        x += 1
        if x == network.width:
            x = int64(0)
            y += 1
    return int64(0) if is_at_end(states, stream, patches, patch, pos) else int64(OVERRUN)


@kernel
def feature_rows_of_lanes(residuals, zero, dose, chained):
    """Fill the three rows behind the last step: zeros, the dose, whether there are scan neighbours."""
    for j in range(LANES):
        residuals[zero, j] = int16(0)
        residuals[zero + 1, j] = int16((int32(dose[j]) - 4096) >> 5)
        residuals[zero + 2, j] = int16(64 if chained else 0)
