"""The network of architecture ``context``: what it knows of a pixel, and how the kernels want it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from stemcodecs.entropy.model.group_layout import MAX_REFERENCES, GroupLayout
from stemcodecs.errors import CorruptChunkError

__all__ = [
    "OUTPUTS",
    "ContextModel",
    "Dense",
    "ResidualRows",
    "lane_features",
    "may_be_seen",
    "pixel_features",
    "pixel_roots",
]

Array = np.ndarray[Any, Any]

OUTPUTS = 5
"""Of the last layer: weight of the first logistic, two locations, two logarithms of scales."""
PIXEL_FEATURES = 5
"""Level of a pixel, and how far those of the four around it differ; maps come on top."""
MAX_MAPS = 8
MAX_NEIGHBOURS = 60
MAX_MEANS = 4
MOST_DECAY, MOST_REACH = 1023, 64
MAX_HIDDEN = 64
REACH = 8
"""Farthest that a neighbour may lie, in rows and in columns."""
MOST_SHIFT = 31
LARGEST_FEATURE = 32767
_PIXELS_AT_ONCE = 1 << 14
PIXEL_WEIGHT_BITS = 6
"""Fraction bits that the weights of pixel features have more than the others: they are added up once a pixel, so that
they need not fit 16 bits, and the levels of bright pixels are large numbers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Dense:
    """A layer: ``clip((bias + weights @ x) >> shift, 0, 32767)``; the last one is not clipped.

    weights : int64[outputs, inputs], of 16 bits, but for those of pixel features, of 32; bias : int64[outputs], of 32
    bits; shift : 0 to 31.
    """

    weights: Array
    bias: Array
    shift: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ContextModel:
    """A network for the counts of a detector.

    Attributes
    ----------
    detector : tuple of int
        (det_y, det_x).
    level_scale : int
        Mean of a pixel of level L: ``L**2 * level_scale``, in units of 2**-32.
    levels : int64[n_pixels]
        Quantised root-mean count; -1 for a pixel that never changes.
    constants : int64[n_pixels]
        Value of the pixels that never change.
    maps : tuple of int64[det_y, det_x]
        Further features of a pixel.
    neighbours : tuple of (reference, dy, dx)
        Counts that the network sees; reference 0 is the same pattern, those above 4 are the means.
    layers : tuple of Dense
        Three of them. The inputs of the first are the features of a lane, then those of the pixel.
    normal : bool
        Whether the components of the mixture are normal distributions; else they are logistic ones.
    means : tuple of (decay, reach)
        Means of the scan positions around: how fast their weights fall, in 64ths of an octave a squared step of the
        scan, and the largest squared distance.
    """

    detector: tuple[int, int]
    level_scale: int
    levels: Array
    constants: Array
    maps: tuple[Array, ...]
    neighbours: tuple[tuple[int, int, int], ...]
    layers: tuple[Dense, Dense, Dense]
    normal: bool = False
    means: tuple[tuple[int, int], ...] = ()

    @property
    def hidden(self) -> int:
        """Units of each of the two layers between."""
        return len(self.layers[0].bias)

    @property
    def chained(self) -> bool:
        """Whether it looks at scan neighbours."""
        return any(reference > 0 for reference, _, _ in self.neighbours)

    @property
    def n_lane_features(self) -> int:
        """Inputs that differ from lane to lane."""
        return lane_features(self.neighbours)

    @cached_property
    def roots(self) -> Array:
        """``1024 * sqrt(mean + 3/8)`` of every pixel: int64[n_pixels]."""
        return pixel_roots(self.levels, self.level_scale)

    @property
    def pixel_features(self) -> Array:
        """Features of the pixels by themselves: int64[n_pixels, 5 + maps]."""
        return pixel_features(self.roots, self.maps, self.detector)

    def first_bias(self) -> Array:
        """Bias of the first layer, with what the features of each pixel add to it: int32[n_pixels, hidden]."""
        first, features = self.layers[0], self.pixel_features
        weights = first.weights[:, self.n_lane_features :].T
        out = np.empty((len(features), self.hidden), np.int32)
        # Part by part: in 64 bits all of them would take more than the patterns of a group.
        for start in range(0, len(features), _PIXELS_AT_ONCE):
            part = slice(start, start + _PIXELS_AT_ONCE)
            # Sums are modulo 2**32 from here on, so that no weights can do harm.
            total = first.bias + ((features[part] @ weights) >> PIXEL_WEIGHT_BITS)
            out[part] = total.astype(np.uint32).view(np.int32)
        return out

    def check(self) -> None:
        """Refuse what the kernels cannot run.

        Raises
        ------
        CorruptChunkError
            If a number is out of range.
        """
        n = self.detector[0] * self.detector[1]
        first, second, last = self.layers
        inputs = self.n_lane_features + PIXEL_FEATURES + len(self.maps)
        shapes = ((self.hidden, inputs), (self.hidden, self.hidden), (OUTPUTS, self.hidden))
        if not (1 <= self.level_scale < 1 << 48) or self.levels.shape != (n,) or self.constants.shape != (n,):
            raise CorruptChunkError("impossible network: levels")
        highest = int(self.levels.max(initial=0))
        if int(self.levels.min(initial=0)) < -1 or highest * highest * self.level_scale >= 1 << 51:
            raise CorruptChunkError("impossible network: levels")
        if (self.constants < 0).any() or (self.constants > 65535).any():
            raise CorruptChunkError("impossible network: constant pixels")
        if len(self.maps) > MAX_MAPS or any(np.abs(m).max(initial=0) > LARGEST_FEATURE for m in self.maps):
            raise CorruptChunkError("impossible network: maps")
        if not 4 <= self.hidden <= MAX_HIDDEN or self.hidden % 4:
            raise CorruptChunkError("impossible network: hidden units")
        if len(self.neighbours) > MAX_NEIGHBOURS or not all(
            may_be_seen(n, self.detector, len(self.means)) for n in self.neighbours
        ):
            raise CorruptChunkError("impossible network: neighbours")
        if len(self.means) > MAX_MEANS or not all(
            0 <= decay <= MOST_DECAY and 1 <= reach <= MOST_REACH for decay, reach in self.means
        ):
            raise CorruptChunkError("impossible network: means")
        for layer, shape in zip((first, second, last), shapes, strict=True):
            if layer.weights.shape != shape or layer.bias.shape != shape[:1] or not 0 <= layer.shift <= MOST_SHIFT:
                raise CorruptChunkError("impossible network: layers")
            lanes = self.n_lane_features if layer is first else self.hidden
            wide = max(np.abs(layer.weights[:, lanes:]).max(initial=0), np.abs(layer.bias).max(initial=0))
            if np.abs(layer.weights[:, :lanes]).max(initial=0) > 32767 or wide > (1 << 31) - 1:
                raise CorruptChunkError("impossible network: weights")


def may_be_seen(neighbour: tuple[int, int, int], detector: tuple[int, int], means: int = 0) -> bool:
    """Whether a neighbour, of the pattern, a position before or one of so many means, is decoded before the pixel, and
    can lie on the detector.

    One that never does would say nothing, and its frame of zeros would take many times the rows of a narrow detector.
    """
    reference, dy, dx = neighbour
    decoded = reference > 0 or (dy, dx) < (0, 0)
    near = abs(dy) <= min(REACH, detector[0] - 1) and abs(dx) <= min(REACH, detector[1] - 1)
    return 0 <= reference <= MAX_REFERENCES + means and decoded and near


def lane_features(neighbours: tuple[tuple[int, int, int], ...]) -> int:
    """The dose, whether there are scan neighbours if any is asked for, and a residual for each neighbour."""
    return 1 + any(reference > 0 for reference, _, _ in neighbours) + len(neighbours)


def pixel_roots(levels: Array, level_scale: int) -> Array:
    """``floor(1024 * sqrt(mean + 3/8))``, with the mean in units of 2**-16 as the histogram model has it."""
    mean = np.where(levels > 0, (levels * levels * level_scale) >> 16, 0)
    return _integer_root((mean + 24576) << 4)


def _integer_root(values: Array) -> Array:
    """``floor(sqrt(v))`` of integers below 2**52, exactly: a double is off by less than one there."""
    root = np.sqrt(values.astype(np.float64)).astype(np.int64)
    root -= root * root > values
    root += (root + 1) * (root + 1) <= values
    return root


def pixel_features(roots: Array, maps: tuple[Array, ...], detector: tuple[int, int]) -> Array:
    """See `ContextModel.pixel_features`; beyond the edge a pixel counts as its own neighbour."""
    level = np.minimum(roots >> 4, LARGEST_FEATURE).reshape(detector)
    around = np.pad(level, 1, mode="edge")
    differences = [around[1:-1, :-2], around[:-2, 1:-1], around[1:-1, 2:], around[2:, 1:-1]]
    features = [level, *(other - level for other in differences), *(m.reshape(detector) for m in maps)]
    return np.stack([f.ravel() for f in features], axis=1)


class ResidualRows:
    """Where the residuals of a chain lie: rows of 64 lanes, framed by zeros so that no neighbour needs a check.

    A step takes ``size`` rows; pixel (y, x) of step s is row ``origin(s) + y * stride + x``. The means of scan
    neighbours lie behind the last step, as if they were steps. Behind them come three rows: zeros, the dose, and
    whether there are scan neighbours.
    """

    def __init__(self, model: ContextModel, layout: GroupLayout, steps: int) -> None:
        self.reach = max((abs(dx) for _, _, dx in model.neighbours), default=0)
        above = max((-dy for _, dy, _ in model.neighbours), default=0)
        self.above = max(above, 0)
        below = max(max((dy for _, dy, _ in model.neighbours), default=0), 0)
        height, width = layout.detector
        self.stride = width + self.reach
        self.size = (self.above + height + below) * self.stride + self.reach
        # Other lanes of the first pixel are read from a row before it, where there are means.
        self._guard = int(bool(model.means))
        self.zero = self._guard + (steps + len(model.means)) * self.size
        self.rows = self.zero + 3
        self._model, self._layout, self._steps = model, layout, steps

    def origin(self, step: int) -> int:
        """Row of the first pixel of a step."""
        return self._guard + step * self.size + self.above * self.stride + self.reach

    def origin_of_mean(self, k: int) -> int:
        """Row of the first pixel of a mean."""
        return self.origin(self._steps + k)

    def features(self, step: int) -> tuple[Array, Array]:
        """Row of every lane feature of a step, and whether it moves with the pixel: int64[even], int64[even].

        Scan neighbours that a step does not have are the row of zeros.
        """
        at, moves = [self.zero + 1], [0]
        if self._model.chained:
            at.append(self.zero + 2)
            moves.append(0)
        back = self._layout.references[step]
        for reference, dy, dx in self._model.neighbours:
            if reference > MAX_REFERENCES:
                steps_back = step - self._steps - (reference - 1 - MAX_REFERENCES)
            else:
                steps_back = int(back[reference - 1]) if reference else 0
            there = reference == 0 or step > 0
            at.append(dy * self.stride + dx - steps_back * self.size if there else self.zero)
            moves.append(int(there))
        if len(at) % 2:
            at.append(self.zero)
            moves.append(0)
        return np.array(at, np.int64), np.array(moves, np.int64)
