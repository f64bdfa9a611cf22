"""Entropy coding of counts whose rate is predicted: exact, or within r·√N.

Every count is coded with the histogram of its predicted rate: a bank of integer tables, 16 rate
classes an octave, neighbouring classes merged where one table is cheaper than two. The prediction
of the low-rank model is first corrected by what the four neighbours W, N, NW, NE (already decoded)
deviated from theirs, which catches charge sharing and structure beyond the rank. 64 scan positions
form one independent stream.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from stemcodecs.errors import CorruptChunkError
from stemcodecs.lowrank import residual_kernels as kernels
from stemcodecs.lowrank.residual_context import (
    CONTEXTS,
    DIRECT,
    LARGEST,
    WEIGHT_CLASSES,
    Expectation,
    accumulate_neighbours,
    model_residual_group,
    weights_by_edge,
)
from stemcodecs.quantize.levels import optimal_levels

__all__ = ["GROUP_POSITIONS", "LARGEST", "LARGEST_BOUNDED", "decode_residual", "encode_residual"]

Array = np.ndarray[Any, Any]

GROUP_POSITIONS = 64
KEPT_BYTES = 64 << 20
"""Of contexts and differences between the passes of the encoder; what does not fit is computed again."""
LARGEST_BOUNDED = 1 << 20
"""Counts above this are kept exactly: their tables would outgrow the processor's cache."""
TABLE_BITS = 9.0
"""Estimated cost of one non-zero table entry after zlib, for merging."""
WEIGHT_LIMIT = 1 << 14
_EMPTY = np.zeros(0, np.int32)
_HEAD = struct.Struct("<IIII")

RatesOf = Callable[[int, int], Array]
"""Fixed-point rates (pixels, lanes), int64, of the positions [first, last): a fresh array, which is overwritten."""


def encode_residual(counts: Array, rates_of: RatesOf, width: int, bound: Fraction | None = None) -> bytes:
    """Code counts (positions, pixels) given their predicted rates.

    Parameters
    ----------
    counts : ndarray of integers, (positions, pixels)
        Between 0 and 2³¹.
    rates_of : callable
        Predicted rates; the decoder must be given the same.
    width : int
        Detector columns, to find a pixel's neighbours.
    bound : Fraction, optional
        r: every decoded value is within r·√N of N. Default: code exactly.
    """
    largest = int(counts.max(initial=0))
    level_of, value_of = _levels_within(largest, bound) if bound else (_EMPTY, _EMPTY)
    groups = [(first, min(first + GROUP_POSITIONS, len(counts))) for first in range(0, len(counts), GROUP_POSITIONS)]

    def prepare(first: int, last: int) -> tuple[Array, Array, Array]:
        raw = counts[first:last].T.astype(np.int32, order="C")
        coded = level_of[raw] if bound else raw
        return (value_of[coded] if bound else raw), coded, rates_of(first, last)

    weights = _fit_weights(groups, prepare, width)
    expectation = Expectation(width=width, weights=weights_by_edge(weights), level_of=level_of, value_of=value_of)
    kept: dict[int, tuple[Array, Array]] = {}
    kept_bytes = 0

    def model(first: int, last: int) -> tuple[Array, Array]:
        """Context and difference of every value of a group: kept where there is room, else computed again."""
        nonlocal kept_bytes
        if first in kept:
            return kept[first]
        values, coded, rates = prepare(first, last)
        context, offset = np.empty(values.shape, np.uint16), np.empty(values.shape, np.int32)
        model_residual_group(values, coded, rates, expectation, context, offset)
        if kept_bytes + context.nbytes + offset.nbytes <= KEPT_BYTES:
            kept[first] = context, offset
            kept_bytes += context.nbytes + offset.nbytes
        return context, offset

    shift = _shifts([model(*group) for group in _some_groups(groups)])
    histogram = np.zeros((CONTEXTS, 256), np.int64)
    for group in groups:
        kernels.count_residual_symbols(*model(*group), shift, histogram)
    table_of, merged = _merge(histogram, shift)
    frequency = _quantised(merged)
    encode_tables = kernels.ResidualEncodeTables(
        shift=shift, table_of=table_of, frequency=frequency, start=_starts(frequency)
    )

    streams, escaped, sizes = [], [], []
    for first, last in groups:
        size = (last - first) * counts.shape[1]
        words = np.empty(3 * size + 2 * kernels.STREAMS, np.uint16)
        escapes = np.empty(size, np.int32)
        at, used = kernels.encode_residual_group(*model(first, last), encode_tables, words, escapes)
        kept.pop(first, None)
        streams.append(words[at:].astype("<u2").tobytes())
        escaped.append(escapes[size - used :].copy())
        sizes.append((len(streams[-1]) // 2, used))
    tables = b"".join(
        [
            weights.astype("<i2").tobytes(),
            shift.astype(np.uint8).tobytes(),
            table_of.astype("<u2").tobytes(),
            _byte_planes(frequency.astype("<u2")),
        ]
    )
    packed = zlib.compress(tables, 9)
    escape_bytes = zlib.compress(_byte_planes(np.concatenate([_EMPTY, *escaped]).astype("<i8")), 9)
    directory = np.array(sizes, "<u4").reshape(-1, 2).tobytes()
    head = _HEAD.pack(largest if bound else 0, len(frequency), len(packed), len(escape_bytes))
    return b"".join([head, packed, escape_bytes, directory, *streams])


def decode_residual(
    data: memoryview,
    shape: tuple[int, int],
    rates_of: RatesOf,
    width: int,
    bound: Fraction | None,
    out: Array,
    wanted: Array | None = None,
) -> None:
    """Inverse of :func:`encode_residual` into ``out`` (positions, pixels), all of it or only the groups ``wanted``.

    Raises
    ------
    CorruptChunkError
        If the bytes are not what the encoder writes.
    """
    positions, pixels = shape
    if len(data) < _HEAD.size:
        raise CorruptChunkError("the residual is truncated")
    largest, tables, packed, escape_size = _HEAD.unpack_from(data)
    at = _HEAD.size
    fixed = WEIGHT_CLASSES * 8 + CONTEXTS * 3
    groups = [(first, min(first + GROUP_POSITIONS, positions)) for first in range(0, positions, GROUP_POSITIONS)]
    if not 1 <= tables <= CONTEXTS or (bound and largest > LARGEST_BOUNDED):
        raise CorruptChunkError("the residual's header is out of range")
    raw = _inflate(data[at : at + packed], fixed + tables * 512)
    at += packed
    weights = np.frombuffer(raw, "<i2", WEIGHT_CLASSES * 4).reshape(-1, 4).astype(np.int64)
    shift = np.frombuffer(raw, np.uint8, CONTEXTS, WEIGHT_CLASSES * 8).astype(np.int64)
    table_of = np.frombuffer(raw, "<u2", CONTEXTS, WEIGHT_CLASSES * 8 + CONTEXTS).astype(np.int64)
    frequency = _from_planes(raw[fixed:], "<u2").reshape(tables, 256).astype(np.int64)
    if shift.max() > 16 or table_of.max() >= tables or (frequency.sum(1) != kernels.TOTAL).any():
        raise CorruptChunkError("the residual's tables are inconsistent")
    # No group can escape more values than it has.
    escapes = _from_planes(_inflate(data[at : at + escape_size], None, positions * pixels * 8), "<i8").astype(np.int64)
    at += escape_size
    if len(data) < at + 8 * len(groups):
        raise CorruptChunkError("the residual is truncated")
    directory = np.frombuffer(data, "<u4", 2 * len(groups), at).reshape(-1, 2).astype(np.int64)
    at += 8 * len(groups)
    if len(data) != at + 2 * int(directory[:, 0].sum()) or len(escapes) != int(directory[:, 1].sum()):
        raise CorruptChunkError("the residual's directory does not match its size")
    if np.abs(escapes).max(initial=0) > LARGEST:
        raise CorruptChunkError("the residual holds values out of range")
    decode_tables = kernels.ResidualDecodeTables(shift=shift, table_of=table_of, slots=_slots(frequency))
    level_of, value_of = _levels_within(largest, bound) if bound else (_EMPTY, _EMPTY)
    expectation = Expectation(width=width, weights=weights_by_edge(weights), level_of=level_of, value_of=value_of)
    limit = np.iinfo(out.dtype).max if out.dtype.kind in "ui" else LARGEST
    starts = np.cumsum(directory, 0) - directory
    for group in range(len(groups)) if wanted is None else wanted:
        first, last = groups[group]
        size, escaped = directory[group]
        word_at, escape_at = starts[group]
        values = np.empty((pixels, last - first), np.int32)
        coded = np.frombuffer(data, "<u2", size, at + 2 * int(word_at))
        mine = escapes[escape_at : escape_at + escaped]
        wrong = kernels.decode_residual_group(coded, mine, rates_of(first, last), expectation, decode_tables, values)
        if wrong or values.max(initial=0) > limit:
            raise CorruptChunkError("the residual does not decode to counts of this dtype")
        out[first:last] = values.T


@lru_cache(maxsize=8)
def _levels_within(largest: int, bound: Fraction) -> tuple[Array, Array]:
    """Level of each count 0 … largest, and the count that each level decodes to; both int32."""
    chosen = optimal_levels(bound * bound, largest)
    return chosen.level_of(np.arange(largest + 1)).astype(np.int32), chosen.midpoints.astype(np.int32)


def _some_groups(groups: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Up to four groups, spread over the chunk."""
    return groups[:: max(1, len(groups) // 4)][:4]


def _fit_weights(groups: list[tuple[int, int]], prepare: Callable[[int, int], Any], width: int) -> Array:
    """Least squares over a sample of the groups; the weights are integers in units of 1/4096."""
    gram = np.zeros((WEIGHT_CLASSES, 4, 4))
    moment = np.zeros((WEIGHT_CLASSES, 4))
    for first, last in _some_groups(groups):
        values, _, rates = prepare(first, last)
        accumulate_neighbours(values, rates, width, gram, moment)
    ridge = 1e-3 * np.trace(gram, axis1=1, axis2=2)[:, None, None] * np.eye(4) / 4 + 1e-9 * np.eye(4)
    weights = np.linalg.solve(gram + ridge, moment[:, :, None])[:, :, 0]
    result: Array = np.clip(np.rint(weights * 4096), -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int64)
    return result


def _shifts(sample: list[tuple[Array, Array]]) -> Array:
    """Low digits of each context that are sent raw, so that all but 1/1000 of the rest fits the
    alphabet.
    """
    sizes = np.zeros((CONTEXTS, 48), np.int64)
    for context, offset in sample:
        kernels.count_residual_sizes(context, offset, sizes)
    total = sizes.sum(1)
    inside = np.cumsum(sizes, 1) >= (total - total // 1000)[:, None]
    digits = inside.argmax(1)
    room = np.where(np.arange(CONTEXTS) >= DIRECT, 6, 7)
    shift = np.clip(digits - room, 0, 16)
    # A context that the sample lacks is like the ones below it.
    seen = np.maximum.accumulate(np.where(total > 0, np.arange(CONTEXTS), 0))
    result: Array = shift[seen].astype(np.int64)
    return result


def _merge(histogram: Array, shift: Array) -> tuple[Array, Array]:
    """Give neighbouring contexts one table wherever that costs fewer bits than two."""
    table_of = np.zeros(CONTEXTS, np.int64)
    tables: list[Array] = []
    costs: list[float] = []
    kinds: list[tuple[bool, int]] = []
    first_of: list[list[int]] = []
    for k in np.flatnonzero(histogram.sum(1)):
        tables.append(histogram[k])
        costs.append(_cost(histogram[k]))
        kinds.append((bool(k >= DIRECT), int(shift[k])))
        first_of.append([int(k)])
    while len(tables) > 1:
        gains = [
            costs[i] + costs[i + 1] - _cost(tables[i] + tables[i + 1]) if kinds[i] == kinds[i + 1] else -1.0
            for i in range(len(tables) - 1)
        ]
        order = np.argsort(gains)[::-1]
        if gains[order[0]] <= 0:
            break
        # Merge every profitable pair that does not touch another one merged in this round.
        taken: set[int] = set()
        for i in order:
            if gains[i] > 0 and i not in taken and i + 1 not in taken and i - 1 not in taken:
                taken.add(int(i))
        for i in sorted(taken, reverse=True):
            tables[i] = tables[i] + tables.pop(i + 1)
            costs.pop(i + 1)
            costs[i] = _cost(tables[i])
            kinds.pop(i + 1)
            first_of[i] += first_of.pop(i + 1)
    for index, members in enumerate(first_of):
        table_of[members] = index
    return table_of, np.array(tables) if tables else np.ones((1, 256), np.int64)


def _cost(counts: Array) -> float:
    """Bits for the symbols of a table and for the table itself."""
    present = counts[counts > 0].astype(np.float64)
    total = present.sum()
    return float(total * np.log2(total) - (present * np.log2(present)).sum() + TABLE_BITS * len(present))


def _quantised(histogram: Array) -> Array:
    """Frequencies that sum to 4096, at least 1 where a symbol occurs."""
    scaled = histogram * (kernels.TOTAL / histogram.sum(1, keepdims=True))
    frequency = np.maximum(np.rint(scaled).astype(np.int64), histogram > 0)
    for row in frequency:
        while (surplus := int(row.sum()) - kernels.TOTAL) != 0:
            # Take from, or give to, the largest: it feels it least.
            top = int(row.argmax())
            row[top] -= min(surplus, int(row[top]) // 2) if surplus > 0 else surplus
    result: Array = frequency
    return result


def _starts(frequency: Array) -> Array:
    return np.cumsum(frequency, 1) - frequency


def _slots(frequency: Array) -> Array:
    """Decoding entries: frequency − 1, slot − start, symbol, packed into 12, 12 and 8 bits."""
    slots = np.empty((len(frequency), kernels.TOTAL), np.uint32)
    symbols = np.arange(256, dtype=np.int64)
    starts = _starts(frequency)
    for row, frequencies, start in zip(slots, frequency, starts, strict=True):
        symbol = np.repeat(symbols, frequencies)
        within = np.arange(kernels.TOTAL) - start[symbol]
        row[:] = ((frequencies[symbol] - 1) << 20) | (within << 8) | symbol
    return slots


def _byte_planes(values: Array) -> bytes:
    """Bytes of equal significance together: the high ones are zeros."""
    return values.reshape(-1, 1).view(np.uint8).T.tobytes()


def _from_planes(data: bytes, dtype: str) -> Array:
    width = np.dtype(dtype).itemsize
    if len(data) % width:
        raise CorruptChunkError("a table of the residual has a broken size")
    return np.ascontiguousarray(np.frombuffer(data, np.uint8).reshape(width, -1).T).view(dtype).ravel()


def _inflate(data: memoryview, size: int | None, largest: int | None = None) -> bytes:
    """Decompress to a known size, or at most ``largest``."""
    engine = zlib.decompressobj()
    limit = size if size is not None else largest
    assert limit is not None
    try:
        raw = engine.decompress(data, limit + 1)
    except zlib.error as error:
        raise CorruptChunkError("a part of the residual does not decompress") from error
    if not engine.eof or len(raw) > limit or (size is not None and len(raw) != size):
        raise CorruptChunkError("a part of the residual has the wrong size")
    return raw
