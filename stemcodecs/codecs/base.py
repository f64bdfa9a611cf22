"""What every array-to-bytes codec of stemcodecs shares between its two faces, Zarr format 3 and numcodecs.

A codec gives two functions on NumPy arrays, :meth:`ChunkCodec.encode_chunk` and
:meth:`ChunkCodec.decode_chunk`; this module carries them into Zarr's calling conventions.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer

from stemcodecs.dtypes import require_numeric
from stemcodecs.errors import ConfigurationError, CorruptChunkError

__all__ = ["ChunkCodec", "as_buffer", "check_configuration", "check_declared"]


def check_configuration(name: str, configuration: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse keys that this version does not know: ignoring one could decode to wrong data."""
    unknown = sorted(set(configuration) - set(known))
    if unknown:
        raise ConfigurationError(
            f"{name}: unknown configuration {', '.join(unknown)}; "
            "the array was written by a newer stemcodecs, or its metadata was edited: upgrade stemcodecs"
        )


def check_declared(dtype: np.dtype[Any], shape: tuple[int, ...], chunk_spec: ArraySpec) -> None:
    """A chunk says its own dtype and shape; both must be what the array's metadata says."""
    native = chunk_spec.dtype.to_native_dtype()
    if shape != tuple(chunk_spec.shape) or dtype.newbyteorder("=") != native.newbyteorder("="):
        raise CorruptChunkError(f"the chunk holds {dtype}{shape}, the array expects {native}{tuple(chunk_spec.shape)}")


def as_buffer(array: np.ndarray[Any, Any], chunk_spec: ArraySpec) -> NDBuffer:
    """An array as Zarr's buffer; Zarr's protocol for arrays is stricter than NumPy's own annotations."""
    like: Any = array
    return chunk_spec.prototype.nd_buffer.from_ndarray_like(like)


class ChunkCodec(ArrayBytesCodec):
    """Zarr format 3 face of an array-to-bytes codec with a variable encoded size."""

    is_fixed_size = False
    codec_name: str

    @abstractmethod
    def encode_chunk(self, chunk: np.ndarray[Any, Any]) -> bytes:
        """Encode a C-contiguous array."""

    @abstractmethod
    def decode_chunk(self, data: bytes | memoryview) -> np.ndarray[Any, Any]:
        """Decode to a fresh array with the shape and dtype that were encoded."""

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Unknown before encoding."""
        raise NotImplementedError

    def validate(self, *, shape: Any, dtype: Any, chunk_grid: Any) -> None:
        """Refuse dtypes that can never be encoded when the array is created."""
        require_numeric(self.codec_name, dtype.to_native_dtype())

    def _encode_sync(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        # validate() is not called for codecs inside a shard (zarr 3.1), so the dtype is checked again.
        array = np.asarray(chunk_data.as_numpy_array(), order="C")
        require_numeric(self.codec_name, array.dtype)
        return chunk_spec.prototype.buffer.from_bytes(self.encode_chunk(array))

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        array = self.decode_chunk(chunk_data.as_numpy_array().data)
        check_declared(array.dtype, array.shape, chunk_spec)
        return as_buffer(array.astype(chunk_spec.dtype.to_native_dtype(), copy=False), chunk_spec)

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        return await asyncio.to_thread(self._encode_sync, chunk_data, chunk_spec)

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)
