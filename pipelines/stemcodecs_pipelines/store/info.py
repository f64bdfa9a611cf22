"""What a store says about itself, without reading a chunk or importing Zarr."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import filesize

from stemcodecs.errors import IncompleteStoreError
from stemcodecs.location import Location
from stemcodecs.store import require_complete

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
            ("source", _source(known["source"])),
            ("written by", f"stemcodecs {known['version']}"),
            ("raw SHA-256", known["raw_sha256"]),
        ]
        if known.get("values"):
            rows.insert(1, ("values", known["values"]))
        marked = _marked(known)
        if marked is not None:
            rows.insert(-2, ("marked", marked))
        if self.total_bytes is not None:
            extra = self.total_bytes - known["stored_bytes"]
            rows.insert(
                [name for name, _ in rows].index("stored size") + 1,
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
        names = [name.removeprefix("./") for name in location.names("")]
        objects = sum(name.startswith("data/c/") for name in names)
        # What a .zip file adds to its members is on the disk too.
        total = os.path.getsize(location.url) if location.zipped else sum(location.size(name) or 0 for name in names)
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


def _marked(known: dict[str, Any]) -> str | None:
    """What the images are without; None where nothing was left out."""
    pixels, values = known.get("marked_pixels", {}), known.get("marked_values", 0)
    parts = [f"{count:,} pixels ({kind.replace('_', ' ')})" for kind, count in pixels.items()]
    if values:
        parts.append(f"{values:,} values")
    return f"{', '.join(parts)}, in no image" if parts else None


def _source(said: dict[str, Any]) -> str:
    dataset = f", {said['dataset']}" if said.get("dataset") else ""
    return f"{said['path']}{dataset} ({said.get('format', '?')})"


def _size(count: int) -> str:

    return f"{count:,} bytes ({filesize.decimal(count)})"
