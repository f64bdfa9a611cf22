"""The bytes of a histogram model: small adaptive-coded sections, each with its length in front."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int64

from stemcodecs.compiled import kernel
from stemcodecs.entropy.kernels.borrowed import borrowed
from stemcodecs.entropy.kernels.coding_tables import SYMBOLS
from stemcodecs.entropy.kernels.pixel_methods import CONTEXT
from stemcodecs.entropy.model.histogram_model import MAX_NEIGHBOURS, MAX_TABLES, HistogramModel, PixelClass
from stemcodecs.entropy.model.range_coder import (
    _decode_number,
    _encode_number,
    _finish_encode,
    _start_decode,
    _start_encode,
    decode_map,
    decode_numbers,
    encode_map,
    encode_numbers,
    new_contexts,
)
from stemcodecs.errors import CorruptChunkError

__all__ = ["Reader", "Writer", "read_histogram_model", "write_histogram_model"]

Array = np.ndarray[Any, Any]


class Writer:
    """Sections of bytes and numbers, one after the other."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def varint(self, value: int) -> None:
        """An unsigned integer, seven bits a byte, low ones first."""
        out = bytearray()
        while value > 127:
            out.append(128 | (value & 127))
            value >>= 7
        out.append(value)
        self._parts.append(bytes(out))

    def section(self, data: bytes) -> None:
        """Bytes, with their length in front."""
        self.varint(len(data))
        self._parts.append(data)

    def numbers(self, values: Any, which: Any = None) -> None:
        """Integers below 2**32 in magnitude, with their count in front."""
        values = np.asarray(values, np.int64).ravel()
        self.varint(values.size)
        if values.size:
            self.section(encode_numbers(values, which))

    def getvalue(self) -> bytes:
        """All sections."""
        return b"".join(self._parts)


class Reader:
    """Inverse of :class:`Writer`; never reads past its data."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        self._at = 0

    def varint(self) -> int:
        """Inverse of :meth:`Writer.varint`."""
        value = 0
        # Nine bytes: a tenth could overflow 63 bits, and no length is that long.
        for shift in range(0, 63, 7):
            if self._at >= len(self._data):
                break
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise CorruptChunkError("a length is cut off or too long")

    def section(self) -> memoryview:
        """Inverse of :meth:`Writer.section`."""
        n = self.varint()
        # Compared before the slice: a slice would be shorter without a word.
        if n > len(self._data) - self._at:
            raise CorruptChunkError("a section is cut off")
        self._at += n
        return self._data[self._at - n : self._at]

    def numbers(self, most: int, which: Any = None) -> Array:
        """Inverse of :meth:`Writer.numbers`, refusing more than ``most`` numbers."""
        n = self.varint()
        if n > most or (which is not None and n != len(which)):
            raise CorruptChunkError("more numbers than the shape allows")
        return decode_numbers(self.coded(n), n, which) if n else np.zeros(0, np.int64)

    def coded(self, n: int) -> memoryview:
        """A section of the adaptive coder, refused where it cannot hold ``n`` numbers: one takes 1/92 bit or more."""
        section = self.section()
        # Numbers are allocated before they are decoded: a byte must have earned them.
        if n > 1024 * (len(section) + 16):
            raise CorruptChunkError("more numbers than the section can hold")
        return section

    def end(self) -> None:
        """Refuse anything left over."""
        if self._at != len(self._data):
            raise CorruptChunkError("bytes left over")


@kernel
def _table_prediction(table, previous, chained, i):
    """Frequency to expect from the table before and the symbol before."""
    left = int64(table[i - 1]) if i > 0 else int64(0)
    if not chained:
        return left
    before = int64(previous[i])
    before_left = int64(previous[i - 1]) if i > 0 else int64(0)
    # Histograms of neighbouring rates have one shape: where the last symbol differed, this one does by about half.
    return max(int64(0), before + ((left - before_left) >> 1))


@kernel
def _table_context(prediction, chained):
    n = int64(0)
    while prediction >> n:
        n += 1
    return min(n, int64(12)) + (13 if chained else 0)


@kernel
def _encode_tables(frequencies, chained, bits, contexts, out):
    out, contexts = borrowed(out), borrowed(contexts)
    state = _start_encode()
    for k in range(frequencies.shape[0]):
        table = frequencies[k]
        previous = frequencies[max(k - 1, 0)]
        left = int64(1) << bits[k]
        for i in range(table.shape[0]):
            # All probability is given away: the other frequencies are 0, and not worth a bit.
            if left == 0:
                break
            prediction = _table_prediction(table, previous, chained[k], i)
            context = _table_context(prediction, chained[k])
            state = _encode_number(state, out, contexts, context, int64(table[i]) - prediction)
            left -= int64(table[i])
    return _finish_encode(state, out)


@kernel
def _decode_tables(data, chained, bits, contexts, frequencies):
    """Returns whether every frequency was possible."""
    data, contexts = borrowed(data), borrowed(contexts)
    state = _start_decode(data)
    for k in range(frequencies.shape[0]):
        table = frequencies[k]
        previous = frequencies[max(k - 1, 0)]
        left = int64(1) << bits[k]
        for i in range(table.shape[0]):
            if left == 0:
                break
            prediction = _table_prediction(table, previous, chained[k], i)
            state, value = _decode_number(state, data, contexts, _table_context(prediction, chained[k]))
            value += prediction
            # The sum is then right by construction, and no table can be written past its end.
            if value < 0 or value > left:
                return False
            table[i] = value
            left -= value
        if left != 0:
            return False
    return True


def _chained(classes: tuple[PixelClass, ...]) -> Array:
    """Whether each table resembles the one before it: the same class, or one with the same symbols."""
    out: list[int] = []
    before: PixelClass | None = None
    for c in classes:
        alike = before is not None and (c.method, c.shift, c.base) == (before.method, before.shift, before.base)
        # The last histogram of a context class is of its highest rate, the first of the next of its lowest: not alike.
        out.append(int(alike and c.method != CONTEXT))
        out += [1] * len(c.thresholds)
        before = c
    return np.array(out, np.int64)


_FIELDS = 10


def write_histogram_model(model: HistogramModel) -> bytes:
    """Serialise a model."""
    w = Writer()
    w.varint(model.level_scale)
    w.numbers(np.array(model.neighbours, np.int64).ravel(), np.tile([0, 1, 2], len(model.neighbours)))
    w.varint(model.n_sets)
    rows, thresholds, weights = [], [], []
    last_level = 0
    for c in model.classes:
        # Differences of the levels: classes of equal width repeat one number.
        rows.append(
            (c.first_level - last_level, c.method, c.bits, c.base, c.shift, len(c.thresholds), c.rate_bits,
             c.index_base,
             c.index_shift, int(c.residual))
        )  # fmt: skip
        last_level = c.first_level
        thresholds += list(np.diff([0, *c.thresholds]))
        weights += [v for s in c.weights for v in s]
    # A context for each field: most of them are the same in all classes, and then cost next to nothing.
    w.numbers(rows, np.tile(np.arange(_FIELDS), len(rows)))
    w.numbers(thresholds)
    w.numbers(weights)
    w.section(encode_map(model.levels.reshape(model.detector)))
    constant = model.levels < 0
    values = model.constants[constant]
    # Constant pixels are mostly zeros, or one mark: differences are zeros.
    w.numbers(np.diff(values, prepend=0))
    frequencies = np.ascontiguousarray(model.frequencies, np.int64)
    out = np.empty(frequencies.size * 4 + 64, np.uint8)
    n = _encode_tables(frequencies, _chained(model.classes), model.table_bits(), new_contexts(26), out)
    w.section(out[:n].tobytes())
    return w.getvalue()


def read_histogram_model(data: bytes | memoryview, detector: tuple[int, int]) -> HistogramModel:
    """Inverse of :func:`write_histogram_model`.

    Raises
    ------
    CorruptChunkError
        If the bytes are not a model of this detector that the kernels can run.
    """
    r = Reader(data)
    level_scale = r.varint()
    flat = _triples(r)
    neighbours = tuple((int(g), int(y), int(x)) for g, y, x in flat)
    n_sets = r.varint()
    n = r.varint()
    if n % _FIELDS or n > _FIELDS * MAX_TABLES or n_sets > 2:
        raise CorruptChunkError("impossible model: number of pixel classes")
    rows = (
        decode_numbers(r.coded(n), n, np.tile(np.arange(_FIELDS), n // _FIELDS)).reshape(-1, _FIELDS)
        if n
        else np.zeros((0, _FIELDS), np.int64)
    )
    if (rows[:, 5] < 0).any() or int(rows[:, 5].sum()) + len(rows) > MAX_TABLES:
        raise CorruptChunkError("impossible model: thresholds")
    thresholds = r.numbers(int(rows[:, 5].sum()))
    contexts = int((rows[:, 1] == CONTEXT).sum())
    per_class = n_sets * (1 + len(neighbours))
    weights = r.numbers(contexts * per_class)
    if thresholds.size != rows[:, 5].sum() or weights.size != contexts * per_class:
        raise CorruptChunkError("impossible model: context weights")
    classes = _classes(rows, thresholds, weights, n_sets, 1 + len(neighbours))
    levels = decode_map(r.coded(detector[0] * detector[1]), detector).ravel()
    constant = levels < 0
    values = r.numbers(int(constant.sum()))
    if values.size != constant.sum():
        raise CorruptChunkError("impossible model: constant pixels")
    constants = np.zeros(levels.size, np.int64)
    constants[constant] = np.cumsum(values)
    frequencies = np.zeros((sum(c.n_tables for c in classes), SYMBOLS), np.int64)
    tables = np.frombuffer(r.section(), np.uint8)
    # Before the tables: 1 << bits is what they are held against.
    if any(not 10 <= c.bits <= 12 for c in classes):
        raise CorruptChunkError("impossible model: probability bits")
    table_bits = np.repeat([c.bits for c in classes], [c.n_tables for c in classes]).astype(np.int64)
    if not _decode_tables(tables, _chained(classes), table_bits, new_contexts(26), frequencies):
        raise CorruptChunkError("impossible model: frequencies")
    r.end()
    model = HistogramModel(
        detector=detector, level_scale=level_scale, levels=levels, constants=constants,
        classes=classes, neighbours=neighbours, frequencies=frequencies.astype(np.int32),
    )  # fmt: skip
    # The kernels index by these numbers without looking.
    model.check()
    return model


def _triples(r: Reader) -> Array:
    n = r.varint()
    if n % 3 or n > 3 * MAX_NEIGHBOURS:
        raise CorruptChunkError("impossible model: neighbour offsets")
    if n == 0:
        return np.zeros((0, 3), np.int64)
    return decode_numbers(r.section(), n, np.tile([0, 1, 2], n // 3)).reshape(-1, 3)


def _classes(rows: Array, thresholds: Array, weights: Array, n_sets: int, width: int) -> tuple[PixelClass, ...]:
    classes = []
    level = t = w = 0
    for first, method, bits, base, shift, n, rate_bits, index_base, index_shift, residual in rows.tolist():
        level += first
        sets = n_sets if method == CONTEXT else 0
        classes.append(
            PixelClass(
                first_level=level, method=method, bits=bits, base=base, shift=shift,
                thresholds=tuple(int(v) for v in np.cumsum(thresholds[t : t + n])),
                rate_bits=rate_bits, index_base=index_base, index_shift=index_shift, residual=bool(residual),
                weights=tuple(
                    tuple(int(v) for v in weights[w + s * width : w + (s + 1) * width]) for s in range(sets)
                ),
            )
        )  # fmt: skip
        t += n
        w += sets * width
    return tuple(classes)
