"""A network of architecture ``l3c`` ready to run: its arrays for the kernels, and the rows of its stacks in turn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from stemcodecs.entropy.kernels.rans import LANES
from stemcodecs.last_used import LastUsed
from stemcodecs.learned.context_model import LARGEST_FEATURE, Dense
from stemcodecs.learned.l3c_kernels import (
    StackArrays,
    convolve_row,
    halve_plane,
    latent_row,
    normalised_plane,
    row_of_encoder,
    row_of_predictor,
)
from stemcodecs.learned.l3c_model import SUBPIXELS, L3cModel, Stack, half
from stemcodecs.learned.l3c_model_bytes import read_l3c
from stemcodecs.learned.path import network_path
from stemcodecs.learned.tables import tables

__all__ = ["UnrolledL3c", "unrolled_l3c"]

Array = np.ndarray[Any, Any]

KEPT_BYTES = 64 << 20
_LAST_UNITS = 5
"""Units of the last layer that are computed together."""
_kept: LastUsed[tuple[bytes, tuple[int, int]], UnrolledL3c] = LastUsed(KEPT_BYTES)


class UnrolledL3c:
    """A network, and what the kernels take of it.

    Attributes
    ----------
    model : L3cModel
    encoders, predictors : list of StackArrays
    levels : list of int32[y, x, 2]
        The four levels below every site of the grid that predicts plane s, as pairs.
    roots : list of int64[values]
        Of the values of every plane; latents have none, which is 0.
    constants : list of uint16[values]
    items : int
        Values of all planes.
    """

    def __init__(self, model: L3cModel) -> None:
        self.model = model
        self.encoders = [_arrays(stack) for stack in model.encoders]
        self.predictors = [_arrays(stack) for stack in model.predictors]
        self.levels = list(_level_pairs(model))
        live = np.where(model.levels < 0, -1, model.roots)
        latents = [ny * nx * model.latents for ny, nx in model.sizes[1:-1]]
        self.roots = [live, *(np.zeros(n, np.int64) for n in latents)]
        self.constants = [model.constants.astype(np.uint16), *(np.zeros(n, np.uint16) for n in latents)]
        self.items = live.size + sum(latents)
        self.nbytes = sum(array.nbytes for array in (*self.levels, *self.roots, *self.constants)) + 8 * model.n_weights

    def latents_of(self, values: Array) -> list[Array]:
        """Latents of the patterns in rows of counts: uint16[y, x, channels, 64] of planes 1 to S."""
        model = self.model
        plane = np.empty((*model.detector, LANES), np.int16)
        roots = self.roots[0]
        normalised_plane(values, roots, tables().root6, model.gain, plane.reshape(-1, LANES))
        out = []
        for s in range(1, model.scales + 1):
            grid = model.sizes[s]
            found = np.zeros((*grid, model.latents, LANES), np.uint16)
            stack, levels = self.encoders[s - 1], self.levels[s - 1]
            site, outputs = np.empty(stack.width // 2 * LANES, np.int32), np.empty(_LAST_UNITS * LANES, np.int32)

            def fill(y: int, row: Array, plane: Array = plane, levels: Array = levels) -> None:
                row_of_encoder(y, plane, levels, row)

            for y, features in _feature_rows(stack, grid, SUBPIXELS, fill):
                latent_row(network_path(), stack, features, site, outputs, found[y])
            out.append(found)
            halved = np.empty((*grid, LANES), np.int16)
            halve_plane(plane, halved)
            plane = halved
        return out

    def features(self, s: int, latents: Array | None, above: Array | None) -> Iterator[tuple[int, Array]]:
        """Rows of features that predict plane ``s``, the first one first.

        latents : of plane s + 1; above : the features that predicted that plane, kept in :meth:`room_for_features`.
        """
        grid, stack = self.model.sizes[s + 1], self.predictors[s]
        channels, pairs = (0, 0) if latents is None else (latents.shape[2], stack.width // 2)
        given = np.zeros((1, 1, 2, LANES), np.uint16) if latents is None else latents
        # Nothing is read of what the last plane does not have.
        below = np.zeros((1, 2, 1), np.int32) if above is None else above
        levels = self.levels[s]

        def fill(y: int, row: Array) -> None:
            row_of_predictor(y, given, channels, levels, below, pairs, row)

        return _feature_rows(stack, grid, channels // 2 + 2 + pairs, fill)

    def room_for_features(self, s: int) -> Array:
        """Where the features that predict plane ``s`` are kept: int32[y, x + 2, width / 2 * 64]."""
        ny, nx = self.model.sizes[s + 1]
        return np.zeros((ny, nx + 2, self.model.width // 2 * LANES), np.int32)


def unrolled_l3c(data: bytes, detector: tuple[int, int]) -> UnrolledL3c:
    """Of a serialised network; the last ones are kept for the next read."""
    key = (data, detector)
    found = _kept.get(key)
    if found is None:
        found = UnrolledL3c(read_l3c(data, detector))
        found = _kept.put(key, found, found.nbytes)
    return found


def _feature_rows(stack: StackArrays, grid: tuple[int, int], pairs: int, fill: Any) -> Iterator[tuple[int, Array]]:
    """Rows of the second hidden layer; three rows of each layer are in memory at a time. A row is lent until the next.

    fill : writes row y of the inputs into a grid row.
    """
    ny, nx = grid
    path, own = network_path(), stack.width // 2
    inputs = [np.zeros((nx + 2) * pairs * LANES, np.int32) for _ in range(4)]
    hidden = [np.zeros((nx + 2) * own * LANES, np.int32) for _ in range(4)]
    features = np.zeros((nx + 2) * own * LANES, np.int32)
    window = np.empty(9 * max(pairs, own) * LANES, np.int32)

    def row(rows: list[Array], y: int) -> Array:
        # The fourth is never written: the zeros beyond the edge.
        return rows[y % 3] if 0 <= y < ny else rows[3]

    def convolve(rows: list[Array], y: int, n: int, weights: Array, bias: Array, shift: int, out: Array) -> None:
        convolve_row(
            path, row(rows, y - 1), row(rows, y), row(rows, y + 1), n, weights, bias, shift, stack.width, window, out
        )

    for step in range(ny + 2):
        if step < ny:
            fill(step, inputs[step % 3])
        if 0 <= step - 1 < ny:
            out = hidden[(step - 1) % 3]
            convolve(inputs, step - 1, pairs, stack.first, stack.first_bias, int(stack.shifts[0]), out)
        if step >= 2:
            convolve(hidden, step - 2, own, stack.second, stack.second_bias, int(stack.shifts[1]), features)
            yield step - 2, features


def _level_pairs(model: L3cModel) -> Iterator[Array]:
    level = np.minimum(model.roots >> 4, LARGEST_FEATURE) - model.level_offset
    plane = np.clip((level * model.level_gain) >> 8, -LARGEST_FEATURE, LARGEST_FEATURE).reshape(model.detector)
    for _ in range(model.scales + 1):
        ny, nx = half((plane.shape[0], plane.shape[1]))
        padded = np.pad(plane, ((0, 2 * ny - plane.shape[0]), (0, 2 * nx - plane.shape[1])))
        four = [padded[a::2, b::2] for a in (0, 1) for b in (0, 1)]
        pairs = [_packed(four[0], four[1]), _packed(four[2], four[3])]
        yield np.ascontiguousarray(np.stack(pairs, axis=-1))
        plane = (sum(four) + 2) >> 2


def _arrays(stack: Stack) -> StackArrays:
    first, second, last = stack.layers
    missing = -len(last.bias) % _LAST_UNITS
    return StackArrays(
        width=stack.width,
        first=_pairs(first),
        second=_pairs(second),
        last=np.pad(_pairs(last), (0, missing * stack.width // 2)),
        first_bias=_int32(first.bias),
        second_bias=_int32(second.bias),
        last_bias=np.pad(_int32(last.bias), (0, missing)),
        shifts=np.array([layer.shift for layer in stack.layers], np.int64),
    )


def _int32(values: Array) -> Array:
    return np.ascontiguousarray(values, np.int64).astype(np.uint32).view(np.int32).ravel()


def _packed(low: Array, high: Array) -> Array:
    return ((low & 0xFFFF) | (high & 0xFFFF) << 16).astype(np.uint32).view(np.int32)


def _pairs(layer: Dense) -> Array:
    """Two weights of a unit in every int32; inputs are even in number."""
    return np.ascontiguousarray(_packed(layer.weights[:, ::2], layer.weights[:, 1::2])).ravel()
