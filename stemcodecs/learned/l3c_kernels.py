"""Convolutions of an ``l3c`` network for 64 patterns at once, a row of a plane at a time, in integers.

A *grid row* is int32[columns + 2, pairs, 64]: for every site two int16 channels in an int32, in 64 lanes, with a column
of zeros on either side, so that the three columns under a convolution are one stretch of memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import int32, int64, uint16

from stemcodecs.compiled import kernel
from stemcodecs.entropy.kernels.rans import LANES
from stemcodecs.learned.dense_ir import ALL_QUARTERS, hidden_units, output_units
from stemcodecs.learned.l3c_model import LATENT_LEVELS, MIDDLE_LATENT

__all__ = [
    "StackArrays",
    "convolve_row",
    "copy_rows",
    "halve_plane",
    "latent_row",
    "normalised_plane",
    "row_of_encoder",
    "row_of_predictor",
]

OUTPUTS = 5
FEATURE_TOP = 32767
LATENT_SHIFT = 7
"""A level of a latent is 128 as a feature."""


class StackArrays(NamedTuple):
    """A stack as the kernels take it.

    Attributes
    ----------
    width : int
        Hidden units.
    first, second, last : int32, flat
        Weights by unit, two inputs in an int32; those of the last layer are padded to a multiple of five units.
    first_bias, second_bias, last_bias : int32, flat
    shifts : int64[3]
        Of the layers.
    """

    width: int
    first: Any
    second: Any
    last: Any
    first_bias: Any
    second_bias: Any
    last_bias: Any
    shifts: Any


@kernel(forceinline=True)
def _clipped(v):
    return min(max(v, int64(-FEATURE_TOP)), int64(FEATURE_TOP))


@kernel(forceinline=True)
def _pair(low, high):
    return int32((int64(low) & 0xFFFF) | (int64(high) << 16))


@kernel(forceinline=True)
def copy_rows(source, at, target, to, n):
    """Copy ``n`` values. A slice into a slice would compile the words of an error too, longer than all else here."""
    for i in range(n):
        target[to + i] = source[at + i]


@kernel
def convolve_row(path, above, here, below, pairs, weights, bias, shift, width, window, out):
    """One row of a hidden layer: a convolution of 3×3, cut off at 0 and 32767.

    above, here, below, out : grid rows, flat, of ``pairs`` and ``width // 2`` pairs; window : int32[9 * pairs * 64],
    to work in.
    """
    stretch, own = pairs * LANES, width // 2 * LANES
    columns = here.shape[0] // stretch - 2
    taps = 3 * stretch
    for x in range(columns):
        at = x * stretch
        copy_rows(above, at, window, 0, taps)
        copy_rows(here, at, window, taps, taps)
        copy_rows(below, at, window, 2 * taps, taps)
        for unit in range(0, width, 4):
            hidden_units(
                path, window, int64(9 * pairs), weights, int64(unit * 9 * pairs), bias, int64(unit), shift, out,
                int64((x + 1) * own + unit // 2 * LANES), int64(ALL_QUARTERS),
            )  # fmt: skip


@kernel
def row_of_predictor(y, latents, channels, levels, features, feature_pairs, out):
    """Inputs of a predictor, row ``y`` of its grid: latents, levels, and the features of the grid that is half as fine.

    latents : uint16[rows, columns, channels, 64]; levels : int32[rows, columns, 2], pairs; features : int32[rows / 2,
    columns / 2 + 2, feature_pairs * 64], grid rows; out : a grid row, flat.
    """
    columns = levels.shape[1]
    pairs = channels // 2 + 2 + feature_pairs
    for x in range(columns):
        at = (x + 1) * pairs * LANES
        for c in range(0, channels, 2):
            for j in range(LANES):
                low = (int64(latents[y, x, c, j]) - MIDDLE_LATENT) << LATENT_SHIFT
                high = (int64(latents[y, x, c + 1, j]) - MIDDLE_LATENT) << LATENT_SHIFT
                out[at + j] = _pair(_clipped(low), _clipped(high))
            at += LANES
        for k in range(2):
            out[at : at + LANES] = levels[y, x, k]
            at += LANES
        for i in range(feature_pairs * LANES):
            out[at + i] = features[y // 2, x // 2 + 1, i]


@kernel
def row_of_encoder(y, plane, levels, out):
    """Inputs of an encoder, row ``y`` of its grid: four values of a plane twice as fine, and four levels.

    plane : int16[rows, columns, 64]; levels : int32[grid rows, grid columns, 2], pairs; out : a grid row, flat.
    """
    rows, columns = plane.shape[0], plane.shape[1]
    for x in range(levels.shape[1]):
        at = (x + 1) * 4 * LANES
        for a in range(2):
            inside = 2 * y + a < rows
            second = inside and 2 * x + 1 < columns
            for j in range(LANES):
                low = int64(plane[2 * y + a, 2 * x, j]) if inside else int64(0)
                high = int64(plane[2 * y + a, 2 * x + 1, j]) if second else int64(0)
                out[at + j] = _pair(low, high)
            at += LANES
        for k in range(2):
            out[at : at + LANES] = levels[y, x, k]
            at += LANES


@kernel
def normalised_plane(values, roots, root6, gain, out):
    """Residuals of counts as inputs: values : uint16[n, 64]; out : int16[n_pixels, 64]."""
    for p in range(roots.shape[0]):
        for j in range(LANES):
            if roots[p] < 0:
                out[p, j] = 0
            else:
                residual = int64(root6[values[p, j]]) - (roots[p] >> 4)
                out[p, j] = _clipped((residual * gain) >> 8)


@kernel
def halve_plane(plane, out):
    """Means of four values: plane : int16[rows, columns, 64]; beyond the edge there are zeros."""
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            for j in range(LANES):
                total = int64(2)
                for a in range(2):
                    for b in range(2):
                        if 2 * y + a < plane.shape[0] and 2 * x + b < plane.shape[1]:
                            total += int64(plane[2 * y + a, 2 * x + b, j])
                out[y, x, j] = total >> 2


@kernel
def latent_row(path, stack, features, site, outputs, latents):
    """Latents of a row: features : a grid row, flat; latents : uint16[columns, channels, 64]."""
    half = stack.width // 2
    columns, channels = latents.shape[0], latents.shape[1]
    for x in range(columns):
        at = (x + 1) * half * LANES
        copy_rows(features, at, site, 0, half * LANES)
        for first in range(0, channels, OUTPUTS):
            output_units(
                path, site, int64(half), stack.last, int64(first * half), stack.last_bias, int64(first),
                stack.shifts[2], outputs, int64(0), int64(ALL_QUARTERS),
            )  # fmt: skip
            for c in range(first, min(channels, first + OUTPUTS)):
                for j in range(LANES):
                    z = min(max(outputs[(c - first) * LANES + j], int32(0)), int32(LATENT_LEVELS - 1))
                    latents[x, c, j] = uint16(z)
