"""Low-rank chunks of the counts behind values: a gain of each pixel, an offset, a dose of each pattern.

What the map of the scan does not give, marks, and what is no count are kept beside the coefficients bit by bit.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from stemcodecs.counts.beside_counts import BesideCounts
from stemcodecs.counts.counts_map import CountsMap
from stemcodecs.counts.exact_values import ExactValues
from stemcodecs.errors import ConfigurationError, CorruptChunkError
from stemcodecs.lowrank.coding import MOST_SCATTERED, decode_patterns, encode_counts, encode_prediction, expected_by
from stemcodecs.lowrank.low_rank_model import LowRankModel
from stemcodecs.lowrank.pca_chunk import Head
from stemcodecs.lowrank.residual import LARGEST_BOUNDED
from stemcodecs.marks import find_marks

__all__ = ["counts_behind", "decode_mapped", "encode_mapped", "rates_mapped"]

Array = np.ndarray[Any, Any]

_PREFIX = struct.Struct("<IQ")
"""Checksum of the map, and how many bytes are kept beside the counts."""
_COUNTS = np.dtype(np.int32)


def counts_behind(patterns: Array, behind: CountsMap, largest: int | None = None) -> tuple[Array, Array, Array | None]:
    """Counts int32[k, pixels] of native patterns[k, pixels], where there are none, and the scales of patterns.

    None are marks of gaps and dead pixels, what the map does not give, what lies below zero counts, and from
    ``largest`` on.
    """
    scales = behind.scales(patterns)
    counts, none = behind.counts(patterns, scales)
    # Where values fall as counts rise, the largest is no mark but no count.
    marks = None if behind.reversed else find_marks(patterns)
    if marks is not None:
        none |= marks
    none |= counts < 0
    # Zeros that fill a chunk up are no pattern, and would be far from the model where these are no zero counts.
    none |= (patterns == 0).all(axis=1)[:, None] & (counts != 0)
    # More than the dtype holds in some pixel has no value there.
    top = behind.largest(patterns.dtype)
    none |= counts > (top if largest is None else min(top, largest - 1))
    return counts, none, scales


def encode_mapped(
    patterns: Array, behind: CountsMap, model: LowRankModel, *, residual: bool, bound: Fraction | None
) -> bytes | None:
    """Content of a chunk of native patterns[k, pixels]; None where it is to be stored whole.

    Raises
    ------
    ConfigurationError
        If there is no residual, and the counts are beyond what the model can represent.
    """
    counts, none, scales = counts_behind(patterns, behind, LARGEST_BOUNDED + 1 if bound else None)
    exact = ExactValues.of(patterns, none)
    if residual and exact.scattered > MOST_SCATTERED * none.size + 8:
        return None
    position, pixel = np.nonzero(none)
    expected = np.minimum(expected_by(model), behind.largest(patterns.dtype))
    counts[position, pixel] = expected[pixel].astype(_COUNTS)
    content = encode_counts(counts, model, bound) if residual else encode_prediction(counts, model)
    if content is None:
        return None
    beside = BesideCounts(map=behind, scales=scales, exact=exact).to_bytes()
    return _PREFIX.pack(behind.checksum, len(beside)) + beside + content


def decode_mapped(
    head: Head,
    content: memoryview,
    behind: CountsMap,
    model: LowRankModel,
    *,
    residual: bool,
    bound: Fraction | None,
    wanted: Array | None = None,
) -> Array:
    """Values of a chunk, of the dtype of ``head``; of the positions ``wanted``, where they are given, and anything
    elsewhere. Without a residual floats are those of rates, and integers those of whole counts.

    Raises
    ------
    CorruptChunkError
        If the content is not what the encoder writes.
    """
    split = _Split.of(head, content, behind)
    floats = head.dtype.kind == "f" and not residual
    inner = replace(head, dtype=np.dtype("<f8") if floats else _COUNTS.newbyteorder("<"))
    counts = decode_patterns(inner, split.content, model, residual=residual, bound=bound, wanted=wanted)
    rows = counts.reshape(head.positions, head.pixels)
    positions = np.arange(head.positions) if wanted is None else np.unique(wanted)
    native = head.dtype.newbyteorder("=")
    scales = split.beside.scales_at(positions)
    if floats:
        values = behind.values_of_rates(rows[positions], native, scales)
    else:
        # A prediction may lie beyond what the dtype holds, a count that was stored does not.
        some = rows[positions] if residual else np.minimum(rows[positions], behind.largest(native))
        values = behind.values(some, native, scales)
    split.beside.exact.insert(values, positions)
    if wanted is None:
        return values.reshape(head.shape)
    out = np.empty((head.positions, head.pixels), native)
    out[positions] = values
    return out.reshape(head.shape)


def rates_mapped(
    head: Head, content: memoryview, behind: CountsMap, model: LowRankModel, dtype: np.dtype[Any], wanted: Array | None
) -> Array:
    """Rates of a chunk of integers without a residual, in the units of its values, of a float dtype."""
    split = _Split.of(head, content, behind)
    inner = replace(head, dtype=np.dtype("<f8"))
    rates = decode_patterns(inner, split.content, model, residual=False, bound=None, wanted=wanted)
    values = behind.values_of_rates(rates.reshape(head.positions, head.pixels), dtype, split.beside.scales)
    split.beside.exact.astype(head.dtype.newbyteorder("="), dtype).insert(values)
    return values.reshape(head.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Split:
    """What is kept beside the counts of a chunk, and the rest of its content."""

    beside: BesideCounts
    content: memoryview

    @classmethod
    def of(cls, head: Head, content: memoryview, behind: CountsMap) -> _Split:
        if len(content) < _PREFIX.size:
            raise CorruptChunkError("the chunk is truncated")
        checksum, size = _PREFIX.unpack_from(content)
        if checksum != behind.checksum:
            raise CorruptChunkError("the chunk was coded with another map of counts than its array's metadata state")
        if size > len(content) - _PREFIX.size:
            raise CorruptChunkError("what is kept beside the counts has the wrong size")
        try:
            behind.check(head.dtype, head.shape)
        except ConfigurationError as error:
            raise CorruptChunkError(f"the chunk states what its array cannot have ({error})") from error
        end = _PREFIX.size + size
        shape = (head.positions, head.pixels)
        beside = BesideCounts.from_bytes(content[_PREFIX.size : end], behind, shape, head.dtype.itemsize)
        return cls(beside=beside, content=content[end:])
