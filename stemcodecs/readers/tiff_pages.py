"""Whether all pages of a TIFF file are in it: the reader takes a file that was cut off for one with fewer frames.

TIFF 6.0 (Adobe, 1992) and BigTIFF: each page has a directory that says where the next one lies. ImageJ writes one
directory for a whole stack and the number of images into its description.
"""

from __future__ import annotations

import os
import re
import struct
from typing import Any, BinaryIO

from stemcodecs.errors import SourceError

__all__ = ["refuse_truncated_tiff"]

_DESCRIPTION, _OFFSETS, _BYTE_COUNTS = 270, 273, 279
_FORMATS = {1: "B", 2: "s", 3: "H", 4: "I", 16: "Q"}
_LARGEST_VALUE = 1 << 24


def refuse_truncated_tiff(path: str) -> None:
    """Follow the chain of pages to its end.

    Raises
    ------
    SourceError
        A page lies beyond the end of the file, or images of an ImageJ stack do.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        start = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(start[:2])
        if order is None or len(start) < 16:
            return
        big = struct.unpack(f"{order}H", start[2:4])[0] == 43
        position = struct.unpack_from(f"{order}{'Q' if big else 'I'}", start, 8 if big else 4)[0]
        pages = 0
        seen: set[int] = set()
        while position and position not in seen:
            seen.add(position)
            page = _page(file, position, order, big, first=pages == 0)
            if page is None:
                raise SourceError(
                    f"{path}: the file is truncated: after {pages} pages the next would lie at byte {position} of "
                    f"{size}; restore it"
                )
            if pages == 0:
                _check_imagej(path, page, size)
            pages += 1
            position = page["next"]


def _page(file: BinaryIO, position: int, order: str, big: bool, *, first: bool) -> dict[Any, Any] | None:
    """Where the page after the one at a position lies; of the first page also the tags that are asked for."""
    count_format, entry_bytes, next_format = ("Q", 20, "Q") if big else ("H", 12, "I")
    file.seek(position)
    head = file.read(struct.calcsize(count_format))
    if len(head) < struct.calcsize(count_format):
        return None
    entries = struct.unpack(f"{order}{count_format}", head)[0]
    following = struct.calcsize(next_format)
    if entries > _LARGEST_VALUE:
        return None
    body = file.read(entries * entry_bytes + following)
    if len(body) < entries * entry_bytes + following:
        return None
    page: dict[Any, Any] = {"next": struct.unpack(f"{order}{next_format}", body[-following:])[0]}
    for i in range(entries if first else 0):
        entry = body[i * entry_bytes : (i + 1) * entry_bytes]
        tag, kind = struct.unpack_from(f"{order}HH", entry)
        if tag in (_DESCRIPTION, _OFFSETS, _BYTE_COUNTS) and kind in _FORMATS:
            page[tag] = _values(file, entry, order, big, _FORMATS[kind])
    return page


def _values(file: BinaryIO, entry: bytes, order: str, big: bool, code: str) -> Any:
    """Values of a tag, which lie in its entry where they are short."""
    inline = 8 if big else 4
    count = struct.unpack_from(f"{order}{'Q' if big else 'I'}", entry, 4)[0]
    length = count * struct.calcsize(code)
    if length > _LARGEST_VALUE:
        return ()
    if length <= inline:
        content = entry[-inline:][:length]
    else:
        file.seek(struct.unpack(f"{order}{'Q' if big else 'I'}", entry[-inline:])[0])
        content = file.read(length)
    if code == "s" or len(content) < length:
        return content
    return struct.unpack(f"{order}{count}{code}", content)


def _check_imagej(path: str, page: dict[Any, Any], size: int) -> None:
    description, offsets, counts = (page.get(tag) or b"" for tag in (_DESCRIPTION, _OFFSETS, _BYTE_COUNTS))
    images = re.search(rb"^images=(\d+)", description, re.MULTILINE)
    if not description.startswith(b"ImageJ=") or images is None or not offsets or not counts:
        return
    # With the values of all images one after the other, compressed ones have a directory each.
    there = (size - min(offsets)) // max(1, sum(counts))
    if page["next"] == 0 and there < int(images[1]):
        raise SourceError(
            f"{path}: the file is truncated: {there} of the {int(images[1])} images are there; restore it"
        )
