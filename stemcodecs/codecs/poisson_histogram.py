"""``stemcodecs.poisson_histogram``: quantise within the shot noise and entropy-code, in one codec.

The same levels as ``stemcodecs.poisson_quantize`` in front of ``stemcodecs.pixel_histogram``, fused
where that is more than the two in a row: the codes take the smallest dtype that one chunk needs,
centroids are learned in every chunk (no first pass, a stream can be stored as it comes), every
value of an integer dtype has a code, and no Zarr rule about filters applies. With a map in the configuration it is
the counts behind the values that are quantised. The bytes are those of :mod:`stemcodecs.codecs.quantised_chunk`.
"""

from __future__ import annotations

import math
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
from stemcodecs.codecs.quantised_chunk import NAME, Head, Meaning, decode_quantised, encode_quantised
from stemcodecs.quantize.decoders import most_bytes
from stemcodecs.quantize.poisson_quantizer import KEYS, PoissonQuantizer
from stemcodecs.zarr_private import JSON, ArraySpec, parse_named_configuration

if TYPE_CHECKING:
    from stemcodecs.counts.counts_map import CountsMap

__all__ = ["NumcodecsPoissonHistogram", "PoissonHistogram"]

_FIRST_READ = 1 << 12

Array = np.ndarray[Any, Any]


@cache
def _zarr_dtype(dtype: np.dtype[Any]) -> Any:
    """Zarr's word for a dtype of codes: it takes longer to find than many a chunk to decode."""
    return parse_dtype(dtype, zarr_format=3)


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
    def _meaning(self) -> Meaning:
        return Meaning(quantizer=self, map=_read_map(self.map))

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
        length = Head.length_of(first, most_bytes(self._meaning.table(native).levels))
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

    def _head(self, data: bytes | memoryview, chunk_spec: ArraySpec) -> Head:
        # The shape is held against the metadata by the entropy coder.
        return Head.read(self._meaning, data, chunk_spec.dtype.to_native_dtype())

    @staticmethod
    def _codes_spec(head: Head, chunk_spec: ArraySpec) -> ArraySpec:
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
        self._meaning = Meaning(quantizer=self.quantizer, map=_read_map(map))

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
