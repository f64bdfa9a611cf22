"""Models too large for metadata: kept as an array beside the compressed one, where the codec finds them.

A group holds the model as the uint8 array ``models/pca_<first 16 digits of its sha256>``. Zarr tells a codec the
place of a chunk that it may decode in part, and the codec then looks for the model in the folders above: plain
``zarr.open`` works. Where Zarr does not tell it (inside shards, in Zarr format 2), and for writing,
:func:`open_with_model` loads the model first.
"""

from __future__ import annotations

import asyncio
import hashlib
import weakref
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from stemcodecs.errors import ConfigurationError, CorruptChunkError
from stemcodecs.lowrank.low_rank_model import LowRankModel, inflate

if TYPE_CHECKING:
    import zarr
    from zarr.abc.store import ByteGetter

__all__ = [
    "StoredPcaModel",
    "chunk_key",
    "find_model",
    "keep_packed",
    "metadata_keys",
    "model_key",
    "model_objects",
    "open_with_model",
    "write_model",
]

FOLDER = "models"
_DAMAGED = "the PCA model beside the array is damaged; restore it from another copy"

_locks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = weakref.WeakKeyDictionary()


def model_key(digest: str) -> str:
    """Where the model of this digest lies in its group."""
    return f"{FOLDER}/pca_{digest[:16]}"


def chunk_key(digest: str) -> str:
    """The model's array is written as one chunk without compression: the model's bytes as they are."""
    return f"{model_key(digest)}/c/0"


def metadata_keys(digest: str) -> tuple[str, str]:
    """Zarr metadata of the folder and of the model's array."""
    return f"{FOLDER}/zarr.json", f"{model_key(digest)}/zarr.json"


@dataclass(frozen=True)
class StoredPcaModel:
    """A model that lies beside an array, for whoever handles a whole store.

    Parameters
    ----------
    digest : str
        SHA-256 of the model.
    """

    digest: str

    @property
    def key(self) -> str:
        """Where its bytes are in the store."""
        return chunk_key(self.digest)

    @property
    def documents(self) -> tuple[str, ...]:
        """Where the Zarr metadata of its array and folder are."""
        return metadata_keys(self.digest)

    @property
    def is_loaded(self) -> bool:
        """Whether codecs of this process find it."""
        return LowRankModel.is_kept(self.digest)

    def load(self, stored: bytes) -> None:
        """Let codecs of this process find it.

        Raises
        ------
        CorruptChunkError
            If the bytes are damaged.
        """
        keep_packed(stored, self.digest)


def write_model(group: zarr.Group, model: LowRankModel) -> None:
    """Store the model in the group; the codec then needs only its digest.

    Pass ``Pca(sha256=model.digest)`` (no ``model=``) as the serializer of the group's arrays.
    """
    raw = np.frombuffer(model.packed, np.uint8)
    # A group of its own: xarray takes every array beside the data for a variable of the scan.
    folder = group.require_group(FOLDER)
    array = folder.create_array(
        PurePosixPath(model_key(model.digest)).name,
        shape=raw.shape,
        chunks=raw.shape,
        dtype="uint8",
        compressors=None,
        overwrite=True,
    )
    array[:] = raw
    array.attrs.update({"long_name": "eigen-patterns of stemcodecs.pca", "sha256": model.digest})
    model.keep()


def model_objects(model: LowRankModel) -> dict[str, bytes]:
    """What :func:`write_model` writes into a group of Zarr format 3: objects by key."""
    import zarr
    from zarr.storage import MemoryStore

    objects: dict[str, Any] = {}
    write_model(zarr.create_group(MemoryStore(objects)), model)
    return {key: value.to_bytes() for key, value in objects.items() if key.startswith(f"{FOLDER}/")}


def open_with_model(group: zarr.Group, array: str = "data") -> zarr.Array[Any]:
    """An array of a group, with the PCA models of the group loaded into this process.

    Only needed where plain ``zarr.open`` says so: for arrays of Zarr format 2, inside shards, and to write.

    Raises
    ------
    ConfigurationError
        If the group has no model.
    CorruptChunkError
        If a stored model is damaged.
    """
    if FOLDER not in group:
        raise ConfigurationError(f"the group has no {FOLDER!r}; was its array copied without it?")
    for _, stored in group[FOLDER].arrays():  # type: ignore[union-attr]
        try:
            packed = np.asarray(stored[:]).tobytes()
        except ValueError as error:
            raise CorruptChunkError(_DAMAGED) from error
        keep_packed(packed, str(stored.attrs["sha256"]))
    return group[array]  # type: ignore[return-value]


def keep_packed(packed: bytes, digest: str) -> None:
    """Load a model from the bytes of its array.

    Raises
    ------
    CorruptChunkError
        If the bytes are damaged.
    """
    try:
        raw = inflate(packed)
    except (ValueError, zlib.error) as error:
        raise CorruptChunkError(_DAMAGED) from error
    if hashlib.sha256(raw).hexdigest() != digest:
        raise CorruptChunkError("the PCA model beside the array does not match its sha256; restore it")
    LowRankModel.from_bytes(raw).keep()


async def find_model(byte_getter: ByteGetter, digest: str) -> None:
    """Load a model from a group above the chunk that is being read, where the store and the chunk's place in it are
    known; decoding fails with advice where no model is found.
    """
    from zarr.core.buffer import default_buffer_prototype
    from zarr.storage import LocalStore, StorePath

    if not isinstance(byte_getter, StorePath):
        return
    # Chunks are read many at once, and each would fetch the model.
    async with _locks.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
        if LowRankModel.is_kept(digest):
            return
        store, key, packed = byte_getter.store, chunk_key(digest), None
        for parent in PurePosixPath(byte_getter.path).parents:
            found = await StorePath(store, str(parent / key)).get(default_buffer_prototype())
            if found is not None:
                packed = found.to_bytes()
                break
        else:
            if isinstance(store, LocalStore):
                # The array was opened by its own path: its group lies above the root of the store.
                packed = await asyncio.to_thread(_read_above, Path(store.root), key)
        if packed is not None:
            await asyncio.to_thread(keep_packed, packed, digest)


def _read_above(folder: Path, key: str) -> bytes | None:
    for parent in folder.absolute().parents:
        if (parent / key).is_file():
            return (parent / key).read_bytes()
    return None
