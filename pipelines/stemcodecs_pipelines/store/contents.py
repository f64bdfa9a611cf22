"""A complete store as the encoder sees it: how it is cut, how its blocks are decoded, and what they must hold."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from stemcodecs.errors import SourceError
from stemcodecs.location import Location
from stemcodecs.store import metadata_of, require_complete
from stemcodecs_pipelines.methods.base import Method
from stemcodecs_pipelines.run.plan import Plan
from stemcodecs_pipelines.store.block_coder import DATA, BlockCoder
from stemcodecs_pipelines.store.digests import sha256
from stemcodecs_pipelines.store.job import method_named
from stemcodecs_pipelines.store.stored_models import load_models

__all__ = ["StoreContents"]


@dataclass(frozen=True)
class StoreContents:
    """A complete store as the encoder sees it.

    Parameters
    ----------
    location : Location
        Root.
    attributes : dict
        Provenance.
    """

    location: Location
    attributes: dict[str, Any] = field(hash=False)

    @cached_property
    def plan(self) -> Plan:
        """How the array is cut."""
        known = self.attributes
        with metadata_of(self.location):
            return Plan(
                shape=tuple(known["shape"]),
                dtype=np.dtype(known["dtype"]).str,
                chunk=tuple(known["chunk"]),
                shard=tuple(known["shard"]) if known["shard"] else None,
            )

    @cached_property
    def coder(self) -> BlockCoder:
        """Decoder of the blocks."""
        data = self.location.read(f"{DATA}/zarr.json")
        if data is None:
            raise SourceError(f"{self.location}: {DATA}/zarr.json is missing; restore it from another copy")
        with metadata_of(self.location):
            metadata = json.loads(data)
            load_models(metadata, self.location)
            coder = BlockCoder(metadata)
            coder.check(self.plan)
            return coder

    @cached_property
    def method(self) -> Method[Any]:
        """Method, with the check of its guarantee."""
        return method_named(self.attributes["method"]).of_array(self.coder.metadata)

    @cached_property
    def digests(self) -> dict[str, np.ndarray[Any, Any]]:
        """Digests of all blocks, uint8 arrays of shape (blocks, 32)."""
        import zarr

        with metadata_of(self.location):
            group = zarr.open_group(self.location.zarr_store(), mode="r")
            found = {name: np.asarray(group[f"provenance/{name}"]) for name in ("raw_sha256", "stored_sha256")}
            if any(digests.shape != (self.plan.blocks, 32) for digests in found.values()):
                raise ValueError("there are not as many digests as blocks")
            return found

    @classmethod
    def of(cls, location: Location) -> StoreContents:
        """Contents of a complete store, read once per process as long as the store stays what it is."""
        return _contents(location, sha256(location.read("zarr.json") or b"").tobytes())


@lru_cache(maxsize=4)
def _contents(location: Location, root: bytes) -> StoreContents:
    return StoreContents(location, require_complete(location).attributes)
