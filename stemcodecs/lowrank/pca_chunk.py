"""Bytes of a chunk of ``stemcodecs.pca``: the head, the coefficients, the checksum (``lowrank/FORMAT.md``)."""

from __future__ import annotations

import math
import re
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.dtypes import require_numeric
from stemcodecs.errors import CorruptChunkError, FormatVersionError, UnsupportedDtypeError

__all__ = [
    "BIG_ENDIAN",
    "COLUMN_MAJOR",
    "LOW_RANK",
    "MAPPED",
    "MARKED",
    "WHOLE",
    "Head",
    "join_coefficients",
    "read",
    "split_coefficients",
    "starts_with_marks",
]

Array = np.ndarray[Any, Any]

MAGIC = b"SCPC"
VERSION, WITH_MARKS, WITH_MAP = 1, 2, 3
WHOLE, LOW_RANK, MARKED, MAPPED = 0, 1, 2, 3
COLUMN_MAJOR, BIG_ENDIAN = 0x10, 0x20
_DTYPE = re.compile(r"[|<][biuf][0-9]{1,2}")
"""Flags beside the kind: how Zarr format 2 had laid the values out in memory."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """What a chunk says about itself.

    Attributes
    ----------
    dtype : dtype
        Little-endian, as stored.
    shape : tuple of int
        Shape; the last two dimensions are the detector.
    kind : int
        ``WHOLE``: entropy-coded without the model, ``LOW_RANK``, ``MARKED``: low-rank but for values that are kept
        exactly, or ``MAPPED``: the same of the counts behind the values.
    flags : int
        ``COLUMN_MAJOR`` and ``BIG_ENDIAN``.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    kind: int
    flags: int

    @property
    def positions(self) -> int:
        """Patterns of the chunk."""
        return math.prod(self.shape[:-2])

    @property
    def pixels(self) -> int:
        """Pixels of a pattern."""
        return math.prod(self.shape[-2:])

    def write(self, digest: str, content: bytes) -> bytes:
        """The chunk, given the model's digest."""
        name = self.dtype.str.encode()
        # Only what an older reader would not understand has the newer version.
        version = {MARKED: WITH_MARKS, MAPPED: WITH_MAP}.get(self.kind, VERSION)
        body = b"".join(
            [
                MAGIC,
                struct.pack("<BBBB", version, self.kind | self.flags, len(name), len(self.shape)),
                name,
                struct.pack(f"<{len(self.shape)}Q", *self.shape),
                # Eight bytes tell models apart; the whole digest is in the configuration.
                bytes.fromhex(digest)[:8],
                content,
            ]
        )
        return body + struct.pack("<I", zlib.crc32(body))


def read(view: memoryview, digest: str, name: str) -> tuple[Head, memoryview]:
    """Head and content of a chunk that was coded with the model of this digest.

    Raises
    ------
    CorruptChunkError
        If the bytes are truncated, altered, or of another model.
    FormatVersionError
        If a newer version wrote them.
    """
    if len(view) < 12 or bytes(view[:4]) != MAGIC:
        raise CorruptChunkError(f"not a {name} chunk")
    version, kind, dtype_size, ndim = struct.unpack_from("<BBBB", view, 4)
    if version not in (VERSION, WITH_MARKS, WITH_MAP):
        raise FormatVersionError(
            f"the chunk has format version {version}, this stemcodecs reads {WITH_MAP}; upgrade it"
        )
    flags = kind & (COLUMN_MAJOR | BIG_ENDIAN)
    kind ^= flags
    if zlib.crc32(view[:-4]) != struct.unpack_from("<I", view, len(view) - 4)[0]:
        raise CorruptChunkError("checksum mismatch")
    at = 8 + dtype_size
    known = kind in {WITH_MARKS: (MARKED,), WITH_MAP: (MAPPED,)}.get(version, (WHOLE, LOW_RANK))
    if not known or not 2 <= ndim <= 32 or len(view) < at + 8 * ndim + 12:
        raise CorruptChunkError("the header is out of range")
    dtype_name = bytes(view[8:at]).decode("ascii", "replace")
    # NumPy would read a whole language from the name, and fail in as many ways.
    if not _DTYPE.fullmatch(dtype_name):
        raise CorruptChunkError("the header names no dtype that this codec writes")
    try:
        dtype = np.dtype(dtype_name)
        require_numeric(name, dtype)
    except (TypeError, UnsupportedDtypeError) as error:
        raise CorruptChunkError("the header names no dtype that this codec writes") from error
    shape = struct.unpack_from(f"<{ndim}Q", view, at)
    at += 8 * ndim
    if math.prod(max(n, 1) for n in shape) >= 2**40:
        raise CorruptChunkError("the header's shape is out of range")
    if bytes(view[at : at + 8]) != bytes.fromhex(digest)[:8]:
        raise CorruptChunkError("the chunk was coded with another PCA model")
    return Head(dtype=dtype, shape=shape, kind=kind, flags=flags), view[at + 8 : len(view) - 4]


def starts_with_marks(head: bytes) -> bool:
    """Whether the first 8 bytes are those of a chunk that keeps marks exactly."""
    return head[:4] == MAGIC and head[4] == WITH_MARKS


def join_coefficients(coefficients: Array) -> bytes:
    """Coefficients as zigzag integers, so that a component's mean tells its spread, which is
    what the coder learns.
    """
    from stemcodecs.entropy.chunk.encode import encode_array
    from stemcodecs.entropy.fit.fit_model import FitOptions

    zigzag = ((coefficients << 1) ^ (coefficients >> 63)).astype(np.uint64)
    narrow = zigzag.astype(np.uint32) if zigzag.max(initial=0) < 2**32 else zigzag
    # One row of "pixels" per position: the coder keeps statistics for each component.
    coded = encode_array(narrow[:, None, :], FitOptions(), None) if narrow.size else b""
    return struct.pack("<Q", len(coded)) + coded


def split_coefficients(content: memoryview, positions: int, rank: int) -> tuple[Array, memoryview]:
    """Coefficients (positions, rank), int64, and what follows them.

    Raises
    ------
    CorruptChunkError
        If they do not have the size that the chunk's shape and the model ask for.
    """
    from stemcodecs.entropy.chunk.decode import decode_parsed
    from stemcodecs.entropy.chunk.header import read_header

    if len(content) < 8:
        raise CorruptChunkError("the chunk is truncated")
    (size,) = struct.unpack_from("<Q", content)
    # An empty section is right only where there is nothing to code.
    if size > len(content) - 8 or (size == 0) != (positions * rank == 0):
        raise CorruptChunkError("the coefficients have the wrong size")
    rest = content[8 + size :]
    if size == 0:
        return np.zeros((positions, rank), np.int64), rest
    # Their header is held against the chunk's before anything of its size is allocated.
    inner = read_header(content[8 : 8 + size], (positions, 1, rank))
    if inner.dtype not in (np.dtype("<u4"), np.dtype("<u8")):
        raise CorruptChunkError("the coefficients have the wrong dtype")
    zigzag = decode_parsed(inner, content[8 : 8 + size])
    wide = zigzag.reshape(positions, rank).astype(np.uint64)
    return (wide >> np.uint64(1)).astype(np.int64) ^ -(wide & np.uint64(1)).astype(np.int64), rest
