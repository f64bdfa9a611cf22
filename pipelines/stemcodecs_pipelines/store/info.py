"""What a store says about itself, without reading a chunk or importing Zarr."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import filesize

from stemcodecs.errors import IncompleteStoreError
from stemcodecs.store import Location, require_complete

__all__ = ["Info", "info"]

_COUNTED_BLOCKS = 20_000
"""Up to here the stored objects are counted, which takes well under a second."""


@dataclass(frozen=True, kw_only=True)
class Info:
    """A complete store.

    Parameters
    ----------
    place : str
        Where it is.
    attributes : dict
        Its provenance.
    total_bytes : int or None
        Size of everything in it; None for remote and very large stores.
    """

    place: str
    attributes: dict[str, Any]
    total_bytes: int | None

    def rows(self) -> list[tuple[str, str]]:
        """Names and values, for a table."""
        known = self.attributes
        dims = "×".join(map(str, known["shape"]))
        shard = f", shards of {'×'.join(map(str, known['shard']))}" if known["shard"] else ""
        rows = [
            ("scan", f"{dims} {known['dtype']}"),
            ("raw size", _size(known["raw_bytes"])),
            (
                "stored size",
                f"{_size(known['stored_bytes'])} (ratio {known['ratio']:.2f}, "
                f"{known['bits_per_pixel']:.3f} bits per pixel)",
            ),
            ("method", f"{known['method']} ({known['codec']})"),
            ("guarantee", known["guarantee"]),
            ("verified", _verified(known)),
            ("chunks", f"{'×'.join(map(str, known['chunk']))}{shard}, {known['blocks']} objects"),
            ("source", f"{known['source']['path']} ({known['source'].get('format', '?')})"),
            ("written by", f"stemcodecs {known['version']}"),
            ("raw SHA-256", known["raw_sha256"]),
        ]
        if self.total_bytes is not None:
            extra = self.total_bytes - known["stored_bytes"]
            rows.insert(
                3,
                (
                    "with images",
                    f"{_size(self.total_bytes)} ({_size(extra)} of images and metadata)",
                ),
            )
        return rows


def info(place: str | Path) -> Info:
    """Look at a store.

    Raises
    ------
    IncompleteStoreError
        It was never finished, or objects are missing from it.
    SourceError
        There is no store of stemcodecs.
    """
    location = Location.of(place)
    known = require_complete(location).attributes
    total = None
    if location.local and known["blocks"] <= _COUNTED_BLOCKS:
        objects = 0
        total = 0
        data = os.path.join(location.url, "data", "c")
        for parent, _, files in os.walk(location.url):
            total += sum(os.stat(os.path.join(parent, name)).st_size for name in files)
            if parent.startswith(data):
                objects += len(files)
        if objects < known["blocks"]:
            raise IncompleteStoreError(
                f"{place}: {known['blocks'] - objects} of {known['blocks']} chunks are missing; "
                "the store was copied incompletely: copy it again, or use stemcodecs repair"
            )
    return Info(place=str(place), attributes=known, total_bytes=total)


def _verified(known: dict[str, Any]) -> str:
    if not known["verified"]:
        return "no"
    if known["guarantee"].startswith("no "):
        return "every chunk was read back and decoded; nothing is guaranteed about single values"
    return "every value was read back and compared"


def _size(count: int) -> str:

    return f"{count:,} bytes ({filesize.decimal(count)})"
