"""Zarr stores in which a chunk that is not there is an error.

Zarr reads a chunk without a file as the fill value: that is how it leaves out what was never written. A store
that :mod:`stemcodecs_pipelines` wrote holds every chunk of ``data``, so that one without a file was lost, in a
copy that was interrupted or on a damaged disk, and must not come back as zeros.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

from zarr.storage import FsspecStore, LocalStore, WrapperStore

from stemcodecs.errors import CorruptChunkError

if TYPE_CHECKING:
    from zarr.abc.store import Store

__all__ = ["store_with_every_chunk"]

_CHUNKS = "c/"
"""What the keys of chunks begin with below their array, in the encoding that our stores use."""


def store_with_every_chunk(place: str | os.PathLike[str] | Store, array: str = "data") -> Store:
    """A store for reading that raises where a chunk of an array is missing.

    Parameters
    ----------
    place : path, URL or store of Zarr
        The store.
    array : str
        Path of the array in it; ``""`` where the store is the array.

    Returns
    -------
    Store
        To give to `zarr.open` or `xarray.open_zarr`. Reading a chunk that is not there raises `CorruptChunkError`.
    """
    prefix = f"{array}/{_CHUNKS}" if array else _CHUNKS
    if isinstance(place, str | os.PathLike):
        name = os.fspath(place)
        if "://" not in name:
            return _LocalStoreWithEveryChunk(name, prefix=prefix)
        place = FsspecStore.from_url(name, read_only=True)
    return _StoreWithEveryChunk(place, prefix=prefix)


def _check(key: str, found: Any, prefix: str, store: Any) -> Any:
    if found is None and key.startswith(prefix):
        raise CorruptChunkError(f"{key} is missing in {store}")
    return found


class _LocalStoreWithEveryChunk(LocalStore):
    """A folder. A subclass and no wrapper, so that codecs find the files themselves as in any folder."""

    def __init__(self, root: str, *, read_only: bool = True, prefix: str) -> None:
        super().__init__(root, read_only=read_only)
        self._prefix = prefix

    def with_read_only(self, read_only: bool = False) -> Self:
        return type(self)(str(self.root), read_only=read_only, prefix=self._prefix)

    async def get(self, key: str, *args: Any, **kwargs: Any) -> Any:
        return _check(key, await super().get(key, *args, **kwargs), self._prefix, self)

    if hasattr(LocalStore, "get_sync"):

        def get_sync(self, key: str, *args: Any, **kwargs: Any) -> Any:
            return _check(key, super().get_sync(key, *args, **kwargs), self._prefix, self)

    async def get_partial_values(self, prototype: Any, key_ranges: Iterable[tuple[str, Any]]) -> list[Any]:
        wanted = list(key_ranges)
        found = await super().get_partial_values(prototype, wanted)
        return [_check(key, value, self._prefix, self) for (key, _), value in zip(wanted, found, strict=True)]


class _StoreWithEveryChunk(WrapperStore):  # type: ignore[type-arg]
    """Any other store."""

    def __init__(self, store: Store, *, prefix: str) -> None:
        super().__init__(store)
        self._prefix = prefix

    def _with_store(self, store: Store) -> Self:
        return type(self)(store, prefix=self._prefix)

    async def get(self, key: str, *args: Any, **kwargs: Any) -> Any:
        return _check(key, await super().get(key, *args, **kwargs), self._prefix, self._store)

    async def get_partial_values(self, prototype: Any, key_ranges: Iterable[tuple[str, Any]]) -> list[Any]:
        wanted = list(key_ranges)
        found = await super().get_partial_values(prototype, wanted)
        return [_check(key, value, self._prefix, self._store) for (key, _), value in zip(wanted, found, strict=True)]
