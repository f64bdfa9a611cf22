"""What a finished block leaves behind: digests and sums, on disk until the store is complete."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from stemcodecs.store import JOURNAL, Location

__all__ = ["RECORDS", "Record"]

RECORDS = f"{JOURNAL}/records"


@dataclass(frozen=True, kw_only=True)
class Record:
    """One block.

    Parameters
    ----------
    index : int
        Number of the block.
    raw_sha256 : ndarray of shape (32,)
        Digest of the source's values, C order, little-endian, without padding.
    stored_sha256 : ndarray of shape (32,)
        Digest of the stored object.
    stored_bytes : int
        Size of the stored object.
    pattern : ndarray
        Sum over the patterns of the block, shape of the block's detector part.
    images : ndarray of shape (patterns, 5)
        Sums of every pattern, see `stemcodecs_pipelines.store.virtual_images.BlockSums`.
    """

    index: int
    raw_sha256: np.ndarray[Any, Any]
    stored_sha256: np.ndarray[Any, Any]
    stored_bytes: int
    pattern: np.ndarray[Any, Any]
    images: np.ndarray[Any, Any]

    @staticmethod
    def key(index: int) -> str:
        """Key of a record; a thousand to a folder."""
        return f"{RECORDS}/{index // 1000}/{index}.npz"

    def write(self, location: Location, *, parts: str = JOURNAL) -> None:
        """Leave the record at a location, at once; see `Location.write` for `parts`."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            index=self.index,
            raw_sha256=self.raw_sha256,
            stored_sha256=self.stored_sha256,
            stored_bytes=self.stored_bytes,
            pattern=self.pattern,
            images=self.images,
        )
        # Not synced: what a power cut takes from a record is seen, and the block is done again.
        location.write(self.key(self.index), buffer.getvalue(), parts=parts, sync=False)

    @classmethod
    def read(cls, location: Location, index: int) -> Self | None:
        """Record of a block; None where it is missing or damaged: the block is done again."""
        data = location.read(cls.key(index))
        if data is None:
            return None
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                record = cls(
                    index=int(file["index"]),
                    raw_sha256=file["raw_sha256"],
                    stored_sha256=file["stored_sha256"],
                    stored_bytes=int(file["stored_bytes"]),
                    pattern=file["pattern"],
                    images=file["images"],
                )
        except (zipfile.BadZipFile, ValueError, KeyError, EOFError, OSError):
            return None
        return record if record.index == index else None
