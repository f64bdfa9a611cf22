"""What a finished block leaves behind: digests and sums, on disk until the store is complete."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from stemcodecs.location import JOURNAL, Location

__all__ = ["RECORDS", "Record"]

RECORDS = f"{JOURNAL}/records"
_DIGEST_BYTES = 32


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
    left_out : ndarray
        How many patterns have a mark in a pixel; of shape (0, 0) where none has.
    """

    index: int
    raw_sha256: np.ndarray[Any, Any]
    stored_sha256: np.ndarray[Any, Any]
    stored_bytes: int
    pattern: np.ndarray[Any, Any]
    images: np.ndarray[Any, Any]
    left_out: np.ndarray[Any, Any]

    @staticmethod
    def key(index: int) -> str:
        """Key of a record; a thousand to a folder."""
        return f"{RECORDS}/{index // 1000}/{index}.npz"

    def write(self, location: Location, *, parts: str = JOURNAL) -> None:
        """Leave the record at a location, at once; see `Location.write` for `parts`."""
        buffer = io.BytesIO()
        # Uncompressed: sums compress little, and records are short-lived. Zip has a checksum of each member.
        np.savez(
            buffer,
            index=self.index,
            raw_sha256=self.raw_sha256,
            stored_sha256=self.stored_sha256,
            stored_bytes=self.stored_bytes,
            pattern=self.pattern,
            images=self.images,
            left_out=self.left_out,
        )
        # Not synced: what a power cut takes from a record is seen, and the block is done again.
        content = buffer.getvalue()
        location.write(self.key(self.index), content + _digest(content), parts=parts, sync=False)

    @classmethod
    def read(cls, location: Location, index: int) -> Self | None:
        """Record of a block; None where it is missing or damaged: the block is done again."""
        data = location.read(cls.key(index))
        # NumPy's archives notice some damage, in as many kinds of errors, and read other sums from the rest.
        if data is None or _digest(data[:-_DIGEST_BYTES]) != data[-_DIGEST_BYTES:]:
            return None
        try:
            # Never a pickle: whoever can write a record must not run code in our process.
            with np.load(io.BytesIO(data[:-_DIGEST_BYTES]), allow_pickle=False) as file:
                record = cls(
                    index=int(file["index"]),
                    raw_sha256=file["raw_sha256"],
                    stored_sha256=file["stored_sha256"],
                    stored_bytes=int(file["stored_bytes"]),
                    pattern=file["pattern"],
                    images=file["images"],
                    left_out=file["left_out"],
                )
        except KeyError:
            # The record of another version.
            return None
        # A record that was copied to another name is of another block.
        return record if record.index == index else None


def _digest(content: bytes) -> bytes:
    """What ends a record: one that was cut off or altered is then no record, and its block is done again."""
    return hashlib.sha256(content).digest()
