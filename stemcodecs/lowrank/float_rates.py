"""Rates instead of counts from an array that ``stemcodecs.pca`` stored without a residual."""

from __future__ import annotations

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
    from stemcodecs.codecs.pca import Pca
    from stemcodecs.zarr_private import array_of

    metadata = array.metadata
    codecs = getattr(metadata, "codecs", ())
    codec = codecs[-1] if codecs else None
    inner = getattr(codec, "codecs", (codec,))[-1]
    if not (isinstance(inner, Pca) and inner.residual == "none"):
        raise ConfigurationError(
            "only an array that stemcodecs.pca stored without a residual, in Zarr format 3, holds rates; "
            "read the array itself"
        )
    document = {**metadata.to_dict(), "data_type": "float32", "fill_value": 0.0}
    # Written through this view, a chunk would have a dtype that the array itself does not expect.
    return array_of(document, array.store.with_read_only(True), array.path)
