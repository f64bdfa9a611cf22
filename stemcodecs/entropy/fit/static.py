"""Fit what a pixel is by itself: its level, and the bank of histograms that pixels share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int64, uint32

from stemcodecs.compiled import kernel
from stemcodecs.entropy.fit.grouped_counts import GroupedCounts, PixelStatistics
from stemcodecs.entropy.kernels.pixel_methods import PACKED2, PACKED4, STATIC
from stemcodecs.entropy.kernels.rans import LANES
from stemcodecs.entropy.kernels.threads import in_parts
from stemcodecs.entropy.model.histogram_model import PixelClass
from stemcodecs.entropy.model.range_coder import map_prediction

__all__ = ["TABLE_BITS", "choose_coding", "fit_levels", "static_classes", "value_histograms"]

Array = np.ndarray[Any, Any]

MAX_STATIC_CLASSES = 224
"""Most histograms of static pixels: an encode table takes 1 kB, and this many still fit the second-level cache."""
TABLE_BITS = 260.0
"""Typical stored size of one histogram; weighs the number of histograms against their fit."""
MISFIT_BITS = 0.24
"""Bits a value loses in a class of width 1 in root-mean count; it grows with the square of the width.

Poisson counts of root means x and x + d diverge by 2 d**2 nats whatever x is, and over a class of width w the mean of
d**2 is w**2 / 12: 2 / (12 ln 2) = 0.24.
"""
NARROWEST_CLASS = 0.03
"""Below this a class loses 0.24 * 0.03**2 = 0.0002 bits a value, which no second histogram is worth."""
_LEAST_RANGE = 0.5
LEVEL_STEP = 1.2
"""Step of the pixel levels in units of 1 / sqrt(positions), that is 2.4 standard errors of a root-mean count."""
MOST_POSITIONS = 1 << 14
"""Positions beyond which the levels get no finer: a model for a whole scan has to fit into metadata."""
_RESIDUAL_BITS = np.array([0.3, 3.0, 5.0, 6.0, 7.0, 8.0, 9.0])
"""About what the adaptive coder takes for a level that differs from its prediction by 0, 1, 2 ..."""
_SAMPLED_VALUES = 1_000_000
PACKED4_MEAN, PACKED2_MEAN = 0.4, 2.2
"""Highest means of pixels whose counts share a symbol: beyond them too many counts would not fit two or four bits."""
_TAIL = 1e-5
"""Share of the values on either side that need not fit a symbol: patched at 30 bits they cost 0.0003 bits a value."""
WIDEST_SPREAD = 16
"""Standard deviation in symbols beyond which the lowest bit is stored raw. At half of it, where the raw bit begins, a
histogram of steps misses a Gaussian by 1 / (24 * 8**2 * ln 2) = 0.0009 bits a value."""
WIDEST_RANGE = 200
"""Range of symbols beyond which the lowest bit is stored raw: of 256 some are left for what the sample did not see."""


@kernel
def _choose_levels(mean, constant, n, step, bits, levels):
    """Levels of a map at the least sum of their own bits and of the bits lost by misfit.

    A pixel of mean m coded with the histogram of a mean v loses ``n * (v - m + m * ln(m / v)) / ln 2`` bits over n
    positions. A pixel that happens to be all zeros may take a level as well: to call it constant costs the map more.
    """
    for y in range(mean.shape[0]):
        for x in range(mean.shape[1]):
            m = mean[y, x]
            prediction, _ = map_prediction(levels, y, x)
            nearest = int64(np.rint(np.sqrt(m) / step))
            if constant[y, x]:
                levels[y, x] = -1
                if m > 0 or prediction < 0:
                    continue
                low, high = int64(0), min(prediction, int64(4))
                best = bits[min(prediction + 1, bits.size - 1)]
            else:
                low = max(int64(0), max(min(nearest, prediction), nearest - 3))
                high = min(max(nearest, prediction), nearest + 3)
                best = 1e300
                levels[y, x] = nearest
            for level in range(low, high + 1):
                v = (max(float(level), 0.3) * step) ** 2
                loss = v - m
                if m > 0:
                    loss += m * np.log(m / v)
                cost = n * loss / np.log(2.0) + bits[min(abs(level - prediction), bits.size - 1)]
                if cost < best:
                    best = cost
                    levels[y, x] = level


def fit_levels(pixels: PixelStatistics, detector: tuple[int, int]) -> tuple[int, Array, Array]:
    """Quantise the root-mean count of every pixel; returns (level_scale, levels, constants).

    A level that misses the mean costs bits of every count, a level that differs from its surroundings costs bits of the
    map: the sum of both is what is minimised.
    """
    n = min(pixels.n, MOST_POSITIONS)
    mean = pixels.total / pixels.n
    constant = pixels.low == pixels.high
    if n < 8:
        # Too few positions to know a pixel by itself: take its surroundings, and leave the rest to the context.
        mean = _box_mean(mean.reshape(detector)).ravel()
        constant = np.zeros_like(constant)
    step = max(LEVEL_STEP / np.sqrt(n), np.sqrt(mean.max(initial=0.0)) / 60000)
    chosen = np.zeros(detector, np.int64)
    _choose_levels(mean.reshape(detector), constant.reshape(detector), float(n), step, _RESIDUAL_BITS, chosen)
    levels = chosen.ravel()
    constants = np.where(levels < 0, pixels.low, 0).astype(np.int64)
    return max(1, round(step * step * 2**32)), levels, constants


def _box_mean(image: Array, radius: int = 2) -> Array:
    padded = np.pad(image, radius, mode="edge")
    total = np.zeros_like(image)
    for y in range(2 * radius + 1):
        for x in range(2 * radius + 1):
            total += padded[y : y + image.shape[0], x : x + image.shape[1]]
    return total / (2 * radius + 1) ** 2


@kernel
def value_histograms(rows, origin, lanes, classes, shifts, first, step, out):
    """Add ``value >> shift`` of some pixels and lanes (bool[64] or uint16[64]) to the histograms of their classes."""
    for p in range(first, classes.shape[0], step):
        c = classes[p]
        if c >= 0:
            s = shifts[c]
            row = rows[origin + p]
            for j in range(LANES):
                if lanes[j]:
                    out[c, min(int64(row[j]) >> s, int64(out.shape[1] - 1))] += uint32(1)


def static_classes(counts: GroupedCounts, level_scale: int, levels: Array) -> list[PixelClass]:
    """Bank of histograms by level: classes of equal width in root-mean count, each with its cheapest coding."""
    live = levels >= 0
    if not live.any():
        return []
    step = np.sqrt(level_scale / 2**32)
    top = int(levels.max())
    values = live.sum() * counts.layout.n_positions
    # Misfit of a class of width w costs MISFIT_BITS * w**2 bits a value, its histogram TABLE_BITS. The sum is least
    # where w**3 is half of this; here, a quarter wider, it is 6 % more, and fewer tables compete for the cache.
    width = max(np.cbrt(TABLE_BITS * max(top * step, _LEAST_RANGE) / (MISFIT_BITS * values)), NARROWEST_CLASS)
    n = int(np.clip(np.ceil((top + 1) * step / width), 1, MAX_STATIC_CLASSES))
    edges = np.unique(np.floor(np.arange(n) * (top + 1) / n).astype(np.int64))
    pixels_of = np.add.reduceat(np.bincount(levels[live], minlength=top + 1), edges)
    # A class without pixels would have a histogram of nothing, which costs bits all the same.
    edges = edges[pixels_of > 0]
    edges[0] = 0
    # Once for each level, of which there are fewer than pixels.
    by_level = np.searchsorted(edges, np.arange(top + 1), side="right") - 1
    of = np.append(by_level, -1)[levels]
    high = np.zeros(edges.size, np.int64)
    np.maximum.at(high, of[live], counts.pixels.high[live].astype(np.int64))
    # Ten bits of every value are enough to see spread and range, and keep the histograms small.
    pre = np.maximum(0, np.ceil(np.log2(np.maximum(high, 1) + 1)).astype(np.int64) - 10)
    sample = counts.sample()
    stride = max(1, levels.size * len(sample) * LANES // _SAMPLED_VALUES)

    def histograms_of(part: int, parts: int) -> Array:
        out = np.zeros((edges.size, 1024), np.uint32)
        for k, (chain, position) in enumerate(sample):
            rows, origin = counts.group(chain, position)
            # Another phase for every group, so that the sample meets every pixel.
            first = k % stride + part * stride
            value_histograms(rows, origin, counts.lanes(chain, position), of, pre, first, parts * stride, out)
        return out

    return choose_coding(edges, np.sum(in_parts(histograms_of), axis=0), pre)


def choose_coding(edges: Array, histograms: Array, pre: Array) -> list[PixelClass]:
    """The cheapest coding of every class, from its histogram of ``value >> pre``."""
    h = histograms[:, : int(np.flatnonzero(histograms.any(axis=0)).max(initial=0)) + 1].astype(np.float64)
    total = np.maximum(h.sum(axis=1), 1.0)
    cumulated = np.cumsum(h, axis=1)
    lows = (cumulated < (total * _TAIL)[:, None]).sum(axis=1) << pre
    highs = (((cumulated < (total * (1 - _TAIL))[:, None]).sum(axis=1) + 1) << pre) - 1
    centres = np.arange(h.shape[1], dtype=np.float64)
    mean = h @ centres / total
    variance = np.maximum(h @ centres**2 / total - mean**2, 0.0)
    means, spreads = mean * 2.0**pre, np.sqrt(variance) * 2.0**pre
    return [
        _static_class(*case)
        for case in zip(edges.tolist(), lows.tolist(), highs.tolist(), means.tolist(), spreads.tolist(), strict=True)
    ]


def _static_class(first_level: int, low: int, high: int, mean: float, spread: float) -> PixelClass:
    if high <= 3 and mean < PACKED4_MEAN:
        return PixelClass(first_level=first_level, method=PACKED4)
    if high <= 15 and mean < PACKED2_MEAN:
        return PixelClass(first_level=first_level, method=PACKED2)
    shift = 0
    while shift < 15 and (spread / 2**shift > WIDEST_SPREAD or (high - low) >> shift > WIDEST_RANGE):
        shift += 1
    room = 255 - ((high - low) >> shift)
    base = max(0, low - ((room // 2) << shift)) if high >> shift > 255 else 0
    return PixelClass(first_level=first_level, method=STATIC, base=base, shift=shift)
