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

With a map in the configuration (:class:`stemcodecs.counts.counts_map.CountsMap`) it is the counts behind the values
that are quantised. Such a chunk has version 2, and in its header the values that the map does not give, kept exactly.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Self

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

if TYPE_CHECKING:
    from stemcodecs.counts.counts_map import CountsMap
    from stemcodecs.quantize.code_table import CodeTable

__all__ = ["NumcodecsPoissonHistogram", "PoissonHistogram"]

NAME = "stemcodecs.poisson_histogram"
_MAGIC = b"SCpq"
_VERSION, _MAPPED = 1, 2
_HEADER = struct.Struct("<4sBcBBIII")
_EXACT_BYTES = struct.Struct("<I")
_COUNTS = np.dtype(np.int32)
"""What is quantised behind a map."""
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


@dataclass(frozen=True, kw_only=True)
class _Meaning:
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
class _Head:
    """What stands before the codes of a chunk.

    Attributes
    ----------
    meaning : _Meaning
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
    exact : bytes
        Values that the map does not give.
    length : int
        Bytes until the codes begin.
    """

    meaning: _Meaning
    dtype: np.dtype[Any]
    code_dtype: np.dtype[Any]
    flags: int
    n_levels: int
    values: Int64 | None
    exact: bytes
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
        if len(data) < _HEADER.size + _EXACT_BYTES.size:
            raise CorruptChunkError(f"{len(data)} bytes are too few for a header")
        magic, version, *_, n_offsets = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise CorruptChunkError(f"not a {NAME} chunk")
        if version > _MAPPED:
            raise FormatVersionError(f"{NAME}: chunk of format version {version}; upgrade stemcodecs to read it")
        if most_offsets is not None and n_offsets > most_offsets:
            raise CorruptChunkError("the decoder's table does not match its levels")
        length = _HEADER.size + int(n_offsets) + _CHECKSUM.size
        if version == _MAPPED:
            length += _EXACT_BYTES.size + int(_EXACT_BYTES.unpack_from(data, _HEADER.size)[0])
        return length

    @classmethod
    def read(cls, meaning: _Meaning, data: memoryview | bytes, declared: np.dtype[Any] | None = None) -> Self:
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
        if (version == _MAPPED) != (meaning.map is not None):
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
        at = _HEADER.size + (_EXACT_BYTES.size if version == _MAPPED else 0)
        values = None
        if n_offsets:
            offsets = bytes(data[at : at + n_offsets])
            values = table.levels.midpoints + read_offsets(offsets, table.levels)
        exact = bytes(data[at + n_offsets : end])
        return cls(
            meaning=meaning, dtype=dtype, code_dtype=code_dtypes[0], flags=flags, n_levels=n_levels, values=values,
            exact=exact, length=length,
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
        from stemcodecs.counts.exact_values import ExactValues

        assert self.meaning.map is not None
        exact = ExactValues.from_bytes(self.exact, (n_positions, rows.shape[1]), self.dtype.itemsize)
        values = self.meaning.map.values(rows, self.dtype)
        exact.insert(values, positions)
        return values

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        try:
            self.meaning.check(self.dtype, shape)
        except ConfigurationError as error:
            raise CorruptChunkError(f"the chunk states a shape that its array cannot have ({error})") from error


def encode_quantised(meaning: _Meaning, entropy: PixelHistogram, chunk: np.ndarray[Any, Any]) -> bytes:
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
    version, exact, counts = _VERSION, b"", chunk
    if meaning.map is not None:
        version = _MAPPED
        counts, exact = _counts_behind(meaning, chunk)
    codes, n_levels = table.encode_compact(counts)
    offsets = b""
    if quantizer.decoder == "centroid" and quantizer.centroids is None and table.has_choice:
        sums = table.level_sums(counts.reshape(-1)[::_STRIDE])
        offsets = write_offsets(sums.offsets(table.levels))
    flags |= _CODE_FLAGS[codes.dtype]
    definition = meaning.definition(table)
    head = _HEADER.pack(_MAGIC, version, kind, width, flags, n_levels, definition, len(offsets))
    if version == _MAPPED:
        head += _EXACT_BYTES.pack(len(exact))
    head += offsets + exact
    return head + _CHECKSUM.pack(zlib.crc32(head)) + entropy.encode_chunk(codes)


def _counts_behind(meaning: _Meaning, chunk: Array) -> tuple[Array, bytes]:
    """Counts of a chunk, and the values that its map does not give."""
    from stemcodecs.counts.exact_values import ExactValues

    assert meaning.map is not None
    meaning.check(chunk.dtype, chunk.shape)
    native = np.ascontiguousarray(chunk, chunk.dtype.newbyteorder("="))
    patterns = native.reshape(-1, native.shape[-2] * native.shape[-1])
    counts, unknown = meaning.map.counts(patterns)
    exact = ExactValues.of(patterns, unknown).to_bytes()
    return counts.reshape(chunk.shape), exact


def decode_quantised(
    meaning: _Meaning, data: bytes | memoryview, decode_codes: Callable[[memoryview, int], Array]
) -> np.ndarray[Any, Any]:
    """Values of one chunk, within the bound of what was encoded.

    Parameters
    ----------
    meaning : _Meaning
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
    head = _Head.read(meaning, data)
    values = head.decode(decode_codes(data[head.length :], head.dtype.itemsize))
    values = values.astype(head.dtype.newbyteorder(">" if head.flags & _BIG_ENDIAN else "<"), copy=False)
    return np.asfortranarray(values) if head.flags & _COLUMN_MAJOR else values


@dataclass(frozen=True, kw_only=True)
class PoissonHistogram(PoissonQuantizer, PartialDecode, ChunkCodec):
    """Zarr format 3 serializer ``stemcodecs.poisson_histogram``.

    Attributes
    ----------
    mode : str
        Of the entropy coder, see :class:`stemcodecs.codecs.PixelHistogram`.
    map : str, optional
        How values become counts, where they are none: :meth:`stemcodecs.counts.counts_map.CountsMap.to_uri`. Then gain,
        offset and saturation are in units of the whole numbers behind the values, and chunks must span the detector.
    """

    codec_name = NAME
    mode: str = "auto"
    map: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check the configuration."""
        super().__post_init__()
        _ = self._entropy
        if self.map is not None:
            _ = self._meaning

    @property
    def _entropy(self) -> PixelHistogram:
        return PixelHistogram(mode=self.mode)

    @property
    def counts_map(self) -> CountsMap | None:
        """How values become counts, where they are none."""
        return _read_map(self.map)

    @property
    def _meaning(self) -> _Meaning:
        return _Meaning(quantizer=self, map=_read_map(self.map))

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:  # type: ignore[override]
        """From the metadata of an array."""
        _, configuration = parse_named_configuration(data, NAME, require_configuration=False)
        check_configuration(NAME, configuration or {}, {*KEYS, "mode", "map"})
        return cls(**(configuration or {}))  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, JSON]:
        """For the metadata of an array."""
        configuration = {**PoissonQuantizer.to_dict(self), "mode": self.mode}
        if self.map is not None:
            configuration["map"] = self.map
        return {"name": NAME, "configuration": configuration}

    def validate(self, *, shape: Any, dtype: Any, chunk_grid: Any) -> None:
        """Refuse a configuration that cannot work for this dtype when the array is created."""
        native = dtype.to_native_dtype()
        self._meaning.check(native, tuple(getattr(chunk_grid, "chunk_shape", shape)))
        self._meaning.table(native)

    def encode_chunk(self, chunk: np.ndarray[Any, Any]) -> bytes:
        """Encode a C-contiguous array of counts."""
        # Format 3 knows the byte order of its arrays; chunks are the same for each.
        native = chunk.astype(chunk.dtype.newbyteorder("<"), copy=False)
        return encode_quantised(self._meaning, self._entropy, native)

    def decode_chunk(self, data: bytes | memoryview) -> np.ndarray[Any, Any]:
        """Decode to counts within the bound."""
        return decode_quantised(self._meaning, data, lambda codes, _: self._entropy.decode_chunk(codes))

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        head = self._head(chunk_data.as_numpy_array().data, chunk_spec)
        codes = self._entropy._decode_sync(chunk_data[head.length :], self._codes_spec(head, chunk_spec))
        return self._values(head.decode(codes.as_numpy_array()), chunk_spec)

    def decode_in_steps(self, selection: Any, chunk_spec: ArraySpec, first_read: int) -> Steps:
        """Decode only the groups of scan positions that a selection needs."""
        (first,) = yield [(0, _FIRST_READ)]
        if first is None:
            return None
        native = chunk_spec.dtype.to_native_dtype()
        length = _Head.length_of(first, most_bytes(self._meaning.table(native).levels))
        if length > len(first):
            (rest,) = yield [(len(first), length)]
            first += rest or b""
        head = self._head(first, chunk_spec)
        spec = self._codes_spec(head, chunk_spec)
        steps = self._entropy.decode_in_steps
        if self.map is None:
            codes = yield from behind(steps(selection, spec, first_read), length)
            return None if codes is None else self._values(head.decode(codes.as_numpy_array()), chunk_spec)
        from stemcodecs.entropy.chunk.partial import positions_of, select

        # A map is one of whole patterns: the selection is made among their values.
        shape = tuple(chunk_spec.shape)
        self._meaning.check(native, shape)
        positions = positions_of(selection, shape)
        patterns = np.unravel_index(positions, shape[:-2])
        codes = yield from behind(steps(patterns, spec, first_read), length)
        if codes is None:
            return None
        counts = head.counts(codes.as_numpy_array()).reshape(positions.size, -1)
        values = head.values_of(counts, positions, math.prod(shape[:-2]))
        return self._values(select(values, positions, selection, shape), chunk_spec)

    def _head(self, data: bytes | memoryview, chunk_spec: ArraySpec) -> _Head:
        # The shape is held against the metadata by the entropy coder.
        return _Head.read(self._meaning, data, chunk_spec.dtype.to_native_dtype())

    @staticmethod
    def _codes_spec(head: _Head, chunk_spec: ArraySpec) -> ArraySpec:
        return replace(chunk_spec, dtype=_zarr_dtype(head.code_dtype), fill_value=head.code_dtype.type(0))

    @staticmethod
    def _values(values: Array, chunk_spec: ArraySpec) -> NDBuffer:
        values = values.astype(chunk_spec.dtype.to_native_dtype(), copy=False)
        return chunk_spec.prototype.nd_buffer.from_ndarray_like(values)  # type: ignore[arg-type]


def _read_map(uri: str | None) -> CountsMap | None:
    if uri is None:
        return None
    # Here, so that reading other metadata does not load Numba.
    from stemcodecs.counts.counts_map import CountsMap

    return CountsMap.from_uri(uri)


class NumcodecsPoissonHistogram(numcodecs.abc.Codec):  # type: ignore[misc]
    """numcodecs codec ``stemcodecs.poisson_histogram``, a compressor of Zarr format 2.

    Parameters
    ----------
    mode : str
        Of the entropy coder.
    map : str, optional
        As for :class:`PoissonHistogram`.
    **configuration
        As for :class:`stemcodecs.quantize.PoissonQuantizer`.
    """

    codec_id = NAME

    def __init__(self, mode: str = "auto", map: str | None = None, **configuration: Any) -> None:
        check_configuration(NAME, configuration, KEYS)
        self.quantizer = PoissonQuantizer(**configuration)
        self.mode = PixelHistogram(mode=mode).mode
        self.map = map
        self._meaning = _Meaning(quantizer=self.quantizer, map=_read_map(map))

    def get_config(self) -> dict[str, Any]:
        """For the metadata of an array."""
        config = {"id": NAME, "mode": self.mode, **self.quantizer.to_dict()}
        return config if self.map is None else {**config, "map": self.map}

    def encode(self, buf: Any) -> bytes:
        """Bytes of a chunk of counts."""
        chunk = numcodecs.compat.ensure_ndarray_like(buf)
        from stemcodecs.entropy.chunk.undeclared import check_encoded

        return check_encoded(chunk.nbytes, encode_quantised(self._meaning, PixelHistogram(mode=self.mode), chunk))

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Counts within the bound; see :mod:`stemcodecs.entropy.chunk.undeclared` for how much a chunk may hold."""
        from stemcodecs.entropy.chunk.undeclared import decode_undeclared

        data = numcodecs.compat.ensure_bytes(buf)
        values = decode_quantised(
            self._meaning, data, lambda codes, itemsize: decode_undeclared(codes, out, itemsize=itemsize)
        )
        return numcodecs.compat.ndarray_copy(values, out)
