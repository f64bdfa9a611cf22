"""One map of a whole scan from values to the counts behind them, and back.

A pixel's value is what its whole number gives by a calibration, gains and offsets of pixels, bit by bit; counts begin
at ``zero``. Patterns that were divided by their dose, or by a monitor, have a scale each, and integers may have an
offset of each pattern, which a pattern's own values tell. What the map does not give is kept beside the counts
(:class:`stemcodecs.counts.exact_values.ExactValues`).
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Self

import numpy as np

from stemcodecs.entropy.chunk.calibration_bytes import MAX_SHARED_CORRECTIONS, read_calibration, write_calibration
from stemcodecs.entropy.model.group_layout import GroupLayout
from stemcodecs.entropy.model.model_bytes import Reader, Writer
from stemcodecs.entropy.model.range_coder import decode_map, encode_map
from stemcodecs.entropy.values.calibration import Corrections, FloatCalibration, IntegerCalibration, whole_integers
from stemcodecs.entropy.values.pattern_offsets import STUCK, pattern_offsets
from stemcodecs.entropy.values.pattern_parameters import signed
from stemcodecs.entropy.values.pattern_scales import pattern_scales
from stemcodecs.errors import ConfigurationError, CorruptChunkError, FormatVersionError

__all__ = ["MOST_COUNTS", "CountsMap"]

Array = np.ndarray[Any, Any]

MAGIC = b"SCcm"
VERSION = 3
"""The highest: a map without scales of patterns is of version 1, with them of version 2; one with offsets of patterns,
a base, or corrections is of version 3."""
REVERSED, SCALED = 1, 2
MOST_COUNTS = (1 << 31) - 2
"""Counts beyond it, and below its negative, are kept exactly: the others fit int32."""
PREFIX = "data:application/octet-stream;base64,"
REFUSE_BYTES = 16 << 20
_BLOCK = 1 << 16
"""Values mapped at once: intermediates stay in the processor's cache."""
_EXACT_FLOAT = 2.0**53
_LEAST_LIT = 32
"""Values other than 0 that tell the scale of a pattern. If all of its counts were multiples of two, they would look
like half of them, and the noise that is allowed would be too large: of so many, no pattern has that by chance."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CountsMap:
    """Values of pixels from counts, the same for all patterns.

    The whole number of a pixel is ``zero + count``, or ``zero - count`` if ``reversed``. Of integers,
    ``value = ((gain * whole + offset) >> fraction) + base`` modulo the dtype, and if ``scaled`` plus an offset of each
    pattern; of floats, ``value = (whole - dark) * gain``, each operation rounded, as :class:`FloatCalibration` says,
    and if ``scaled`` with a scale of each pattern.

    Attributes
    ----------
    detector : tuple of int
        (det_y, det_x).
    calibration : IntegerCalibration or FloatCalibration
        Without parameters of patterns, signed zeros, or a complement.
    zero : int64[pixels]
        Whole number at zero counts.
    reversed : bool
        Whether values fall as counts rise.
    scaled : bool
        Whether each pattern has a scale of its own (:meth:`scales`), of floats without a dark reference, or an offset.
    """

    detector: tuple[int, int]
    calibration: IntegerCalibration | FloatCalibration
    zero: Array
    reversed: bool = False
    scaled: bool = False

    @cached_property
    def checksum(self) -> int:
        """CRC-32 of its bytes: codes mean nothing without the very map."""
        return zlib.crc32(self.to_bytes()[:-4])

    @property
    def dtype(self) -> np.dtype[Any]:
        """A dtype of the kind that its values have."""
        return np.dtype(np.float64 if isinstance(self.calibration, FloatCalibration) else np.int64)

    @property
    def changes_nothing(self) -> bool:
        """Whether counts are the values themselves."""
        c = self.calibration
        if not isinstance(c, IntegerCalibration) or c.fraction or self.reversed or self.scaled or self.zero.any():
            return False
        if c.base:
            return False
        return bool((c.gain is None or (c.gain == 1).all()) and (c.offset is None or (c.offset == 0).all()))

    def check(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        """Refuse chunks that the map is not of.

        Raises
        ------
        ConfigurationError
            Values of another kind, or patterns of another detector.
        """
        if (dtype.kind == "f") != isinstance(self.calibration, FloatCalibration) or dtype.kind not in "iuf":
            raise ConfigurationError(f"this map of counts is not one of {dtype}; let the method find one for this scan")
        if len(shape) < 3 or tuple(shape[-2:]) != self.detector:
            raise ConfigurationError(
                f"the map of counts is of a detector of {self.detector[0]} × {self.detector[1]} pixels, a chunk has "
                f"shape {tuple(shape)}; its last two dimensions must be the whole detector"
            )

    def scales(self, values: Array) -> Array | None:
        """Scale, or offset, of every pattern of native values[k, pixels], from its values alone: float64[k].

        A scale is 0 for patterns that do not tell one: these have no counts but zeros. None where patterns have none.
        """
        if not self.scaled:
            return None
        if isinstance(self.calibration, IntegerCalibration):
            return self._offsets(values)
        found, lit = pattern_scales(values, self.calibration)
        return np.where(lit >= _LEAST_LIT, found, 0.0)

    def _offsets(self, values: Array) -> Array:
        c = self.calibration
        assert isinstance(c, IntegerCalibration)
        if self.reversed:
            # The complement counts upwards, and what is added to it is taken off the values.
            offset = -1 - whole_integers(c, self.zero.size)[1]
            upwards = IntegerCalibration(fraction=c.fraction, gain=c.gain, offset=offset, base=c.base, reversed=True)
            found = -pattern_offsets(signed(values), upwards)
        else:
            found = pattern_offsets(signed(values), c)
        # Half of what the dtype holds is left for them, see largest.
        return np.where(np.abs(found) <= self.largest(values.dtype), found, 0).astype(np.float64)

    @cached_property
    def _at_zero(self) -> Array:
        values: Array = self.values(np.zeros((1, self.zero.size), np.int64), np.dtype(np.int64), np.zeros(1))[0]
        return values

    @cached_property
    def _stuck(self) -> Array:
        c = self.calibration
        assert isinstance(c, IntegerCalibration)
        least: Array = -((STUCK // 2) << c.fraction) // whole_integers(c, self.zero.size)[0]
        return least

    def values(self, counts: Array, dtype: np.dtype[Any], scales: Array | None = None) -> Array:
        """Values of counts[k, pixels], of a native dtype; ``scales`` as :meth:`scales` has them."""
        out = np.empty(counts.shape, dtype)
        with np.errstate(all="ignore"):
            for part in _blocks(counts.shape):
                out[part] = self._values(self._whole(counts[part]), dtype, _part(scales, part))
        return out

    def counts(self, values: Array, scales: Array | None = None) -> tuple[Array, Array]:
        """Counts of native values[k, pixels], every one of them proved.

        Parameters
        ----------
        values : ndarray
            Integers or floats.
        scales : float64[k], optional
            Of the patterns; default: those that :meth:`scales` finds.

        Returns
        -------
        counts : int32[k, pixels]
            0 where there are none.
        unknown : bool[k, pixels]
            Values that the map does not give.
        """
        if self.scaled and scales is None:
            scales = self.scales(values)
        out, unknown = np.empty(values.shape, np.int32), np.empty(values.shape, bool)
        bits = f"u{values.dtype.itemsize}"
        with np.errstate(all="ignore"):
            for part in _blocks(values.shape):
                here = _part(scales, part)
                guess, wrong = self._guess(values[part], here)
                restored = self._values(self._whole(guess), values.dtype, here)
                wrong |= restored.view(bits) != values[part].view(bits)
                if here is not None and isinstance(self.calibration, FloatCalibration):
                    # Without a scale there is none but zero.
                    wrong |= (guess != 0) & (here == 0)[:, None]
                elif here is not None:
                    # Stuck pixels do not follow the offsets of patterns: theirs lie far above their values.
                    wrong |= guess < self._stuck
                    if values.dtype.itemsize < 8:
                        # A level may decode to as few counts as none, which must have a value.
                        limits, nothing = np.iinfo(values.dtype), self._at_zero + here[:, None]
                        wrong |= nothing > int(limits.max) if self.reversed else nothing < int(limits.min)
                guess[wrong] = 0
                out[part], unknown[part] = guess, wrong
        return out, unknown

    def rates(self, values: Array, scales: Array | None = None) -> Array:
        """Counts that values[k, pixels] stand for, fractions of them too, negative and NaN ones: float64.

        ``scales`` are those of :meth:`scales`, if the map has any; where they are 0, the rate is NaN but for zeros.
        """
        with np.errstate(all="ignore"):
            whole = self._whole_of(values.astype(np.float64))
            if scales is not None and isinstance(self.calibration, IntegerCalibration):
                whole = self._whole_of(values.astype(np.float64) - scales[:, None])
            elif scales is not None:
                assert isinstance(self.calibration, FloatCalibration)
                by = scales[:, None]
                whole = np.where(whole == 0, 0.0, whole * by if self.calibration.scale_divides else whole / by)
        found: Array = self.zero - whole if self.reversed else whole - self.zero
        return found

    def values_of_rates(self, rates: Array, dtype: np.dtype[Any], scales: Array | None = None) -> Array:
        """Values, of a native float dtype, of rates[k, pixels] in counts, which are no whole numbers."""
        c = self.calibration
        whole = self.zero - rates if self.reversed else self.zero + rates
        with np.errstate(all="ignore"):
            if isinstance(c, IntegerCalibration):
                gain, offset = whole_integers(c, self.zero.size)
                # The half that rounds is no part of the value.
                out = (whole * gain + (offset - ((1 << c.fraction) >> 1))) / 2.0**c.fraction + c.base
                out = out if scales is None else out + scales[:, None]
            else:
                out = self._scaled(whole, c, np.dtype(np.float64), scales)
            values: Array = out.astype(dtype)
        return values

    def largest(self, dtype: np.dtype[Any]) -> int:
        """Most counts whose values fit the dtype in every pixel."""
        if dtype.kind == "f":
            return MOST_COUNTS
        c = self.calibration
        assert isinstance(c, IntegerCalibration)
        limits = np.iinfo(dtype)
        gain, offset = whole_integers(c, self.zero.size)
        # Of uint64 it is signed modulo 2**64.
        base = c.base % 2**64 if dtype == np.uint64 else c.base
        lower, upper = int(limits.min) - base, int(limits.max) - base
        rooms = []
        # Few pixels are unlike each other; Python's integers do not overflow.
        for g, o, z in np.unique(np.stack([gain, offset, self.zero], axis=1), axis=0).tolist():
            if self.reversed:
                lowest = -(-((lower << c.fraction) - o) // g)
                rooms.append(z - lowest)
            else:
                highest = (((upper + 1) << c.fraction) - 1 - o) // g
                rooms.append(highest - z)
        # Stuck pixels have offsets beyond the dtype, and no counts.
        room = min([MOST_COUNTS, *(r for r in rooms if r >= 0)]) if max(rooms) >= 0 else -1
        # The other half is for offsets of patterns.
        return room // 2 if self.scaled else room

    def beginning_at(self, value: float) -> CountsMap:
        """The same map with zero counts at a value; where it is between two whole numbers, at the one that gives fewer
        counts. Not of scaled patterns, where a value is another count in each.
        """
        whole = self._whole_of(value)
        return replace(self, zero=(np.floor(whole) if self.reversed else np.ceil(whole)).astype(np.int64))

    def within(self, dtype: np.dtype[Any]) -> CountsMap:
        """The same map of integers with more counts at zero where zero counts would have a value beyond a dtype."""
        c = self.calibration
        if dtype.itemsize == 8 or not isinstance(c, IntegerCalibration):
            return self
        limits = np.iinfo(dtype)
        gain = whole_integers(c, self.zero.size)[0]
        beyond = self._at_zero - int(limits.max) if self.reversed else int(limits.min) - self._at_zero
        more = -((-np.maximum(beyond, 0) << c.fraction) // gain)
        return replace(self, zero=self.zero - more if self.reversed else self.zero + more)

    def counts_at(self, value: float) -> int:
        """Fewest counts that a pixel has at a value, rounded up."""
        whole = self._whole_of(value)
        return int(np.ceil((self.zero - whole if self.reversed else whole - self.zero).min()))

    def _whole_of(self, value: float | Array) -> Array:
        c = self.calibration
        if isinstance(c, FloatCalibration):
            gain = 1.0 if c.gain is None else c.gain
            back = np.asarray(value * gain if c.gain_divides else value / gain)
            back = back + (0.0 if c.dark is None else c.dark)
            return np.broadcast_to(back, np.broadcast_shapes(back.shape, self.zero.shape))
        gain, offset = whole_integers(c, self.zero.size)
        # The half that rounds is no part of the value.
        return ((value - c.base) * 2.0**c.fraction - (offset - ((1 << c.fraction) >> 1))) / gain

    def _whole(self, counts: Array) -> Array:
        wide = counts.astype(np.int64)
        return self.zero - wide if self.reversed else self.zero + wide

    def _values(self, whole: Array, dtype: np.dtype[Any], scales: Array | None) -> Array:
        c = self.calibration
        if isinstance(c, IntegerCalibration):
            gain, offset = whole_integers(c, self.zero.size)
            # Modulo 2**64, then of the dtype: two's complement.
            wide = ((whole * gain + offset) >> c.fraction) + np.int64(c.base)
            if scales is not None:
                wide += scales.astype(np.int64)[:, None]
            return wide.view(np.uint64).astype(f"u{dtype.itemsize}").view(dtype)
        kind = np.dtype(np.float32 if c.single else np.float64)
        values = self._scaled(whole, c, kind, scales).astype(dtype, copy=False)
        return values if c.corrections is None else _corrected(values, whole, c.corrections)

    @staticmethod
    def _scaled(whole: Array, c: FloatCalibration, kind: np.dtype[Any], scales: Array | None) -> Array:
        # One IEEE operation at a time, each rounded: the same bits on every machine.
        row = whole.astype(kind)
        if c.dark is not None:
            row = row - c.dark.astype(kind)
        # Patterns without a scale have no counts but zeros.
        by = None if scales is None else np.where(scales == 0, 1, scales).astype(kind)[:, None]
        if by is not None and c.scale_first:
            row = row / by if c.scale_divides else row * by
        if c.gain is not None:
            gain = c.gain.astype(kind)
            row = row / gain if c.gain_divides else row * gain
        if by is not None and not c.scale_first:
            row = row / by if c.scale_divides else row * by
        return row

    def _guess(self, values: Array, scales: Array | None) -> tuple[Array, Array]:
        """Counts, int64, and where there can be none."""
        c = self.calibration
        if isinstance(c, FloatCalibration):
            whole = values.astype(np.float64)
            if scales is not None:
                by = np.where(scales == 0, 1, scales)[:, None]
                whole = whole * by if c.scale_divides else whole / by
            if c.gain is not None:
                whole = whole * c.gain if c.gain_divides else whole / c.gain
            if c.dark is not None:
                whole += c.dark
            np.rint(whole, out=whole)
        else:
            gain, offset = whole_integers(c, self.zero.size)
            wide = signed(values).astype(np.int64) - np.int64(c.base)
            if scales is not None:
                wide -= scales.astype(np.int64)[:, None]
            if c.fraction == 0:
                return self._within((wide - offset) // gain)
            unit = 2.0**c.fraction
            # The middle of what rounds to the value.
            whole = np.rint((wide.astype(np.float64) * unit + ((unit - 1) / 2 - offset)) / gain)
        wrong = ~(np.abs(whole) < _EXACT_FLOAT)
        whole[wrong] = 0
        counts, outside = self._within(whole.astype(np.int64))
        return counts, outside | wrong

    def _within(self, whole: Array) -> tuple[Array, Array]:
        counts = self.zero - whole if self.reversed else whole - self.zero
        outside = (counts < -MOST_COUNTS) | (counts > MOST_COUNTS)
        counts[outside] = 0
        return counts, outside

    def to_bytes(self) -> bytes:
        """Serialise: magic, version, flags and detector, the calibration, zeros, a checksum."""
        w = Writer()
        w.varint(REVERSED * self.reversed | SCALED * self.scaled)
        for n in self.detector:
            w.varint(n)
        w.varint(isinstance(self.calibration, FloatCalibration))
        layout = GroupLayout.of_shape((1, *self.detector))
        version = self._version()
        w.section(write_calibration(self.calibration, layout, extended=version == VERSION))
        w.section(encode_map(self.zero.reshape(self.detector)))
        body = MAGIC + bytes([version]) + w.getvalue()
        return body + zlib.crc32(body).to_bytes(4, "little")

    def _version(self) -> int:
        """Only what an older reader would not understand has a newer version."""
        c = self.calibration
        if isinstance(c, FloatCalibration):
            return 3 if c.corrections is not None else 2 if self.scaled else 1
        return 3 if self.scaled or c.base else 1

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`.

        Raises
        ------
        CorruptChunkError
            If the bytes were altered.
        FormatVersionError
            If a newer stemcodecs wrote them.
        """
        if len(data) < 9 or data[:4] != MAGIC:
            raise CorruptChunkError("these bytes are no map of counts")
        if not 1 <= data[4] <= VERSION:
            raise FormatVersionError(f"a map of counts has format version {data[4]}; upgrade stemcodecs to read it")
        if zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
            raise CorruptChunkError("the checksum of the map of counts does not match")
        r = Reader(data[5:-4])
        flags, height, width, floats = r.varint(), r.varint(), r.varint(), r.varint()
        scaled = bool(flags & SCALED)
        known = flags <= (REVERSED | SCALED) and floats <= 1
        # Of integers there are none before version 3.
        known = known and (data[4] == VERSION or (scaled == (data[4] == 2) and scaled <= floats))
        if not known or not 0 < height * width < 1 << 31:
            raise CorruptChunkError("the map of counts makes no sense")
        detector = (height, width)
        kind = np.dtype(np.float64 if floats else np.int64)
        calibration = read_calibration(
            r.section(), (1, *detector), kind, extended=data[4] == VERSION,
            most_corrections=MAX_SHARED_CORRECTIONS * height * width,
        )  # fmt: skip
        if not isinstance(calibration, FloatCalibration if floats else IntegerCalibration):
            raise CorruptChunkError("the map of counts is of a kind that a scan cannot have")
        scales = calibration.scale if isinstance(calibration, FloatCalibration) else calibration.shift
        if scales is not None:
            raise CorruptChunkError("the map of counts has parameters of patterns")
        if getattr(calibration, "reversed", False) or getattr(calibration, "signed_zeros", False):
            raise CorruptChunkError("the map of counts has a form that only chunks have")
        zero = decode_map(r.coded(height * width), detector).ravel()
        r.end()
        if (np.abs(zero) >= 1 << 31).any():
            raise CorruptChunkError("the map of counts is out of range")
        alone = isinstance(calibration, IntegerCalibration) or (
            not flags & REVERSED and not zero.any() and calibration.dark is None and calibration.corrections is None
        )
        if scaled and not alone:
            raise CorruptChunkError("the map of counts has scales beside an offset")
        return cls(
            detector=detector, calibration=calibration, zero=zero, reversed=bool(flags & REVERSED), scaled=scaled
        )

    def to_uri(self) -> str:
        """For a codec's configuration.

        Raises
        ------
        ConfigurationError
            If it is too large for metadata.
        """
        packed = self.to_bytes()
        if len(packed) > REFUSE_BYTES:
            raise ConfigurationError(
                f"the gains of {self.detector[0]} × {self.detector[1]} pixels take {len(packed) / 2**20:.0f} MiB, too "
                "much for an array's metadata; store the scan losslessly with pixel_histogram"
            )
        return PREFIX + base64.b64encode(packed).decode("ascii")

    @staticmethod
    def from_uri(uri: str) -> CountsMap:
        """Inverse of :meth:`to_uri`; parsed once per process.

        Raises
        ------
        ConfigurationError
            If the text is none of these.
        """
        if not isinstance(uri, str) or not uri.startswith(PREFIX):
            raise ConfigurationError("'map' must be a data: URI as CountsMap.to_uri writes it")
        return _parsed(uri)


def _blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Patterns that are mapped at once."""
    rows = max(1, _BLOCK // max(1, shape[1]))
    for first in range(0, shape[0], rows):
        yield slice(first, first + rows)


def _corrected(values: Array, whole: Array, c: Corrections) -> Array:
    """Floats of a formula moved by the last digits that their whole numbers have."""
    at = whole - c.first
    there = (at >= 0) & (at < c.lengths)
    steps = np.zeros(whole.shape, np.int64)
    steps[there] = c.steps[np.broadcast_to(np.cumsum(c.lengths) - c.lengths, at.shape)[there] + at[there]]
    bits = values.view(f"i{values.dtype.itemsize}").astype(np.int64)
    lowest = -(1 << (8 * values.dtype.itemsize - 1))
    # Signed bits of floats in the order of the floats, and back; wrapping as a chunk's corrections do.
    ordered = np.where(bits < 0, ~bits ^ lowest, bits) + steps
    moved = np.where(ordered < 0, ~ordered ^ lowest, ordered)
    out: Array = moved.astype(f"i{values.dtype.itemsize}").view(values.dtype)
    return out


def _part(scales: Array | None, part: slice) -> Array | None:
    return None if scales is None else scales[part]


@lru_cache(maxsize=8)
def _parsed(uri: str) -> CountsMap:
    try:
        return CountsMap.from_bytes(base64.b64decode(uri[len(PREFIX) :], validate=True))
    except (CorruptChunkError, binascii.Error) as error:
        raise ConfigurationError(f"the map of counts in the configuration is damaged ({error})") from None
