"""Patterns to coefficients and, where it is asked for, a residual; and back."""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import Any

import numpy as np

from stemcodecs.counts.exact_values import ExactValues
from stemcodecs.errors import ConfigurationError, CorruptChunkError
from stemcodecs.lowrank.low_rank_model import TILE, LowRankModel
from stemcodecs.lowrank.marked import LARGEST_COUNT, marked
from stemcodecs.lowrank.pca_chunk import Head, join_coefficients, split_coefficients
from stemcodecs.lowrank.residual import GROUP_POSITIONS, LARGEST, LARGEST_BOUNDED, decode_residual, encode_residual
from stemcodecs.lowrank.residual_context import to_rates
from stemcodecs.lowrank.stabilize import FRACTION_BITS, fixed_inverse_table, inverse_anscombe

__all__ = [
    "MOST_SCATTERED",
    "decode_patterns",
    "encode_counts",
    "encode_prediction",
    "expected_by",
    "split_marked",
    "without_marks",
]

Array = np.ndarray[Any, Any]


class PredictedRates:
    """Predicted rates of a range of positions, in fixed point: the same for encoder and decoder."""

    def __init__(self, model: LowRankModel, coefficients: Array) -> None:
        self.model = model
        self.coefficients = coefficients

    def __call__(self, first: int, last: int) -> Array:
        """PredictedRates (pixels, positions) of the positions [first, last), int64."""
        rates = self.model.predict(self.coefficients[first:last])
        to_rates(rates, fixed_inverse_table(), self.model.stabilised)
        return rates


MOST_SCATTERED = 0.02
"""Share of values that may be kept exactly one by one; with more of them a chunk is no counts."""


def without_marks(flat: Array, model: LowRankModel, *, largest: int, whole: bool) -> tuple[Array, bytes] | None:
    """Values (positions, pixels) with what the model expects in place of marks, and the marks.

    None where all are counts, and where so few are that the chunk holds something else.
    """
    none = marked(flat, largest, whole=whole)
    if none is None:
        return None
    exact = ExactValues.of(flat, none)
    if whole and 2 * int(none.sum()) > flat.size:
        return None
    if exact.scattered > MOST_SCATTERED * flat.size + 8:
        return None
    filled = flat.copy()
    position, pixel = np.nonzero(none)
    filled[position, pixel] = np.minimum(expected_by(model), largest - 1)[pixel].astype(flat.dtype)
    return filled, exact.to_bytes()


def expected_by(model: LowRankModel) -> Array:
    """What a model expects in every pixel, as whole counts: float64[pixels]."""
    mean = np.ldexp(model.mean.astype(np.float64), -model.mean_bits)
    rates: Array = np.rint(inverse_anscombe(mean) if model.stabilised else np.maximum(mean, 0))
    return rates


def split_marked(content: memoryview, head: Head) -> tuple[ExactValues, memoryview]:
    """Marks of a chunk that has them, and the rest of its content.

    Raises
    ------
    CorruptChunkError
        If these are no marks of a chunk of this shape.
    """
    if len(content) < 8:
        raise CorruptChunkError("the chunk is truncated")
    (size,) = struct.unpack_from("<Q", content)
    if size > len(content) - 8:
        raise CorruptChunkError("the marks have the wrong size")
    marks = ExactValues.from_bytes(content[8 : 8 + size], (head.positions, head.pixels), head.dtype.itemsize)
    return marks, content[8 + size :]


def encode_prediction(flat: Array, model: LowRankModel) -> bytes:
    """Coefficients alone, of values (positions, pixels).

    Raises
    ------
    ConfigurationError
        If a low-rank model cannot represent the values.
    """
    if flat.dtype.kind in "if" and flat.size and flat.min() < 0:
        raise ConfigurationError(
            "stemcodecs.pca: the chunk holds many negative values, which are no counts; use residual='lossless'"
        )
    far = flat.dtype.kind != "b" and flat.size and flat.max().item() >= LARGEST_COUNT
    coefficients = model.coefficients(flat)
    if far or not model.in_range(coefficients):
        raise ConfigurationError(
            "stemcodecs.pca: the chunk holds counts far beyond the fitted scan; fit the basis again, "
            "or use residual='lossless'"
        )
    return join_coefficients(coefficients)


def encode_counts(flat: Array, model: LowRankModel, bound: Fraction | None) -> bytes | None:
    """Coefficients and residual of values (positions, pixels), exact or within ``bound``·√N; None where the chunk
    is to be stored whole.
    """
    counts = _as_counts(flat)
    if counts is None or (bound and counts.max(initial=0) > LARGEST_BOUNDED):
        return None
    coefficients = model.coefficients(counts)
    if not model.in_range(coefficients):
        return None
    rates_of = PredictedRates(model, coefficients)
    return join_coefficients(coefficients) + encode_residual(counts, rates_of, model.detector[1], bound)


def decode_patterns(
    head: Head,
    content: memoryview,
    model: LowRankModel,
    *,
    residual: bool,
    bound: Fraction | None,
    wanted: Array | None = None,
) -> Array:
    """Values of a low-rank chunk; of the groups that hold the positions ``wanted`` only, where they are given, and
    anything elsewhere.

    Raises
    ------
    CorruptChunkError
        If the content is not what the encoder writes.
    """
    if head.shape[-2:] != model.detector:
        raise CorruptChunkError(f"the chunk has shape {head.shape}, the model a detector of {model.detector}")
    coefficients, rest = split_coefficients(content, head.positions, model.rank)
    groups = (
        np.arange(-(-head.positions // GROUP_POSITIONS)) if wanted is None else np.unique(wanted // GROUP_POSITIONS)
    )
    if residual and len(rest) < 8 * -(-head.positions // GROUP_POSITIONS):
        # Of every group, the directory says eight bytes: before there is room for all their values.
        raise CorruptChunkError("the residual is truncated")
    out = np.empty((head.positions, head.pixels), head.dtype.newbyteorder("="))
    rates_of = PredictedRates(model, coefficients)
    if residual:
        decode_residual(rest, (head.positions, head.pixels), rates_of, model.detector[1], bound, out, groups)
    elif len(rest):
        raise CorruptChunkError("the chunk holds a residual, the codec expects none")
    else:
        _write_prediction(rates_of, out, groups)
    return out.reshape(head.shape)


def _as_counts(flat: Array) -> Array | None:
    """Whole numbers between 0 and 2³¹ as an integer array, or None if the chunk holds anything
    else.
    """
    if flat.dtype.kind == "b":
        return flat.view(np.uint8)
    if flat.size and not (flat.min().item() >= 0 and flat.max().item() < LARGEST):  # False for NaN
        return None
    if flat.dtype.kind in "ui":
        return flat
    counts = flat.astype(np.int64)
    # −0.0 equals 0 but has other bits.
    return counts if (counts == flat).all() and not np.signbit(flat).any() else None


def _write_prediction(rates_of: PredictedRates, out: Array, groups: Array) -> None:
    """PredictedRates into the array's dtype: floats as they are, integers rounded and clipped to the
    dtype.
    """
    for group in groups:
        first, last = group * GROUP_POSITIONS, min((group + 1) * GROUP_POSITIONS, len(out))
        rates = rates_of(first, last)
        if out.dtype.kind == "f":
            # Some pixels at once, in float64: half floats would not hold the numerator.
            for pixel in range(0, len(rates), TILE):
                out[first:last, pixel : pixel + TILE] = rates[pixel : pixel + TILE].T / float(1 << FRACTION_BITS)
        else:
            largest = 1 if out.dtype.kind == "b" else min(int(np.iinfo(out.dtype).max), 2**62)
            rates += 1 << (FRACTION_BITS - 1)
            rates >>= FRACTION_BITS
            out[first:last] = np.minimum(rates, largest, out=rates).T
