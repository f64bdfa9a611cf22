"""``stemcodecs.poisson_quantize``: the Poisson-noise quantiser as a filter, counts to codes.

It stands before any codec that stores integers: ``stemcodecs.pixel_histogram`` reaches their
entropy, ``stemcodecs.bit_pack`` gives the fixed-width stream of a detector, Blosc works as well.
Codes are never wider than the values, so Zarr's rules for filters that change the dtype are met in
every version. For one codec that quantises and codes in one go, learns centroids per chunk and
reads single patterns, use ``stemcodecs.poisson_histogram``.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any, Self

import numcodecs.abc
import numcodecs.compat
import numpy as np
from zarr.abc.buffer import NDBuffer
from zarr.abc.codec import ArrayArrayCodec
from zarr.dtype import parse_dtype

from stemcodecs.codecs.base import check_configuration
from stemcodecs.errors import ConfigurationError, StemcodecsError
from stemcodecs.quantize.poisson_quantizer import KEYS, PoissonQuantizer
from stemcodecs.zarr_private import JSON, ArraySpec, parse_named_configuration

__all__ = ["NumcodecsPoissonQuantize", "PoissonQuantize"]

NAME = "stemcodecs.poisson_quantize"


def _checked(quantizer: PoissonQuantizer) -> PoissonQuantizer:
    if quantizer.decoder == "centroid" and quantizer.centroids is None:
        raise ConfigurationError(
            f"{NAME}: decoder 'centroid' needs centroids from a first pass (with_centroids); "
            "without one use stemcodecs.poisson_histogram, which learns them in every chunk"
        )
    return quantizer


@dataclass(frozen=True, kw_only=True)
class PoissonQuantize(PoissonQuantizer, ArrayArrayCodec):
    """Zarr format 3 filter ``stemcodecs.poisson_quantize``.

    Attributes
    ----------
    code_dtype : {"uint8", "uint16", "uint32"}, optional
        Dtype of the codes. Unless given, the smallest that holds every level and one escape; values
        kept exactly that do not fit are refused when they are written.
    """

    is_fixed_size = True
    code_dtype: str | None = None

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:  # type: ignore[override]
        """From the metadata of an array."""
        _, configuration = parse_named_configuration(data, NAME, require_configuration=False)
        check_configuration(NAME, configuration or {}, {*KEYS, "code_dtype"})
        return cls(**(configuration or {}))  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, JSON]:
        """For the metadata of an array."""
        configuration = PoissonQuantizer.to_dict(self)
        if self.code_dtype is not None:
            configuration["code_dtype"] = self.code_dtype
        return {"name": NAME, "configuration": configuration}

    def validate(self, *, shape: Any, dtype: Any, chunk_grid: Any) -> None:
        """Refuse a configuration that cannot work for this dtype when the array is created."""
        _checked(self).table(dtype.to_native_dtype()).code_dtype(self.code_dtype)

    def resolve_metadata(self, chunk_spec: ArraySpec) -> ArraySpec:
        """What the next codec sees: codes."""
        table = _checked(self).table(chunk_spec.dtype.to_native_dtype())
        code_dtype = table.code_dtype(self.code_dtype)
        try:
            fill = table.encode(np.array(chunk_spec.fill_value, dtype=table.dtype), code_dtype)[()]
        except StemcodecsError:
            # Chunks without data never reach the codecs, so a fill value without a code does no
            # harm.
            fill = code_dtype.type(0)
        return replace(chunk_spec, dtype=parse_dtype(code_dtype, zarr_format=3), fill_value=fill)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Codes have a fixed width."""
        table = self.table(chunk_spec.dtype.to_native_dtype())
        return input_byte_length // table.dtype.itemsize * table.code_dtype(self.code_dtype).itemsize

    def _encode_sync(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> NDBuffer:
        table = _checked(self).table(chunk_spec.dtype.to_native_dtype())
        codes = table.encode(chunk_data.as_numpy_array(), table.code_dtype(self.code_dtype))
        return chunk_spec.prototype.nd_buffer.from_ndarray_like(codes)  # type: ignore[arg-type]

    def _decode_sync(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> NDBuffer:
        native = chunk_spec.dtype.to_native_dtype()
        table = self.table(native)
        # zarr 3.1 hands the codecs behind a filter the values' dtype in place of the codes': only
        # the bytes count.
        codes = chunk_data.as_numpy_array()
        values = table.decode(codes.astype(codes.dtype.newbyteorder("="), copy=False))
        values = values.astype(native, copy=False)
        return chunk_spec.prototype.nd_buffer.from_ndarray_like(values)  # type: ignore[arg-type]

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._encode_sync, chunk_data, chunk_spec)

    async def _decode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)


class NumcodecsPoissonQuantize(numcodecs.abc.Codec):  # type: ignore[misc]
    """numcodecs filter ``stemcodecs.poisson_quantize`` for Zarr format 2.

    Parameters
    ----------
    dtype : str
        Dtype of the values, as in "<u2": format 2 does not tell it to a filter.
    code_dtype : str, optional
        As for :class:`PoissonQuantize`.
    **configuration
        As for :class:`stemcodecs.quantize.PoissonQuantizer`.
    """

    codec_id = NAME

    def __init__(self, dtype: str, code_dtype: str | None = None, **configuration: Any) -> None:
        check_configuration(NAME, configuration, KEYS)
        self.quantizer = _checked(PoissonQuantizer(**configuration))
        self.dtype = np.dtype(dtype)
        self.code_dtype = code_dtype
        self._codes = self.quantizer.table(self.dtype).code_dtype(code_dtype)

    def get_config(self) -> dict[str, Any]:
        """For the metadata of an array."""
        config = {"id": NAME, "dtype": self.dtype.str, **self.quantizer.to_dict()}
        return config if self.code_dtype is None else {**config, "code_dtype": self.code_dtype}

    def encode(self, buf: Any) -> Any:
        """Codes, shaped as the values."""
        values = numcodecs.compat.ensure_ndarray_like(buf)
        if values.dtype != self.dtype:
            values = values.view(self.dtype)
        table = self.quantizer.table(self.dtype)
        # The codes lie in memory as the values do: Zarr format 2 relies on it.
        if values.flags.f_contiguous:
            return table.encode(values.T, self._codes).T
        return table.encode(values, self._codes)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Values of codes."""
        codes = numcodecs.compat.ensure_ndarray_like(buf)
        if codes.dtype != self._codes:
            codes = codes.view(self._codes)
        table = self.quantizer.table(self.dtype)
        column_major = codes.flags.f_contiguous
        values = table.decode(codes.T).T if column_major else table.decode(codes)
        return numcodecs.compat.ndarray_copy(values.astype(self.dtype, copy=False), out)
