"""Which chunks of a Zarr array are there, and which files its values depend on."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from typing import Any

from stemcodecs.readers.identity import Identity

__all__ = ["LISTED_REMOTELY", "chunk_count", "identity_of", "missing_chunks"]

LISTED_REMOTELY = 100_000
"""Chunks up to which a remote store is listed: a request for every thousand, some 10 seconds."""
_DOCUMENTS = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")


def missing_chunks(path: str, name: str, array: Any) -> list[str] | None:
    """Chunks without a file, in their order; None where the store cannot be listed, or is too large to.

    A shard counts as one chunk: what may be left out inside it is not looked at. Costs one listing of the folder.

    Parameters
    ----------
    path : str
        Folder, .zip file or URL of the store.
    name : str
        Path of the array in it, ``""`` for the store itself.
    array : zarr.Array
        The array.
    """
    if "://" in path and chunk_count(array) > LISTED_REMOTELY:
        return None
    there = _keys(path, name)
    if there is None:
        return None
    keys = (array.metadata.encode_chunk_key(place) for place in itertools.product(*map(range, _grid(array))))
    return [key for key in keys if key not in there]


def chunk_count(array: Any) -> int:
    """Chunks, or shards, that an array has when none is left out."""
    return math.prod(_grid(array))


def _grid(array: Any) -> list[int]:
    blocks = getattr(array, "shards", None) or array.chunks
    return [-(-n // b) for n, b in zip(array.shape, blocks, strict=True)]


def identity_of(path: str, name: str, *, listed: bool) -> Identity:
    """Identity of an array: its metadata, and a summary of the folder of its chunks.

    Of a .zip file it is the file. Costs one `stat` for each chunk, or one more listing of a remote store.

    Parameters
    ----------
    path, name
        As for `missing_chunks`.
    listed : bool
        Whether the chunks can be listed; else the metadata stands for all.
    """
    if os.path.isfile(path):
        return Identity.of([path])
    levels = [part for part in name.split("/") if part]
    folders = ["/".join([path.rstrip("/"), *levels[:i]]) for i in range(len(levels) + 1)]
    if "://" not in path:
        documents = [f"{folder}/{document}" for folder in folders for document in _DOCUMENTS]
        return Identity.of([folders[-1], *(d for d in documents if os.path.isfile(d))])
    from fsspec.core import url_to_fs

    documents = []
    for folder in folders:
        filesystem, place = url_to_fs(folder)
        documents += [f"{folder}/{d}" for d in _DOCUMENTS if filesystem.exists(f"{place.rstrip('/')}/{d}")]
    return Identity.of([*documents, folders[-1]] if listed else documents)


def _keys(path: str, name: str) -> set[str] | None:
    """Keys of all objects below an array."""
    if os.path.isfile(path):
        import zipfile

        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        prefix = f"{name}/" if name else ""
        return {n[len(prefix) :] for n in names if n.startswith(prefix)}
    if "://" not in path:
        return set(_files(os.path.join(path, name)))
    from fsspec.core import url_to_fs

    filesystem, root = url_to_fs(f"{path.rstrip('/')}/{name}".rstrip("/"))
    if "http" in filesystem.protocol or "https" in filesystem.protocol:
        return None  # a listing there is a page that some servers make
    filesystem.invalidate_cache()
    return {str(found)[len(root.rstrip("/")) + 1 :] for found in filesystem.find(root)}


def _files(root: str) -> Iterator[str]:
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(os.path.join(root, folder)) as entries:
            for entry in entries:
                if entry.is_dir():
                    pending.append(f"{folder}{entry.name}/")
                else:
                    yield f"{folder}{entry.name}"
