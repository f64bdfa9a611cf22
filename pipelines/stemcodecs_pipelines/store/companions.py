"""What lies beside the array ``data`` in a store: coordinates, images, models and metadata, all held by digests.

The provenance in the root's attributes has the SHA-256 of every such object under ``objects``, and its own under
``sha256``. An object that is altered, replaced or missing is found by them; the arrays have checksums of their own as
well (crc32c, after Zstandard), so that plain Zarr does not decode a flipped bit to other values. What a missing chunk
would read as, its fill value, no checksum tells.

The root's ``zarr.json`` cannot hold its own digest. It holds the provenance and copies of the other metadata
(consolidated metadata), which are compared one by one. Attributes that others add to the root are left alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from stemcodecs.location import Location
from stemcodecs_pipelines.store.block_coder import DATA

__all__ = ["LAYOUT", "check_companions", "missing_checksums", "note_objects", "object_digest", "sealed"]

LAYOUT = 2
"""Version of the store's layout.

1: images, coordinates and digests without checksums.
2: they have crc32c, and the provenance has ``objects`` and ``sha256``. Readers of layout 1 read it all the same: Zarr
knows crc32c. The number is for `check_companions`, to which digests that are not there are damage from here on.
"""
_ROOT = "zarr.json"
_PROVENANCE = "stemcodecs"
_NOTHING_BELOW = {"kind": "inline", "must_understand": False, "metadata": {}}
"""How Zarr consolidates a group inside a consolidated one."""
_RESTORE = "restore it from another copy of the store"
_CONSOLIDATE = "write it again with zarr.consolidate_metadata"


def object_digest(data: Any) -> str:
    """SHA-256 of an object, as the provenance has it."""
    return hashlib.sha256(data).hexdigest()


def sealed(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance with its own SHA-256, which changes with any of its values."""
    content = {name: value for name, value in provenance.items() if name != "sha256"}
    return content | {"sha256": _own_digest(content)}


def _own_digest(content: Mapping[str, Any]) -> str:
    # As it reads back: tuples have become lists, and the order and spaces of the document do not matter.
    text = json.dumps(json.loads(json.dumps(content)), sort_keys=True, separators=(",", ":"))
    return object_digest(text.encode())


def missing_checksums(provenance: Mapping[str, Any]) -> str | None:
    """What to tell the user of a store in which not everything has a checksum; None where everything has."""
    if provenance.get("layout") != 1:
        return None
    return (
        f"written by stemcodecs {provenance.get('version')}, whose images and coordinates carry no checksum: "
        "only data was checked; compress the source again to have them covered"
    )


def check_companions(location: Location, *, arrays: Collection[str] | None = None) -> list[str]:
    """Read every object of a store beside the chunks of ``data``, and compare it with its digest.

    Parameters
    ----------
    location : Location
        A complete store.
    arrays : collection of str, optional
        Look at these arrays and groups and at the root only; default everything.

    Returns
    -------
    list of str
        What is wrong, one line for each object; empty for an intact store.

    Notes
    -----
    Stores of layout 1 have no digests: their arrays are decoded, and what Zarr finds is all that can be told. See
    `missing_checksums`.
    """
    root = _document(location.read(_ROOT))
    provenance = _member(_member(root, "attributes"), _PROVENANCE)
    if root is None or provenance is None:
        return [f"{_ROOT} is damaged; {_RESTORE}"]
    layout = provenance.get("layout")
    if layout == 1 and not {"objects", "sha256"} & set(provenance):
        return list(_decode_all(location, arrays))
    if layout != LAYOUT:
        return [f"{_ROOT} says layout {layout}, which this version does not know; use a newer stemcodecs"]
    content = {name: value for name, value in provenance.items() if name != "sha256"}
    objects = provenance.get("objects")
    if provenance.get("sha256") != _own_digest(content) or not isinstance(objects, dict):
        return [f"{_ROOT}: its provenance is damaged; {_RESTORE}"]
    problems = []
    documents: dict[str, Any] = {}
    for key, digest in objects.items():
        if arrays is not None and key.split("/")[0] not in arrays:
            continue
        data = location.read(key)
        if data is None:
            problems.append(f"{key} is missing; {_RESTORE}")
        elif object_digest(data) != digest:
            problems.append(f"{key} is damaged; {_RESTORE}")
        elif key.endswith(f"/{_ROOT}"):
            documents[key.removesuffix(f"/{_ROOT}")] = json.loads(data)
    return problems + list(_check_root(root, documents, whole=arrays is None and not problems))


def _document(data: bytes | None) -> dict[str, Any] | None:
    try:
        content = json.loads(data or b"")
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _member(content: dict[str, Any] | None, name: str) -> dict[str, Any] | None:
    found = None if content is None else content.get(name)
    return found if isinstance(found, dict) else None


def _check_root(root: dict[str, Any], documents: Mapping[str, Any], *, whole: bool) -> Iterator[str]:
    """The root's document against the metadata that it repeats, which is intact."""
    consolidated = _member(root, "consolidated_metadata")
    copies = _member(consolidated, "metadata")
    known = {"attributes", "zarr_format", "consolidated_metadata", "node_type"}
    if (
        consolidated is None
        or copies is None
        or set(root) != known
        or (root["zarr_format"], root["node_type"]) != (3, "group")
        or consolidated != {"kind": "inline", "must_understand": False, "metadata": copies}
    ):
        yield f"{_ROOT} is damaged; {_RESTORE}"
        return
    unknown = set(copies) - set(documents) if whole else set()
    for name in sorted(unknown | set(documents)):
        copy, document = copies.get(name), documents.get(name)
        if isinstance(copy, dict) and copy.get("node_type") == "group":
            copy = dict(copy)
            if copy.pop("consolidated_metadata", None) not in (None, _NOTHING_BELOW):
                copy = None
            if isinstance(document, dict) and document.get("consolidated_metadata", 0) is None:
                # How Zarr before 3.1.3 says that a group has none.
                document = {key: value for key, value in document.items() if key != "consolidated_metadata"}
        if copy != document or name in unknown:
            yield f"{_ROOT}: its copy of the metadata of {name} is damaged; {_CONSOLIDATE}"


def _decode_all(location: Location, arrays: Collection[str] | None) -> Iterator[str]:
    """What Zarr itself finds wrong with the arrays beside ``data``."""
    import zarr

    try:
        members = dict(zarr.open_group(location.zarr_store(), mode="r", zarr_format=3).members(max_depth=None))
    except (ValueError, KeyError, TypeError, OSError) as error:
        yield f"the metadata cannot be read ({_line(error)}); {_RESTORE}"
        return
    for name, array in members.items():
        top = name.split("/")[0]
        if not isinstance(array, zarr.Array) or top == DATA or (arrays is not None and top not in arrays):
            continue
        try:
            for start in range(0, array.shape[0], array.chunks[0]):
                array[start : start + array.chunks[0]]
        except (ValueError, RuntimeError, OSError) as error:
            yield f"{name} is damaged ({_line(error)}); {_RESTORE}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def note_objects(location: Location, keys: Collection[str]) -> None:
    """Renew the digests of objects that were written again, in the provenance of a complete store.

    Parameters
    ----------
    location : Location
        The store.
    keys : collection of str
        Objects beside ``data``, each of which is there.
    """
    root = json.loads(location.read(_ROOT) or b"")
    provenance = root["attributes"][_PROVENANCE]
    if "objects" not in provenance:
        return
    provenance["objects"] |= {key: object_digest(location.read(key) or b"") for key in keys}
    root["attributes"][_PROVENANCE] = sealed(provenance)
    location.write(_ROOT, json.dumps(root, indent=2).encode())
