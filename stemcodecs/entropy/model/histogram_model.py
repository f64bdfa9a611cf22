"""What a chunk's decoder must know besides the coded symbols: the histogram model, as integers.

Every pixel carries a *level*, its quantised root-mean count, or is constant. Pixels of neighbouring levels form a
*class*; a class says how its pixels are coded and which histograms they use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.entropy.kernels.coding_tables import SYMBOLS
from stemcodecs.entropy.kernels.kernel_arguments import Program
from stemcodecs.entropy.kernels.pixel_methods import ABSOLUTE, CONSTANT, CONTEXT, PACKED4, STATIC
from stemcodecs.entropy.kernels.rans import LUT_SIZE
from stemcodecs.entropy.kernels.threads import in_parts
from stemcodecs.entropy.model.coefficients import MEAN_BITS, unroll_coefficients
from stemcodecs.entropy.model.group_layout import MAX_REFERENCES, GroupLayout
from stemcodecs.errors import CorruptChunkError

__all__ = ["HistogramModel", "PixelClass"]

MAX_TABLES = 4096
"""Histograms of a model: bounds the decode tables to 64 MB."""
MAX_NEIGHBOURS = 32
WORTH_THREADS = 1 << 15
"""Pixels that take longer to unroll than threads to wake."""
MAX_WEIGHT = (1 << 20) - 1

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class PixelClass:
    """Pixels of one range of levels, coded alike.

    Attributes
    ----------
    first_level : int
        Lowest level of the class; the next class begins where it ends.
    method : int
        ``PACKED4``, ``PACKED2``, ``STATIC`` or ``CONTEXT`` of :mod:`stemcodecs.entropy.kernels.pixel_methods`.
    bits : int
        Probability bits, 10 to 12: the frequencies of each histogram sum to ``2**bits``.
    base, shift : int
        A symbol is ``(value - base) >> shift``.
    thresholds : tuple of int
        CONTEXT: where, on the scale of the 128-entry rate index, the next histogram begins; increasing.
    rate_bits : int
        CONTEXT: fraction bits of the predicted rate.
    index_base, index_shift : int
        CONTEXT: the rate index is ``(rate - index_base) >> index_shift``.
    residual : bool
        CONTEXT: symbols are residuals to the predicted rate.
    weights : tuple of tuple of int
        CONTEXT, one per weight set: weight of the frame's dose, then of each neighbour.
    """

    first_level: int
    method: int
    bits: int = 12
    base: int = 0
    shift: int = 0
    thresholds: tuple[int, ...] = ()
    rate_bits: int = 0
    index_base: int = 0
    index_shift: int = 0
    residual: bool = False
    weights: tuple[tuple[int, ...], ...] = ()

    @property
    def n_tables(self) -> int:
        """Histograms of the class."""
        return len(self.thresholds) + 1


@dataclass(frozen=True, kw_only=True, eq=False)
class HistogramModel:
    """Pixel-specific histograms of a detector, and the contexts that refine them.

    Attributes
    ----------
    detector : tuple of int
        (det_y, det_x).
    level_scale : int
        A level L stands for a mean of ``L**2 * level_scale / 2**32`` counts.
    levels : int64[det_y * det_x]
        Level of every pixel; -1 where it is constant.
    constants : int64[det_y * det_x]
        Value of every constant pixel, 0 elsewhere.
    classes : tuple of PixelClass
        By increasing ``first_level``.
    neighbours : tuple of (int, int, int)
        Context: (reference, dy, dx) of every value that the rate is predicted from; reference 0 is the pattern itself,
        1 to 4 are its nearest scan neighbours already decoded (:attr:`GroupLayout.references`).
    frequencies : int32[n_tables, 256]
        Histograms of all classes in order.
    """

    detector: tuple[int, int]
    level_scale: int
    levels: Array
    constants: Array
    classes: tuple[PixelClass, ...]
    neighbours: tuple[tuple[int, int, int], ...]
    frequencies: Array

    @property
    def n_sets(self) -> int:
        """Weight sets that a frame chooses from."""
        return max((len(c.weights) for c in self.classes), default=0)

    def means(self) -> Array:
        """Mean count of every pixel in units of 2**-16: int64[n_pixels]; 0 for constant pixels."""
        levels = np.maximum(self.levels, 0)
        return (levels * levels * self.level_scale) >> (32 - MEAN_BITS)

    def class_of_pixels(self) -> Array:
        """Index into ``classes`` of every pixel: int64[n_pixels], -1 where it is constant."""
        first = np.array([c.first_level for c in self.classes], np.int64)
        by_level = np.searchsorted(first, np.arange(int(self.levels.max(initial=0)) + 1), side="right") - 1
        # Level -1 indexes the entry at the end: constant pixels get class -1 without a mask.
        return np.append(by_level, -1)[self.levels]

    def table_bits(self) -> Array:
        """Probability bits of every histogram: int64[n_tables]."""
        return np.repeat([c.bits for c in self.classes], [c.n_tables for c in self.classes]).astype(np.int64)

    def decode_starts(self) -> Array:
        """Where the decode table of every histogram begins, and the size of all: int64[n_tables + 1]."""
        return np.concatenate([[0], np.cumsum(1 << self.table_bits())]).astype(np.int64)

    def first_tables(self) -> Array:
        """Index of the first histogram of every class: int64[n_classes]."""
        sizes = [c.n_tables for c in self.classes]
        return np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64) if sizes else np.zeros(0, np.int64)

    def row_offsets(self, layout: GroupLayout, step: int) -> Array:
        """Offsets of the neighbours, in rows of 64 lanes, at a step of a chain: int64[n_neighbours].

        The first step has no scan neighbours; their weights are not used there, and any address serves. On a detector
        narrower than the context, a neighbour beyond the edge of its row could lie ahead of the pixel: it has no
        weight, but its address must stay inside the rows.
        """
        n, dx = layout.n_pixels, layout.detector[1]
        back = np.concatenate([[0], layout.references[step]])
        return np.array(
            [-1 if k and step == 0 else min(y * dx + x - back[k] * n, -1) for k, y, x in self.neighbours], np.int64
        )

    def margin(self) -> int:
        """Rows of zeros that must lie before the first group of a chain."""
        dx = self.detector[1]
        return max((-(y * dx + x) for _, y, x in self.neighbours), default=0) + 1

    def program(self) -> Program:
        """Unroll the model per pixel. Integer arithmetic only: the decoder repeats it."""
        of = self.class_of_pixels()
        n = len(self.classes)
        first = self.first_tables()

        def spread(values: list[int], elsewhere: int = 0) -> Array:
            # Constant pixels have class -1, which indexes the entry at the end.
            return np.array([*values, elsewhere], np.int64)[of]

        luts = np.zeros((max(n, 1), LUT_SIZE), np.int16)
        for i, c in enumerate(self.classes):
            if c.method == CONTEXT:
                # The boundaries as a table: one look-up a lane instead of a search.
                luts[i] = np.searchsorted(np.array(c.thresholds, np.int64), np.arange(LUT_SIZE), side="right")
        contexts = any(c.method == CONTEXT for c in self.classes)
        return Program(
            methods=spread([c.method for c in self.classes], CONSTANT),
            tables_of=spread(first.tolist()),
            decode_starts=spread(self.decode_starts()[first].tolist()),
            bits=spread([c.bits for c in self.classes]),
            bases=spread([c.base for c in self.classes]) + self.constants,
            shifts=spread([c.shift for c in self.classes]),
            # Constant pixels use no class; any index serves.
            classes=np.maximum(of, 0),
            index_bases=np.array([c.index_base for c in self.classes] or [0], np.int64),
            index_shifts=np.array([c.index_shift for c in self.classes] or [0], np.int64),
            centre_shifts=np.array([c.rate_bits if c.residual else ABSOLUTE for c in self.classes] or [0], np.int64),
            luts=luts,
            coefficients=self._coefficients(of) if contexts else np.zeros((0, 1, 2 + len(self.neighbours)), np.int32),
        )

    def _coefficients(self, of: Array) -> Array:
        """Factors of every pixel and weight set: int32[n_pixels, n_sets, 2 + n_neighbours]."""
        weights = np.zeros((len(self.classes), self.n_sets, 1 + len(self.neighbours)), np.int64)
        fractions = np.zeros(len(self.classes), np.int64)
        for i, c in enumerate(self.classes):
            if c.method == CONTEXT:
                weights[i] = c.weights
                fractions[i] = c.rate_bits
        offsets = np.array(self.neighbours, np.int64).reshape(-1, 3)
        out = np.empty((of.size, self.n_sets, 2 + len(self.neighbours)), np.int32)
        height, width = self.detector
        arguments = (
            self.means(), of, width, height, offsets[:, 1].copy(), offsets[:, 2].copy(), weights, fractions,
        )  # fmt: skip

        def unroll(part: int, parts: int) -> None:
            unroll_coefficients(*arguments, part * of.size // parts, (part + 1) * of.size // parts, out)

        if of.size < WORTH_THREADS:
            unroll(0, 1)
        else:
            in_parts(unroll)
        return out

    def check(self) -> None:
        """Refuse a model that the kernels could not run: they check nothing themselves.

        Raises
        ------
        CorruptChunkError
            If a table, index or range is impossible.
        """

        def require(condition: bool, what: str) -> None:
            if not condition:
                raise CorruptChunkError(f"impossible model: {what}")

        n = self.detector[0] * self.detector[1]
        require(0 < self.level_scale < 1 << 48, "level scale")
        require(self.levels.shape == (n,) and self.constants.shape == (n,), "size of the pixel maps")
        require(bool((self.levels >= -1).all() and (self.levels < 1 << 16).all()), "pixel levels")
        # So that a mean shifted by 20 bits, in unroll_coefficients, stays within 63.
        require(int(self.levels.max(initial=0)) ** 2 * self.level_scale < 1 << 51, "pixel levels")
        require(bool((self.constants >= 0).all() and (self.constants < 65536).all()), "constant values")
        # A pixel that is not constant must find a class, or the kernel would index by -1.
        require(bool((self.levels < 0).all()) or len(self.classes) > 0, "no pixel classes")
        require(len(self.neighbours) <= MAX_NEIGHBOURS, "number of neighbours")
        for k, y, x in self.neighbours:
            # What is decoded later must not be referred to.
            earlier = k > 0 or y < 0 or (y == 0 and x < 0)
            require(0 <= k <= MAX_REFERENCES and abs(y) <= 8 and abs(x) <= 8 and earlier, "neighbour offsets")
        last = -1
        for c in self.classes:
            require(c.first_level > last or last < 0, "order of the pixel classes")
            last = c.first_level
            require(10 <= c.bits <= 12, "probability bits")
            require(PACKED4 <= c.method <= CONTEXT, "coding method")
            require(0 <= c.shift <= 15 and -65536 <= c.base < 65536, "symbol range")
            require(c.shift == 0 or c.method >= STATIC, "symbol range")
            if c.method != CONTEXT:
                require(not c.thresholds, "thresholds")
                continue
            # Equal thresholds are allowed: a histogram between them is then never chosen.
            steps = np.diff(np.array([-1, *c.thresholds]))
            require(c.n_tables <= 256 and bool((steps >= 0).all()), "thresholds")
            require(
                0 <= c.index_base < 1 << 31 and 0 <= c.index_shift <= 31 and 0 <= c.rate_bits <= 27, "fixed-point range"
            )
            require(all(abs(w) <= MAX_WEIGHT for s in c.weights for w in s), "context weights")
            shape = {len(s) for s in c.weights}
            require(len(c.weights) == self.n_sets <= 2 and shape == {1 + len(self.neighbours)}, "context weights")
        require(not self.classes or self.classes[0].first_level == 0, "order of the pixel classes")
        tables = sum(c.n_tables for c in self.classes)
        require(tables <= MAX_TABLES, "number of histograms")
        f = self.frequencies
        require(f.shape == (tables, SYMBOLS), "number of histograms")
        require(bool((f >= 0).all() and (f.sum(axis=1, dtype=np.int64) == 1 << self.table_bits()).all()), "frequencies")
