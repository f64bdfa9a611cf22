"""Compressed stores: where they lie, whether they are complete, and how to open them lazily.

A store that :mod:`stemcodecs_pipelines` writes has no ``zarr.json`` at its root until it is
finished, so that nothing can mistake a part of a scan for the scan. Until then the folder
``.stemcodecs`` inside it holds the job and one record per finished block.
"""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stemcodecs.errors import (
    IncompleteStoreError,
    SourceError,
    StemcodecsError,
)
from stemcodecs.location import JOURNAL, Location
from stemcodecs.provenance import check_provenance
from stemcodecs.remote import backend_errors
from stemcodecs.zip_members import zip_members

if TYPE_CHECKING:
    import xarray

__all__ = ["State", "open", "require_complete", "state"]


@dataclass(frozen=True, kw_only=True)
class State:
    """What lies at a location.

    Parameters
    ----------
    kind : str
        ``"complete"`` or ``"incomplete"`` for stores of stemcodecs, ``"foreign"`` for other Zarr
        stores, ``"absent"`` where nothing is, ``"other"`` for what is not Zarr.
    attributes : dict
        What the store says about itself: its provenance, or the job of an incomplete store.
    """

    kind: Literal["complete", "incomplete", "foreign", "absent", "other"]
    attributes: dict[str, Any]


def state(place: str | os.PathLike[str] | Location) -> State:
    """Look at a location without reading any chunk.

    Parameters
    ----------
    place : path, URL or Location
        Root of the store.
    """
    location = place if isinstance(place, Location) else Location.of(place)
    if location.zipped and not zipfile.is_zipfile(location.url):
        return State(kind="other", attributes={})
    # The root decides: a journal beside it was left by a kill in the last step, or belongs to a repair.
    root = location.read("zarr.json")
    if root is not None:
        try:
            attributes = json.loads(root).get("attributes", {})
            provenance = attributes.get("stemcodecs")
        except (ValueError, AttributeError, RecursionError) as error:
            raise SourceError(f"{location}: zarr.json is damaged; restore it from another copy of the store") from error
        if isinstance(provenance, dict):
            check_provenance(location, provenance)
            return State(kind="complete", attributes=provenance)
        return State(kind="foreign", attributes={})
    job = location.read(f"{JOURNAL}/job.json")
    if job is not None:
        try:
            return State(kind="incomplete", attributes=dict(json.loads(job)))
        except (ValueError, TypeError, RecursionError):
            # Damaged, but ours: --overwrite may replace it.
            return State(kind="incomplete", attributes={})
    # Zarr format 2: somebody's data, never to be taken for an empty place.
    if location.is_zarr():
        return State(kind="foreign", attributes={})
    if not location.exists():
        return State(kind="absent", attributes={})
    return State(kind="other", attributes={})


def require_complete(place: str | os.PathLike[str] | Location) -> State:
    """State of a complete store of stemcodecs.

    Raises
    ------
    IncompleteStoreError
        The run that writes it was killed, or is still going on.
    SourceError
        Nothing is there, or something else than a store of stemcodecs.
    """
    found = state(place)
    if found.kind == "incomplete":
        raise IncompleteStoreError(
            f"{place}: the store is incomplete: its compression was interrupted or is still "
            "going on; "
            "finish it with stemcodecs compress --resume"
        )
    if found.kind == "absent":
        raise SourceError(f"{place}: no such store; check the path")
    if found.kind == "other" and (folder := _folder_in_zip(place)):
        raise SourceError(
            f"{place}: the store lies in the folder {folder} of this .zip file; unpack it, or pack what is in {folder}"
        )
    if found.kind in ("other", "foreign"):
        raise SourceError(
            f"{place}: not a store written by stemcodecs compress; "
            "open other Zarr data with zarr.open or xarray.open_zarr"
        )
    return found


def _folder_in_zip(place: str | os.PathLike[str] | Location) -> str:
    """Folder of a .zip file in which a store lies: what packing the folder itself gives."""
    location = place if isinstance(place, Location) else Location.of(place)
    if not location.zipped or not zipfile.is_zipfile(location.url):
        return ""
    roots = [name.rpartition("/")[0] for name in zip_members(location.url) if name.endswith("/zarr.json")]
    return min(roots, key=len, default="")


@contextlib.contextmanager
def metadata_of(location: Location) -> Iterator[None]:
    """One line for whatever Zarr and xarray stumble over in damaged metadata.

    Raises
    ------
    SourceError
        The metadata cannot be read.
    """
    try:
        yield
    except StemcodecsError:
        raise
    except Exception as error:
        # Of the operating system's and the network's errors, the file that is not there alone speaks of the store.
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and not isinstance(error, FileNotFoundError)):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise SourceError(
            f"{location}: its metadata cannot be read ({reason}); restore zarr.json from another copy of the store"
        ) from error


def open(store: str | os.PathLike[str], *, chunks: dict[str, int] | Literal["auto"] | None = None) -> xarray.Dataset:
    """Open a compressed store as a lazy Dataset with calibrated coordinates.

    Importing xarray's accessor is part of opening: ``dataset.stem`` has virtual images, mean
    pattern and centre of mass, see :class:`stemcodecs.accessor.StemAccessor`.

    Parameters
    ----------
    store : path or URL
        Root of the store, or a .zip file of what is in it; URLs go through fsspec (``s3://``,
        ``https://``, ``memory://`` …).
    chunks : dict, "auto" or None
        Dask chunks of the variables as in :func:`xarray.open_zarr`; None takes the chunks of the
        store.

    Returns
    -------
    xarray.Dataset
        ``data`` with dims (scan_y, scan_x, det_y, det_x), (frame, det_y, det_x) or (det_y, det_x),
        and what was computed when the store was written: ``mean_pattern``, ``sum_image``,
        ``bright_field`` and others. Its attributes are text, numbers and flat lists, so that ``to_netcdf`` can write
        them: what the store says about itself is JSON text, ``json.loads(dataset.attrs["stemcodecs"])``.

    Raises
    ------
    IncompleteStoreError
        The store was never finished.
    SourceError
        There is no store of stemcodecs.

    Reading values of a chunk that is damaged, or that has been lost, raises `CorruptChunkError`.
    """
    import xarray

    # Registers Dataset.stem.
    from stemcodecs.accessor import remember_opened
    from stemcodecs.required_chunks import store_with_every_chunk

    location = Location.of(store)
    require_complete(location)
    place = location.zarr_store()
    with contextlib.nullcontext() if location.local else backend_errors(location.url), metadata_of(location):
        dataset: xarray.Dataset = xarray.open_zarr(
            store_with_every_chunk(place), consolidated=True, chunks={} if chunks is None else chunks
        )
    for attributes in (dataset.attrs, *(variable.attrs for variable in dataset.variables.values())):
        plain = {name: _plain_attribute(value) for name, value in attributes.items() if value is not None}
        attributes.clear()
        attributes.update(plain)
    remember_opened(dataset)
    return dataset


def _plain_attribute(value: Any) -> Any:
    """An attribute as netCDF can hold it: text, a number or a flat list; anything deeper as JSON text."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, list) and value:
        kinds = {type(v) for v in value}
        if kinds == {str} or (kinds <= {int, float}):
            return value
    return json.dumps(value)
