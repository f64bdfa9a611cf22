"""Bytes of a chunk of ``stemcodecs.poisson_histogram``: codes of counts, or of the counts behind values.

A chunk is a header, the offsets of the decoded values from the bin midpoints, and a pixel_histogram
chunk of the codes::

    bytes  content
    0-3    magic "SCpq"
    4      format version, 1
    5      kind of the dtype, one of "iuf"
    6      bytes per value
    7      flags: 1 for values in column-major order, 2 for big-endian values (both in Zarr format 2
           only), 4 for codes of 16 bits, 8 for codes of 32 bits
    8-11   number of levels; codes from there on are escapes (uint32, little-endian, as all)
    12-15  CRC-32 of what codes mean (CodeTable.definition): refuses a configuration that was edited
    16-19  n, bytes of the table of offsets
    20-    the table: zigzag LEB128 numbers, one per level
    20+n   CRC-32 of all bytes before it
    24+n   a stemcodecs.pixel_histogram chunk

With a map in the configuration (:class:`stemcodecs.counts.counts_map.CountsMap`) it is the counts behind the values
that are quantised. Such a chunk has version 2, and in its header what it keeps beside the counts
(:class:`stemcodecs.counts.beside_counts.BesideCounts`); version 3 where scales of patterns are among it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from stemcodecs.codecs.pixel_histogram import PixelHistogram
from stemcodecs.errors import ConfigurationError, CorruptChunkError, FormatVersionError, UnsupportedDtypeError
from stemcodecs.quantize.decoders import read_offsets, write_offsets
from stemcodecs.quantize.levels import Int64
from stemcodecs.quantize.poisson_quantizer import PoissonQuantizer

if TYPE_CHECKING:
    from stemcodecs.counts.beside_counts import BesideCounts
    from stemcodecs.counts.counts_map import CountsMap
    from stemcodecs.quantize.code_table import CodeTable

__all__ = ["Head", "Meaning", "decode_quantised", "encode_quantised"]

NAME = "stemcodecs.poisson_histogram"
_MAGIC = b"SCpq"
_VERSION, _MAPPED, _SCALED = 1, 2, 3
_HEADER = struct.Struct("<4sBcBBIII")
_BESIDE_BYTES = struct.Struct("<I")
_COUNTS = np.dtype(np.int32)
"""What is quantised behind a map."""
_CHECKSUM = struct.Struct("<I")
# Every 7th value is enough for means of thousands of values, and 7 divides no detector's width.
_STRIDE = 7
_COLUMN_MAJOR = 1
_BIG_ENDIAN = 2
_CODE_FLAGS: dict[np.dtype[Any], int] = {np.dtype(np.uint8): 0, np.dtype(np.uint16): 4, np.dtype(np.uint32): 8}

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What codes stand for, by the configuration.

    Attributes
    ----------
    quantizer : PoissonQuantizer
        Levels of counts.
    map : CountsMap or None
        How values become counts; None: they are.
    """

    quantizer: PoissonQuantizer
    map: CountsMap | None = None

    def table(self, dtype: np.dtype[Any]) -> CodeTable:
        """Codes of the counts behind values of a dtype."""
        return self.quantizer.table(dtype if self.map is None else _COUNTS)

    def definition(self, table: CodeTable) -> int:
        """CRC-32 of all that decides a value."""
        if self.map is None:
            return table.definition
        return zlib.crc32(struct.pack("<I", self.map.checksum), table.definition)

    @property
    def version(self) -> int:
        """Of the chunks."""
        return _VERSION if self.map is None else _SCALED if self.map.scaled else _MAPPED

    def check(self, dtype: np.dtype[Any], detector: tuple[int, ...]) -> None:
        """Refuse what the map is not of.

        Raises
        ------
        ConfigurationError
            The dtype is of another kind, or chunks do not span the detector.
        """
        if self.map is not None:
            self.map.check(dtype, detector)


@dataclass(frozen=True, kw_only=True, eq=False)
class Head:
    """What stands before the codes of a chunk.

    Attributes
    ----------
    meaning : Meaning
        Of the configuration.
    dtype : dtype
        Of the values, in native byte order.
    code_dtype : dtype
        Of the codes.
    flags : int
        How the values lie in memory.
    n_levels : int
        Codes from there on are escapes.
    values : array of int64 or None
        What levels decode to, if the chunk has a table of its own.
    beside : bytes
        What is kept beside the counts behind a map.
    length : int
        Bytes until the codes begin.
    """

    meaning: Meaning
    dtype: np.dtype[Any]
    code_dtype: np.dtype[Any]
    flags: int
    n_levels: int
    values: Int64 | None
    beside: bytes
    length: int

    @staticmethod
    def length_of(data: memoryview | bytes, most_offsets: int | None = None) -> int:
        """Bytes of the whole head, from its first bytes; with a table of no more than ``most_offsets`` bytes.

        Raises
        ------
        CorruptChunkError
            If these are no such bytes.
        FormatVersionError
            If a newer stemcodecs wrote them.
        """
        if len(data) < _HEADER.size + _BESIDE_BYTES.size:
            raise CorruptChunkError(f"{len(data)} bytes are too few for a header")
        magic, version, *_, n_offsets = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise CorruptChunkError(f"not a {NAME} chunk")
        if version > _SCALED:
            raise FormatVersionError(f"{NAME}: chunk of format version {version}; upgrade stemcodecs to read it")
        if most_offsets is not None and n_offsets > most_offsets:
            raise CorruptChunkError("the decoder's table does not match its levels")
        length = _HEADER.size + int(n_offsets) + _CHECKSUM.size
        if version >= _MAPPED:
            length += _BESIDE_BYTES.size + int(_BESIDE_BYTES.unpack_from(data, _HEADER.size)[0])
        return length

    @classmethod
    def read(cls, meaning: Meaning, data: memoryview | bytes, declared: np.dtype[Any] | None = None) -> Self:
        """Read and check the head of a chunk, of values of the ``declared`` dtype if it is known.

        Raises
        ------
        CorruptChunkError
            If the bytes were altered, or were written with another configuration.
        FormatVersionError
            If a newer stemcodecs wrote them.
        """
        length = cls.length_of(data)
        if length > len(data):
            raise CorruptChunkError("the chunk is truncated")
        end = length - _CHECKSUM.size
        if _CHECKSUM.unpack_from(data, end) != (zlib.crc32(data[:end]),):
            raise CorruptChunkError("the header's checksum does not match")
        _, version, kind, width, flags, n_levels, definition, n_offsets = _HEADER.unpack_from(data)
        code_dtypes = [d for d, flag in _CODE_FLAGS.items() if flag == flags & ~(_COLUMN_MAJOR | _BIG_ENDIAN)]
        known = kind in (b"i", b"u", b"f") and width in (1, 2, 4, 8) and (kind, width) != (b"f", 1)
        if version == 0 or not known or not code_dtypes:
            raise CorruptChunkError("the header makes no sense")
        # Codes are never wider than the values that they stand for, or than the counts behind these.
        if code_dtypes[0].itemsize > (width if version == _VERSION else _COUNTS.itemsize):
            raise CorruptChunkError("the header makes no sense")
        dtype = np.dtype(f"{kind.decode('ascii')}{width}")
        # Held against the metadata before the levels of a wider dtype are laid out, which can be millions.
        if declared is not None and dtype != declared.newbyteorder("="):
            raise CorruptChunkError(f"the chunk holds {dtype}, the array expects {declared}")
        if version != meaning.version:
            raise CorruptChunkError(
                "the chunk and its array's metadata do not agree whether values are mapped to counts"
            )
        try:
            table = meaning.table(dtype)
        except (ConfigurationError, UnsupportedDtypeError) as error:
            raise CorruptChunkError(f"the chunk states a dtype that its array cannot have ({error})") from error
        # A code means nothing without its levels: an edited r would decode to values that break the bound.
        if definition != meaning.definition(table):
            raise CorruptChunkError(
                "the chunk was quantised with another configuration than its array's metadata state"
            )
        if not 1 <= n_levels <= table.levels.count:
            raise CorruptChunkError(f"{n_levels} levels of {table.levels.count}")
        at = _HEADER.size + (_BESIDE_BYTES.size if version >= _MAPPED else 0)
        values = None
        if n_offsets:
            offsets = bytes(data[at : at + n_offsets])
            values = table.levels.midpoints + read_offsets(offsets, table.levels)
        beside = bytes(data[at + n_offsets : end])
        return cls(
            meaning=meaning, dtype=dtype, code_dtype=code_dtypes[0], flags=flags, n_levels=n_levels, values=values,
            beside=beside, length=length,
        )  # fmt: skip

    def decode(self, codes: Array) -> Array:
        """Values of the codes of a chunk, in native byte order; they may take the codes' place in memory."""
        counts = self.counts(codes)
        if self.meaning.map is None:
            return counts
        shape = counts.shape
        self._check_shape(shape)
        rows = counts.reshape(-1, shape[-2] * shape[-1])
        return self.values_of(rows, None, len(rows)).reshape(shape)

    def counts(self, codes: Array) -> Array:
        """Counts of codes: the values, or those behind them."""
        if codes.dtype.newbyteorder("=") != self.code_dtype:
            raise CorruptChunkError(f"codes are {codes.dtype}, the header says {self.code_dtype}")
        return self.meaning.table(self.dtype).decode(codes, self.n_levels, self.values, overwrite=True)

    def values_of(self, rows: Array, positions: Array | None, n_positions: int) -> Array:
        """Values of counts[k, pixels] behind a map, of these positions of the chunk or of all."""
        from stemcodecs.counts.beside_counts import BesideCounts

        assert self.meaning.map is not None
        shape = (n_positions, rows.shape[1])
        beside = BesideCounts.from_bytes(self.beside, self.meaning.map, shape, self.dtype.itemsize)
        return beside.values(rows, self.dtype, positions)

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        try:
            self.meaning.check(self.dtype, shape)
        except ConfigurationError as error:
            raise CorruptChunkError(f"the chunk states a shape that its array cannot have ({error})") from error


def encode_quantised(meaning: Meaning, entropy: PixelHistogram, chunk: np.ndarray[Any, Any]) -> bytes:
    """Bytes of one chunk.

    Raises
    ------
    ValueRangeError
        If a float is not a whole number.
    UnsupportedDtypeError
        For dtypes that hold no counts.
    ConfigurationError
        If the chunk is not one that the map is of.
    """
    quantizer, table = meaning.quantizer, meaning.table(chunk.dtype)
    kind, width = chunk.dtype.kind.encode("ascii"), chunk.dtype.itemsize
    # Zarr format 2 takes the decoded values as they lie in memory.
    flags = _COLUMN_MAJOR * (chunk.flags.f_contiguous and not chunk.flags.c_contiguous)
    flags |= _BIG_ENDIAN * (chunk.dtype.str[0] == ">")
    beside, counts = b"", chunk
    if meaning.map is not None:
        counts, kept = _counts_behind(meaning, chunk)
        beside = kept.to_bytes()
    codes, n_levels = table.encode_compact(counts)
    offsets = b""
    if quantizer.decoder == "centroid" and quantizer.centroids is None and table.has_choice:
        sums = table.level_sums(counts.reshape(-1)[::_STRIDE])
        offsets = write_offsets(sums.offsets(table.levels))
    flags |= _CODE_FLAGS[codes.dtype]
    definition = meaning.definition(table)
    head = _HEADER.pack(_MAGIC, meaning.version, kind, width, flags, n_levels, definition, len(offsets))
    if meaning.map is not None:
        head += _BESIDE_BYTES.pack(len(beside))
    head += offsets + beside
    return head + _CHECKSUM.pack(zlib.crc32(head)) + entropy.encode_chunk(codes)


def _counts_behind(meaning: Meaning, chunk: Array) -> tuple[Array, BesideCounts]:
    """Counts of a chunk, and what is kept beside them."""
    from stemcodecs.counts.beside_counts import BesideCounts

    assert meaning.map is not None
    meaning.check(chunk.dtype, chunk.shape)
    native = np.ascontiguousarray(chunk, chunk.dtype.newbyteorder("="))
    patterns = native.reshape(-1, native.shape[-2] * native.shape[-1])
    counts, _, beside = BesideCounts.split(patterns, meaning.map)
    return counts.reshape(chunk.shape), beside


def decode_quantised(
    meaning: Meaning, data: bytes | memoryview, decode_codes: Callable[[memoryview, int], Array]
) -> np.ndarray[Any, Any]:
    """Values of one chunk, within the bound of what was encoded.

    Parameters
    ----------
    meaning : Meaning
        Of the configuration.
    data : bytes
        The chunk.
    decode_codes : callable
        Decodes the chunk of codes, given bytes per value as well.

    Raises
    ------
    CorruptChunkError
        If the bytes were altered, or were written with another configuration.
    FormatVersionError
        If a newer stemcodecs wrote them.
    """
    data = memoryview(data)
    head = Head.read(meaning, data)
    values = head.decode(decode_codes(data[head.length :], head.dtype.itemsize))
    values = values.astype(head.dtype.newbyteorder(">" if head.flags & _BIG_ENDIAN else "<"), copy=False)
    return np.asfortranarray(values) if head.flags & _COLUMN_MAJOR else values
