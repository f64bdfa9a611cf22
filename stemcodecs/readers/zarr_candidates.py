"""What in a Zarr group could be the scan: its arrays, and those that cannot be read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from stemcodecs.readers.choose import Candidate
from stemcodecs.readers.scan import one_line

__all__ = ["zarr_candidates_in"]

_NOT_ZARR = (KeyError, FileNotFoundError)


def zarr_candidates_in(group: Any, path: str) -> list[Candidate]:
    """All arrays below a group; one that cannot be read does not hide the others.

    Parameters
    ----------
    group : zarr.Group
        The root of a store.
    path : str
        Where the store is.
    """
    try:
        members = list(group.members(max_depth=None))
    except Exception:  # one broken member: codec not installed, broken JSON, ...
        return list(_one_by_one(group, path, ""))
    return [c for name, member in members if hasattr(member, "shape") for c in _candidate(name, member)]


def _one_by_one(group: Any, path: str, prefix: str) -> Iterator[Candidate]:
    for key in sorted(_subfolders(path, prefix.rstrip("/"))):
        name = f"{prefix}{key}"
        try:
            member = group[key]
        except _NOT_ZARR:
            continue  # a folder of something else
        except Exception as error:
            yield _broken(name, path, f"cannot be read ({one_line(error)})")
            continue
        if hasattr(member, "shape"):
            yield from _candidate(name, member)
        else:
            yield from _one_by_one(member, path, f"{name}/")


def _candidate(name: str, member: Any) -> Iterator[Candidate]:
    """An array as a candidate; none for text, which is no measurement."""
    dtype = np.dtype(member.dtype)
    kind = type(getattr(member.metadata, "dtype", getattr(member.metadata, "data_type", None))).__name__
    if dtype.kind in "SUT" or "UTF8" in kind:
        return
    shape = tuple(int(n) for n in member.shape)
    names = getattr(member.metadata, "dimension_names", None) or member.attrs.get("_ARRAY_DIMENSIONS")
    yield Candidate(
        name=name,
        shape=shape,
        dtype=dtype,
        is_main=name == "data",
        is_ragged=dtype.kind == "O",
        is_named=bool(names) and len(names) == len(shape) and all(names[: len(shape) - 4]),
    )


def _broken(name: str, path: str, trouble: str) -> Candidate:
    """An array that Zarr does not open, with what its document says all the same."""
    shape, dtype = None, None
    for document, key in (("zarr.json", "data_type"), (".zarray", "dtype")):
        try:
            with open(os.path.join(path, name, document), "rb") as file:
                said = json.load(file)
            shape, dtype = tuple(int(n) for n in said["shape"]), np.dtype(said[key])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return Candidate(name=name, shape=shape, dtype=dtype, is_main=name == "data", trouble=trouble)


def _subfolders(path: str, name: str) -> set[str]:
    """Names of the folders in a folder of the store."""
    if os.path.isfile(path):
        import zipfile

        prefix = f"{name}/" if name else ""
        with zipfile.ZipFile(path) as archive:
            below = [n[len(prefix) :] for n in archive.namelist() if n.startswith(prefix)]
        return {n.partition("/")[0] for n in below if "/" in n}
    if "://" not in path:
        with os.scandir(os.path.join(path, name)) as entries:
            return {entry.name for entry in entries if entry.is_dir()}
    from fsspec.core import url_to_fs

    filesystem, place = url_to_fs(f"{path.rstrip('/')}/{name}".rstrip("/"))
    found = filesystem.ls(place, detail=True)
    return {str(said["name"]).rstrip("/").rpartition("/")[2] for said in found if said["type"] == "directory"}
