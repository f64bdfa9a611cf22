"""``stemcodecs.poisson_histogram``: quantise within the shot noise and entropy-code, in one codec.

The same levels as ``stemcodecs.poisson_quantize`` in front of ``stemcodecs.pixel_histogram``, fused
where that is more than the two in a row: the codes take the smallest dtype that one chunk needs,
centroids are learned in every chunk (no first pass, a stream can be stored as it comes), every
value of an integer dtype has a code, and no Zarr rule about filters applies.

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
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Self

import numcodecs.abc
import numcodecs.compat
import numpy as np
from zarr.abc.buffer import Buffer, NDBuffer
from zarr.dtype import parse_dtype

from stemcodecs.codecs.base import ChunkCodec, check_configuration
from stemcodecs.codecs.partial_decode import PartialDecode, Steps, behind
from stemcodecs.codecs.pixel_histogram import PixelHistogram
from stemcodecs.errors import ConfigurationError, CorruptChunkError, FormatVersionError, UnsupportedDtypeError
from stemcodecs.quantize.decoders import most_bytes, read_offsets, write_offsets
from stemcodecs.quantize.levels import Int64
from stemcodecs.quantize.poisson_quantizer import KEYS, PoissonQuantizer
from stemcodecs.zarr_private import JSON, ArraySpec, parse_named_configuration

__all__ = ["NumcodecsPoissonHistogram", "PoissonHistogram"]

NAME = "stemcodecs.poisson_histogram"
_MAGIC = b"SCpq"
_VERSION = 1
_HEADER = struct.Struct("<4sBcBBIII")
_CHECKSUM = struct.Struct("<I")
# Every 7th value is enough for means of thousands of values, and 7 divides no detector's width.
_STRIDE = 7
_COLUMN_MAJOR = 1
_BIG_ENDIAN = 2
_CODE_FLAGS: dict[np.dtype[Any], int] = {np.dtype(np.uint8): 0, np.dtype(np.uint16): 4, np.dtype(np.uint32): 8}
_FIRST_READ = 1 << 12

Array = np.ndarray[Any, Any]


@cache
def _zarr_dtype(dtype: np.dtype[Any]) -> Any:
    """Zarr's word for a dtype of codes: it takes longer to find than many a chunk to decode."""
    return parse_dtype(dtype, zarr_format=3)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Head:
    """What stands before the codes of a chunk.

    Attributes
    ----------
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
    length : int
        Bytes until the codes begin.
    """

    dtype: np.dtype[Any]
    code_dtype: np.dtype[Any]
    flags: int
    n_levels: int
    values: Int64 | None
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
        if len(data) < _HEADER.size:
            raise CorruptChunkError(f"{len(data)} bytes are too few for a header")
        magic, version, *_, n_offsets = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise CorruptChunkError(f"not a {NAME} chunk")
        if version > _VERSION:
            raise FormatVersionError(f"{NAME}: chunk of format version {version}; upgrade stemcodecs to read it")
        if most_offsets is not None and n_offsets > most_offsets:
            raise CorruptChunkError("the decoder's table does not match its levels")
        return _HEADER.size + int(n_offsets) + _CHECKSUM.size

    @classmethod
    def read(cls, quantizer: PoissonQuantizer, data: memoryview | bytes, declared: np.dtype[Any] | None = None) -> Self:
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
        _, version, kind, width, flags, n_levels, definition, _ = _HEADER.unpack_from(data)
        code_dtypes = [d for d, flag in _CODE_FLAGS.items() if flag == flags & ~(_COLUMN_MAJOR | _BIG_ENDIAN)]
        known = kind in (b"i", b"u", b"f") and width in (1, 2, 4, 8) and (kind, width) != (b"f", 1)
        # Codes are never wider than the values that they stand for.
        if version == 0 or not known or not code_dtypes or code_dtypes[0].itemsize > width:
            raise CorruptChunkError("the header makes no sense")
        dtype = np.dtype(f"{kind.decode('ascii')}{width}")
        # Held against the metadata before the levels of a wider dtype are laid out, which can be millions.
        if declared is not None and dtype != declared.newbyteorder("="):
            raise CorruptChunkError(f"the chunk holds {dtype}, the array expects {declared}")
        try:
            table = quantizer.table(dtype)
        except (ConfigurationError, UnsupportedDtypeError) as error:
            raise CorruptChunkError(f"the chunk states a dtype that its array cannot have ({error})") from error
        # A code means nothing without its levels: an edited r would decode to values that break the bound.
        if definition != table.definition:
            raise CorruptChunkError(
                "the chunk was quantised with another configuration than its array's metadata state"
            )
        if not 1 <= n_levels <= table.levels.count:
            raise CorruptChunkError(f"{n_levels} levels of {table.levels.count}")
        values = None
        if end > _HEADER.size:
            values = table.levels.midpoints + read_offsets(bytes(data[_HEADER.size : end]), table.levels)
        return cls(dtype=dtype, code_dtype=code_dtypes[0], flags=flags, n_levels=n_levels, values=values, length=length)

    def decode(self, quantizer: PoissonQuantizer, codes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Values of codes, in native byte order; they may take the codes' place in memory."""
        if codes.dtype.newbyteorder("=") != self.code_dtype:
            raise CorruptChunkError(f"codes are {codes.dtype}, the header says {self.code_dtype}")
        return quantizer.table(self.dtype).decode(codes, self.n_levels, self.values, overwrite=True)


def encode_quantised(quantizer: PoissonQuantizer, entropy: PixelHistogram, chunk: np.ndarray[Any, Any]) -> bytes:
    """Bytes of one chunk.

    Raises
    ------
    ValueRangeError
        If a float is not a whole number.
    UnsupportedDtypeError
        For dtypes that hold no counts.
    """
    table = quantizer.table(chunk.dtype)
    codes, n_levels = table.encode_compact(chunk)
    offsets = b""
    if quantizer.decoder == "centroid" and quantizer.centroids is None and table.has_choice:
        sums = table.level_sums(chunk.reshape(-1)[::_STRIDE])
        offsets = write_offsets(sums.offsets(table.levels))
    kind = table.dtype.kind.encode("ascii")
    # Zarr format 2 takes the decoded values as they lie in memory.
    flags = _CODE_FLAGS[codes.dtype]
    flags |= _COLUMN_MAJOR * (chunk.flags.f_contiguous and not chunk.flags.c_contiguous)
    flags |= _BIG_ENDIAN * (chunk.dtype.str[0] == ">")
    width = table.dtype.itemsize
    head = _HEADER.pack(_MAGIC, _VERSION, kind, width, flags, n_levels, table.definition, len(offsets)) + offsets
    return head + _CHECKSUM.pack(zlib.crc32(head)) + entropy.encode_chunk(codes)


def decode_quantised(
    quantizer: PoissonQuantizer, data: bytes | memoryview, decode_codes: Callable[[memoryview, int], Array]
) -> np.ndarray[Any, Any]:
    """Values of one chunk, within the bound of what was encoded.

    Parameters
    ----------
    quantizer : PoissonQuantizer
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
    head = _Head.read(quantizer, data)
    values = head.decode(quantizer, decode_codes(data[head.length :], head.dtype.itemsize))
    values = values.astype(head.dtype.newbyteorder(">" if head.flags & _BIG_ENDIAN else "<"), copy=False)
    return np.asfortranarray(values) if head.flags & _COLUMN_MAJOR else values


@dataclass(frozen=True, kw_only=True)
class PoissonHistogram(PoissonQuantizer, PartialDecode, ChunkCodec):
    """Zarr format 3 serializer ``stemcodecs.poisson_histogram``.

    Attributes
    ----------
    mode : str
        Of the entropy coder, see :class:`stemcodecs.codecs.PixelHistogram`.
    """

    codec_name = NAME
    mode: str = "auto"

    def __post_init__(self) -> None:
        """Check the configuration."""
        super().__post_init__()
        _ = self._entropy

    @property
    def _entropy(self) -> PixelHistogram:
        return PixelHistogram(mode=self.mode)

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:  # type: ignore[override]
        """From the metadata of an array."""
        _, configuration = parse_named_configuration(data, NAME, require_configuration=False)
        check_configuration(NAME, configuration or {}, {*KEYS, "mode"})
        return cls(**(configuration or {}))  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, JSON]:
        """For the metadata of an array."""
        return {
            "name": NAME,
            "configuration": {**PoissonQuantizer.to_dict(self), "mode": self.mode},
        }

    def validate(self, *, shape: Any, dtype: Any, chunk_grid: Any) -> None:
        """Refuse a configuration that cannot work for this dtype when the array is created."""
        self.table(dtype.to_native_dtype())

    def encode_chunk(self, chunk: np.ndarray[Any, Any]) -> bytes:
        """Encode a C-contiguous array of counts."""
        # Format 3 knows the byte order of its arrays; chunks are the same for each.
        native = chunk.astype(chunk.dtype.newbyteorder("<"), copy=False)
        return encode_quantised(self, self._entropy, native)

    def decode_chunk(self, data: bytes | memoryview) -> np.ndarray[Any, Any]:
        """Decode to counts within the bound."""
        return decode_quantised(self, data, lambda codes, _: self._entropy.decode_chunk(codes))

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        head = self._head(chunk_data.as_numpy_array().data, chunk_spec)
        codes = self._entropy._decode_sync(chunk_data[head.length :], self._codes_spec(head, chunk_spec))
        return self._values(head, codes, chunk_spec)

    def decode_in_steps(self, selection: Any, chunk_spec: ArraySpec, first_read: int) -> Steps:
        """Decode only the groups of scan positions that a selection needs."""
        (first,) = yield [(0, _FIRST_READ)]
        if first is None:
            return None
        length = _Head.length_of(first, most_bytes(self.levels(chunk_spec.dtype.to_native_dtype())))
        if length > len(first):
            (rest,) = yield [(len(first), length)]
            first += rest or b""
        head = self._head(first, chunk_spec)
        spec = self._codes_spec(head, chunk_spec)
        codes = yield from behind(self._entropy.decode_in_steps(selection, spec, first_read), length)
        return None if codes is None else self._values(head, codes, chunk_spec)

    def _head(self, data: bytes | memoryview, chunk_spec: ArraySpec) -> _Head:
        # The shape is held against the metadata by the entropy coder.
        return _Head.read(self, data, chunk_spec.dtype.to_native_dtype())

    @staticmethod
    def _codes_spec(head: _Head, chunk_spec: ArraySpec) -> ArraySpec:
        return replace(chunk_spec, dtype=_zarr_dtype(head.code_dtype), fill_value=head.code_dtype.type(0))

    def _values(self, head: _Head, codes: NDBuffer, chunk_spec: ArraySpec) -> NDBuffer:
        values = head.decode(self, codes.as_numpy_array())
        values = values.astype(chunk_spec.dtype.to_native_dtype(), copy=False)
        return chunk_spec.prototype.nd_buffer.from_ndarray_like(values)  # type: ignore[arg-type]


class NumcodecsPoissonHistogram(numcodecs.abc.Codec):  # type: ignore[misc]
    """numcodecs codec ``stemcodecs.poisson_histogram``, a compressor of Zarr format 2.

    Parameters
    ----------
    mode : str
        Of the entropy coder.
    **configuration
        As for :class:`stemcodecs.quantize.PoissonQuantizer`.
    """

    codec_id = NAME

    def __init__(self, mode: str = "auto", **configuration: Any) -> None:
        check_configuration(NAME, configuration, KEYS)
        self.quantizer = PoissonQuantizer(**configuration)
        self.mode = PixelHistogram(mode=mode).mode

    def get_config(self) -> dict[str, Any]:
        """For the metadata of an array."""
        return {"id": NAME, "mode": self.mode, **self.quantizer.to_dict()}

    def encode(self, buf: Any) -> bytes:
        """Bytes of a chunk of counts."""
        chunk = numcodecs.compat.ensure_ndarray_like(buf)
        from stemcodecs.entropy.chunk.undeclared import check_encoded

        return check_encoded(chunk.nbytes, encode_quantised(self.quantizer, PixelHistogram(mode=self.mode), chunk))

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Counts within the bound; see :mod:`stemcodecs.entropy.chunk.undeclared` for how much a chunk may hold."""
        from stemcodecs.entropy.chunk.undeclared import decode_undeclared

        data = numcodecs.compat.ensure_bytes(buf)
        values = decode_quantised(
            self.quantizer, data, lambda codes, itemsize: decode_undeclared(codes, out, itemsize=itemsize)
        )
        return numcodecs.compat.ndarray_copy(values, out)
