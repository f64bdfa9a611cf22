"""Head of a chunk of ``stemcodecs.tcs``: what it holds and where (``FORMAT.md``)."""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from stemcodecs.errors import CorruptChunkError, FormatVersionError
from stemcodecs.temporal.sampling import Sampling

__all__ = ["BIG_ENDIAN", "COLUMN_MAJOR", "EXACT", "MEASURED", "Entry", "TcsHead"]

Array = np.ndarray[Any, Any]

MAGIC = b"SCtc"
VERSION = 1
COLUMN_MAJOR, BIG_ENDIAN = 1, 2
MEASURED, EXACT = 0, 1
"""Kinds of an entry: one measurement, or its frames kept exactly."""
_ENTRY = struct.Struct("<BII")
_CRC = struct.Struct("<I")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One measurement of a chunk.

    Attributes
    ----------
    kind : int
        ``MEASURED`` or ``EXACT``.
    size, crc : int
        Bytes, and their CRC-32.
    """

    kind: int
    size: int
    crc: int


@dataclass(frozen=True, kw_only=True)
class TcsHead:
    """What a chunk says about itself.

    Attributes
    ----------
    dtype : dtype
        uint8 or uint16, native.
    shape : tuple of int
        (…, time, y, x).
    flags : int
        ``COLUMN_MAJOR`` and ``BIG_ENDIAN``: how Zarr format 2 had laid the values out in memory.
    used : tuple of int
        Frames of each movie of the chunk; those behind them are zeros.
    entries : tuple of Entry
        Movie by movie.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    flags: int
    used: tuple[int, ...]
    entries: tuple[Entry, ...]

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.shape[-2], self.shape[-1]

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def length(self) -> int:
        """Bytes of the head."""
        return _fixed(len(self.shape), len(self.used)) + _ENTRY.size * len(self.entries) + _CRC.size

    def offsets(self) -> list[int]:
        """First byte of each entry, and one behind the last."""
        ends = [self.length]
        for entry in self.entries:
            ends.append(ends[-1] + entry.size)
        return ends

    def write(self, sampling: Sampling) -> bytes:
        """The head's bytes."""
        body = b"".join(
            [
                MAGIC,
                struct.pack("<BBBB", VERSION, self.dtype.itemsize, self.flags, len(self.shape)),
                struct.pack(f"<{len(self.shape)}Q", *self.shape),
                _CRC.pack(definition(sampling)),
                struct.pack(f"<{len(self.used)}I", *self.used),
                *(_ENTRY.pack(e.kind, e.size, e.crc) for e in self.entries),
            ]
        )
        return body + _CRC.pack(zlib.crc32(body))

    @staticmethod
    def most_bytes(shape: tuple[int, ...], sampling: Sampling) -> int:
        """Bytes that no head of a chunk of this shape exceeds."""
        movies = math.prod(shape[:-3])
        return _fixed(len(shape), movies) + _ENTRY.size * movies * -(-shape[-3] // sampling.frames) + _CRC.size

    @classmethod
    def read(cls, data: memoryview | bytes, sampling: Sampling) -> Self:
        """Read and check the head that begins a chunk.

        Raises
        ------
        CorruptChunkError
            The bytes are truncated, altered, or were measured in another way.
        FormatVersionError
            A newer version wrote them.
        """
        if len(data) < 8 or bytes(data[:4]) != MAGIC:
            raise CorruptChunkError("not a stemcodecs.tcs chunk")
        version, width, flags, ndim = struct.unpack_from("<BBBB", data, 4)
        if version > VERSION:
            raise FormatVersionError(
                f"the chunk has format version {version}, this stemcodecs reads {VERSION}; upgrade it"
            )
        if version != VERSION or width not in (1, 2) or flags & ~3 or not 3 <= ndim <= 32:
            raise CorruptChunkError("the header makes no sense")
        if len(data) < _fixed(ndim, 0) + _CRC.size:
            raise CorruptChunkError("the chunk is truncated")
        shape = struct.unpack_from(f"<{ndim}Q", data, 8)
        movies = math.prod(shape[:-3])
        # Each movie has four bytes in the head: nothing is made for more of them than there are bytes.
        if math.prod(max(n, 1) for n in shape) >= 2**40 or len(data) < _fixed(ndim, movies) + _CRC.size:
            raise CorruptChunkError("the header's shape is out of range")
        used = struct.unpack_from(f"<{movies}I", data, _fixed(ndim, 0))
        if any(n > shape[-3] for n in used):
            raise CorruptChunkError("a movie has more frames than the chunk")
        count = sum(-(-n // sampling.frames) for n in used)
        at = _fixed(ndim, movies)
        end = at + _ENTRY.size * count
        if len(data) < end + _CRC.size:
            raise CorruptChunkError("the chunk is truncated")
        if _CRC.unpack_from(data, end)[0] != zlib.crc32(data[:end]):
            raise CorruptChunkError("the header's checksum does not match")
        if _CRC.unpack_from(data, _fixed(ndim, 0) - _CRC.size)[0] != definition(sampling):
            raise CorruptChunkError("the chunk was measured in another way than its array's metadata state")
        entries = tuple(Entry(kind=k, size=s, crc=c) for k, s, c in _ENTRY.iter_unpack(data[at:end]))
        if any(entry.kind not in (MEASURED, EXACT) for entry in entries):
            raise CorruptChunkError("a measurement of an unknown kind")
        return cls(dtype=np.dtype(f"u{width}"), shape=shape, flags=flags, used=used, entries=entries)


def definition(sampling: Sampling) -> int:
    """CRC-32 of what a measurement means: an edited configuration would decode to other frames."""
    s = sampling
    text = f"{s.measurement},{s.frames},{s.seed},{s.step},{s.time_bins},{s.space_bins}"
    return zlib.crc32(text.encode("ascii"))


def _fixed(ndim: int, movies: int) -> int:
    return 8 + 8 * ndim + _CRC.size + 4 * movies
