"""Blocks of an array to stored objects and back, through Zarr itself but without its store.

Zarr decides the bytes and the keys, padding and shards included; this module only catches them in
memory, so that one place writes objects, takes their digests and decides where half-written files
go.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import zarr
from zarr.abc.buffer import Buffer
from zarr.buffer import cpu, default_buffer_prototype
from zarr.storage import MemoryStore

from stemcodecs.errors import ConfigurationError, CorruptChunkError
from stemcodecs.readers.scan import Region
from stemcodecs.zarr_private import ArrayConfig, ArraySpec, ArrayV3Metadata, array_of, codec_pipeline, sync
from stemcodecs_pipelines.methods.base import Encoding
from stemcodecs_pipelines.run.plan import Plan

__all__ = ["BlockCoder", "array_metadata"]

DATA = "data"


def array_metadata(plan: Plan, dims: tuple[str, ...], encoding: Encoding) -> dict[str, Any]:
    """Zarr metadata of the array ``data``, as its ``zarr.json`` will say it."""
    objects: dict[str, Any] = {}
    with warnings.catch_warnings():
        # Zarr says that codecs outside its specification may not be read by others; ours is
        # installed.
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        zarr.create_array(
            MemoryStore(objects),
            name=DATA,
            shape=plan.shape,
            dtype=np.dtype(plan.dtype).newbyteorder("="),
            chunks=plan.chunk,
            shards=plan.shard,
            serializer=encoding.serializer,
            filters=list(encoding.filters) or None,
            compressors=None,
            fill_value=0,
            dimension_names=dims,
            zarr_format=3,
        )
    metadata: dict[str, Any] = json.loads(objects[f"{DATA}/zarr.json"].to_bytes())
    return metadata


@dataclass(frozen=True)
class BlockCoder:
    """Encode and decode blocks (chunks or whole shards) of one array.

    Parameters
    ----------
    metadata : dict
        Zarr metadata of the array.
    """

    metadata: Mapping[str, Any]

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the array."""
        return self._array({}).dtype

    def check(self, plan: Plan) -> None:
        """Refuse metadata of another array than the one that the provenance speaks of.

        Raises
        ------
        ValueError
            Shape, dtype or chunks differ.
        """
        array = self._array({})
        if (array.shape, array.shards or array.chunks, array.dtype) != (plan.shape, plan.block, np.dtype(plan.dtype)):
            raise ValueError("shape, chunks or dtype of the array are not those of the provenance")
        self.key(plan.coordinates(0))

    def key(self, coordinates: tuple[int, ...]) -> str:
        """Key of the object that stores a block."""
        encoding = self.metadata["chunk_key_encoding"]
        separator = encoding.get("configuration", {}).get("separator", "/")
        return f"{DATA}/c{separator}{separator.join(map(str, coordinates))}"

    def encode(self, block: np.ndarray[Any, Any], region: Region) -> dict[str, memoryview]:
        """Stored objects of one whole block, by key."""
        objects: dict[str, Buffer] = {}
        self._array(objects)[region] = block
        return {key: value.as_numpy_array().data for key, value in objects.items()}

    def decode(self, objects: Mapping[str, bytes], region: Region) -> np.ndarray[Any, Any]:
        """Values of one whole block from its stored object.

        Zarr's codecs are asked directly: its arrays would copy the block once more.

        Raises
        ------
        CorruptChunkError
            The bytes are damaged.
        ConfigurationError
            The bytes may be sound, but nothing here decodes them: a package or a model is missing.
        """
        (stored,) = objects.values()
        array = self._array({})
        metadata = array.metadata
        assert isinstance(metadata, ArrayV3Metadata)
        spec = ArraySpec(
            shape=array.shards or array.chunks,
            dtype=metadata.data_type,
            fill_value=metadata.fill_value,
            config=ArrayConfig.from_dict({}),
            prototype=default_buffer_prototype(),
        )
        try:
            (decoded,) = sync(codec_pipeline(array).decode([(cpu.Buffer.from_bytes(stored), spec)]))
            assert decoded is not None
            # Chunks at the edge of the scan are padded.
            return decoded.as_numpy_array()[tuple(slice(0, s.stop - s.start) for s in region)]
        except (CorruptChunkError, ConfigurationError):
            raise
        except (ValueError, IndexError, RuntimeError, OSError) as error:
            # Zarr's own index of a shard is damaged.
            raise CorruptChunkError(f"its shard cannot be read ({' '.join(str(error).split())})") from error

    def _array(self, objects: dict[str, Any]) -> zarr.Array[Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
            # All-zero chunks are written too: a chunk that is missing is then always an error.
            return array_of(self.metadata, MemoryStore(objects), DATA, write_empty_chunks=True)
