"""What stemcodecs takes of Zarr beyond its public names: no other module imports these.

A codec is called with an ``ArraySpec``, and a store is written block by block, without the arrays that Zarr opens: it
has no public names for either. When a new version of Zarr moves one of them, this is the file to mend.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import zarr
from zarr.abc.codec import CodecPipeline
from zarr.abc.store import Store
from zarr.buffer import cpu
from zarr.core.array import AsyncArray
from zarr.core.array_spec import ArrayConfig, ArraySpec
from zarr.core.common import JSON, parse_named_configuration
from zarr.core.metadata import ArrayV3Metadata
from zarr.core.sync import sync
from zarr.storage import StorePath

__all__ = [
    "JSON",
    "ArrayConfig",
    "ArraySpec",
    "ArrayV3Metadata",
    "array_of",
    "codec_pipeline",
    "parse_named_configuration",
    "put",
    "sync",
]


def array_of(document: Mapping[str, Any], store: Store, path: str, **config: Any) -> zarr.Array[Any]:
    """Array of Zarr format 3 from its metadata, which need not lie in the store.

    Parameters
    ----------
    document : mapping
        What its ``zarr.json`` holds or would hold.
    store : Store
        Where its chunks lie.
    path : str
        Of the array in the store.
    **config
        As the ``config`` of :func:`zarr.create_array`.
    """
    metadata: Any = ArrayV3Metadata.from_dict(dict(document))
    return zarr.Array(AsyncArray(metadata=metadata, store_path=StorePath(store, path), config=config or None))  # type: ignore[arg-type]


def codec_pipeline(array: zarr.Array[Any]) -> CodecPipeline:
    """The codecs of an array, to be asked directly."""
    return array._async_array.codec_pipeline  # its public name is younger than 3.1.2


def put(store: Store, key: str, data: bytes) -> None:
    """Write one object into a store."""
    sync(store.set(key, cpu.Buffer.from_bytes(data)))
