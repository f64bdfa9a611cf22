"""Rates instead of counts from an array that ``stemcodecs.pca`` stored without a residual."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stemcodecs.errors import ConfigurationError

if TYPE_CHECKING:
    import zarr

__all__ = ["rates"]


def rates(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """The array before it was rounded to counts: the low-rank prediction in float32, read-only, decoded when read.

    An integer array decodes to whole counts, so that rates far below one count become 0 and the total of a sparse scan
    drops. The rates themselves are in the chunks.

    Parameters
    ----------
    array : zarr.Array
        Zarr format 3, coded by ``stemcodecs.pca`` with ``residual="none"``.

    Raises
    ------
    ConfigurationError
        If the array was coded in another way.
    """
    import zarr
    from zarr.core.array import AsyncArray
    from zarr.core.metadata import ArrayV3Metadata
    from zarr.storage import StorePath

    document: dict[str, Any] = dict(array.metadata.to_dict())
    if not _holds_rates(document):
        raise ConfigurationError(
            "only an array that stemcodecs.pca stored without a residual, in Zarr format 3, holds rates; "
            "read the array itself"
        )
    unrounded: Any = ArrayV3Metadata.from_dict(document | {"data_type": "float32", "fill_value": 0.0})
    # Written through this view, a chunk would have a dtype that the array itself does not expect.
    place = StorePath(array.store.with_read_only(True), array.path)
    return zarr.Array(AsyncArray(metadata=unrounded, store_path=place))


def _holds_rates(document: Mapping[str, Any]) -> bool:
    """Whether the metadata of an array names ``stemcodecs.pca`` without a residual, in shards or not."""
    codecs = document.get("codecs", ())
    while codecs:
        configuration = codecs[-1].get("configuration", {})
        if codecs[-1]["name"] == "stemcodecs.pca":
            return bool(configuration["residual"] == "none")
        codecs = configuration.get("codecs", ())
    return False
