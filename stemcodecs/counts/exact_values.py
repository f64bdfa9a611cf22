"""Values that a codec of counts keeps beside them, bit by bit: marks of gaps and dead pixels, and what is no count.

The bytes are described in ``quantize/FORMAT.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numcodecs
import numpy as np

from stemcodecs.entropy.chunk.zstd_frame import decompress
from stemcodecs.entropy.model.model_bytes import Reader, Writer
from stemcodecs.errors import CorruptChunkError

__all__ = ["ExactValues"]

Array = np.ndarray[Any, Any]

_LEVEL = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class ExactValues:
    """Values of some places of a stack of patterns.

    Attributes
    ----------
    without : int64[k]
        Positions of patterns that have none of these values, such as those that fill a chunk up, in increasing order.
    pixels, pixel_bits : int64[m], unsigned[m]
        Pixels that have one and the same value in every other pattern, in increasing order, and its bits.
    at, bits : int64[n], unsigned[n]
        Other places, as increasing flat indices (position · pixels + pixel), and the bits of their values; unsigned of
        the width of the dtype.
    """

    without: Array
    pixels: Array
    pixel_bits: Array
    at: Array
    bits: Array

    @classmethod
    def of(cls, values: Array, mask: Array) -> Self:
        """Those of native values[positions, pixels] where a mask of the same shape is true."""
        raw = values.view(f"u{values.dtype.itemsize}")
        some = np.asarray(mask.any(axis=1))
        if not some.any():
            nothing = np.zeros(0, np.int64)
            return cls(
                without=nothing, pixels=nothing, pixel_bits=raw.reshape(-1)[:0], at=nothing, bits=raw.reshape(-1)[:0]
            )
        first = raw[int(np.argmax(some))]
        always = np.all((mask & (raw == first)) | ~some[:, None], axis=0)
        pixels = np.flatnonzero(always)
        at = np.flatnonzero(mask & ~always)
        without = np.flatnonzero(~some) if pixels.size else np.zeros(0, np.int64)
        return cls(without=without, pixels=pixels, pixel_bits=first[pixels], at=at, bits=raw.reshape(-1)[at])

    @property
    def scattered(self) -> int:
        """How many values are listed one by one."""
        return int(self.at.size)

    def insert(self, rows: Array, positions: Array | None = None) -> None:
        """Write the values into rows[k, pixels], which are the patterns of these increasing positions, or all."""
        raw = rows.view(f"u{rows.dtype.itemsize}")
        with_them = ~np.isin(np.arange(len(rows)) if positions is None else positions, self.without)
        raw[np.ix_(with_them, self.pixels)] = self.pixel_bits
        position, pixel = np.divmod(self.at, rows.shape[1])
        if positions is None:
            raw[position, pixel] = self.bits
            return
        row = np.minimum(np.searchsorted(positions, position), max(len(positions) - 1, 0))
        here = np.asarray(positions)[row] == position if len(positions) else np.zeros(position.size, bool)
        raw[row[here], pixel[here]] = self.bits[here]

    def astype(self, source: np.dtype[Any], dtype: np.dtype[Any]) -> ExactValues:
        """The same values, of dtype ``source``, in another dtype."""

        def cast(bits: Array) -> Array:
            return bits.view(source).astype(dtype).view(f"u{dtype.itemsize}")

        pixel_bits, bits = cast(self.pixel_bits), cast(self.bits)
        return ExactValues(without=self.without, pixels=self.pixels, pixel_bits=pixel_bits, at=self.at, bits=bits)

    def to_bytes(self) -> bytes:
        """Serialise."""
        w = Writer()
        for places, bits in ((self.without, None), (self.pixels, self.pixel_bits), (self.at, self.bits)):
            w.varint(places.size)
            if places.size:
                # Neighbours in a gap are one apart: what repeats takes next to nothing.
                w.section(_packed(np.diff(places, prepend=-1).astype("<u8")))
                if bits is not None:
                    w.section(_packed(bits.astype(bits.dtype.newbyteorder("<"))))
        return w.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes | memoryview, shape: tuple[int, int], itemsize: int) -> Self:
        """Inverse of :meth:`to_bytes`, for values[positions, pixels] of this shape.

        Raises
        ------
        CorruptChunkError
            If these are no places of such an array.
        """
        return cls.read(Reader(data), shape, itemsize)

    @classmethod
    def read(cls, r: Reader, shape: tuple[int, int], itemsize: int) -> Self:
        """As :meth:`from_bytes`, of the rest of what is being read."""
        without, _ = _read(r, shape[0], 0)
        pixels, pixel_bits = _read(r, shape[1], itemsize)
        at, bits = _read(r, shape[0] * shape[1], itemsize)
        r.end()
        return cls(without=without, pixels=pixels, pixel_bits=pixel_bits, at=at, bits=bits)


def _read(r: Reader, end: int, itemsize: int) -> tuple[Array, Array]:
    """Places below ``end``, and the bits of their values if these have a width."""
    n = r.varint()
    if n > end:
        raise CorruptChunkError("more values are kept exactly than there are")
    if n == 0:
        return np.zeros(0, np.int64), np.zeros(0, f"u{itemsize or 1}")
    steps = _unpacked(r.section(), n, 8)
    bits = _unpacked(r.section(), n, itemsize) if itemsize else np.zeros(0, np.uint8)
    # Each below the end before they are added, so that no sum of two wraps.
    if (steps == 0).any() or (steps > end).any():
        raise CorruptChunkError("places of exact values are out of order")
    places = np.cumsum(steps.astype(np.int64)) - 1
    if (np.diff(places) <= 0).any() or places[-1] >= end:
        raise CorruptChunkError("places of exact values are out of range")
    return places, bits


def _packed(numbers: Array) -> bytes:
    shuffled = numcodecs.Shuffle(numbers.itemsize).encode(numbers.view(np.uint8))
    return bytes(numcodecs.Zstd(_LEVEL).encode(shuffled))


def _unpacked(frame: memoryview, n: int, width: int) -> Array:
    try:
        shuffled = decompress(frame, n * width)
    except (RuntimeError, ValueError) as error:
        raise CorruptChunkError(f"exact values do not decompress ({error})") from None
    plain = np.frombuffer(numcodecs.Shuffle(width).decode(shuffled), f"<u{width}")
    return plain.astype(f"u{width}")
