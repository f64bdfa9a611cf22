"""Zarr arrays and groups of either format: stemcodecs stores, HyperSpy .zspy, xarray, any other."""

from __future__ import annotations

import os
from functools import partial as bound
from typing import Any

import numpy as np

from stemcodecs.errors import SourceError, StemcodecsError
from stemcodecs.readers.calibration import axes_from, axis_from_values, axis_named
from stemcodecs.readers.choose import choose_array
from stemcodecs.readers.scan import Axis, Region, Scan, one_line, small_attributes
from stemcodecs.readers.zarr_candidates import zarr_candidates_in
from stemcodecs.readers.zarr_chunks import chunk_count, identity_of, missing_chunks
from stemcodecs.required_chunks import store_with_every_chunk
from stemcodecs.store import state

__all__ = ["open_zarr"]

DATA = "data"
"""Name of the scan in a store of stemcodecs."""
_NAMED = 3


class ZarrBlocks:
    """An open Zarr array.

    Parameters
    ----------
    path : str
        Folder, .zip file or URL of the store.
    name : str
        Path of the array in it, ``""`` for the store itself.
    partial : bool
        Take a store of stemcodecs that lost chunks.
    """

    def __init__(self, path: str, name: str, *, partial: bool = False) -> None:
        self._array: Any = _array(_open_node(path), name)
        try:
            missing = missing_chunks(path, name, self._array)
            self.identity = identity_of(path, name, listed=missing is not None)
            if _is_ours(path, name) and not partial:
                if missing:
                    raise SourceError(
                        f"{path}: {len(missing)} of its chunks ({_some(missing)}) are missing; copy the store again, "
                        "or take what is there with --partial"
                    )
                # A chunk may be lost while the scan is read, and a server may not say what it has.
                self.close()
                store = store_with_every_chunk(_place(path), name)
                self._array = _array(_open_node(path, store), name)
                missing = missing or []
            is_numeric = np.dtype(self._array.dtype).kind in "biuf"
            if is_numeric and missing and len(missing) == chunk_count(self._array) and not partial:
                raise SourceError(
                    f"{path}: not one of its {len(missing)} chunks is in the store; copy it again, or take the fill "
                    f"value {self._array.fill_value} everywhere with --partial"
                )
        except BaseException:
            self.close()
            raise
        self.shape = tuple(int(n) for n in self._array.shape)
        self.dtype = np.dtype(self._array.dtype)
        self.remarks = _remarks(missing, self._array)

    def read(self, region: Region) -> np.ndarray[Any, Any]:
        """Values of a region with explicit bounds."""
        return np.asarray(self._array[region])

    def close(self) -> None:
        """Release the store: a .zip file stays open as long as it is used."""
        self._array.store.close()


def _remarks(missing: list[str] | None, array: Any) -> tuple[str, ...]:
    fill = array.fill_value
    if missing is None:
        return (f"its chunks cannot be listed; any that are missing are read as the fill value {fill}",)
    if not missing:
        return ()
    few = len(missing) == 1
    are = "1 chunk is" if few else f"{len(missing)} chunks are"
    return (f"{are} not in the store and {'is' if few else 'are'} read as the fill value {fill} ({_some(missing)})",)


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:_NAMED]) + (", …" if len(keys) > _NAMED else "")


def open_zarr(path: str, dataset: str | None = None, *, partial: bool = False) -> Scan:
    """Open a Zarr array, or the scan in a Zarr group.

    A chunk without an object is the fill value in Zarr. In a store of stemcodecs, which holds every chunk, it is
    an error; in another one such chunks are counted, and named in `Scan.remarks`.

    Parameters
    ----------
    path : str
        Folder, .zip file, or URL that fsspec reads.
    dataset : str, optional
        Path of the array inside the group.
    partial : bool
        Take a store of stemcodecs that lost chunks, in an interrupted copy for example.

    Raises
    ------
    SourceError
        Not a Zarr store, no scan in it, a codec is missing, or chunks are.
    UnsupportedDtypeError
        The array holds no real numbers.
    """
    try:
        return _open_zarr(path, dataset, partial)
    except StemcodecsError:
        raise
    except Exception as error:  # zarr raises many kinds: no such codec, broken JSON, no node, ...
        raise SourceError(
            f"{path}: cannot be opened as Zarr ({one_line(error)}); "
            "check the path, and install the package of a missing codec"
        ) from error


def _open_zarr(path: str, dataset: str | None, partial: bool) -> Scan:
    import zarr

    node = _open_node(path)
    remarks: tuple[str, ...] = ()
    try:
        name, group = "", None
        if isinstance(node, zarr.Group):
            candidates = zarr_candidates_in(node, path)
            name = choose_array(candidates, path=path, dataset=dataset).name
            remarks = tuple(f"{c.name} {c.trouble}" for c in candidates if c.trouble)
            folder = name.rpartition("/")[0]
            group = node[folder] if folder else node
        elif dataset is not None:
            raise SourceError(f"{path} is a single array; leave out --dataset {dataset}")
        array = _array(node, name)
        said = {**(dict(group.attrs) if group else {}), **dict(array.attrs)}
        return Scan(
            path=path,
            format=f"Zarr v{array.metadata.zarr_format}",
            opener=bound(ZarrBlocks, path, name, partial=partial),
            axes=_axes(path, array, group),
            # A shard is the block that the store reads and writes as a whole.
            chunks=tuple(int(n) for n in (getattr(array, "shards", None) or array.chunks)),
            metadata={"dataset": name, "attributes": small_attributes(said)},
            remarks=remarks,
        )
    finally:
        node.store.close()


def _place(path: str) -> Any:
    """What Zarr opens: the path, the URL, or an open .zip file."""
    import zarr

    return zarr.storage.ZipStore(path, mode="r") if os.path.isfile(path) else path


def _open_node(path: str, store: Any = None) -> Any:
    import zarr

    try:
        return zarr.open(store or _place(path), mode="r")
    except (zarr.errors.NodeNotFoundError, FileNotFoundError):
        raise
    except Exception as error:
        # Consolidated metadata are read as a whole: one array with a codec that is not here is enough to fail.
        try:
            return zarr.open_group(store or _place(path), mode="r", use_consolidated=False)
        except Exception:
            raise error from None


def _array(node: Any, name: str) -> Any:
    return node[name] if name else node


def _is_ours(path: str, name: str) -> bool:
    """Whether this is the array of a complete store of stemcodecs."""
    if name:
        root, _, last = f"/{name}".rpartition("/")
        place = path.rstrip("/") + root
    else:
        place, _, last = path.rstrip("/").rpartition("/")
    if last != DATA or not place:
        return False
    if os.path.isfile(path):
        node = _open_node(path)
        try:
            return name == DATA and bool(dict(node.attrs).get("stemcodecs"))
        finally:
            node.store.close()
    return state(place).kind == "complete"


def _axes(path: str, array: Any, group: Any) -> tuple[Axis, ...]:
    shape = tuple(int(n) for n in array.shape)
    if len(shape) < 2:
        return ()
    if group is None:
        return axes_from(path, shape, ())
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if names and len(names) == len(shape):
        coordinates = [_coordinate_axis(group, n, s) for n, s in zip(names, shape, strict=True)]
        return axes_from(path, shape, coordinates)
    return axes_from(path, shape, [_zspy_axis(group, i, s) for i, s in enumerate(shape)])


def _coordinate_axis(group: Any, name: Any, size: int) -> Axis | None:
    """Follow xarray: a 1-D array with the name of the dimension next to the data."""
    if not isinstance(name, str):
        return None
    try:
        values = group[name]
    except Exception:  # not there, or in a codec that is not
        values = None
    if getattr(values, "shape", None) != (size,):
        return Axis(name=name, size=size)
    return axis_from_values(name, size, np.asarray(values[:]), values.attrs.get("units"))


def _zspy_axis(group: Any, index: int, size: int) -> Axis | None:
    """Follow HyperSpy: groups axis-0, axis-1, ... with scale, offset and units as attributes."""
    try:
        said = dict(group[f"axis-{index}"].attrs)
    except Exception:  # not there, or broken
        return None
    return axis_named(str(said.get("name") or ""), size, said.get("scale"), said.get("offset"), said.get("units"))
