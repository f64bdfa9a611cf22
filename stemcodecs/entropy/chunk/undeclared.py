"""Decode a chunk whose shape nobody declared, as numcodecs hands it over: memory is given to bytes that earn it.

Zarr format 3 tells a codec the shape and dtype of a chunk, and a header that says otherwise is refused. numcodecs
tells it nothing, unless the caller gives ``out``. How much a byte may stand for has no useful bound: 64 patterns of
pixels that never change take four bytes and a little, and a pixel that never changes takes 1/92 bit, so that a chunk of
4096 patterns of 256×256 zeros takes a few hundred bytes. So

- ``out`` decides, where it is given;
- a chunk that is dense beyond what counts reach is decoded once group by group, with room for one of them at a time,
  before it gets room for all: whatever is wrong with the bytes is found first;
- no chunk gets more than ``MOST_BYTES``, the limit that numcodecs itself has for a buffer, unless its bytes are
  ``DENSITY`` to one. Writers refuse what could not be read again.

What remains: a hostile chunk of a few hundred valid bytes may decode to 2 GiB of the same few values.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numcodecs.compat
import numpy as np

from stemcodecs.entropy.chunk.decode import DecodePositions, decode_parsed, decode_positions, stored_pieces
from stemcodecs.entropy.chunk.header import COUNTS, Header, read_header
from stemcodecs.entropy.model.shared_model import SharedModel
from stemcodecs.errors import ConfigurationError, CorruptChunkError

__all__ = ["check_encoded", "check_room", "decode_undeclared"]

Array = np.ndarray[Any, Any]

MOST_BYTES = 2**31 - 1
DENSITY = 1024
"""Bytes of values to one of a chunk: above what counts reach, other than blank ones."""
REHEARSED = 4096
"""Bytes of values to one of a chunk from where on it is decoded twice."""
_UNREHEARSED_BYTES = 1 << 24
"""Chunks below this are decoded at once: what a group in the rehearsal takes is no less."""


def check_room(nbytes: int, encoded: int, out: Any) -> None:
    """Refuse a chunk before there is room for its values.

    Parameters
    ----------
    nbytes : int
        Bytes of the values that the chunk says it holds.
    encoded : int
        Bytes of the chunk.
    out : buffer or None
        What the caller of numcodecs wants the values in.

    Raises
    ------
    CorruptChunkError
        If the values do not fit ``out`` exactly or, without it, are more than a chunk of this size may hold.
    """
    if out is not None:
        expected = numcodecs.compat.ensure_ndarray_like(out).nbytes
        if expected != nbytes:
            raise CorruptChunkError(f"the chunk holds {nbytes} bytes, the array expects {expected}")
    elif not _may_hold(nbytes, encoded):
        raise CorruptChunkError(
            f"{encoded} bytes are too few for the {nbytes} bytes of values that they claim to hold; "
            "Zarr format 3 has no such limit"
        )


def check_encoded(nbytes: int, encoded: bytes) -> bytes:
    """The chunk of an array of ``nbytes``, unless :func:`check_room` would refuse to read it again.

    Raises
    ------
    ConfigurationError
        If the array is too large for what little it holds.
    """
    if not _may_hold(nbytes, len(encoded)):
        raise ConfigurationError(
            f"numcodecs decodes at most {MOST_BYTES} bytes of nearly blank values in one chunk, this one has {nbytes}: "
            "make the chunks smaller, or use Zarr format 3"
        )
    return encoded


def _may_hold(nbytes: int, encoded: int) -> bool:
    return nbytes <= max(MOST_BYTES, DENSITY * encoded)


def decode_undeclared(
    data: bytes | memoryview,
    out: Any = None,
    shared: SharedModel | None = None,
    itemsize: int | None = None,
    decode: DecodePositions = decode_positions,
) -> Array:
    """As :func:`stemcodecs.entropy.chunk.decode.decode_array`, with the limits of this module.

    Parameters
    ----------
    data : bytes
        A chunk.
    out : buffer, optional
        What the caller will copy the values to, of their very size.
    shared : SharedModel, optional
        Of the configuration.
    itemsize : int, optional
        Bytes of a value in ``out``, where the chunk holds codes of them.
    decode : callable, optional
        What decodes positions, for models of another kind.

    Raises
    ------
    CorruptChunkError
        If anything about the bytes is wrong, or they claim more values than they can hold.
    FormatVersionError
        If a newer stemcodecs wrote them.
    """
    data = memoryview(data)
    header = read_header(data)
    nbytes = math.prod(header.shape) * (itemsize or header.dtype.itemsize)
    check_room(nbytes, len(data), out)
    if out is None and nbytes > max(_UNREHEARSED_BYTES, REHEARSED * len(data)):
        _rehearse(header, data, shared, decode)
    return decode_parsed(header, data, shared, decode)


def _rehearse(header: Header, data: memoryview, shared: SharedModel | None, decode: DecodePositions) -> None:
    """Decode everything, and keep nothing."""
    if header.kind != COUNTS:
        deque(stored_pieces(header, data), maxlen=0)
        return
    for chain in header.layout.chains:
        positions = np.unique(chain[chain >= 0])
        decode(header, lambda start, stop: data[start:stop], positions, shared)
