"""The bytes of a calibration, in a header of format version 2 or 4. ``FORMAT.md`` has them bit by bit."""

from __future__ import annotations

import math
from typing import Any

import numcodecs
import numpy as np

from stemcodecs.entropy.chunk.zstd_frame import decompress
from stemcodecs.entropy.model.group_layout import GroupLayout
from stemcodecs.entropy.model.model_bytes import Reader, Writer
from stemcodecs.entropy.model.range_coder import decode_map, encode_map, encode_numbers
from stemcodecs.entropy.values.calibration import (
    MAX_CORRECTIONS,
    MAX_FRACTION,
    Calibration,
    Corrections,
    FloatCalibration,
    IntegerCalibration,
    ValueTable,
)
from stemcodecs.entropy.values.number_map import PLANE_TOP
from stemcodecs.errors import CorruptChunkError

__all__ = [
    "MAX_SHARED_CORRECTIONS",
    "needs_extension",
    "read_calibration",
    "read_floats",
    "read_map",
    "write_calibration",
    "write_floats",
]

Array = np.ndarray[Any, Any]

TABLE, INTEGERS, FLOATS, LIST = 0, 1, 2, 3
GAIN, OFFSET, POSITIONS = 1, 2, 4
REVERSED, PLANAR, WHOLE, BASE = 8, 16, 32, 64
GAIN_DIVIDES, SCALE_DIVIDES, SCALE_FIRST, DOUBLE, SIGNED_ZEROS, CORRECTED = 8, 16, 32, 64, 128, 256
SINGLE_BITS, DOUBLE_BITS = 0, 1
_LIMIT = 1 << 31
MAX_SHARED_CORRECTIONS = 4096
"""Corrections for each pixel of a map that a whole scan has: bounds what a hostile one makes room for."""
_SUMS = 0.8
"""Share of the pixels of which rows and columns must explain the offset."""


def needs_extension(calibration: Calibration, layout: GroupLayout) -> bool:
    """Whether format version 2 cannot hold a calibration, or version 4 holds it in clearly fewer bytes."""
    if isinstance(calibration, FloatCalibration):
        return calibration.signed_zeros or calibration.corrections is not None
    if isinstance(calibration, ValueTable):
        return False
    planar, whole = _forms_of_offsets(calibration, layout)
    return calibration.reversed or planar or whole or calibration.base != 0


def write_calibration(calibration: Calibration, layout: GroupLayout, *, extended: bool = False) -> bytes:
    """Serialise a calibration; maps are coded like the level map of a model.

    extended : bool
        Whether it is for format version 4.
    """
    w = Writer()
    positions = (1, layout.n_positions)
    if isinstance(calibration, ValueTable) and calibration.width:
        w.varint(LIST)
        w.varint(calibration.values.size)
        bits = calibration.values.astype(f"<i{calibration.width}").view(np.uint8)
        w.section(bytes(numcodecs.Zstd(5).encode(bits)))
    elif isinstance(calibration, ValueTable):
        w.varint(TABLE)
        _write_table(w, calibration.values)
    elif isinstance(calibration, IntegerCalibration):
        w.varint(INTEGERS)
        w.varint(calibration.fraction)
        maps = ((GAIN, calibration.gain), (OFFSET, calibration.offset), (POSITIONS, calibration.shift))
        flags = sum(flag for flag, values in maps if values is not None)
        planar, whole = _forms_of_offsets(calibration, layout) if extended else (False, False)
        flags |= REVERSED * calibration.reversed | PLANAR * planar | WHOLE * whole
        w.varint(flags | BASE * (calibration.base != 0))
        if calibration.base:
            w.section(calibration.base.to_bytes(8, "little", signed=True))
        for flag, values in maps:
            if values is None:
                continue
            if flag == OFFSET and whole:
                values = values >> calibration.fraction
            if flag == OFFSET and planar:
                w.numbers(_bent(values.reshape(layout.detector)).ravel())
            else:
                w.section(encode_map(values.reshape(positions if flag == POSITIONS else layout.detector)))
    else:
        w.varint(FLOATS)
        c = calibration
        floats = ((OFFSET, c.dark), (GAIN, c.gain), (POSITIONS, c.scale))
        flags = sum(flag for flag, values in floats if values is not None)
        flags |= GAIN_DIVIDES * c.gain_divides | SCALE_DIVIDES * c.scale_divides
        flags |= SCALE_FIRST * c.scale_first | DOUBLE * (not c.single) | SIGNED_ZEROS * c.signed_zeros
        w.varint(flags | CORRECTED * (c.corrections is not None))
        for flag, values in floats:
            if values is not None:
                write_floats(w, values, positions if flag == POSITIONS else layout.detector)
        if c.corrections is not None:
            w.section(encode_map(c.corrections.first.reshape(layout.detector)))
            w.section(encode_map(c.corrections.lengths.reshape(layout.detector)))
            w.numbers(c.corrections.steps)
    return w.getvalue()


def _forms_of_offsets(calibration: IntegerCalibration, layout: GroupLayout) -> tuple[bool, bool]:
    """Whether offsets are sums of rows and columns, whose map is short, and whether they are whole numbers."""
    offset, fraction = calibration.offset, calibration.fraction
    if offset is None or (offset == offset[0]).all():
        return False, False
    whole = bool(fraction and (offset & ((1 << fraction) - 1) == (1 << fraction) >> 1).all())
    image = (offset >> fraction if whole else offset).reshape(layout.detector)
    # Dead pixels stand out of the sums four times, but nothing else does.
    bent = _bent(image)
    planar = np.abs(bent).max() < _LIMIT and float((bent == 0).mean()) > _SUMS
    return bool(planar and len(encode_numbers(bent)) < len(encode_map(image))), whole


def _bent(image: Array) -> Array:
    """What sums of rows and columns do not explain: the inverse of two cumulative sums."""
    return np.diff(np.diff(image, axis=0, prepend=0), axis=1, prepend=0)


def read_calibration(
    data: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any], *, extended: bool = False, listed: bool = False,
    most_corrections: int | None = None,
) -> Calibration:  # fmt: skip
    """Inverse of :func:`write_calibration`.

    listed : bool
        Whether it must be a list of floats, as in format version 7, or must not.
    most_corrections : int, optional
        Of all pixels together; default: those that an array of this shape may have.

    Raises
    ------
    CorruptChunkError
        If it is not a calibration of an array of this shape and dtype, or its maps do not have the sizes of the shape.
    """
    layout = GroupLayout.of_shape(shape)
    positions = (1, layout.n_positions)
    r = Reader(data)
    kind = r.varint()
    if kind > LIST or (kind >= FLOATS) != (dtype.kind == "f") or (kind == LIST) != listed:
        raise CorruptChunkError("impossible kind of calibration")
    calibration: Calibration
    if kind == LIST:
        calibration = ValueTable(values=_read_list(r, dtype), width=dtype.itemsize)
    elif kind == TABLE:
        calibration = ValueTable(values=_read_table(r))
    elif kind == INTEGERS:
        fraction, flags = r.varint(), r.varint()
        if fraction > MAX_FRACTION or flags >= (2 * BASE if extended else 2 * POSITIONS):
            raise CorruptChunkError("impossible calibration")
        if flags & (PLANAR | WHOLE) and not flags & OFFSET:
            raise CorruptChunkError("a form of offsets without offsets")
        base = _read_base(r) if flags & BASE else 0
        gain = read_map(r, layout.detector) if flags & GAIN else None
        if gain is not None and (gain < 1).any():
            raise CorruptChunkError("a gain of a calibration is not positive")
        offset = None
        if flags & PLANAR:
            offset = _read_sums(r, layout.detector)
        elif flags & OFFSET:
            offset = read_map(r, layout.detector)
        if offset is not None and flags & WHOLE:
            offset = _in_range((offset << fraction) + ((1 << fraction) >> 1))
        shift = read_map(r, positions) if flags & POSITIONS else None
        calibration = IntegerCalibration(
            fraction=fraction, gain=gain, offset=offset, shift=shift, reversed=bool(flags & REVERSED), base=base
        )
    else:
        flags = r.varint()
        if flags >= (2 * CORRECTED if extended else 2 * DOUBLE):
            raise CorruptChunkError("impossible calibration")
        dark = read_floats(r, layout.detector) if flags & OFFSET else None
        gain = read_floats(r, layout.detector) if flags & GAIN else None
        scale = read_floats(r, positions) if flags & POSITIONS else None
        calibration = FloatCalibration(
            dark=dark, gain=gain, scale=scale, gain_divides=bool(flags & GAIN_DIVIDES),
            scale_divides=bool(flags & SCALE_DIVIDES), scale_first=bool(flags & SCALE_FIRST), single=not flags & DOUBLE,
            signed_zeros=bool(flags & SIGNED_ZEROS),
            corrections=_read_corrections(r, layout, most_corrections) if flags & CORRECTED else None,
        )  # fmt: skip
    r.end()
    return calibration


def _write_table(w: Writer, values: Array) -> None:
    """First value, step, and the second differences in steps: all zero where the values are evenly spaced."""
    differences = np.diff(values)
    step = max(1, int(np.gcd.reduce(differences)) if differences.size else 1)
    w.section(int(values[0]).to_bytes(8, "little", signed=True))
    w.varint(step)
    w.numbers(np.diff(differences // step, prepend=1))


def _read_table(r: Reader) -> Array:
    first = r.section()
    if len(first) != 8:
        raise CorruptChunkError("impossible table of values")
    step = r.varint()
    seconds = r.numbers(PLANE_TOP - 1)
    # Modulo 2**64, like everything that integers are restored by.
    differences = (1 + np.cumsum(seconds)).astype(np.uint64) * np.uint64(step)
    start = np.frombuffer(first, "<u8").astype(np.uint64)
    return np.concatenate([start, start + np.cumsum(differences, dtype=np.uint64)]).view(np.int64)


def _read_list(r: Reader, dtype: np.dtype[Any]) -> Array:
    n = r.varint()
    if not 1 <= n <= PLANE_TOP:
        raise CorruptChunkError("impossible length of a list of values")
    return _unpacked(r.section(), n * dtype.itemsize).view(f"<i{dtype.itemsize}").astype(np.int64)


def read_map(r: Reader, shape: tuple[int, int]) -> Array:
    """Integers of 32 bits of pixels or positions: int64[rows * columns].

    Raises
    ------
    CorruptChunkError
        If these are no such integers.
    """
    return _in_range(decode_map(r.coded(shape[0] * shape[1]), shape).ravel())


def _read_base(r: Reader) -> int:
    section = r.section()
    if len(section) != 8:
        raise CorruptChunkError("impossible base of a calibration")
    return int.from_bytes(section, "little", signed=True)


def _read_corrections(r: Reader, layout: GroupLayout, most: int | None) -> Corrections:
    first, lengths = read_map(r, layout.detector), read_map(r, layout.detector)
    most = MAX_CORRECTIONS * layout.n_positions * layout.n_pixels if most is None else most
    if int(lengths.sum()) > most:
        raise CorruptChunkError("more corrections than a calibration may have")
    if (first < 0).any() or (lengths < 0).any() or (first + lengths > PLANE_TOP).any():
        raise CorruptChunkError("corrections of codes that there are not")
    steps = r.numbers(int(lengths.sum()))
    if steps.size != int(lengths.sum()):
        raise CorruptChunkError("corrections are not as many as their codes")
    return Corrections(first=first, lengths=lengths, steps=steps)


def _read_sums(r: Reader, shape: tuple[int, int]) -> Array:
    bent = r.numbers(shape[0] * shape[1])
    if bent.size != shape[0] * shape[1]:
        raise CorruptChunkError("offsets of a calibration are not of the detector")
    # Up to 2**32 numbers below 2**32: no sum is beyond 64 bits.
    return _in_range(np.cumsum(np.cumsum(bent.reshape(shape), axis=1), axis=0).ravel())


def _in_range(values: Array) -> Array:
    if ((values < -_LIMIT) | (values >= _LIMIT)).any():
        raise CorruptChunkError("a map of a calibration is out of range")
    return values


def write_floats(w: Writer, values: Array, shape: tuple[int, int]) -> None:
    """Bits of floats, of single precision where that is enough, as integers in the order of the floats."""
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    if np.array_equal(single.astype(np.float64), values):
        w.varint(SINGLE_BITS)
        w.section(encode_map(_ordered(single.view(np.int32).astype(np.int64), 32).reshape(shape)))
        return
    ordered = _ordered(values.view(np.int64), 64)
    w.varint(DOUBLE_BITS)
    w.section(encode_map((ordered >> 32).reshape(shape)))
    w.section(bytes(numcodecs.Zstd(5).encode((ordered & 0xFFFFFFFF).astype("<u4").view(np.uint8))))


def read_floats(r: Reader, shape: tuple[int, int]) -> Array:
    """Inverse of :func:`write_floats`: float64[rows * columns], all finite.

    Raises
    ------
    CorruptChunkError
        If these are no floats of this shape.
    """
    width = r.varint()
    if width > DOUBLE_BITS:
        raise CorruptChunkError("impossible width of floats")
    high = read_map(r, shape)
    if width == SINGLE_BITS:
        values = _ordered(high, 32).astype(np.int32).view(np.float32).astype(np.float64)
    else:
        low = _low_words(r.section(), math.prod(shape))
        values = _ordered((high << 32) | low, 64).view(np.float64)
    if not np.isfinite(values).all():
        raise CorruptChunkError("a calibration is not finite")
    return values


def _low_words(frame: memoryview, n: int) -> Array:
    return _unpacked(frame, 4 * n).view("<u4").astype(np.int64)


def _unpacked(frame: memoryview, size: int) -> Array:
    try:
        return decompress(frame, size)
    except (RuntimeError, ValueError) as error:
        raise CorruptChunkError(f"a calibration does not decompress ({error})") from None


def _ordered(bits: Array, width: int) -> Array:
    """Signed bits of floats as integers of the same order, which is its own inverse."""
    return np.where(bits < 0, ~bits ^ (-(1 << (width - 1))), bits)
