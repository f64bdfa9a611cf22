"""Fit a histogram model to counts.

Only an encoder runs this, so floating point is free here; what it finds is stored as integers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stemcodecs.entropy.fit.context import fit_context, mix_classes
from stemcodecs.entropy.fit.grouped_counts import GroupedCounts, PixelStatistics
from stemcodecs.entropy.fit.static import fit_levels, static_classes
from stemcodecs.entropy.fit.symbols import count_symbols
from stemcodecs.entropy.fit.weights import (
    FIRST_RING,
    SCAN,
    SECOND_RING,
    accumulate,
    choose_sets,
    context_classes,
    context_edges,
    sample_groups,
    tentative_classes,
)
from stemcodecs.entropy.kernels.coding_tables import SYMBOLS, normalise
from stemcodecs.entropy.kernels.kernel_arguments import Program
from stemcodecs.entropy.kernels.pixel_methods import CONTEXT
from stemcodecs.entropy.kernels.threads import begin
from stemcodecs.entropy.model.histogram_model import HistogramModel

__all__ = ["Fit", "FitOptions", "fit_model"]

Array = np.ndarray[Any, Any]

LEAST_GAIN = 0.003
"""Share of its bits that a context must save a class of pixels: static pixels decode twice as fast."""
RING_GAIN = 0.003
"""Bits a value that the second ring of neighbours must save: six more products a value take time in both directions."""
ROUNDS = 2
"""How often the weights and the choice between them are fitted in turn."""


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """What the fit may use.

    Attributes
    ----------
    mode : str
        ``pixel``, ``neighbour``, ``scan`` or ``auto``.
    """

    mode: str = "auto"


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """A fitted model, unrolled, and for every group which weight set each lane uses (nothing if it has only one)."""

    model: HistogramModel
    program: Program
    selections: dict[tuple[int, int], Array]


def fit_model(counts: GroupedCounts, options: FitOptions, pixels: PixelStatistics | None = None) -> Fit:
    """Fit everything but the choice of the layout, which decides whether scan neighbours can be used.

    Parameters
    ----------
    counts : GroupedCounts
        A chunk, or a sample of the patterns of a scan.
    options : FitOptions
        What the fit may use.
    pixels : PixelStatistics, optional
        Of the whole scan, where ``counts`` are a sample of it.
    """
    # Levels need sums only, the rows are needed next: both at once.
    fitted = begin(fit_levels, pixels or counts.pixels, counts.layout.detector)
    counts.keep(counts.sample())
    level_scale, levels, constants = fitted()
    static = static_classes(counts, level_scale, levels)
    model = HistogramModel(
        detector=counts.layout.detector, level_scale=level_scale, levels=levels,
        constants=constants, classes=tuple(static), neighbours=(), frequencies=np.zeros((0, SYMBOLS), np.int32),
    )  # fmt: skip
    selections: dict[tuple[int, int], Array] = {}
    if options.mode != "pixel" and static:
        edges = context_edges(levels, level_scale)
        tentative, chosen = _with_context(counts, model, edges, options)
        context = fit_context(counts, tentative, edges, chosen)
        classes = mix_classes(static, context, LEAST_GAIN)
        if any(c.method == CONTEXT for c in classes):
            model = replace(model, classes=classes, neighbours=tentative.neighbours)
            if model.n_sets == 2:
                selections = choose_sets(counts, model, counts.groups())
    program = model.program()
    model = _with_frequencies(counts, model, program, selections)
    return Fit(model=model, program=program, selections=selections)


def _with_context(
    counts: GroupedCounts, base: HistogramModel, edges: Array, options: FitOptions
) -> tuple[HistogramModel, dict[tuple[int, int], Array]]:
    """Context weights: of the pattern alone, or, in a layout with chains, also of scan neighbours as a second set."""
    of = context_classes(base, edges)
    if counts.layout.chain_length == 1:
        equations = accumulate(counts, base, of, SECOND_RING)
        wide = equations.gain(SECOND_RING, FIRST_RING) > RING_GAIN
        neighbours = SECOND_RING if wide else FIRST_RING
        weights, _ = equations.solve(neighbours)
        return replace(base, neighbours=neighbours, classes=tentative_classes(base, edges, [weights])), {}
    equations = accumulate(counts, base, of, SCAN)
    alone, _ = equations.solve(FIRST_RING)
    # Both sets have a weight for every neighbour; that of the pattern alone is 0 for those on the scan.
    alone = np.pad(alone, ((0, 0), (0, len(SCAN) - len(FIRST_RING))))
    groups = sample_groups(counts, SCAN)
    model = base
    chosen: dict[tuple[int, int], Array] = {}
    # Frames at the edge of a grain would spoil the weights of the others: fit, choose, fit again.
    for _ in range(ROUNDS):
        together, _ = equations.solve(SCAN)
        classes = tentative_classes(base, edges, [alone, together])
        model = replace(base, neighbours=SCAN, classes=classes)
        chosen = choose_sets(counts, model, groups)
        equations = accumulate(counts, base, of, SCAN, chosen)
    return model, chosen


def _with_frequencies(
    counts: GroupedCounts, model: HistogramModel, program: Program, selections: dict[tuple[int, int], Array]
) -> HistogramModel:
    """Count the symbols of a sample of the groups and quantise their histograms."""
    histograms = count_symbols(counts, model, program, selections)
    frequencies = np.zeros(histograms.shape, np.int32)
    normalise(histograms, model.table_bits(), frequencies)
    return replace(model, frequencies=frequencies)
