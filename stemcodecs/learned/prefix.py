"""The first bytes of a chunk: which model codes it. What follows has the form of a pixel_histogram chunk."""

from __future__ import annotations

import struct
import zlib

from stemcodecs.errors import CorruptChunkError, FormatVersionError

__all__ = ["HISTOGRAMS", "LENGTH", "NETWORK", "read_prefix", "with_prefix"]

HISTOGRAMS, NETWORK = 0, 1
"""Kinds: a chunk of pixel_histogram as it is, or one whose model is a network."""
VERSION = 1
_MAGIC = b"SCLN"
_HEAD = struct.Struct("<4sBBH")
LENGTH = _HEAD.size + 4


def with_prefix(kind: int, chunk: bytes) -> bytes:
    """A chunk with its prefix."""
    head = _HEAD.pack(_MAGIC, VERSION, kind, 0)
    return head + struct.pack("<I", zlib.crc32(head)) + chunk


def read_prefix(data: bytes | memoryview) -> int:
    """Kind of the chunk that these are the first bytes of.

    Raises
    ------
    CorruptChunkError
        If they are not.
    FormatVersionError
        If a newer stemcodecs wrote them.
    """
    if len(data) < LENGTH:
        raise CorruptChunkError(f"only {len(data)} bytes long")
    magic, version, kind, zeros = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise CorruptChunkError("it does not begin with the mark of a learned chunk")
    if version > VERSION:
        raise FormatVersionError(
            f"the chunk has format version {version}, this stemcodecs reads up to {VERSION}: upgrade stemcodecs"
        )
    if version < 1 or kind not in (HISTOGRAMS, NETWORK) or zeros:
        raise CorruptChunkError("unknown version or kind of a learned chunk")
    if struct.unpack_from("<I", data, _HEAD.size)[0] != zlib.crc32(bytes(data[: _HEAD.size])):
        raise CorruptChunkError("the checksum of the first bytes is wrong")
    return int(kind)
