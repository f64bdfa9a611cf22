"""What a level decodes to: whole offsets from the bin midpoints, learned from a scan or a chunk.

The mean of the scan's values in a bin (the centroid) gives unbiased sums; it is rounded to a whole
value and clipped to the values that are within the bound of the whole bin. Sums are integers and
merge in any order, so one pass over a scan in any chunking gives the same table, and quantised data
give their own values back.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stemcodecs.errors import ConfigurationError, CorruptChunkError
from stemcodecs.quantize.levels import Int64, Levels

__all__ = ["LevelSums", "most_bytes", "pack_offsets", "read_offsets", "unpack_offsets", "write_offsets"]

_NUMBER_BYTES = 6
"""Of an offset, seven bits in each: levels lie below 2³³."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LevelSums:
    """How many values fell on each level, and the sum of their distances from the bin's low end.

    Attributes
    ----------
    counts, sums : array of int64
        One entry per level.
    """

    counts: Int64
    sums: Int64

    @classmethod
    def of(cls, level: npt.NDArray[Any], distance: npt.NDArray[Any], n_levels: int) -> Self:
        """Sums of values; each fell on ``level``, ``distance`` above the level's low end."""
        # float64 sums of integers are exact below 2⁵³; blocks of 2³² values are far from it.
        sums = np.bincount(level, weights=distance, minlength=n_levels)
        counts = np.bincount(level, minlength=n_levels)
        return cls(counts=counts.astype(np.int64), sums=sums.astype(np.int64))

    @classmethod
    def of_histogram(cls, x: Int64, counts: Int64, levels: Levels) -> Self:
        """Sums of values x, of which each occurred so many times."""
        level = levels.level_of(x)
        total = np.zeros((2, levels.count), dtype=np.int64)
        np.add.at(total[0], level, counts)
        np.add.at(total[1], level, counts * (x - levels.lows[level]))
        return cls(counts=total[0], sums=total[1])

    def merge(self, other: Self) -> Self:
        """Sums of both."""
        return type(self)(counts=self.counts + other.counts, sums=self.sums + other.sums)

    def offsets(self, levels: Levels) -> Int64:
        """Decoded value of each level less its midpoint; 0 for levels without values.

        Each level decodes to its centroid rounded down or up, whichever keeps the sum of all counts: rounding to the
        nearest would shift every bin the same way, since counts thin out towards the end of most bins.
        """
        seen = self.counts > 0
        counts = np.where(seen, self.counts, 1)
        below, rest = np.divmod(self.sums, counts)
        low = np.clip(levels.lows + below, levels.smallest, np.maximum(levels.smallest, levels.largest))
        high = np.clip(levels.lows + below + (rest > 0), low, np.maximum(low, levels.largest))
        values = low.copy()
        missing = self.sums - counts * (low - levels.lows)
        free = np.flatnonzero(seen & (high > low))
        # Python integers: sums over a whole scan may exceed 64 bits when they are added up.
        carry = sum(missing[seen & (high == low)].tolist())
        # The levels with most values choose first, the others mend what is left.
        for level in free[np.argsort(-counts[free], kind="stable")].tolist():
            carry += int(missing[level])
            if 2 * carry >= int(counts[level]):
                values[level] = high[level]
                carry -= int(counts[level])
        return np.where(seen, values - levels.midpoints, 0)


def write_offsets(offsets: Int64) -> bytes:
    """Zigzag LEB128 bytes, one to five per level, without the zeros at the end."""
    used = np.flatnonzero(offsets)
    out = bytearray()
    for offset in offsets[: used[-1] + 1 if used.size else 0].tolist():
        number = 2 * offset if offset >= 0 else -2 * offset - 1
        while number >= 0x80:
            out.append(number & 0x7F | 0x80)
            number >>= 7
        out.append(number)
    return bytes(out)


def most_bytes(levels: Levels) -> int:
    """Bytes that no table of offsets of these levels exceeds."""
    return _NUMBER_BYTES * levels.count


def read_offsets(data: bytes, levels: Levels) -> Int64:
    """Inverse of :func:`write_offsets`, one entry per level; all decoded values meet the bound.

    Raises
    ------
    CorruptChunkError
        If the bytes are no such table.
    """
    if len(data) > most_bytes(levels):
        raise CorruptChunkError("the decoder's table does not match its levels")
    numbers: list[int] = []
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(number >> 1 if number % 2 == 0 else -(number >> 1) - 1)
            number = shift = 0
        elif shift >= 7 * _NUMBER_BYTES:
            raise CorruptChunkError("the decoder's table has an endless number")
    # A number that was cut off, or more numbers than levels.
    if shift or len(numbers) > levels.count:
        raise CorruptChunkError("the decoder's table does not match its levels")
    offsets = np.zeros(levels.count, dtype=np.int64)
    offsets[: len(numbers)] = numbers
    changed = offsets != 0
    values = levels.midpoints + offsets
    if np.any(changed & ((values < levels.smallest) | (values > levels.largest))):
        raise CorruptChunkError("the decoder's table breaks the bound of its levels")
    return offsets


def pack_offsets(offsets: Int64) -> str:
    """Offsets as text for a codec's configuration: base64 of the bytes and their CRC-32."""
    raw = write_offsets(offsets)
    return base64.b64encode(raw + struct.pack("<I", zlib.crc32(raw))).decode("ascii")


def unpack_offsets(text: str, levels: Levels) -> Int64:
    """Inverse of :func:`pack_offsets`.

    Raises
    ------
    ConfigurationError
        If the text was altered or belongs to other levels.
    """
    try:
        data = base64.b64decode(text, validate=True)
        raw, (crc,) = data[:-4], struct.unpack("<I", data[-4:])
        if zlib.crc32(raw) != crc:
            raise ValueError("checksum")
        return read_offsets(raw, levels)
    except (binascii.Error, struct.error, ValueError) as error:
        raise ConfigurationError(
            f"the centroids in the configuration are damaged or of other levels ({error}); restore the array's metadata"
        ) from None
