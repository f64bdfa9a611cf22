"""A checksum over everything that a store says in words: the metadata of its group and of all its arrays.

Chunks have checksums of their own; a bit that flips in a ``zarr.json`` gives another unit, scale or provenance, and the
JSON still parses. The root's provenance holds a digest of all documents, of their content rather than of their bytes,
so that a tool that writes them again without changing them does no harm.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from stemcodecs.errors import SourceError, VerificationError
from stemcodecs.store import Location

__all__ = ["DIGEST", "ROOT", "check_documents", "sealed"]

ROOT = "zarr.json"
DIGEST = "metadata_sha256"
SINCE_LAYOUT = 2
"""First layout of a store whose provenance has the digest."""


def sealed(documents: Mapping[str, bytes]) -> bytes:
    """The root document of a store, with the digest of all its documents.

    Parameters
    ----------
    documents : dict
        Every ``zarr.json`` of the store by key, the root's among them.
    """
    parsed = {key: json.loads(document) for key, document in documents.items()}
    root = parsed[ROOT]
    root["attributes"]["stemcodecs"][DIGEST] = _digest(parsed)
    return json.dumps(root, indent=2).encode()


def check_documents(location: Location) -> None:
    """Hold the metadata of a complete store against their digest.

    Raises
    ------
    SourceError
        A document is missing, or is no JSON.
    VerificationError
        A document says something else than when the store was written.
    """
    parsed = {ROOT: _read(location, ROOT)}
    try:
        root = parsed[ROOT]
        provenance = root["attributes"]["stemcodecs"]
        if provenance["layout"] < SINCE_LAYOUT and DIGEST not in provenance:
            return
        expected = provenance[DIGEST]
        members = list(root["consolidated_metadata"]["metadata"])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(location, ROOT) from error
    for name in members:
        parsed[f"{name}/{ROOT}"] = _read(location, f"{name}/{ROOT}")
    if _digest(parsed) != expected:
        raise VerificationError(
            f"{location}: its metadata (zarr.json of the group or of an array) are not what was written; "
            "restore them from another copy of the store"
        )


def _read(location: Location, key: str) -> Any:
    document = location.read(key)
    if document is None:
        raise SourceError(f"{location}: {key} is missing; restore it from another copy of the store")
    try:
        return json.loads(document)
    except (ValueError, RecursionError) as error:
        raise _damaged(location, key) from error


def _damaged(location: Location, key: str) -> SourceError:
    return SourceError(f"{location}: {key} is damaged; restore it from another copy of the store")


def _digest(parsed: Mapping[str, Any]) -> str:
    root = parsed[ROOT]
    provenance = {key: value for key, value in root["attributes"]["stemcodecs"].items() if key != DIGEST}
    content = {**parsed, ROOT: {**root, "attributes": {**root["attributes"], "stemcodecs": provenance}}}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
