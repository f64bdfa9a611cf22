"""Fit one histogram to all pixels: to what a prediction leaves of an image, which is alike everywhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from stemcodecs.entropy.fit.static import choose_coding, value_histograms
from stemcodecs.entropy.fit.symbols import COUNTED_AT_ONCE, count_group
from stemcodecs.entropy.kernels.coding_tables import STRIDE, SYMBOLS, normalise
from stemcodecs.entropy.kernels.cpu import simd_path
from stemcodecs.entropy.kernels.kernel_arguments import GroupRows, Program
from stemcodecs.entropy.kernels.pixel_methods import room_for_symbols, step_masks
from stemcodecs.entropy.kernels.rans import LANES
from stemcodecs.entropy.kernels.scratch import lent_rows
from stemcodecs.entropy.kernels.transpose import gather_rows
from stemcodecs.entropy.model.group_layout import GroupLayout
from stemcodecs.entropy.model.histogram_model import HistogramModel

__all__ = ["fit_pooled"]

Array = np.ndarray[Any, Any]

SAMPLED_GROUPS = 4
"""Groups that the histogram is fitted to: tens of thousands of values tell it."""
ONE_LEVEL = 64
"""Level of all pixels: its scale then tells their mean to a part in thousands."""


def fit_pooled(plane: Array, layout: GroupLayout) -> tuple[HistogramModel, Program]:
    """Model of one class without contexts, which all pixels share, and the model unrolled.

    Parameters
    ----------
    plane : ndarray of uint16
        (n_positions, n_pixels).
    layout : GroupLayout
        Of single positions.
    """
    # The last group may lack lanes: it is looked at only where there is no other.
    whole = max(1, layout.n_positions // LANES)
    chosen = np.unique(np.linspace(0, whole - 1, SAMPLED_GROUPS).astype(np.int64))
    lanes = min(LANES, layout.n_positions)
    n = layout.n_pixels * chosen.size
    with lent_rows(n) as rows:
        for k, chain in enumerate(chosen):
            gather_rows(plane, layout.chains[chain, 0], rows, k * layout.n_pixels, 0, layout.n_pixels)
        return _fit(rows[:n], lanes, layout.detector)


def _fit(rows: Array, lanes: int, detector: tuple[int, int]) -> tuple[HistogramModel, Program]:
    """From rows of which the first lanes are in use."""
    n = len(rows)
    # Ten bits of every value are enough to see spread and range.
    pre = np.array([max(0, int(rows[:, :lanes].max()).bit_length() - 10)])
    of_values = np.zeros((1, 1024), np.uint32)
    in_use = np.where(np.arange(LANES) < lanes, 0xFFFF, 0).astype(np.uint16)
    value_histograms(rows, 0, in_use, np.zeros(n, np.int64), pre, 0, 1, of_values)
    mean = float(of_values[0] @ np.arange(1024.0)) / (n * lanes) * 2.0 ** int(pre[0])
    # The sample as one pattern of that many pixels.
    model = HistogramModel(
        detector=(n, 1), level_scale=max(1, round(mean / ONE_LEVEL**2 * 2**32)), levels=np.full(n, ONE_LEVEL, np.int64),
        constants=np.zeros(n, np.int64), classes=tuple(choose_coding(np.zeros(1, np.int64), of_values, pre)),
        neighbours=(), frequencies=np.zeros((0, SYMBOLS), np.int32),
    )  # fmt: skip
    program = model.program()
    group = GroupRows(
        rows=rows, origin=0, active=np.uint64((1 << lanes) - 1), step_masks=step_masks((1 << lanes) - 1),
        neighbours=np.zeros(0, np.int64), dose=np.zeros(LANES, np.int32), selection=np.zeros(LANES, bool), mixture=0,
    )  # fmt: skip
    counted = np.zeros((2, STRIDE), np.uint32)
    count_group(simd_path(), group, program, np.arange(n), room_for_symbols(COUNTED_AT_ONCE), counted)
    histograms = counted.sum(axis=0, dtype=np.int64)[None, :SYMBOLS].copy()
    # A patch that is alone in its group takes three times as many bits as `normalise` has it: what the sample has seen
    # once is worth a probability.
    histograms[histograms == 1] = 2
    frequencies = np.zeros((1, SYMBOLS), np.int32)
    normalise(histograms, model.table_bits(), frequencies)
    pixels = slice(detector[0] * detector[1])
    fitted = replace(
        model, detector=detector, levels=model.levels[pixels], constants=model.constants[pixels],
        frequencies=frequencies,
    )  # fmt: skip
    by_pixel = ("methods", "tables_of", "decode_starts", "bits", "bases", "shifts", "classes")
    return fitted, program._replace(**{name: getattr(program, name)[pixels] for name in by_pixel})
