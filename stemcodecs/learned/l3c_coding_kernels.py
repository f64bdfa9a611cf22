"""Code the values of a row of sites whose features are known: intervals of a mixture, and rANS."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import int32, int64, uint32, uint64

from stemcodecs.compiled import kernel
from stemcodecs.entropy.kernels.rans import LANES, aligned, write_states
from stemcodecs.learned.dense_ir import ALL_QUARTERS, output_units
from stemcodecs.learned.group_steps import (
    BAD_PATCH,
    OVERRUN,
    decode_value,
    encode_value,
    lanes_in_use,
    note_patches,
    put_patches,
)
from stemcodecs.learned.l3c_kernels import copy_rows
from stemcodecs.learned.mixture_ir import MIXTURE_ROWS, count_intervals, describe_counts
from stemcodecs.learned.rans15_steps import fresh_states

__all__ = [
    "CURSOR",
    "Plane",
    "decode_row",
    "encode_items",
    "interval_row",
    "lookups",
]

OUTPUTS = 5
CURSOR = 3
"""Of a group that is being coded: items so far, patches so far, position in the words."""
_ITEM, _PATCH, _WORD = range(CURSOR)


class Plane(NamedTuple):
    """A plane that is coded.

    Attributes
    ----------
    values : uint16, flat
        64 lanes of every value, by row, column and channel.
    rows, columns, channels : int
    roots : int64[values]
        Root of the mean of every value, ten fraction bits; -1 if it is constant.
    constants : uint16[values]
        What constant ones are.
    """

    values: Any
    rows: int
    columns: int
    channels: int
    roots: Any
    constants: Any


class Lookups(NamedTuple):
    """Tables of :mod:`stemcodecs.learned.tables`, and room for the values of one item."""

    sigmoid: Any
    mantissa: Any
    threshold10: Any
    window: Any
    site: Any
    outputs: Any
    base: Any
    mixture: Any


@kernel
def lookups(sigmoid, mantissa, threshold10, window, width):
    """The tables, with room for stacks of so many hidden units."""
    return Lookups(
        sigmoid,
        mantissa,
        threshold10,
        window,
        aligned(width // 2 * LANES, np.int32),
        aligned(OUTPUTS * LANES, np.int32),
        aligned(LANES, np.int32),
        aligned(MIXTURE_ROWS * LANES, np.int32),
    )


@kernel(forceinline=True)
def _describe(path, stack, unit, root, found):
    """Mixture of one item from the features in ``found.site``; returns the OR of the widths."""
    half = stack.width // 2
    output_units(
        path, found.site, int64(half), stack.last, int64(unit * half), stack.last_bias, int64(unit), stack.shifts[2],
        found.outputs, int64(0), int64(ALL_QUARTERS),
    )  # fmt: skip
    for j in range(LANES):
        found.base[j] = int32(root)
    return describe_counts(
        found.outputs, found.base, found.sigmoid, found.mantissa, found.window, found.mixture, int64(ALL_QUARTERS)
    )


@kernel
def interval_row(path, stack, features, y, plane, found, active, entries, low, patches, cursor):
    """Intervals of the values under a row of sites; the windows' misses become patches.

    features : a grid row, flat; entries, low : uint32, flat, 64 an item; cursor : int64[CURSOR].
    """
    stretch = stack.width // 2 * LANES
    item, patch = cursor[_ITEM], cursor[_PATCH]
    for x in range(features.shape[0] // stretch - 2):
        copy_rows(features, (x + 1) * stretch, found.site, 0, stretch)
        for place in range(4):
            row, column = 2 * y + place // 2, 2 * x + place % 2
            if row >= plane.rows or column >= plane.columns:
                continue
            for c in range(plane.channels):
                k = (row * plane.columns + column) * plane.channels + c
                at = int64(k) * LANES
                missed = uint64(0)
                if plane.roots[k] < 0:
                    for j in range(LANES):
                        entries[item * LANES + j] = uint32(0)
                        if plane.values[at + j] != plane.constants[k]:
                            missed |= uint64(1) << uint64(j)
                else:
                    _describe(path, stack, (place * plane.channels + c) * OUTPUTS, plane.roots[k], found)
                    outside = count_intervals(
                        found.mixture, found.sigmoid, found.threshold10, plane.values, at, entries, low,
                        int64(item * LANES), int64(ALL_QUARTERS),
                    )  # fmt: skip
                    missed = uint64(outside)
                patch = note_patches(missed & active, plane.values, at, item, patches, patch)
                item += 1
    cursor[_ITEM], cursor[_PATCH] = item, patch


@kernel
def encode_items(path, entries, low, items, active, stream):
    """Words of all items, the last one first; returns where they begin."""
    states = fresh_states()
    pos = int64(stream.end)
    for item in range(items - 1, -1, -1):
        # No interval is empty but that of a constant, which takes no words.
        if entries[item * LANES] != uint32(0):
            pos = encode_value(path, states, entries, low, int64(item), active, stream, pos)
    return write_states(states, lanes_in_use(active, stream.blocks), stream.words, pos)


@kernel
def decode_row(path, stack, features, y, plane, found, active, states, stream, patches, cursor):
    """Values under a row of sites; 0 if all went well, else ``OVERRUN`` or ``BAD_PATCH``.

    states : uint32[64]; the other arguments are those of :func:`interval_row`.
    """
    stretch = stack.width // 2 * LANES
    item, patch, pos = cursor[_ITEM], cursor[_PATCH], cursor[_WORD]
    for x in range(features.shape[0] // stretch - 2):
        copy_rows(features, (x + 1) * stretch, found.site, 0, stretch)
        for place in range(4):
            row, column = 2 * y + place // 2, 2 * x + place % 2
            if row >= plane.rows or column >= plane.columns:
                continue
            for c in range(plane.channels):
                k = (row * plane.columns + column) * plane.channels + c
                at = int64(k) * LANES
                if plane.roots[k] < 0:
                    for j in range(LANES):
                        plane.values[at + j] = plane.constants[k]
                else:
                    if pos > stream.end:
                        return int64(OVERRUN)
                    widths = _describe(path, stack, (place * plane.channels + c) * OUTPUTS, plane.roots[k], found)
                    pos = decode_value(
                        path, states, widths, found.mixture, found.sigmoid, found.threshold10, active, stream, pos,
                        plane.values, at,
                    )  # fmt: skip
                patch = put_patches(patches, patch, item, plane.values, at)
                if patch < 0:
                    return int64(BAD_PATCH)
                item += 1
    cursor[_ITEM], cursor[_PATCH], cursor[_WORD] = item, patch, pos
    return int64(0)
