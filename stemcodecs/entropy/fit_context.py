"""Fit what a pixel's surroundings say: context weights, and the histograms that follow the predicted rate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numba import int64, njit

from stemcodecs.entropy.coefficients import DOSE_BITS, WEIGHT_BITS
from stemcodecs.entropy.fit_static import TABLE_BITS
from stemcodecs.entropy.methods import CONTEXT
from stemcodecs.entropy.model import MAX_WEIGHT, HistogramModel, PixelClass, Program
from stemcodecs.entropy.rans import KERNEL, LANES, LUT_SIZE
from stemcodecs.entropy.rows import GroupedCounts
from stemcodecs.entropy.threads import run_all
from stemcodecs.entropy.vector import context_rate

__all__ = [
    "FIRST_RING",
    "SCAN",
    "SECOND_RING",
    "ContextFit",
    "NormalEquations",
    "accumulate",
    "fit_context",
    "mix_classes",
]

Array = np.ndarray[Any, Any]
Neighbours = tuple[tuple[int, int, int], ...]

FIRST_RING: Neighbours = ((0, 0, -1), (0, -1, 0), (0, -1, -1), (0, -1, 1))
"""West, north, north-west, north-east: (reference, dy, dx)."""
SECOND_RING: Neighbours = (*FIRST_RING, (0, 0, -2), (0, -2, 0), (0, -2, -1), (0, -2, 1), (0, -1, -2), (0, -1, 2))
SCAN: Neighbours = (*FIRST_RING, *((k, y, x) for k in (1, 2) for y in (-1, 0, 1) for x in (-1, 0, 1)))
"""The first ring, and 3 x 3 pixels around the same one in the two nearest scan neighbours."""

N_CONTEXT_CLASSES = 8
CLASS_RATIO = 1.3
"""Least ratio of the root-mean counts of two classes."""
CONTEXT_BITS = 10
"""Probability bits of context histograms: 0.05 % larger than 12, but the tables of a class stay in cache."""
_FITTED_VALUES = 300_000
_SHAPED_VALUES = 120_000


@njit(nogil=True, cache=True, boundscheck=False, error_model="numpy", fastmath=True)
def _accumulate(
    rows, origin, lanes, dose, live, classes, mean, offsets, oy, ox, detector_y, detector_x, first, step,
    normal, right, square, count,
):  # fmt: skip
    """Add sampled pixels whose neighbours all exist to the normal equations of their class.

    Features are in units of the pixel's own mean, weighted by the variance that a count of that mean has.
    """
    n = offsets.shape[0]
    feature = np.zeros((n + 2, LANES), np.float32)
    for p in range(first, mean.shape[0], step):
        c = classes[p]
        if c < 0:
            continue
        y = p // detector_x
        x = p % detector_x
        usable = True
        for i in range(n):
            yy = y + oy[i]
            xx = x + ox[i]
            if yy < 0 or xx < 0 or yy >= detector_y or xx >= detector_x or not live[yy * detector_x + xx]:
                usable = False
                break
        if not usable:
            continue
        m = np.float32(mean[p])
        weight = np.float32(1.0 / np.sqrt(mean[p] + 0.05 + 0.02 * mean[p] * mean[p]))
        for j in range(LANES):
            feature[0, j] = weight * m * dose[j] * lanes[j]
            feature[n + 1, j] = weight * np.float32(rows[origin + p, j]) * lanes[j]
        for i in range(n):
            q = (y + oy[i]) * detector_x + x + ox[i]
            gain = weight * min(m / (np.float32(mean[q]) + np.float32(0.25)), np.float32(32.0))
            row = rows[origin + p + offsets[i]]
            for j in range(LANES):
                feature[1 + i, j] = gain * (np.float32(row[j]) + np.float32(0.25)) * lanes[j]
        for u in range(n + 2):
            for v in range(min(u, n) + 1):
                total = np.float32(0)
                for j in range(LANES):
                    total += feature[u, j] * feature[v, j]
                if u <= n:
                    normal[c, u, v] += total
                else:
                    right[c, v] += total
        total = np.float32(0)
        held = np.float32(0)
        for j in range(LANES):
            total += feature[n + 1, j] * feature[n + 1, j]
            held += lanes[j]
        square[c] += total
        count[c] += held


@dataclass(frozen=True, kw_only=True, eq=False)
class NormalEquations:
    """Weighted least squares of every class, for any subset of the neighbours."""

    neighbours: Neighbours
    normal: Array
    right: Array
    square: Array
    count: Array

    def solve(self, neighbours: Neighbours) -> tuple[Array, Array]:
        """Weights float64[n_classes, 1 + len(neighbours)] and residual sums of squares float64[n_classes]."""
        at = np.array([0, *(1 + self.neighbours.index(k) for k in neighbours)])
        weights = np.zeros((len(self.square), at.size))
        weights[:, 0] = 1.0
        residual = self.square.copy()
        for c in range(len(self.square)):
            a = self.normal[c] + np.tril(self.normal[c], -1).T
            a, b = a[np.ix_(at, at)], self.right[c, at]
            if np.trace(a) > 0:
                ridge = 1e-6 * np.trace(a) / at.size + 1e-9
                w = weights[c] = np.linalg.solve(a + ridge * np.eye(at.size), b)
                residual[c] = max(self.square[c] - 2 * w @ b + w @ a @ w, 1e-9 * self.square[c])
        return weights, residual

    def gain(self, neighbours: Neighbours, fewer: Neighbours) -> float:
        """Bits a value that ``neighbours`` are estimated to save against ``fewer``."""
        _, with_all = self.solve(neighbours)
        _, with_fewer = self.solve(fewer)
        known = (self.count > 0) & (with_all > 0)
        if not known.any():
            return 0.0
        bits = 0.5 * np.log2(with_fewer[known] / with_all[known])
        return float((bits * self.count[known]).sum() / self.count.sum())


def accumulate(
    counts: GroupedCounts,
    base: HistogramModel,
    of: Array,
    neighbours: Neighbours,
    selections: dict[tuple[int, int], Array] | None = None,
) -> NormalEquations:
    """Normal equations over a sample of a chunk; with ``selections``, over the lanes that use the second weight set."""
    n, n_classes = len(neighbours), int(of.max(initial=0)) + 1
    mean = base.means() / 2.0**16
    model = replace(base, neighbours=neighbours)
    sample = sample_groups(counts, neighbours)
    step = max(1, int(mean.size * len(sample) * LANES // _FITTED_VALUES)) | 1
    oy = np.array([y for _, y, _ in neighbours], np.int64)
    ox = np.array([x for _, _, x in neighbours], np.int64)

    def of_group(k: int, chain: int, position: int) -> tuple[Array, ...]:
        normal, right = np.zeros((n_classes, n + 1, n + 1)), np.zeros((n_classes, n + 1))
        square, count = np.zeros(n_classes), np.zeros(n_classes)
        lanes = (counts.lanes(chain, position) > 0).astype(np.float32)
        if selections is not None:
            lanes *= selections[chain, position]
        _accumulate(
            *counts.group(chain, position), lanes,
            (counts.dose(chain, position) / 2.0**DOSE_BITS).astype(np.float32), base.levels >= 0, of, mean,
            model.row_offsets(counts.layout, position), oy, ox, *base.detector, (k * 7) % step, step,
            normal, right, square, count,
        )  # fmt: skip
        return normal, right, square, count

    # Added up in the order of the groups, so that the bytes do not depend on the number of threads.
    parts = run_all(of_group, [(k, *group) for k, group in enumerate(sample)])
    normal, right, square, count = (np.sum(part, axis=0) for part in zip(*parts, strict=True))
    return NormalEquations(neighbours=neighbours, normal=normal, right=right, square=square, count=count)


def sample_groups(counts: GroupedCounts, neighbours: Neighbours) -> list[tuple[int, int]]:
    """Groups to fit on: where scan neighbours are used, only those that have some."""
    uses_scan = any(k for k, _, _ in neighbours)
    return counts.sample(min(int(uses_scan), counts.layout.chain_length - 1))


@njit(nogil=True, cache=True, boundscheck=False, error_model="numpy", fastmath=True)
def _lane_errors(
    rows, origin, classes, mean, rate_bits, offsets, coefficients, dose, first, step, errors,
):  # fmt: skip
    """Squared errors of both weight sets in every lane, in units of the variance: float64[2, 64]."""
    factors = coefficients.reshape(-1)
    n = offsets.shape[0] + 2
    rate = np.zeros(LANES, np.int32)
    nobody = np.zeros(LANES, np.bool_)
    for p in range(first, classes.shape[0], step):
        c = classes[p]
        if c < 0:
            continue
        weight = 1.0 / (mean[p] + 0.05 + 0.02 * mean[p] * mean[p])
        scale = 1.0 / (1 << rate_bits[c])
        for s in range(2):
            context_rate(rows, origin + p, offsets, factors, p * 2 * n, dose, nobody, s, rate)
            for j in range(LANES):
                d = float(rows[origin + p, j]) - rate[j] * scale
                errors[s, j] += d * d * weight


def choose_sets(
    counts: GroupedCounts, model: HistogramModel, groups: list[tuple[int, int]]
) -> dict[tuple[int, int], Array]:
    """Per group and lane, whether the second weight set predicts the frame better than the first: bool[64]."""
    program = model.program()
    of = model.class_of_pixels()
    of = np.where(program.methods == CONTEXT, of, -1)
    rate_bits = np.array([c.rate_bits for c in model.classes], np.int64)
    step = max(1, of.size // 1024) | 1
    mean = model.means() / 2.0**16
    out = {}
    for k, (chain, position) in enumerate(groups):
        errors = np.zeros((2, LANES))
        if position > 0:
            _lane_errors(
                *counts.group(chain, position), of, mean, rate_bits,
                model.row_offsets(counts.layout, position), program.coefficients, counts.dose(chain, position),
                (k * 7) % step, step, errors,
            )  # fmt: skip
        out[chain, position] = errors[1] < errors[0]
    return out


def mixture_of(selection: Array | None) -> int:
    """How a group mixes its weight sets: 0 all the first, 1 all the second, 2 lane by lane."""
    if selection is None or not selection.any():
        return 0
    return 1 if selection.all() else 2


@njit(**KERNEL)
def _sample_rates(
    rows, origin, lanes, methods, neighbours, coefficients, dose, selection, mixture, first, step,
    out_pixel, out_rate, out_value,
):  # fmt: skip
    factors = coefficients.reshape(-1)
    width = int64(coefficients.shape[1] * coefficients.shape[2])
    rate = np.zeros(LANES, np.int32)
    n = 0
    for p in range(first, methods.shape[0], step):
        if methods[p] != CONTEXT:
            continue
        context_rate(rows, origin + p, neighbours, factors, p * width, dose, selection, mixture, rate)
        for j in range(LANES):
            if lanes[j]:
                out_pixel[n] = p
                out_rate[n] = rate[j]
                out_value[n] = rows[origin + p, j]
                n += 1
    return n


def sample_rates(
    counts: GroupedCounts, model: HistogramModel, program: Program, selections: dict[tuple[int, int], Array]
) -> tuple[Array, Array, Array]:
    """Predicted rates of sampled values: pixel, rate (fixed point of the pixel's class), value."""
    groups = sample_groups(counts, model.neighbours)
    n_pixels = program.methods.size
    step = max(1, n_pixels * len(groups) * LANES // _SHAPED_VALUES) | 1
    nobody = np.zeros(LANES, bool)

    def of_group(k: int, chain: int, position: int) -> tuple[Array, ...]:
        pixel, rate, value = (np.empty((n_pixels // step + 1) * LANES, np.int32) for _ in range(3))
        selection = selections.get((chain, position))
        n = _sample_rates(
            *counts.group(chain, position), counts.lanes(chain, position), program.methods,
            model.row_offsets(counts.layout, position), program.coefficients, counts.dose(chain, position),
            nobody if selection is None else selection, mixture_of(selection), (k * 5) % step, step,
            pixel, rate, value,
        )  # fmt: skip
        return pixel[:n], rate[:n], value[:n]

    parts = run_all(of_group, [(k, *group) for k, group in enumerate(groups)])
    pixel, rate, value = (np.concatenate(part) for part in zip(*parts, strict=True))
    return pixel, rate, value


def context_edges(levels: Array, level_scale: int, n: int = N_CONTEXT_CLASSES) -> Array:
    """First levels of classes that hold about equal shares of the information: int64, beginning with 0."""
    live = np.sort(levels[levels >= 0])
    if live.size == 0:
        return np.zeros(1, np.int64)
    weight = np.cumsum(np.log2(1 + live * np.sqrt(level_scale / 2**32)) + 1e-3)
    cuts = live[np.searchsorted(weight, weight[-1] * np.arange(1, n) / n)]
    edges = [0]
    for cut in np.unique(cuts):
        # Pixels as good as alike must share histograms: adjacent pixels would else keep twice the tables in cache.
        if cut >= max(edges[-1] * CLASS_RATIO, 1):
            edges.append(int(cut))
    return np.array(edges, np.int64)


def _conditional_entropy(bins: Array, symbols: Array) -> float:
    """Entropy of symbols given bins, bits each, corrected for the size of the sample (Miller and Madow)."""
    n = symbols.size
    low = int(symbols.min())
    span = int(symbols.max()) - low + 1
    joint = np.bincount(bins * span + (symbols - low))
    alone = np.bincount(bins)
    joint, alone = joint[joint > 0], alone[alone > 0]
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

    neighbours: Neighbours
    edges: Array
    classes: tuple[PixelClass | None, ...]
    static_bits: Array
    context_bits: Array


def context_classes(base: HistogramModel, edges: Array) -> Array:
    """Context class of every pixel: int64[n_pixels], -1 where it is constant."""
    return np.where(base.levels >= 0, np.searchsorted(edges, base.levels, side="right") - 1, -1)


def tentative_classes(base: HistogramModel, edges: Array, weight_sets: list[Array]) -> tuple[PixelClass, ...]:
    """Context classes with their weights, but without histograms yet."""
    of = context_classes(base, edges)
    means = base.means() / 2.0**16
    out = []
    for c, edge in enumerate(edges):
        top = means[of == c].max(initial=0.0)
        sets = [np.clip(np.rint(w[c] * 2**WEIGHT_BITS), -MAX_WEIGHT, MAX_WEIGHT) for w in weight_sets]
        out.append(
            PixelClass(
                first_level=int(edge),
                method=CONTEXT,
                bits=CONTEXT_BITS,
                rate_bits=26 - int(np.ceil(np.log2(max(8.0, 4 * top)))),
                weights=tuple(tuple(int(v) for v in w) for w in sets),
            )
        )
    return tuple(out)


def fit_context(
    counts: GroupedCounts, model: HistogramModel, edges: Array, selections: dict[tuple[int, int], Array]
) -> ContextFit:
    """Shape the histograms of a model with tentative context classes."""
    of = context_classes(model, edges)
    pixel, rate, value = sample_rates(counts, model, model.program(), selections)
    of_sample = of[pixel]
    classes: list[PixelClass | None] = []
    static_bits, context_bits = np.zeros(edges.size), np.zeros(edges.size)
    values = np.bincount(of[of >= 0], minlength=edges.size) * counts.layout.n_positions
    for c, tentative in enumerate(model.classes):
        here = of_sample == c
        if here.sum() < 64:
            classes.append(None)
            context_bits[c] = np.inf
            continue
        fitted, static_bits[c], context_bits[c] = _shape_context_class(
            tentative, rate[here], value[here], model.levels[pixel[here]], int(values[c])
        )
        classes.append(fitted)
    return ContextFit(
        neighbours=model.neighbours, edges=edges, classes=tuple(classes), static_bits=static_bits,
        context_bits=context_bits,
    )  # fmt: skip


def _shape_context_class(
    c: PixelClass, rate: Array, value: Array, level: Array, n_values: int
) -> tuple[PixelClass, float, float]:
    """Choose symbols and histogram boundaries of a context class; returns it with its static and context bits."""
    rate = np.maximum(rate, 0)
    low, top = _range(rate, 0.0005)
    index_base = int(low)
    index_shift = max(0, int(np.ceil(np.log2((top - low + 1) / (LUT_SIZE - 1)))))
    centre = np.minimum(rate >> c.rate_bits, 65535)
    residual = bool((value > 200).mean() > 0.0005 or top / 2**c.rate_bits > 48)
    shift = 0
    if residual:
        spread = 1.4826 * np.median(np.abs(value - centre)) + 1e-9
        shift = int(np.clip(np.floor(np.log2(spread / 6)), 0, 15))
    root_low, root_top = np.sqrt(low / 2**c.rate_bits), np.sqrt(top / 2**c.rate_bits)
    width = np.cbrt(2 * TABLE_BITS * max(root_top - root_low, 0.1) / (max(n_values, 1) * 0.48))
    n = int(np.clip((root_top - root_low) / width, 2, 20 if residual else 48))
    roots = root_low + (root_top - root_low) * np.arange(1, n) / n
    thresholds = np.unique(np.rint((roots**2 * 2.0**c.rate_bits - index_base) / 2.0**index_shift).astype(np.int64))
    thresholds = thresholds[(thresholds > 0) & (thresholds < LUT_SIZE)]
    symbols = (value - centre + (128 << shift)) >> shift if residual else value
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
        bounds = [s.first_level for s in static[1:]] + [1 << 30]
        for s, bound in zip(static, bounds, strict=True):
            if bound > first and s.first_level < end:
                out.append(replace(s, first_level=max(int(first), s.first_level)))
    return tuple(out)
