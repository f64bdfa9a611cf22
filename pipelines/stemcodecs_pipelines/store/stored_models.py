"""Models that are too large for an array's metadata and lie beside it in the store.

A codec that keeps its model there has a static method ``stored_model``, which finds it in the codec's configuration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from stemcodecs.errors import SourceError
from stemcodecs.location import Location

__all__ = ["load_models", "model_bytes", "model_chunks", "model_documents"]


class StoredModel(Protocol):
    """What a store must know of a model of any kind, as `stemcodecs.lowrank.stored_model.StoredPcaModel` says it."""

    @property
    def key(self) -> str:
        """Where its bytes are in the store."""

    @property
    def documents(self) -> tuple[str, ...]:
        """Where its Zarr metadata are."""

    @property
    def is_loaded(self) -> bool:
        """Whether codecs of this process find it."""

    def load(self, stored: bytes) -> None:
        """Let codecs of this process find it."""


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
    for model in _models(metadata):
        if model.is_loaded:
            continue
        stored = place.read(model.key)
        if stored is None:
            raise SourceError(f"{place}: {model.key} is missing; the store was copied without it: copy it again")
        model.load(stored)


def model_documents(metadata: Mapping[str, Any], place: Location) -> dict[str, bytes]:
    """Zarr metadata of the models beside an array, by key."""
    return {key: place.read(key) or b"" for model in _models(metadata) for key in model.documents}


def model_chunks(metadata: Mapping[str, Any]) -> list[str]:
    """Keys of the models beside an array."""
    return [model.key for model in _models(metadata)]


def model_bytes(metadata: Mapping[str, Any], place: Location) -> int:
    """Size of the models of an array's codecs, in its metadata or beside it."""
    inside = sum(len(codec.get("configuration", {}).get("model", "")) for codec in _codecs(metadata))
    return inside + sum(place.size(model.key) or 0 for model in _models(metadata))


def _models(metadata: Mapping[str, Any]) -> Iterator[StoredModel]:
    from zarr.registry import get_codec_class

    for codec in _codecs(metadata):
        find = getattr(get_codec_class(codec["name"]), "stored_model", None)
        if find is not None and (model := find(codec["configuration"])) is not None:
            yield model


def _codecs(metadata: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Codecs of an array, those inside shards included."""
    for codec in metadata["codecs"]:
        yield codec
        yield from codec.get("configuration", {}).get("codecs", ())
