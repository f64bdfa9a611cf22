"""Zarr arrays and groups of either format: stemcodecs stores, HyperSpy .zspy, xarray, any other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from stemcodecs.errors import SourceError, StemcodecsError
from stemcodecs.readers.calibration import axes_from, axis_from_values, axis_named
from stemcodecs.readers.choose import Candidate, choose_array
from stemcodecs.readers.scan import Axis, Region, Scan, one_line, small_attributes

__all__ = ["open_zarr"]


class ZarrBlocks:
    """An open Zarr array."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape = tuple(int(n) for n in array.shape)
        self.dtype = np.dtype(array.dtype)

    def read(self, region: Region) -> np.ndarray[Any, Any]:
        """Values of a region with explicit bounds."""
        return np.asarray(self._array[region])

    def close(self) -> None:
        """Release the store: a .zip file stays open as long as it is used."""
        self._array.store.close()


def open_zarr(path: str, dataset: str | None = None, *, partial: bool = False) -> Scan:
    """Open a Zarr array, or the scan in a Zarr group.

    Parameters
    ----------
    path : str
        Folder, .zip file, or URL that fsspec reads.
    dataset : str, optional
        Path of the array inside the group.

    Raises
    ------
    SourceError
        Not a Zarr store, no scan in it, or a codec is missing.
    UnsupportedDtypeError
        The array holds no real numbers.
    """
    try:
        return _open_zarr(path, dataset)
    except StemcodecsError:
        raise
    except Exception as error:  # zarr raises many kinds: no such codec, broken JSON, no node, ...
        raise SourceError(
            f"{path}: cannot be opened as Zarr ({one_line(error)}); "
            "check the path, and install the package of a missing codec"
        ) from error


def _open_zarr(path: str, dataset: str | None) -> Scan:
    import zarr

    node = _open_node(path)
    try:
        name, group = "", None
        if isinstance(node, zarr.Group):
            name = choose_array(list(_candidates(node)), path=path, dataset=dataset).name
            folder = name.rpartition("/")[0]
            group = node[folder] if folder else node
        elif dataset is not None:
            raise SourceError(f"{path} is a single array; leave out --dataset {dataset}")
        array: Any = node[name] if name else node
        said = {**(dict(group.attrs) if group else {}), **dict(array.attrs)}
        return Scan(
            path=path,
            format=f"Zarr v{array.metadata.zarr_format}",
            opener=partial(_open_blocks, path, name),
            axes=_axes(path, array, group),
            # A shard is the block that the store reads and writes as a whole.
            chunks=tuple(int(n) for n in (getattr(array, "shards", None) or array.chunks)),
            metadata={"dataset": name, "attributes": small_attributes(said)},
        )
    finally:
        node.store.close()


def _open_node(path: str) -> Any:
    import zarr

    if os.path.isfile(path):
        return zarr.open(zarr.storage.ZipStore(path, mode="r"), mode="r")
    return zarr.open(path, mode="r")


def _open_blocks(path: str, name: str) -> ZarrBlocks:
    node = _open_node(path)
    return ZarrBlocks(node[name] if name else node)


def _candidates(group: Any) -> Iterator[Candidate]:
    for name, member in group.members(max_depth=None):
        if hasattr(member, "shape"):
            yield Candidate(
                name=name,
                shape=tuple(int(n) for n in member.shape),
                dtype=np.dtype(member.dtype),
                is_main=name == "data",
            )


def _axes(path: str, array: Any, group: Any) -> tuple[Axis, ...]:
    shape = tuple(int(n) for n in array.shape)
    if not 2 <= len(shape) <= 4:
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
    if not isinstance(name, str) or name not in group:
        return None
    values = group[name]
    if getattr(values, "shape", None) != (size,):
        return None
    return axis_from_values(name, size, np.asarray(values[:]), values.attrs.get("units"))


def _zspy_axis(group: Any, index: int, size: int) -> Axis | None:
    """Follow HyperSpy: groups axis-0, axis-1, ... with scale, offset and units as attributes."""
    if f"axis-{index}" not in group:
        return None
    said = dict(group[f"axis-{index}"].attrs)
    return axis_named("", size, said.get("scale"), said.get("offset"), said.get("units"))
