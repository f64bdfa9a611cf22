"""``stemcodecs.bit_pack``: every value in the same few bits, as a detector's chip would send it.

No statistics, no state, a fixed rate: the ratio is known before the first frame. Behind
``stemcodecs.poisson_quantize`` with a preset it is the 8- or 9-bit stream of the on-detector
compression of M. Hammer et al., JINST 16, P01025 (2021), doi:10.1088/1748-0221/16/01/P01025; for
archives ``stemcodecs.pixel_histogram`` is smaller.

A chunk is a header, the stream, and a checksum::

    bytes  content
    0-3    magic "SCbp"
    4      format version, 1
    5      kind of the dtype, one of "iu"
    6      bytes per value
    7      b, bits per value
    8      number of dimensions d, plus 64 for values in column-major order and 128 for big-endian
           values (both in Zarr format 2 only: how the decoded values lie in memory)
    9-     d lengths                     (uint64, little-endian)
    ..     the stream: value i takes bits i·b to i·b + b − 1; bit n is bit n mod 8 of
           byte ⌊n/8⌋; zero bits fill the last byte
    last 4 CRC-32 of all bytes before
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Self

import numcodecs.abc
import numcodecs.compat
import numpy as np
from zarr.abc.buffer import Buffer, NDBuffer

from stemcodecs.codecs.base import ChunkCodec, as_buffer, check_configuration, check_declared
from stemcodecs.errors import (
    ConfigurationError,
    CorruptChunkError,
    FormatVersionError,
    UnsupportedDtypeError,
    ValueRangeError,
)
from stemcodecs.zarr_private import JSON, ArraySpec, parse_named_configuration

__all__ = ["BitPack", "NumcodecsBitPack", "packed_size"]

NAME = "stemcodecs.bit_pack"
_MAGIC = b"SCbp"
_VERSION = 1
_HEADER = struct.Struct("<4sBcBBB")
_CHECKSUM = struct.Struct("<I")
_MOST_BITS = 32
_MOST_DIMENSIONS = 32
_COLUMN_MAJOR = 64
_BIG_ENDIAN = 128


def packed_size(values: int, bits: int) -> int:
    """Bytes of a stream of so many values; the ratio to expect is ``nbytes / packed_size``."""
    return -(-values * bits // 8)


def _check_bits(bits: Any) -> int:
    if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= _MOST_BITS:
        raise ConfigurationError(f"{NAME}: bits = {bits!r} must be a whole number from 1 to {_MOST_BITS}")
    return bits


def _require_numeric(dtype: np.dtype[Any], bits: int) -> None:
    if dtype.kind not in "iu" or dtype.itemsize > 4:
        raise UnsupportedDtypeError(
            f"{NAME}: cannot pack dtype {dtype}; it packs integers of 8, 16 and 32 bits: "
            "put stemcodecs.poisson_quantize before it, or use stemcodecs.pixel_histogram"
        )
    if bits > 8 * dtype.itemsize:
        raise ConfigurationError(f"{NAME}: {bits} bits are more than {dtype} has; choose at most {8 * dtype.itemsize}")


def pack_bits(bits: int, chunk: np.ndarray[Any, Any]) -> bytes:
    """Bytes of one chunk.

    Raises
    ------
    ValueRangeError
        If a value is negative or needs more bits.
    UnsupportedDtypeError
        For anything but integers of 8, 16 and 32 bits.
    """
    from stemcodecs.quantize.level_kernels import pack

    _require_numeric(chunk.dtype, bits)
    flat = np.ascontiguousarray(chunk).reshape(-1)
    flat = flat.astype(flat.dtype.newbyteorder("="), copy=False)
    smallest, largest = int(flat.min(initial=0)), int(flat.max(initial=0))
    if smallest < 0 or largest >> bits:
        value = smallest if smallest < 0 else largest
        raise ValueRangeError(
            f"{NAME}: value {value} does not fit {bits} bits (0..{(1 << bits) - 1}); "
            "raise bits, or quantise with a preset that has fewer levels"
        )
    stream = np.zeros(packed_size(flat.size, bits), dtype=np.uint8)
    pack(flat, bits, stream)
    # Zarr format 2 takes the decoded values as they lie in memory.
    flags = _COLUMN_MAJOR * (chunk.flags.f_contiguous and not chunk.flags.c_contiguous)
    flags |= _BIG_ENDIAN * (chunk.dtype.str[0] == ">")
    kind = flat.dtype.kind.encode("ascii")
    head = _HEADER.pack(_MAGIC, _VERSION, kind, flat.dtype.itemsize, bits, chunk.ndim | flags)
    body = head + struct.pack(f"<{chunk.ndim}Q", *chunk.shape) + stream.tobytes()
    return body + _CHECKSUM.pack(zlib.crc32(body))


def unpack_bits(
    bits: int, data: bytes | memoryview, declared: Callable[[np.dtype[Any], tuple[int, ...]], None] | None = None
) -> np.ndarray[Any, Any]:
    """Values of one chunk.

    Parameters
    ----------
    bits : int
        Of the configuration.
    data : bytes
        The chunk.
    declared : callable, optional
        Is given the dtype and shape that the chunk states before there is room for its values, to refuse them.

    Raises
    ------
    CorruptChunkError
        If the bytes were altered.
    FormatVersionError
        If a newer stemcodecs wrote them.
    """
    from stemcodecs.quantize.level_kernels import unpack

    data = memoryview(data)
    if len(data) < _HEADER.size + _CHECKSUM.size:
        raise CorruptChunkError(f"{len(data)} bytes are too few for a header")
    magic, version, kind, width, packed_bits, ndim_and_flags = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise CorruptChunkError(f"not a {NAME} chunk")
    if version > _VERSION:
        raise FormatVersionError(f"{NAME}: chunk of format version {version}; upgrade stemcodecs to read it")
    if zlib.crc32(data[: -_CHECKSUM.size]) != _CHECKSUM.unpack_from(data, len(data) - _CHECKSUM.size)[0]:
        raise CorruptChunkError("the checksum does not match")
    ndim = ndim_and_flags & ~(_COLUMN_MAJOR | _BIG_ENDIAN)
    start = _HEADER.size + 8 * ndim
    sane = version and kind in (b"i", b"u") and width in (1, 2, 4) and ndim <= _MOST_DIMENSIONS
    # A chunk of another width would decode, to other values.
    if not sane or packed_bits != bits or packed_bits > 8 * width or start + _CHECKSUM.size > len(data):
        raise CorruptChunkError(f"the header makes no sense for {bits} bits")
    shape = struct.unpack_from(f"<{ndim}Q", data, _HEADER.size)
    stream = np.frombuffer(data[start : -_CHECKSUM.size], dtype=np.uint8)
    # Python integers cannot overflow here, so a hostile shape cannot pass this comparison.
    if packed_size(prod(shape), bits) != stream.size:
        raise CorruptChunkError(f"{stream.size} bytes do not hold {shape} values of {bits} bits")
    dtype = np.dtype(f"{kind.decode('ascii')}{width}")
    if prod(max(n, 1) for n in shape) >= 1 << 48:
        raise CorruptChunkError("the header's shape is out of range")
    if declared is not None:
        declared(dtype, shape)
    values = np.empty(prod(shape), dtype=dtype)
    unpack(stream, bits, values.view(f"u{width}"))
    values = values.reshape(shape)
    values = values.astype(values.dtype.newbyteorder(">" if ndim_and_flags & _BIG_ENDIAN else "<"), copy=False)
    return np.asfortranarray(values) if ndim_and_flags & _COLUMN_MAJOR else values


@dataclass(frozen=True, kw_only=True)
class BitPack(ChunkCodec):
    """Zarr format 3 serializer ``stemcodecs.bit_pack``.

    Attributes
    ----------
    bits : int
        Bits per value, 1 to 32.
    """

    codec_name = NAME
    is_fixed_size = True
    bits: int

    def __post_init__(self) -> None:
        _check_bits(self.bits)

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        """From the metadata of an array."""
        _, configuration = parse_named_configuration(data, NAME)
        check_configuration(NAME, configuration, {"bits"})
        if "bits" not in configuration:
            raise ConfigurationError(f"{NAME}: the configuration lacks bits; restore the array's metadata")
        return cls(**configuration)  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, JSON]:
        """For the metadata of an array."""
        return {"name": NAME, "configuration": {"bits": self.bits}}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Known before encoding: the rate is fixed."""
        head = _HEADER.size + 8 * len(chunk_spec.shape) + _CHECKSUM.size
        return head + packed_size(prod(chunk_spec.shape), self.bits)

    def encode_chunk(self, chunk: np.ndarray[Any, Any]) -> bytes:
        """Pack integers, all below 2^bits."""
        # Format 3 knows the byte order of its arrays; chunks are the same for each.
        return pack_bits(self.bits, chunk.astype(chunk.dtype.newbyteorder("<"), copy=False))

    def decode_chunk(self, data: bytes | memoryview) -> np.ndarray[Any, Any]:
        """Unpack."""
        return unpack_bits(self.bits, data)

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        data = chunk_data.as_numpy_array().data
        values = unpack_bits(self.bits, data, lambda dtype, shape: check_declared(dtype, shape, chunk_spec))
        return as_buffer(values.astype(chunk_spec.dtype.to_native_dtype(), copy=False), chunk_spec)


class NumcodecsBitPack(numcodecs.abc.Codec):  # type: ignore[misc]
    """numcodecs codec ``stemcodecs.bit_pack``, a compressor of Zarr format 2.

    Parameters
    ----------
    bits : int
        Bits per value, 1 to 32.
    """

    codec_id = NAME

    def __init__(self, bits: int) -> None:
        self.bits = _check_bits(bits)

    def encode(self, buf: Any) -> bytes:
        """Pack integers, all below 2^bits."""
        return pack_bits(self.bits, numcodecs.compat.ensure_ndarray_like(buf))

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Unpack; without ``out``, a byte of the chunk makes at most 32 bytes of values."""
        data = numcodecs.compat.ensure_bytes(buf)
        values = unpack_bits(self.bits, data, lambda dtype, shape: _check_out(dtype, shape, out))
        return numcodecs.compat.ndarray_copy(values, out)


def _check_out(dtype: np.dtype[Any], shape: tuple[int, ...], out: Any) -> None:
    if out is not None and numcodecs.compat.ensure_ndarray_like(out).nbytes != prod(shape) * dtype.itemsize:
        raise CorruptChunkError(f"the chunk holds {dtype}{shape}, the array expects another size")
