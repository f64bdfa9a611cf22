"""Fit the histograms that follow a predicted rate, and take them where they save something."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numba import int64, uint64

from stemcodecs.compiled import kernel
from stemcodecs.entropy.fit.grouped_counts import GroupedCounts
from stemcodecs.entropy.fit.static import MISFIT_BITS, TABLE_BITS
from stemcodecs.entropy.fit.weights import context_classes, sample_groups
from stemcodecs.entropy.kernels.borrowed import borrowed
from stemcodecs.entropy.kernels.kernel_arguments import Program
from stemcodecs.entropy.kernels.lanes import context_rate
from stemcodecs.entropy.kernels.pixel_methods import CONTEXT
from stemcodecs.entropy.kernels.rans import LANES, LUT_SIZE
from stemcodecs.entropy.kernels.threads import run_all
from stemcodecs.entropy.model.histogram_model import HistogramModel, PixelClass

__all__ = ["ContextFit", "fit_context", "mix_classes"]

Array = np.ndarray[Any, Any]

_SHAPED_VALUES = 80_000
"""Values whose rates are predicted to place the boundaries of histograms, and to compare contexts with static ones."""
_FEWEST_SAMPLES = 64
"""Values below which a class is not worth a context: nothing could be learned of it."""
_RATE_TAIL = 0.0005
"""Share of the rates on either side that share the first or last histogram with those inside."""
LARGEST_ABSOLUTE, _RARE = 200, 0.0005
"""Counts above 200 are no symbols of 0 to 255 for long: where more than this share is, symbols are residuals."""
LARGEST_ABSOLUTE_RATE = 48
"""Rate beyond which symbols are residuals: the histograms of such rates have one shape, shifted."""
RESIDUAL_SPREAD = 6
"""Least spread of residuals in symbols: down to it low bits are stored raw, which costs less than
1 / (24 * 6**2 * ln 2) = 0.0017 bits a value; a histogram of fewer symbols is learned and stored better."""
MOST_TABLES, MOST_RESIDUAL_TABLES = 48, 20
"""Histograms of a class: 48 decode tables of 2**10 entries take 192 kB of the second-level cache. Residuals have
histograms that are alike, so that fewer do."""
_LEAST_RANGE = 0.1


class _RateSample(NamedTuple):
    """Sampled values: detector pixel, predicted rate (fixed point of the pixel's class) and value, each int32[n]."""

    pixel: Array
    rate: Array
    value: Array


@kernel
def _sample_rates(group, program, first, step, sample):
    """Fill a :class:`_RateSample` from every ``step``-th pixel, beginning with ``first``; returns how many it holds."""
    group, program, sample = borrowed(group), borrowed(program), borrowed(sample)
    rows, factors = group.rows, program.coefficients.reshape(-1)
    width = int64(program.coefficients.shape[1] * program.coefficients.shape[2])
    rate = np.zeros(LANES, np.int32)
    n = 0
    for p in range(first, program.methods.shape[0], step):
        if program.methods[p] != CONTEXT:
            continue
        row = group.origin + p
        context_rate(rows, row, group.neighbours, factors, p * width, group.dose, group.selection, group.mixture, rate)
        for j in range(LANES):
            if (group.active >> uint64(j)) & uint64(1):
                sample.pixel[n] = p
                sample.rate[n] = rate[j]
                sample.value[n] = rows[row, j]
                n += 1
    return n


def sample_rates(
    counts: GroupedCounts, model: HistogramModel, program: Program, selections: dict[tuple[int, int], Array]
) -> tuple[Array, Array, Array]:
    """Predicted rates of sampled values: pixel, rate (fixed point of the pixel's class), value."""
    groups = sample_groups(counts, model.neighbours)
    n_pixels = program.methods.size
    step = max(1, n_pixels * len(groups) * LANES // _SHAPED_VALUES) | 1

    def of_group(k: int, chain: int, position: int) -> tuple[Array, ...]:
        sample = _RateSample(*(np.empty((n_pixels // step + 1) * LANES, np.int32) for _ in range(3)))
        group = counts.group_rows(chain, position, model, selections.get((chain, position)))
        n = _sample_rates(group, program, (k * 5) % step, step, sample)
        return tuple(part[:n] for part in sample)

    parts = run_all(of_group, [(k, *group) for k, group in enumerate(groups)])
    pixel, rate, value = (np.concatenate(part) for part in zip(*parts, strict=True))
    return pixel, rate, value


@kernel
def _count_pairs(bins, symbols, low, n_bins, span):
    """How often every pair of a bin and a symbol occurs, and every bin: np.bincount would hold the other threads."""
    joint, alone = np.zeros(n_bins * span, np.int64), np.zeros(n_bins, np.int64)
    for k in range(bins.size):
        joint[bins[k] * span + symbols[k] - low] += 1
        alone[bins[k]] += 1
    return joint, alone


def _conditional_entropy(bins: Array, symbols: Array) -> float:
    """Entropy of symbols given bins, bits each, corrected for the size of the sample (Miller and Madow)."""
    n = symbols.size
    low = int(symbols.min())
    span = int(symbols.max()) - low + 1
    joint, alone = _count_pairs(bins, symbols, low, int(bins.max()) + 1, span)
    joint, alone = joint[joint > 0], alone[alone > 0]
    # H(bin, symbol) - H(bin), times n: the logarithms of n cancel.
    h = (alone * np.log2(alone)).sum() - (joint * np.log2(joint)).sum()
    return float(h + (joint.size - alone.size) / (2 * np.log(2))) / n


def _bins(levels: Array, n: int) -> Array:
    """Cut pixel levels into ``n`` bins of equal width."""
    low, high = _range(levels, 0.001)
    return np.clip(((levels - low) * (n / max(high - low, 1e-9))).astype(np.int64), 0, n - 1)


def _range(values: Array, tail: float) -> tuple[float, float]:
    """Range of integers without a tail on either side."""
    cut = int(tail * values.size)
    ordered = np.partition(values, [cut, values.size - 1 - cut])
    return float(ordered[cut]), float(ordered[-1 - cut])


@dataclass(frozen=True, kw_only=True, eq=False)
class ContextFit:
    """Context classes by range of levels, and what each is estimated to take against static histograms."""

    neighbours: tuple[tuple[int, int, int], ...]
    edges: Array
    classes: tuple[PixelClass | None, ...]
    static_bits: Array
    context_bits: Array


def fit_context(
    counts: GroupedCounts, model: HistogramModel, edges: Array, selections: dict[tuple[int, int], Array]
) -> ContextFit:
    """Shape the histograms of a model with tentative context classes."""
    of = context_classes(model, edges)
    pixel, rate, value = sample_rates(counts, model, model.program(), selections)
    of_sample = of[pixel].astype(np.int16)
    # Stable: equal classes keep the order of the samples on every machine.
    order = np.argsort(of_sample, kind="stable")
    ends = np.searchsorted(of_sample[order], np.arange(edges.size + 1))
    values = np.bincount(of[of >= 0], minlength=edges.size) * counts.layout.n_positions

    def shape(c: int, tentative: PixelClass) -> tuple[PixelClass | None, float, float]:
        here = order[ends[c] : ends[c + 1]]
        # Never better than static, rather than a guess from a few values.
        if here.size < _FEWEST_SAMPLES:
            return None, 0.0, np.inf
        level = model.levels[pixel[here]]
        return _shape_context_class(tentative, rate[here], value[here], level, int(values[c]))

    shaped = run_all(shape, list(enumerate(model.classes)))
    classes, static_bits, context_bits = zip(*shaped, strict=True)
    return ContextFit(
        neighbours=model.neighbours, edges=edges, classes=classes, static_bits=np.array(static_bits),
        context_bits=np.array(context_bits),
    )  # fmt: skip


def _shape_context_class(
    c: PixelClass, rate: Array, value: Array, level: Array, n_values: int
) -> tuple[PixelClass, float, float]:
    """Choose symbols and histogram boundaries of a context class; returns it with its static and context bits."""
    rate = np.maximum(rate, 0)
    low, top = _range(rate, _RATE_TAIL)
    index_base = int(low)
    index_shift = max(0, int(np.ceil(np.log2((top - low + 1) / (LUT_SIZE - 1)))))
    centre = np.minimum(rate >> c.rate_bits, 65535)
    residual = bool((value > LARGEST_ABSOLUTE).mean() > _RARE or top / 2**c.rate_bits > LARGEST_ABSOLUTE_RATE)
    shift = 0
    if residual:
        # 1.4826 times the median deviation is the standard deviation of a Gaussian, and outliers do not move it.
        spread = 1.4826 * np.median(np.abs(value - centre)) + 1e-9
        shift = int(np.clip(np.floor(np.log2(spread / RESIDUAL_SPREAD)), 0, 15))
    root_low, root_top = np.sqrt(low / 2**c.rate_bits), np.sqrt(top / 2**c.rate_bits)
    # As for static classes; here the root of the predicted rate takes the place of the pixel's own.
    width = np.cbrt(TABLE_BITS * max(root_top - root_low, _LEAST_RANGE) / (MISFIT_BITS * max(n_values, 1)))
    n = int(np.clip((root_top - root_low) / width, 2, MOST_RESIDUAL_TABLES if residual else MOST_TABLES))
    roots = root_low + (root_top - root_low) * np.arange(1, n) / n
    # Boundaries are equidistant in the root of the rate: there the misfit of a histogram does not depend on the rate.
    thresholds = np.unique(np.rint((roots**2 * 2.0**c.rate_bits - index_base) / 2.0**index_shift).astype(np.int64))
    thresholds = thresholds[(thresholds > 0) & (thresholds < LUT_SIZE)]
    symbols = (value - centre + (128 << shift)) >> shift if residual else value
    # What would be a patch anyway must not make the table of pairs large.
    symbols = np.clip(symbols, -300, 1 << 14)
    context = (
        _conditional_entropy(np.searchsorted(thresholds, (rate - index_base) >> index_shift, side="right"), symbols)
        + shift
    )
    static = _conditional_entropy(_bins(level, n), np.minimum(value >> shift, 1 << 14)) + shift
    fitted = replace(
        c,
        shift=shift,
        thresholds=tuple(int(t) for t in thresholds),
        index_base=index_base,
        index_shift=index_shift,
        residual=residual,
    )
    return fitted, static, context


def mix_classes(static: list[PixelClass], context: ContextFit, least_gain: float) -> tuple[PixelClass, ...]:
    """Take the context class of every range of levels where it saves at least ``least_gain``, else the static ones."""
    out: list[PixelClass] = []
    ends = [*context.edges[1:], 1 << 30]
    for i, (first, end) in enumerate(zip(context.edges, ends, strict=True)):
        candidate = context.classes[i]
        if candidate is not None and context.context_bits[i] < context.static_bits[i] * (1 - least_gain):
            out.append(candidate)
            continue
        # Static classes are cut where a range of contexts begins or ends: a pixel must be of one class.
        bounds = [s.first_level for s in static[1:]] + [1 << 30]
        for s, bound in zip(static, bounds, strict=True):
            if bound > first and s.first_level < end:
                out.append(replace(s, first_level=max(int(first), s.first_level)))
    return tuple(out)
