"""Models that are too large for an array's metadata and lie beside it in the store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stemcodecs.errors import SourceError
from stemcodecs.store import Location

__all__ = ["load_models", "model_bytes", "model_chunks", "model_documents"]

_PCA = "stemcodecs.pca"


def load_models(metadata: Mapping[str, Any], place: Location) -> None:
    """Load the models that an array's codecs need from beside it into this process.

    Parameters
    ----------
    metadata : dict
        Zarr metadata of the array ``data``.
    place : Location
        The store.

    Raises
    ------
    SourceError
        A model is missing from the store.
    CorruptChunkError
        A model is damaged.
    """
    for digest in _digests(metadata):
        from stemcodecs.lowrank.low_rank_model import LowRankModel
        from stemcodecs.lowrank.stored_model import chunk_key, keep_packed

        if LowRankModel.is_kept(digest):
            continue
        packed = place.read(chunk_key(digest))
        if packed is None:
            raise SourceError(
                f"{place}: {chunk_key(digest)} is missing; the store was copied without it: copy it again"
            )
        keep_packed(packed, digest)


def model_documents(metadata: Mapping[str, Any], place: Location) -> dict[str, bytes]:
    """Zarr metadata of the models beside an array, by key."""
    from stemcodecs.lowrank.stored_model import metadata_keys

    keys = [key for digest in _digests(metadata) for key in metadata_keys(digest)]
    return {key: place.read(key) or b"" for key in keys}


def model_chunks(metadata: Mapping[str, Any]) -> list[str]:
    """Keys of the models beside an array."""
    if not _digests(metadata):
        return []
    from stemcodecs.lowrank.stored_model import chunk_key

    return [chunk_key(digest) for digest in _digests(metadata)]


def model_bytes(metadata: Mapping[str, Any], place: Location) -> int:
    """Size of the models of an array's codecs, in its metadata or beside it."""
    inside = sum(len(codec.get("configuration", {}).get("model", "")) for codec in _codecs(metadata))
    return inside + sum(place.size(key) or 0 for key in model_chunks(metadata))


def _digests(metadata: Mapping[str, Any]) -> list[str]:
    return [
        codec["configuration"]["sha256"]
        for codec in _codecs(metadata)
        if codec["name"] == _PCA and "model" not in codec["configuration"]
    ]


def _codecs(metadata: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Codecs of an array, those inside shards included."""
    for codec in metadata["codecs"]:
        yield codec
        yield from codec.get("configuration", {}).get("codecs", ())
