"""``stemcodecs.pca``: patterns as a few coefficients of the scan's eigen-patterns, with or without
what is left.

The basis, fitted to the whole scan and quantised to integers, travels in the codec's configuration;
a chunk holds the integer coefficients of its patterns and, with a residual, the counts coded given
the prediction. Without a residual there is no pointwise guarantee, and the configuration says so.
Chunk bytes: ``lowrank/FORMAT.md``. Sources: Loetgering et al. 2017 (doi:10.1515/aot-2017-0053) for
PCA of ptychographic data; the residual and its coding are this package's own.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, Self

import numcodecs.abc
import numcodecs.compat
import numpy as np
from zarr.core.common import JSON, parse_named_configuration

from stemcodecs.codecs.base import ChunkCodec, check_configuration, check_dtype
from stemcodecs.codecs.pixel_histogram import PixelHistogram
from stemcodecs.errors import (
    ConfigurationError,
    CorruptChunkError,
    FormatVersionError,
    UnsupportedDtypeError,
)
from stemcodecs.lowrank.basis import check_detector
from stemcodecs.lowrank.model import LowRankModel

__all__ = ["NumcodecsPca", "Pca"]

NAME = "stemcodecs.pca"
MAGIC = b"SCPC"
VERSION = 1
WHOLE, LOW_RANK = 0, 1
COLUMN_MAJOR, BIG_ENDIAN = 0x10, 0x20
"""Flags beside the kind: how Zarr format 2 had laid the values out in memory."""

Array = np.ndarray[Any, Any]
Residual = Literal["none", "bounded", "lossless"]

_KEYS = ("version", "sha256", "model", "residual", "bound", "guarantee")


@dataclass(frozen=True, kw_only=True)
class Pca(ChunkCodec):
    """Zarr format 3 serializer ``stemcodecs.pca``; chunks must span the whole detector.

    Parameters
    ----------
    sha256 : str
        Digest of the model: two codecs are equal if their digests and residuals are.
    model : str, optional
        The model as a ``data:`` URI. Without it the model must have been loaded from the store by
        :func:`stemcodecs.lowrank.open_with_model`.
    residual : {"none", "bounded", "lossless"}
        ``none`` decodes the low-rank prediction: integers rounded and at least 0, floats as rates.
        ``bounded`` keeps every count N within bound·√N. ``lossless`` restores every value bit by
        bit, whatever the chunk holds.
    bound : float
        r of ``bounded``; must stay at its default otherwise.

    Raises
    ------
    ConfigurationError
        If a parameter is not one of these.
    """

    codec_name = NAME
    sha256: str
    model: str | None = field(default=None, repr=False, compare=False, hash=False)
    residual: Residual = "none"
    bound: float = 0.5

    def __post_init__(self) -> None:
        if self.residual not in ("none", "bounded", "lossless"):
            raise ConfigurationError(f"{NAME}: residual {self.residual!r} is not 'none', 'bounded' or 'lossless'")
        if not (isinstance(self.bound, int | float) and 0 < self.bound <= 64):
            raise ConfigurationError(f"{NAME}: bound {self.bound!r} must be a number above 0 and at most 64")
        if not (isinstance(self.sha256, str) and len(self.sha256) == 64):
            raise ConfigurationError(f"{NAME}: sha256 must be the 64 hexadecimal digits of the model's digest")

    @classmethod
    def from_model(cls, model: LowRankModel, *, residual: Residual = "none", bound: float = 0.5) -> Self:
        """Codec with the model inside its configuration.

        Raises
        ------
        ConfigurationError
            If the model is too large for metadata (16 MiB).
        """
        model.keep()
        return cls(sha256=model.digest, model=model.to_uri(), residual=residual, bound=bound)

    @property
    def guarantee(self) -> str:
        """What holds for every decoded value."""
        if self.residual == "lossless":
            return "every value is restored exactly"
        if self.residual == "bounded":
            return f"|N' - N| <= {self.bound!r} * sqrt(N) for every count N"
        return "no pointwise guarantee"

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        """Codec from array metadata."""
        _, configuration = parse_named_configuration(data, NAME)
        return cls(**_checked(configuration))

    def to_dict(self) -> dict[str, JSON]:
        """Array metadata."""
        return {"name": NAME, "configuration": self.configuration()}

    def configuration(self) -> dict[str, JSON]:
        """What the metadata of both Zarr formats stores."""
        stored: dict[str, JSON] = {
            "version": VERSION,
            "sha256": self.sha256,
            "residual": self.residual,
        }
        if self.residual == "bounded":
            stored["bound"] = self.bound
        if self.model is not None:
            stored["model"] = self.model
        stored["guarantee"] = self.guarantee
        return stored

    def validate(self, *, shape: Any, dtype: Any, chunk_grid: Any) -> None:
        """Refuse dtypes and detector shapes that can never be encoded when the array is created."""
        super().validate(shape=shape, dtype=dtype, chunk_grid=chunk_grid)
        check_detector(tuple(shape), self._model().detector)

    def encode_chunk(self, chunk: Array) -> bytes:
        """Encode patterns (…, det_y, det_x).

        Raises
        ------
        ConfigurationError
            If the chunk does not span the model's detector, or (without residual) holds what a
            low-rank model cannot represent: NaN, negative counts, counts far beyond the fitted
            scan.
        """
        return self._encode(chunk, 0)

    def _encode(self, chunk: Array, flags: int) -> bytes:
        check_dtype(NAME, chunk.dtype)
        chunk = np.ascontiguousarray(chunk, chunk.dtype.newbyteorder("="))
        model = self._model()
        lead = check_detector(chunk.shape, model.detector)
        flat = chunk.reshape(math.prod(lead), math.prod(model.detector))
        kind, content = LOW_RANK, None
        if self.residual == "none":
            content = self._encode_prediction(flat, model)
        else:
            counts = _as_counts(flat)
            if counts is not None:
                content = self._encode_counts(counts, model)
        if content is None:
            kind, content = WHOLE, PixelHistogram().encode_chunk(chunk)
        dtype = chunk.dtype.newbyteorder("<").str.encode()
        head = b"".join(
            [
                MAGIC,
                struct.pack("<BBBB", VERSION, kind | flags, len(dtype), chunk.ndim),
                dtype,
                struct.pack(f"<{chunk.ndim}Q", *chunk.shape),
                bytes.fromhex(self.sha256)[:8],
            ]
        )
        body = head + content
        return body + struct.pack("<I", zlib.crc32(body))

    def decode_chunk(self, data: bytes | memoryview) -> Array:
        """Decode to a fresh array with the shape and dtype that were encoded.

        Raises
        ------
        CorruptChunkError
            If the bytes are truncated, altered, or of another model.
        """
        view = memoryview(data).cast("B")
        return self._decode(view)[0]

    def _decode(self, view: memoryview) -> tuple[Array, int]:
        dtype, shape, kind, flags, content = self._parse(view)
        if kind == WHOLE:
            whole = PixelHistogram().decode_chunk(content)
            if whole.shape != shape or whole.dtype.newbyteorder("<") != dtype:
                raise CorruptChunkError("the chunk's parts disagree about its shape or dtype")
            return whole, flags
        model = self._model()
        if shape[-2:] != model.detector:
            raise CorruptChunkError(f"the chunk has shape {shape}, the model a detector of {model.detector}")
        positions = math.prod(shape[:-2])
        coefficients, rest = _split_coefficients(content, positions, model.rank)
        out = np.empty((positions, math.prod(model.detector)), dtype.newbyteorder("="))
        rates_of = _Rates(model, coefficients)
        if self.residual == "none":
            if len(rest):
                raise CorruptChunkError("the chunk holds a residual, the codec expects none")
            _write_prediction(rates_of, out)
        else:
            from stemcodecs.lowrank.residual import decode_residual

            decode_residual(rest, (positions, out.shape[1]), rates_of, model.detector[1], self._r(), out)
        return out.reshape(shape), flags

    def _model(self) -> LowRankModel:
        return LowRankModel.load(self.model, self.sha256)

    def _r(self) -> Fraction | None:
        # The decimal that was written, not its binary neighbour.
        return Fraction(repr(self.bound)) if self.residual == "bounded" else None

    def _encode_prediction(self, flat: Array, model: LowRankModel) -> bytes:
        if flat.dtype.kind in "if" and flat.size and flat.min() < 0:
            raise ConfigurationError(
                f"{NAME}: the chunk holds negative values; replace detector gaps by 0, or use residual='lossless'"
            )
        coefficients = model.coefficients(flat)
        if not model.in_range(coefficients):
            raise ConfigurationError(
                f"{NAME}: the chunk holds counts far beyond the fitted scan; fit the basis again, "
                "or use residual='lossless'"
            )
        return _join_coefficients(coefficients)

    def _encode_counts(self, counts: Array, model: LowRankModel) -> bytes | None:
        """Coefficients and residual, or None where the chunk is to be stored whole."""
        from stemcodecs.lowrank.residual import LARGEST_BOUNDED, encode_residual

        bound = self._r()
        if bound and counts.max(initial=0) > LARGEST_BOUNDED:
            return None
        coefficients = model.coefficients(counts)
        if not model.in_range(coefficients):
            return None
        rates_of = _Rates(model, coefficients)
        return _join_coefficients(coefficients) + encode_residual(counts, rates_of, model.detector[1], bound)

    def _parse(self, view: memoryview) -> tuple[np.dtype[Any], tuple[int, ...], int, int, memoryview]:
        if len(view) < 12 or bytes(view[:4]) != MAGIC:
            raise CorruptChunkError("not a stemcodecs.pca chunk")
        version, kind, dtype_size, ndim = struct.unpack_from("<BBBB", view, 4)
        if version != VERSION:
            raise FormatVersionError(
                f"the chunk has format version {version}, this stemcodecs reads {VERSION}; upgrade it"
            )
        flags = kind & (COLUMN_MAJOR | BIG_ENDIAN)
        kind ^= flags
        if zlib.crc32(view[:-4]) != struct.unpack_from("<I", view, len(view) - 4)[0]:
            raise CorruptChunkError("checksum mismatch")
        at = 8 + dtype_size
        if kind not in (WHOLE, LOW_RANK) or not 2 <= ndim <= 32 or len(view) < at + 8 * ndim + 12:
            raise CorruptChunkError("the header is out of range")
        try:
            dtype = np.dtype(bytes(view[8:at]).decode())
            check_dtype(NAME, dtype)
        except (TypeError, UnicodeDecodeError, UnsupportedDtypeError) as error:
            raise CorruptChunkError("the header names no dtype that this codec writes") from error
        shape = struct.unpack_from(f"<{ndim}Q", view, at)
        at += 8 * ndim
        if math.prod(shape) >= 2**40:
            raise CorruptChunkError("the header's shape is out of range")
        if bytes(view[at : at + 8]) != bytes.fromhex(self.sha256)[:8]:
            raise CorruptChunkError("the chunk was coded with another PCA model")
        return dtype, shape, kind, flags, view[at + 8 : len(view) - 4]


class _Rates:
    """Predicted rates of a range of positions, in fixed point: the same for encoder and decoder."""

    def __init__(self, model: LowRankModel, coefficients: Array) -> None:
        self.model = model
        self.coefficients = coefficients

    def __call__(self, first: int, last: int) -> Array:
        from stemcodecs.lowrank._kernels import to_rates
        from stemcodecs.lowrank.stabilize import fixed_inverse_table

        rates = self.model.predict(self.coefficients[first:last])
        to_rates(rates, fixed_inverse_table(), self.model.stabilised)
        return rates


def _as_counts(flat: Array) -> Array | None:
    """Whole numbers between 0 and 2⁴⁰ as an integer array, or None if the chunk holds anything
    else.
    """
    from stemcodecs.lowrank.residual import LARGEST

    if flat.dtype.kind == "b":
        return flat.view(np.uint8)
    if flat.size and not (flat.min().item() >= 0 and flat.max().item() < LARGEST):  # False for NaN
        return None
    if flat.dtype.kind in "ui":
        return flat
    counts = flat.astype(np.int64)
    # −0.0 equals 0 but has other bits.
    return counts if (counts == flat).all() and not np.signbit(flat).any() else None


def _join_coefficients(coefficients: Array) -> bytes:
    """Coefficients as zigzag integers, so that a component's mean tells its spread, which is
    what the coder learns.
    """
    zigzag = ((coefficients << 1) ^ (coefficients >> 63)).astype(np.uint64)
    narrow = zigzag.astype(np.uint32) if zigzag.max(initial=0) < 2**32 else zigzag
    # One row of "pixels" per position: the coder keeps statistics for each component.
    coded = PixelHistogram().encode_chunk(narrow[:, None, :]) if narrow.size else b""
    return struct.pack("<Q", len(coded)) + coded


def _split_coefficients(content: memoryview, positions: int, rank: int) -> tuple[Array, memoryview]:
    if len(content) < 8:
        raise CorruptChunkError("the chunk is truncated")
    (size,) = struct.unpack_from("<Q", content)
    if size > len(content) - 8 or (size == 0) != (positions * rank == 0):
        raise CorruptChunkError("the coefficients have the wrong size")
    rest = content[8 + size :]
    if size == 0:
        return np.zeros((positions, rank), np.int64), rest
    zigzag = PixelHistogram().decode_chunk(content[8 : 8 + size])
    if zigzag.shape != (positions, 1, rank) or zigzag.dtype not in (np.uint32, np.uint64):
        raise CorruptChunkError("the coefficients have the wrong shape")
    wide = zigzag.reshape(positions, rank).astype(np.uint64)
    return (wide >> np.uint64(1)).astype(np.int64) ^ -(wide & np.uint64(1)).astype(np.int64), rest


def _write_prediction(rates_of: _Rates, out: Array) -> None:
    """Rates into the array's dtype: floats as they are, integers rounded and clipped to the
    dtype.
    """
    from stemcodecs.lowrank.residual import LANES
    from stemcodecs.lowrank.stabilize import FRACTION_BITS

    for first in range(0, len(out), LANES):
        rates = rates_of(first, min(first + LANES, len(out))).T
        if out.dtype.kind == "f":
            out[first : first + LANES] = rates / float(1 << FRACTION_BITS)
        else:
            largest = 1 if out.dtype.kind == "b" else min(int(np.iinfo(out.dtype).max), 2**62)
            rounded = (rates + (1 << (FRACTION_BITS - 1))) >> FRACTION_BITS
            out[first : first + LANES] = np.minimum(rounded, largest)


def _checked(configuration: Any) -> dict[str, Any]:
    """Parameters of :class:`Pca` from a stored configuration."""
    stored = dict(configuration or {})
    check_configuration(NAME, stored, _KEYS)
    version = stored.pop("version", VERSION)
    if version != VERSION:
        raise FormatVersionError(
            f"{NAME}: configuration version {version}, this stemcodecs reads {VERSION}; upgrade it"
        )
    stored.pop("guarantee", None)  # for readers of the metadata; derived from the rest
    if "sha256" not in stored:
        raise ConfigurationError(f"{NAME}: the configuration has no sha256; fit a basis first and use Pca.from_model")
    return stored


class NumcodecsPca(numcodecs.abc.Codec):  # type: ignore[misc]
    """numcodecs codec ``stemcodecs.pca`` for Zarr format 2, with the configuration of
    :class:`Pca`.
    """

    codec_id = NAME

    def __init__(self, **configuration: Any) -> None:
        self._codec = Pca(**_checked(configuration))

    def encode(self, buf: Any) -> bytes:
        """Encode one chunk, given as an array with the chunk's shape."""
        chunk = numcodecs.compat.ensure_ndarray_like(buf)
        flags = BIG_ENDIAN if chunk.dtype.byteorder == ">" else 0
        if chunk.flags.f_contiguous and not chunk.flags.c_contiguous:
            flags |= COLUMN_MAJOR
        return self._codec._encode(chunk, flags)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Decode one chunk, laid out in memory as the array that was encoded."""
        decoded, flags = self._codec._decode(memoryview(numcodecs.compat.ensure_bytes(buf)))
        if flags & BIG_ENDIAN:
            decoded = decoded.astype(decoded.dtype.newbyteorder(">"))
        if flags & COLUMN_MAJOR:
            decoded = np.asfortranarray(decoded)
        return decoded if out is None else numcodecs.compat.ndarray_copy(decoded, out)

    def get_config(self) -> dict[str, Any]:
        """Configuration as stored in the array's metadata."""
        return {"id": NAME, **self._codec.configuration()}

    def __repr__(self) -> str:
        """Short: the model is shown by its digest."""
        return repr(self._codec).replace("Pca(", "NumcodecsPca(", 1)
