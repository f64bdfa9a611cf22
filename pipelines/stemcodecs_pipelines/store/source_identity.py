"""What a store notes of its source, and by what a source given later is recognised."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from stemcodecs.errors import SourceMismatchError
from stemcodecs.readers.identity import Identity
from stemcodecs.readers.scan import Scan

__all__ = ["check_same_source", "fingerprint"]


def fingerprint(scan: Scan) -> dict[str, Any]:
    """By what a source is recognised: shape, dtype, which array of its file, and the identity of all its files."""
    return {
        "shape": list(scan.shape),
        "dtype": scan.dtype.str,
        "dataset": scan.dataset,
        "files": None if scan.identity is None else _noted(scan.identity, scan.path).to_dict(),
    }


def _noted(identity: Identity, source: str) -> Identity:
    """Files as a store notes them: by their place beside the source, so that a store tells no path of a machine."""
    folder = source.rpartition("/")[0] if "://" in source else os.path.dirname(os.path.abspath(source))

    def beside(path: str) -> str:
        inside = path.startswith(f"{folder}/") or path.startswith(f"{folder}{os.sep}")
        name = path[len(folder) + 1 :] if inside else path.replace(os.sep, "/").rpartition("/")[2]
        return name.replace(os.sep, "/")

    return Identity(tuple(sorted((replace(p, path=beside(p.path)) for p in identity.parts), key=lambda p: p.path)))


def check_same_source(known: Mapping[str, Any], scan: Scan, *, what: str) -> None:
    """Refuse a source that is not the one that was noted.

    Parameters
    ----------
    known : dict
        What `fingerprint` gave then, read back from JSON.
    scan : Scan
        Source given now.
    what : str
        Store or run that it must belong to, with what to do instead.

    Raises
    ------
    SourceMismatchError
        It is another one; the message names what differs.
    """
    now = fingerprint(scan)
    for name in ("shape", "dtype", "dataset"):
        if known.get(name) != now[name]:
            raise SourceMismatchError(
                f"{scan.path} is not the source of {what}: {name} {now[name]}, not {known.get(name)}"
            )
    if known.get("files") != now["files"]:
        change: str | None = "it lies in memory" if scan.identity is None else "its files were not noted"
        if scan.identity is not None and known.get("files"):
            # None where another machine saw the same files.
            change = Identity.from_dict(known["files"]).difference(_noted(scan.identity, scan.path))
        if change is None:
            return
        raise SourceMismatchError(f"{scan.path} is not the source of {what}: {change}")
