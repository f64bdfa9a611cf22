"""The symbols that a model codes, counted into histograms or weighed in bits, without coding them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int32, uint32, uint64

from stemcodecs.compiled import kernel
from stemcodecs.entropy.fit.grouped_counts import GroupedCounts
from stemcodecs.entropy.kernels.borrowed import borrowed
from stemcodecs.entropy.kernels.coding_tables import PATCH_BITS, STRIDE, SYMBOLS
from stemcodecs.entropy.kernels.cpu import simd_path
from stemcodecs.entropy.kernels.kernel_arguments import Program
from stemcodecs.entropy.kernels.pixel_methods import CONSTANT, STATIC, room_for_symbols, symbols_of_pixels
from stemcodecs.entropy.kernels.rans import BLOCK, LANES
from stemcodecs.entropy.kernels.threads import in_parts
from stemcodecs.entropy.model.histogram_model import HistogramModel

__all__ = ["COUNTED_AT_ONCE", "bits_per_pixel_map", "count_group", "count_symbols"]

Array = np.ndarray[Any, Any]

_COUNTED_VALUES = 6_000_000
"""Values whose symbols are counted: more would cost time, and hardly change a histogram."""
COUNTED_AT_ONCE = 512
"""Pixels whose symbols are found at a time: they stay in cache."""


@kernel(forceinline=True)
def _count(pixels, methods, masks, symbols, offsets, outside, histograms):
    """Add the symbols of some pixels; histograms : uint32[2, n_tables * STRIDE]."""
    flat = histograms.reshape(-1)
    second = uint64(histograms.shape[1])
    for k in range(pixels.shape[0]):
        method = methods[pixels[k]]
        for b in range(4):
            mask = masks[method, b]
            if mask == 0xFFFF and (outside[k] == 0 or method < STATIC):
                # Unsigned indices spare Numba's test for negative ones; in two histograms an addition waits for another
                # less often, four would leave the cache.
                for j in range(16 * b, 16 * b + BLOCK, 2):
                    flat[uint64(offsets[k, j]) + uint64(symbols[k, j])] += uint32(1)
                    flat[second + uint64(offsets[k, j + 1]) + uint64(symbols[k, j + 1])] += uint32(1)
            elif mask:
                for i in range(BLOCK):
                    j = 16 * b + i
                    if (mask >> i) & 1 and (method < STATIC or not (outside[k] >> uint64(j)) & uint64(1)):
                        flat[uint64(offsets[k, j]) + uint64(symbols[k, j])] += uint32(1)


@kernel(forceinline=True)
def _weigh(pixels, program, masks, symbols, offsets, outside, costs, bits):
    """Add what some pixels of a group take to bits : float64[n_pixels]; costs : float32[n_tables * STRIDE]."""
    for k in range(pixels.shape[0]):
        p = pixels[k]
        method = program.methods[p]
        for b in range(4):
            mask = masks[method, b]
            for i in range(BLOCK):
                j = 16 * b + i
                if (mask >> i) & 1:
                    if method >= STATIC and (outside[k] >> uint64(j)) & uint64(1):
                        bits[p] += PATCH_BITS
                    else:
                        bits[p] += costs[offsets[k, j] + int32(symbols[k, j])] + program.shifts[p]


@kernel
def count_group(simd, group, program, pixels, found, histograms):
    """Add the symbols of some pixels of a group, see :func:`_count`."""
    group, program, found, pixels = borrowed(group), borrowed(program), borrowed(found), borrowed(pixels)
    values, factors = group.rows.reshape(-1), program.coefficients.reshape(-1)
    symbols, offsets = found.symbols.reshape(-1, LANES), found.offsets.reshape(-1, LANES)
    for first in range(0, pixels.shape[0], COUNTED_AT_ONCE):
        some = pixels[first : first + COUNTED_AT_ONCE]
        symbols_of_pixels(simd, group, program, values, factors, some, some.shape[0], found)
        _count(some, program.methods, group.step_masks, symbols, offsets, found.outside, histograms)


@kernel
def _weigh_group(simd, group, program, pixels, found, costs, bits):
    """Add what some pixels of a group take, see :func:`_weigh`."""
    group, program, found, pixels = borrowed(group), borrowed(program), borrowed(found), borrowed(pixels)
    values, factors = group.rows.reshape(-1), program.coefficients.reshape(-1)
    symbols, offsets = found.symbols.reshape(-1, LANES), found.offsets.reshape(-1, LANES)
    for first in range(0, pixels.shape[0], COUNTED_AT_ONCE):
        some = pixels[first : first + COUNTED_AT_ONCE]
        symbols_of_pixels(simd, group, program, values, factors, some, some.shape[0], found)
        _weigh(some, program, group.step_masks, symbols, offsets, found.outside, costs, bits)


def _over_groups(
    kernel: Any, counts: GroupedCounts, fit: tuple[HistogramModel, Program, dict[tuple[int, int], Array]],
    groups: list[tuple[int, int]], stride: int, empty: Array, *costs: Any,
) -> Array:  # fmt: skip
    """Hand every group to a kernel, and some of its pixels: every stride-th, and all packed ones.

    The kernel adds to an array like ``empty``; returns the sum over the groups.
    """
    model, program, selections = fit
    live = program.methods != CONSTANT
    # A packed symbol stands for several values: they are cheap to count, and their tails are long.
    always = program.methods < STATIC
    phases = np.arange(live.size) % stride

    def add_up(part: int, parts: int) -> Array:
        found = room_for_symbols(COUNTED_AT_ONCE)
        out = np.zeros_like(empty)
        for k, (chain, step) in enumerate(groups):
            chosen = np.flatnonzero(live & (always | (phases == k % stride)))
            mine = chosen[part * chosen.size // parts : (part + 1) * chosen.size // parts]
            group = counts.group_rows(chain, step, model, selections.get((chain, step)))
            kernel(simd_path(), group, program, mine, found, *costs, out)
        return out

    return np.asarray(np.sum(in_parts(add_up), axis=0))


def count_symbols(
    counts: GroupedCounts, model: HistogramModel, program: Program, selections: dict[tuple[int, int], Array]
) -> Array:
    """Histogram of the symbols of every table over a sample of the groups: int64[n_tables, 256]."""
    n_tables = sum(c.n_tables for c in model.classes)
    groups = counts.sample()
    # An odd stride meets every column of the detector.
    stride = -(-len(groups) * counts.layout.n_pixels * LANES // _COUNTED_VALUES) | 1
    empty = np.zeros((2, n_tables * STRIDE), np.uint32)
    # Counted into 32 bits by each thread and summed in 64: the sample is far below 2**32 values.
    histograms = _over_groups(count_group, counts, (model, program, selections), groups, stride, empty)
    return histograms.sum(axis=0, dtype=np.int64).reshape(n_tables, STRIDE)[:, :SYMBOLS].copy()


def bits_per_pixel_map(counts: GroupedCounts, model: HistogramModel, selections: dict[tuple[int, int], Array]) -> Array:
    """Mean bits that a count takes at every detector pixel: float64[det_y, det_x]."""
    with np.errstate(divide="ignore"):
        costs = model.table_bits()[:, None] - np.log2(model.frequencies.astype(np.float64))
    costs = np.where(np.isfinite(costs), costs, PATCH_BITS).astype(np.float32)
    # Tables lie STRIDE apart, as the offsets of the kernels have it.
    costs = np.pad(costs, ((0, 0), (0, STRIDE - SYMBOLS)))
    fit, empty = (model, model.program(), selections), np.zeros(counts.layout.n_pixels)
    bits = _over_groups(_weigh_group, counts, fit, counts.groups(), 1, empty, costs.ravel())
    return (bits / max(counts.layout.n_positions, 1)).reshape(counts.layout.detector)
