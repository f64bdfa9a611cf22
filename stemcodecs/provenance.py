"""Whether what a store says about itself can be true: its root document may be damaged, and still be JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

from stemcodecs.errors import SourceError

__all__ = ["check_provenance"]

_KINDS: dict[str, type | tuple[type, ...]] = {
    "layout": int,
    "version": str,
    "method": str,
    "codec": str,
    "guarantee": str,
    "verified": bool,
    "source": dict,
    "dtype": str,
    "blocks": int,
    "raw_bytes": int,
    "stored_bytes": int,
    "ratio": (int, float),
    "bits_per_pixel": (int, float),
    "raw_sha256": str,
}

# Not asked of NumPy: to look at a store takes less time than to load it.
_ITEMSIZE = {"bool": 1, "float16": 2, "float32": 4, "float64": 8} | {
    f"{kind}{8 * size}": size for kind in ("int", "uint") for size in (1, 2, 4, 8)
}


def check_provenance(place: object, known: Mapping[str, Any]) -> None:
    """Refuse provenance that no finished store has.

    Parameters
    ----------
    place : Location
        The store, for the message.
    known : dict
        Attribute ``stemcodecs`` of its root.

    Raises
    ------
    SourceError
        An entry is missing, is of another kind, or contradicts the others.
    """
    wrong = _wrong_entry(known)
    if wrong is not None:
        raise SourceError(
            f"{place}: zarr.json is damaged ({wrong} cannot be right); restore it from another copy of the store"
        )


def _wrong_entry(known: Mapping[str, Any]) -> str | None:
    for name, kind in _KINDS.items():
        if not isinstance(known.get(name), kind):
            return name
    if not isinstance(known["source"].get("path"), str):
        return "source"
    shape, chunk, shard = known.get("shape"), known.get("chunk"), known.get("shard")
    if not _lengths(shape):
        return "shape"
    if not (_lengths(chunk) and len(chunk) == len(shape)):
        return "chunk"
    if shard is not None and not (_lengths(shard) and len(shard) == len(shape)):
        return "shard"
    if known["dtype"] not in _ITEMSIZE:
        return "dtype"
    if known["raw_bytes"] != math.prod(shape) * _ITEMSIZE[known["dtype"]]:
        return "raw_bytes"
    if known["stored_bytes"] < 1 or known["blocks"] != math.prod(
        -(-n // block) for n, block in zip(shape, shard or chunk, strict=True)
    ):
        return "blocks"
    return None


def _lengths(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and bool(value) and all(type(n) is int and n > 0 for n in value)
