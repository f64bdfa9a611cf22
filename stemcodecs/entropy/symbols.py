"""The symbols that a model codes, counted into histograms or weighed in bits, without coding them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int32, int64, njit, uint32, uint64

from stemcodecs.entropy.cpu import simd_path
from stemcodecs.entropy.fit_context import mixture_of
from stemcodecs.entropy.group import (
    ABSOLUTE,
    CONSTANT,
    CONTEXT,
    STATIC,
    centre_row,
    context_rate,
    pack_row,
    scratch,
    step_masks,
    symbols_of_row,
)
from stemcodecs.entropy.model import HistogramModel, Program
from stemcodecs.entropy.rans import BLOCK, INLINE, KERNEL, LANES
from stemcodecs.entropy.rows import GroupedCounts
from stemcodecs.entropy.steps import select_tables
from stemcodecs.entropy.tables import PATCH_BITS, SYMBOLS
from stemcodecs.entropy.vector import fill_lanes

__all__ = ["bits_per_pixel_map", "count_symbols"]

Array = np.ndarray[Any, Any]

_COUNTED_VALUES = 6_000_000
"""Values whose symbols are counted: more would cost time, and hardly change a histogram."""


@njit(**INLINE)
def _symbols_at(
    simd, rows, values, origin, p, methods, tables_of, bases, shifts, classes, index_bases, index_shifts,
    centre_shifts, luts, neighbours, factors, width, dose, selection, mixture,
    symbols, low, centre, offsets, rate, other,
):  # fmt: skip
    """Symbols and table offsets of one pixel, as encode_group finds them; returns the lanes that do not fit."""
    method = methods[p]
    at = int64(origin + p) * LANES
    shift = int64(shifts[p])
    if method == CONTEXT:
        c = classes[p]
        context_rate(rows, origin + p, neighbours, factors, p * width, dose, selection, mixture, rate, other)
        select_tables(simd, rate, index_bases[c], index_shifts[c], luts, c, tables_of[p] << 8, int64(8), offsets)
        residual = centre_shifts[c] != ABSOLUTE
        if residual:
            centre_row(rate, centre_shifts[c], centre)
        else:
            fill_lanes(centre, int64(0))
        return symbols_of_row(values, at, centre, shift, residual, symbols, low)
    fill_lanes(offsets, tables_of[p] << 8)
    if method == STATIC:
        fill_lanes(centre, bases[p])
        return symbols_of_row(values, at, centre, shift, False, symbols, low)
    return pack_row(values, at, method, symbols)


@njit(**KERNEL)
def _count(
    simd, rows, origin, methods, tables_of, bases, shifts, classes, index_bases, index_shifts,
    centre_shifts, luts, neighbours, coefficients, dose, selection, mixture, masks, first, stride, histograms,
):  # fmt: skip
    """Add the symbols of every stride-th pixel, and of all packed ones; histograms : uint32[2, n_tables * 256]."""
    values = rows.reshape(-1)
    factors = coefficients.reshape(-1)
    width = int64(coefficients.shape[1] * coefficients.shape[2])
    symbols, low, centre, offsets, rate, other = scratch()
    for p in range(methods.shape[0]):
        method = methods[p]
        # A packed symbol stands for several values: they are cheap to count, and their tails are long.
        if method == CONSTANT or (method >= STATIC and (p + first) % stride):
            continue
        outside = _symbols_at(
            simd, rows, values, origin, p, methods, tables_of, bases, shifts, classes, index_bases, index_shifts,
            centre_shifts, luts, neighbours, factors, width, dose, selection, mixture,
            symbols, low, centre, offsets, rate, other,
        )  # fmt: skip
        for b in range(4):
            mask = masks[method, b]
            if mask == 0xFFFF and (outside == 0 or method < STATIC):
                for i in range(BLOCK):
                    j = 16 * b + i
                    histograms[i & 1, offsets[j] + int32(symbols[j])] += uint32(1)
            elif mask:
                for i in range(BLOCK):
                    j = 16 * b + i
                    if (mask >> i) & 1 and (method < STATIC or not (outside >> uint64(j)) & uint64(1)):
                        histograms[i & 1, offsets[j] + int32(symbols[j])] += uint32(1)


@njit(**KERNEL)
def _weigh(
    simd, rows, origin, methods, tables_of, bases, shifts, classes, index_bases, index_shifts,
    centre_shifts, luts, neighbours, coefficients, dose, selection, mixture, masks,
    first, stride, costs, patch_bits, bits,
):  # fmt: skip
    """Add what every pixel of a group takes to bits : float64[n_pixels]; costs : float32[n_tables * 256]."""
    values = rows.reshape(-1)
    factors = coefficients.reshape(-1)
    width = int64(coefficients.shape[1] * coefficients.shape[2])
    symbols, low, centre, offsets, rate, other = scratch()
    for p in range(first, methods.shape[0], stride):
        method = methods[p]
        if method == CONSTANT:
            continue
        outside = _symbols_at(
            simd, rows, values, origin, p, methods, tables_of, bases, shifts, classes, index_bases, index_shifts,
            centre_shifts, luts, neighbours, factors, width, dose, selection, mixture,
            symbols, low, centre, offsets, rate, other,
        )  # fmt: skip
        for b in range(4):
            mask = masks[method, b]
            for i in range(BLOCK):
                j = 16 * b + i
                if (mask >> i) & 1:
                    if method >= STATIC and (outside >> uint64(j)) & uint64(1):
                        bits[p] += patch_bits
                    else:
                        bits[p] += costs[offsets[j] + int32(symbols[j])] + shifts[p]


def _over_groups(
    kernel: Any, counts: GroupedCounts, model: HistogramModel, program: Program,
    selections: dict[tuple[int, int], Array], groups: list[tuple[int, int]], stride: int, *out: Any,
) -> None:  # fmt: skip
    nobody = np.zeros(LANES, bool)
    for k, (chain, step) in enumerate(groups):
        selection = selections.get((chain, step))
        kernel(
            simd_path(), *counts.group(chain, step), program.methods, program.tables_of,
            program.bases, program.shifts, program.classes, program.index_bases, program.index_shifts,
            program.centre_shifts, program.luts, model.row_offsets(counts.layout, step), program.coefficients,
            counts.dose(chain, step), nobody if selection is None else selection, mixture_of(selection),
            step_masks(counts.active(chain, step)), k % stride, stride, *out,
        )  # fmt: skip


def count_symbols(counts: GroupedCounts, model: HistogramModel, selections: dict[tuple[int, int], Array]) -> Array:
    """Histogram of the symbols of every table over a sample of the groups: int64[n_tables, 256]."""
    n_tables = sum(c.n_tables for c in model.classes)
    histograms = np.zeros((2, n_tables * SYMBOLS), np.uint32)
    groups = counts.sample()
    # An odd stride meets every column of the detector.
    stride = -(-len(groups) * counts.layout.n_pixels * LANES // _COUNTED_VALUES) | 1
    _over_groups(_count, counts, model, model.program(), selections, groups, stride, histograms)
    return histograms.sum(axis=0, dtype=np.int64).reshape(n_tables, SYMBOLS)


def bits_per_pixel_map(counts: GroupedCounts, model: HistogramModel, selections: dict[tuple[int, int], Array]) -> Array:
    """Mean bits that a count takes at every detector pixel: float64[det_y, det_x]."""
    with np.errstate(divide="ignore"):
        costs = model.table_bits()[:, None] - np.log2(model.frequencies.astype(np.float64))
    costs = np.where(np.isfinite(costs), costs, PATCH_BITS).astype(np.float32).ravel()
    bits = np.zeros(counts.layout.n_pixels)
    _over_groups(_weigh, counts, model, model.program(), selections, counts.groups(), 1, costs, PATCH_BITS, bits)
    return (bits / max(counts.layout.n_positions, 1)).reshape(counts.layout.detector)
