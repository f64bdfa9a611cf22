"""One stored movie, read in several ways: by another decoder, or as the measurements themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemcodecs.errors import ConfigurationError, SourceError

if TYPE_CHECKING:
    import zarr

__all__ = ["with_decoder"]

NAME = "stemcodecs.tcs"


def with_decoder(array: zarr.Array[Any], decoder: str, weights: str | Path | None = None) -> zarr.Array[Any]:
    """The same chunks read by another decoder, read-only, decoded when read.

    Parameters
    ----------
    array : zarr.Array
        Zarr format 3, coded by ``stemcodecs.tcs``.
    decoder : {"gap-tv", "interpolate", "network", "birnat", "measurement"}
        ``measurement`` gives the sums, uint32, exact up to the step: of each chunk, one plane of masked frames, or the
        time bins, for every B frames; its time axis is as many times shorter.
    weights : str or Path, optional
        For ``network`` and ``birnat``: sha256 of weights that come with stemcodecs, or a file of weights
        (``stemcodecs train tcs``).

    Raises
    ------
    ConfigurationError
        The array was coded in another way, or the decoder does not fit it.
    SourceError
        The file of weights cannot be read.

    Examples
    --------
    >>> sums = with_decoder(movie, "measurement")  # doctest: +SKIP
    """
    from stemcodecs.codecs.tcs import Tcs
    from stemcodecs.zarr_private import array_of

    document: dict[str, Any] = dict(array.metadata.to_dict())
    codecs = document.get("codecs", ())
    if not codecs or codecs[-1]["name"] != NAME:
        raise ConfigurationError(
            "only an array that stemcodecs.tcs stored in Zarr format 3, without shards, has measurements; "
            "read the array itself"
        )
    asked = {**codecs[-1]["configuration"], "decoder": decoder}
    asked.pop("weights", None)
    asked.pop("model", None)
    if weights is not None:
        asked |= _named(weights)
    codec = Tcs.from_dict({"name": NAME, "configuration": asked})
    document["codecs"] = [*codecs[:-1], codec.to_dict()]
    if decoder == "measurement":
        chunk = codec.measurements_shape(tuple(array.chunks))
        document |= {
            "data_type": "uint32",
            "fill_value": 0,
            "shape": list(_measured_shape(codec, array.shape, array.chunks)),
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        }
    return array_of(document, array.store.with_read_only(True), array.path)


def _measured_shape(codec: Any, shape: tuple[int, ...], chunks: tuple[int, ...]) -> tuple[int, ...]:
    whole, rest = divmod(shape[-3], chunks[-3])
    each = codec.measurements_shape((*shape[:-3], chunks[-3], *shape[-2:]))[-3]
    last = codec.measurements_shape((*shape[:-3], rest, *shape[-2:]))
    rows, columns = last[-2:]
    if codec.measurement == "bins":
        # Chunks that cut a frame end with a bin of their own.
        bins = [-(-c // codec.space_bins) for c in chunks[-2:]]
        rows, columns = (
            n // c * b + -(-(n % c) // codec.space_bins) for n, c, b in zip(shape[-2:], chunks[-2:], bins, strict=True)
        )
    return (*shape[:-3], whole * each + last[-3], rows, columns)


def _named(weights: str | Path) -> dict[str, str]:
    import hashlib

    from stemcodecs.temporal.weights import as_uri, shipped

    if str(weights) in shipped():
        return {"weights": str(weights)}
    try:
        data = Path(weights).read_bytes()
    except OSError as error:
        raise SourceError(f"{weights}: {error.strerror or error}; give a file of weights, or a sha256") from None
    return {"weights": hashlib.sha256(data).hexdigest(), "model": as_uri(data)}
