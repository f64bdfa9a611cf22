"""Fit how neighbours predict a count: weighted least squares per class of pixels, and which weights a pattern uses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from stemcodecs.entropy.fit.grouped_counts import GroupedCounts
from stemcodecs.entropy.kernels.lanes import context_rate
from stemcodecs.entropy.kernels.pixel_methods import CONTEXT
from stemcodecs.entropy.kernels.rans import LANES
from stemcodecs.entropy.kernels.threads import run_all
from stemcodecs.entropy.model.coefficients import DOSE_BITS, WEIGHT_BITS
from stemcodecs.entropy.model.histogram_model import MAX_WEIGHT, HistogramModel, PixelClass

__all__ = [
    "FIRST_RING",
    "SCAN",
    "SECOND_RING",
    "NormalEquations",
    "accumulate",
    "choose_sets",
    "context_classes",
    "context_edges",
    "sample_groups",
    "tentative_classes",
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


class _Pixels(NamedTuple):
    """The detector that a context is fitted on.

    Attributes
    ----------
    live : bool[n_pixels]
        Whether the pixel is not constant.
    classes : int64[n_pixels]
        Class that the pixel belongs to, or -1.
    mean : float64[n_pixels]
        Its mean count.
    oy, ox : int64[n_neighbours]
        Offsets of the context.
    height, width : int
        Of the detector.
    """

    live: Array
    classes: Array
    mean: Array
    oy: Array
    ox: Array
    height: int
    width: int


class _Sums(NamedTuple):
    """Normal equations of every class, and how many values they hold, see :class:`NormalEquations`: added to."""

    normal: Array
    right: Array
    square: Array
    values: Array


@njit(nogil=True, cache=True, boundscheck=False, error_model="numpy", fastmath=True)
def _accumulate(group, lanes, dose, pixels, first, step, sums):
    """Add every ``step``-th pixel from ``first`` on whose neighbours all exist to the normal equations of its class.

    lanes : float32[64], weight of every lane, 0 or 1; dose : float32[64]; pixels : :class:`_Pixels`; sums :
    :class:`_Sums`. Features are in units of the pixel's own mean, weighted by the variance that a count of that mean
    has.
    """
    rows, origin, offsets = group.rows, group.origin, group.neighbours
    live, classes, mean, oy, ox, detector_y, detector_x = pixels
    normal, right, square, count = sums
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
    pixels = _Pixels(base.levels >= 0, of, mean, oy, ox, *base.detector)

    def of_group(k: int, chain: int, position: int) -> _Sums:
        shapes = (n_classes, n + 1, n + 1), (n_classes, n + 1), n_classes, n_classes
        sums = _Sums(*(np.zeros(shape) for shape in shapes))
        group = counts.group_rows(chain, position, model)
        lanes = (counts.lanes(chain, position) > 0).astype(np.float32)
        if selections is not None:
            lanes *= selections[chain, position]
        dose = (group.dose / 2.0**DOSE_BITS).astype(np.float32)
        _accumulate(group, lanes, dose, pixels, (k * 7) % step, step, sums)
        return sums

    # Added up in the order of the groups, so that the bytes do not depend on the number of threads.
    parts = run_all(of_group, [(k, *group) for k, group in enumerate(sample)])
    normal, right, square, count = (np.sum(part, axis=0) for part in zip(*parts, strict=True))
    return NormalEquations(neighbours=neighbours, normal=normal, right=right, square=square, count=count)


def sample_groups(counts: GroupedCounts, neighbours: Neighbours) -> list[tuple[int, int]]:
    """Groups to fit on: where scan neighbours are used, only those that have some."""
    uses_scan = any(k for k, _, _ in neighbours)
    return counts.sample(min(int(uses_scan), counts.layout.chain_length - 1))


@njit(nogil=True, cache=True, boundscheck=False, error_model="numpy", fastmath=True)
def _lane_errors(group, program, classes, mean, rate_bits, first, step, errors):
    """Squared errors of both weight sets in every lane, in units of the variance: float64[2, 64]."""
    rows, origin, factors = group.rows, group.origin, program.coefficients.reshape(-1)
    n = group.neighbours.shape[0] + 2
    rate = np.zeros(LANES, np.int32)
    for p in range(first, classes.shape[0], step):
        c = classes[p]
        if c < 0:
            continue
        weight = 1.0 / (mean[p] + 0.05 + 0.02 * mean[p] * mean[p])
        scale = 1.0 / (1 << rate_bits[c])
        for s in range(2):
            context_rate(rows, origin + p, group.neighbours, factors, p * 2 * n, group.dose, group.selection, s, rate)
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
            group = counts.group_rows(chain, position, model)
            _lane_errors(group, program, of, mean, rate_bits, (k * 7) % step, step, errors)
        out[chain, position] = errors[1] < errors[0]
    return out


def context_edges(levels: Array, level_scale: int, n: int = N_CONTEXT_CLASSES) -> Array:
    """First levels of classes that hold about equal shares of the information: int64, beginning with 0."""
    pixels = np.bincount(levels[levels >= 0])
    if pixels.size == 0:
        return np.zeros(1, np.int64)
    live = np.repeat(np.arange(pixels.size), pixels)
    weight = np.cumsum(np.log2(1 + live * np.sqrt(level_scale / 2**32)) + 1e-3)
    cuts = live[np.searchsorted(weight, weight[-1] * np.arange(1, n) / n)]
    edges = [0]
    for cut in np.unique(cuts):
        # Pixels as good as alike must share histograms: adjacent pixels would else keep twice the tables in cache.
        if cut >= max(edges[-1] * CLASS_RATIO, 1):
            edges.append(int(cut))
    return np.array(edges, np.int64)


def context_classes(base: HistogramModel, edges: Array) -> Array:
    """Context class of every pixel: int64[n_pixels], -1 where it is constant."""
    by_level = np.searchsorted(edges, np.arange(int(base.levels.max(initial=0)) + 1), side="right") - 1
    return np.append(by_level, -1)[base.levels]


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
