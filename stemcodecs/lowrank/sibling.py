"""Models too large for metadata: kept as an array beside the compressed one, with a reader that
brings both together.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from stemcodecs.errors import ConfigurationError, CorruptChunkError
from stemcodecs.lowrank.model import LowRankModel

if TYPE_CHECKING:
    import zarr

__all__ = ["MODEL_ARRAY", "open_with_model", "write_model"]

MODEL_ARRAY = "pca_model"


def write_model(group: zarr.Group, model: LowRankModel) -> None:
    """Store the model as the uint8 array ``pca_model`` of the group; the codec then needs only its
    digest.

    Pass ``Pca(sha256=model.digest)`` (no ``model=``) as the serializer of the group's array.
    """
    raw = np.frombuffer(zlib.compress(model.to_bytes(), 9), np.uint8)
    array = group.create_array(MODEL_ARRAY, shape=raw.shape, dtype="uint8", compressors=None)
    array[:] = raw
    array.attrs["sha256"] = model.digest
    model.keep()


def open_with_model(group: zarr.Group, array: str = "data") -> zarr.Array[Any]:
    """The array of a group whose PCA model lies beside it; also to be called in every worker
    process that reads it.

    Raises
    ------
    ConfigurationError
        If the group has no model.
    CorruptChunkError
        If the stored model is damaged.
    """
    if MODEL_ARRAY not in group:
        raise ConfigurationError(f"the group has no array {MODEL_ARRAY!r}; was it copied without its siblings?")
    stored = group[MODEL_ARRAY]
    try:
        model = LowRankModel.from_bytes(zlib.decompress(np.asarray(stored[:]).tobytes()))  # type: ignore[index]
    except zlib.error as error:
        raise CorruptChunkError("the PCA model beside the array is damaged") from error
    if model.digest != stored.attrs["sha256"]:
        raise CorruptChunkError("the PCA model beside the array does not match its sha256")
    model.keep()
    return group[array]  # type: ignore[return-value]
