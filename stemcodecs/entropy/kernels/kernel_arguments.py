"""What the kernels of a group take, in named tuples: Numba unpacks them as cheaply as it takes bare arrays.

Kernels check nothing; whoever fills these tuples guarantees the shapes, types and ranges that are written here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

__all__ = ["EncodeTables", "GroupRows", "Patches", "PixelSymbols", "Program", "Stream", "mixture_of"]

Array = np.ndarray[Any, Any]


class Program(NamedTuple):
    """A model unrolled to one entry per pixel: how each is coded, see :mod:`stemcodecs.entropy.kernels.pixel_methods`.

    Attributes
    ----------
    methods : int64[n_pixels]
        ``CONSTANT``, ``PACKED4``, ``PACKED2``, ``STATIC`` or ``CONTEXT``.
    tables_of, decode_starts : int64[n_pixels]
        First histogram of the pixel's class, by index and as the offset of its decode table.
    bits : int64[n_pixels]
        Probability bits, 10 to 12.
    bases, shifts : int64[n_pixels]
        A symbol is ``(value - base) >> shift``; the base of a constant pixel is its value.
    classes : int64[n_pixels]
        Index into the arrays by class.
    index_bases, index_shifts : int64[n_classes]
        The rate index is ``(rate - index_base) >> index_shift``.
    centre_shifts : int64[n_classes]
        Fraction bits of a rate that is the zero of residuals, or ``ABSOLUTE``.
    luts : int16[n_classes, 128]
        Histogram of every rate index, counted from the first of the class.
    coefficients : int32[n_pixels, n_sets, 2 + n_neighbours]
        How the rate is predicted: constant, factor of the dose, factors of the neighbours; no pixels without contexts.
    """

    methods: Array
    tables_of: Array
    decode_starts: Array
    bits: Array
    bases: Array
    shifts: Array
    classes: Array
    index_bases: Array
    index_shifts: Array
    centre_shifts: Array
    luts: Array
    coefficients: Array


class GroupRows(NamedTuple):
    """The counts of a group, one pixel a row, and what is known of its 64 lanes.

    Attributes
    ----------
    rows : uint16[n, 64]
        Rows of the group's chain; a lane is a scan position.
    origin : int
        Row of the group's first pixel; contexts reach back from there.
    active : uint64
        Bit mask of the lanes that hold a position.
    step_masks : int64[5, 4]
        Lanes that take part in each step of a pixel, see
        :func:`stemcodecs.entropy.kernels.pixel_methods.step_masks`.
    neighbours : int64[n_neighbours]
        Offsets of the context in rows, all negative.
    dose : int32[64]
        Dose of every lane, 4096 for the mean frame.
    selection : bool[64]
        Lanes that use the second weight set, where ``mixture`` is 2.
    mixture : int
        Which weight set predicts the rates, see :func:`mixture_of`.
    """

    rows: Array
    origin: int
    active: np.uint64
    step_masks: Array
    neighbours: Array
    dose: Array
    selection: Array
    mixture: int


class EncodeTables(NamedTuple):
    """Histograms as an encoder looks them up.

    Attributes
    ----------
    entries : uint32[n_tables * STRIDE]
        ``frequency << 16 | start`` of every symbol.
    likeliest : int64[n_tables]
        Symbol that stands for what a histogram does not hold.
    """

    entries: Array
    likeliest: Array


class Stream(NamedTuple):
    """The words of a group.

    Attributes
    ----------
    words : uint16[n]
        With :data:`stemcodecs.entropy.kernels.scratch.SLACK` words before ``start`` and behind ``end``.
    start, end : int
        A decoder reads from ``start`` to ``end``. An encoder writes backwards from ``end``, never below ``start``.
    blocks : int
        1, 2 or 4 blocks of sixteen states, which the steps take in turn.
    """

    words: Array
    start: int
    end: int
    blocks: int


class Patches(NamedTuple):
    """Values that their histograms do not hold: ``at`` (int64) is pixel * 64 + lane, ``values`` are uint16."""

    at: Array
    values: Array


class PixelSymbols(NamedTuple):
    """What an encoder codes at up to n pixels, and two rows to work in.

    Attributes
    ----------
    symbols, low : uint16[n * 64]
        Symbols, and the bits below them. A packed pixel has symbols in its first 16 or 32 lanes only.
    offsets : int32[n * 64]
        Where each lane's encode table begins.
    outside : uint64[n]
        Bit mask of the lanes that do not fit.
    rate, centre : int32[64]
        Work rows.
    """

    symbols: Array
    low: Array
    offsets: Array
    outside: Array
    rate: Array
    centre: Array


def mixture_of(selection: Array) -> int:
    """How a group mixes its weight sets: 0 all the first, 1 all the second, 2 lane by lane."""
    return 1 if selection.all() else 2 if selection.any() else 0
