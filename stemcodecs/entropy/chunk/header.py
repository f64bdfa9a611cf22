"""A chunk's bytes: header, model, group table, groups. ``FORMAT.md`` has the layout bit by bit."""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from stemcodecs.entropy.chunk.calibration_bytes import (
    needs_extension,
    read_calibration,
    read_floats,
    read_map,
    write_calibration,
    write_floats,
)
from stemcodecs.entropy.model.group_layout import GroupLayout
from stemcodecs.entropy.model.model_bytes import Reader, Writer
from stemcodecs.entropy.model.range_coder import encode_map
from stemcodecs.entropy.values.calibration import MAX_CORRECTIONS, Calibration, SharedCalibration, ValueTable
from stemcodecs.entropy.values.number_map import MAX_SPECIALS, PLANE_TOP, NumberMap
from stemcodecs.errors import CorruptChunkError, FormatVersionError

__all__ = ["DTYPES", "PREFIX", "GroupEntry", "Header", "checksum", "read_header", "write_header"]

Array = np.ndarray[Any, Any]

MAGIC = b"SCPH"
VERSION = 7
"""The highest: a chunk without a calibration is of version 1, one with a calibration of its own of version 2, or of
version 4 if that is of a kind which version 2 does not have; one with that of the shared model of version 3, or 5 if
its patterns have scales besides, or 6 if they have offsets; one of version 7 has a list of floats."""
STORED, COUNTS = 0, 1
INLINE, SHARED = 0, 1
PREFIX = 16
"""Bytes before the shape: magic, version, kind, dtype, flags, dimensions, three zeros, header length."""
COLUMN_MAJOR, BIG_ENDIAN = 1, 2
"""Flags: how the array lay in memory, which Zarr format 2 wants back."""

DTYPES = ("|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8")
"""Index = dtype code. Chunks are little-endian whatever the machine or the array's byte order."""

# Allocated before its checksum is known: a length that no encoder writes is refused.
MAX_HEADER = 1 << 30
MAX_TILE = 64
"""Scan positions of a tile: bounds the rows that decoding a chain takes."""
FEWEST_TILES = 16
"""Tiles of a chunk with more than one position each: fewer would leave most of the 64 lanes of those rows empty."""
NUMBER_BYTES = 8
"""The most that the writer of numbers makes room for; bounds what a header or a group can claim to take."""
_MODEL_BYTES = 8 << 20
"""More than the histograms, classes and weights of a model take; its maps of the detector come on top."""
STORED_PIECE = 1 << 26
"""Bytes of an array that ``STORED`` compresses at a time."""
_PREFIX = struct.Struct("<BBBBBBHI")
_NUMBER_MAP = struct.Struct("<qdBBH")


def checksum(data: bytes | memoryview) -> int:
    """CRC-32 of the zlib library."""
    return zlib.crc32(data)


@dataclass(frozen=True, kw_only=True)
class GroupEntry:
    """Where one group lies and how it is made up.

    Attributes
    ----------
    offset : int
        First byte, from the start of the chunk.
    words, low, patches, exceptions : int
        Bytes of the rANS words, the raw low bits, the patches and the exceptions.
    crc : int
        CRC-32 of all of them.
    """

    offset: int
    words: int
    low: int
    patches: int
    exceptions: int
    crc: int

    @property
    def size(self) -> int:
        """Bytes of the group."""
        return self.words + self.low + self.patches + self.exceptions


@dataclass(frozen=True, kw_only=True, eq=False)
class Header:
    """Everything of a chunk but its groups.

    Attributes
    ----------
    kind : int
        ``STORED`` (generic compression) or ``COUNTS``.
    dtype, shape
        Of the array; the dtype is little-endian.
    flags : int
        ``COLUMN_MAJOR``, ``BIG_ENDIAN``: memory layout of the array that was encoded.
    length : int
        Bytes of the header.
    numbers : NumberMap
        How 16-bit counts become values.
    calibration : Calibration, SharedCalibration or None
        How counts become values instead, but for marks and negative codes; None in format version 1.
    tile : tuple of int
        Scan tile of the layout.
    blocks : int
        Blocks of 16 lanes that the steps of a group take in turn: 1, 2 or 4.
    model : bytes
        The model, or its sha256 if ``shared``.
    doses : int64[n_positions] or empty
        Dose of every position, 4096 for the mean frame.
    selections : uint8[n_groups, 8] or empty
        Weight set of every lane, one bit each.
    groups : tuple of GroupEntry
        In the order of the layout's chains and steps.
    """

    kind: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    flags: int = 0
    length: int = 0
    numbers: NumberMap = field(default_factory=NumberMap)
    calibration: Calibration | SharedCalibration | None = None
    tile: tuple[int, int] = (1, 1)
    blocks: int = 4
    shared: bool = False
    model: bytes = b""
    doses: Array
    selections: Array
    groups: tuple[GroupEntry, ...] = ()

    @cached_property
    def layout(self) -> GroupLayout:
        """Lanes and chains of the chunk."""
        return GroupLayout.of_shape(self.shape, self.tile)

    @cached_property
    def _entries_before(self) -> Array:
        """Group entries before each step of each chain, and behind its last: int64[n_chains, chain_length + 1]."""
        held = np.any(self.layout.chains >= 0, axis=2)
        ends = np.cumsum(held.ravel()).reshape(held.shape)
        return np.concatenate([ends[:, :1] - held[:, :1], ends], axis=1)

    def jobs(self, positions: Array) -> list[tuple[int, int, int]]:
        """(chain, index of its first group entry, steps to decode) of every chain that holds a position."""
        first = self._entries_before[:, 0]
        return [(chain, int(first[chain]), steps) for chain, steps in self.layout.chains_of(positions).items()]

    @property
    def end(self) -> int:
        """Bytes of the whole chunk, of kind ``COUNTS``."""
        return self.groups[-1].offset + self.groups[-1].size if self.groups else self.length

    def check_end(self, size: int) -> None:
        """Refuse a counts chunk of so many bytes whose group table says otherwise.

        Raises
        ------
        CorruptChunkError
            If the chunk is truncated, or has bytes left over.
        """
        if self.end != size:
            raise CorruptChunkError(f"{size} bytes long instead of {self.end}")

    def ranges(self, positions: Array) -> list[tuple[int, int]]:
        """Byte ranges, one a chain, that decoding some positions needs."""
        out = []
        for chain, first, steps in self.jobs(positions):
            last = self.groups[self._entries_before[chain, steps] - 1]
            out.append((self.groups[first].offset, last.offset + last.size))
        return out


def write_header(header: Header, sizes: Array, crcs: Array) -> bytes:
    """Serialise a header; ``sizes`` is int64[n_groups, 4], ``crcs`` uint32[n_groups]."""
    w = Writer()
    version = 1 if header.calibration is None else 2
    if isinstance(header.calibration, SharedCalibration):
        version = 6 if header.calibration.shift is not None else 3 if header.calibration.scale is None else 5
    if header.kind == COUNTS:
        n = header.numbers
        # Offsets are modulo 2**64, so that those of uint64 fit as well.
        offset = (n.offset + 2**63) % 2**64 - 2**63
        specials = struct.pack(f"<{len(n.specials)}Q", *n.specials)
        w.section(_NUMBER_MAP.pack(offset, n.gain, n.divide, n.low_bits, n.negatives) + specials)
        if header.calibration is not None and not isinstance(header.calibration, SharedCalibration):
            layout = GroupLayout.of_shape(header.shape)
            extended = needs_extension(header.calibration, layout)
            listed = isinstance(header.calibration, ValueTable) and header.calibration.width > 0
            version = 7 if listed else 4 if extended else 2
            w.section(write_calibration(header.calibration, layout, extended=extended))
        if isinstance(header.calibration, SharedCalibration) and header.calibration.scale is not None:
            w.section(_scales(header.calibration.scale))
        elif isinstance(header.calibration, SharedCalibration) and header.calibration.shift is not None:
            w.section(encode_map(header.calibration.shift.reshape(1, -1)))
        w.varint(header.tile[0])
        w.varint(header.tile[1])
        w.varint(header.blocks)
        w.varint(SHARED if header.shared else INLINE)
        w.section(header.model)
        # The mean pattern has dose 4096: differences from it are small numbers, which the adaptive coder likes.
        w.numbers(header.doses - 4096 if header.doses.size else header.doses)
        w.section(header.selections.tobytes())
        w.numbers(sizes, np.tile(np.arange(4), len(sizes)))
    # Checksums of groups are in the header, not behind each group: so its own checksum covers them.
    w.section(np.asarray(crcs, "<u4").tobytes())
    body = w.getvalue()
    shape = struct.pack(f"<{len(header.shape)}Q", *header.shape)
    length = PREFIX + len(shape) + len(body) + 4
    code = DTYPES.index(header.dtype.newbyteorder("<").str)
    prefix = MAGIC + _PREFIX.pack(version, header.kind, code, header.flags, len(header.shape), 0, 0, length)
    head = prefix + shape + body
    return head + struct.pack("<I", checksum(head))


def _scales(scale: Array) -> bytes:
    w = Writer()
    write_floats(w, scale, (1, scale.size))
    return w.getvalue()


def _read_scales(section: memoryview, n_positions: int, dtype: np.dtype[Any]) -> Array:
    if dtype.kind != "f":
        raise CorruptChunkError("scales of patterns that are no floats")
    r = Reader(section)
    scale = read_floats(r, (1, n_positions))
    r.end()
    return scale


def _read_shifts(r: Reader, n_positions: int, dtype: np.dtype[Any]) -> Array:
    if dtype.kind not in "iu":
        raise CorruptChunkError("offsets of patterns that are no integers")
    return read_map(r, (1, n_positions))


def header_length(data: bytes | memoryview, declared: tuple[int, ...] | None = None) -> int:
    """Length of the header that begins ``data``, from its first bytes.

    Parameters
    ----------
    data : bytes
        The first of a chunk, at least ``PREFIX``.
    declared : tuple of int, optional
        Shape that the array's metadata declare, where the rest of the header is still to be read: a header that no
        chunk of this shape can have is refused before room is made for it.

    Raises
    ------
    CorruptChunkError
        If these are not the first bytes of a chunk.
    FormatVersionError
        If a newer stemcodecs wrote it.
    """
    if len(data) < PREFIX:
        raise CorruptChunkError(f"only {len(data)} bytes long")
    if bytes(data[:4]) != MAGIC:
        raise CorruptChunkError("it does not begin with the mark of a pixel_histogram chunk")
    version, *_, length = _PREFIX.unpack_from(data, 4)
    # Before the checksum: a newer version may place it elsewhere, and its user deserves the right advice.
    if version > VERSION:
        raise FormatVersionError(
            f"the chunk has format version {version}, this stemcodecs reads up to {VERSION}: upgrade stemcodecs"
        )
    if version < 1 or not PREFIX + 4 <= length <= MAX_HEADER:
        raise CorruptChunkError("impossible format version or header length")
    if declared is not None and length > _most_header(declared, version):
        raise CorruptChunkError(f"a header of {length} bytes is longer than any of a chunk of shape {declared}")
    return int(length)


def _most_header(shape: tuple[int, ...], version: int) -> int:
    """Bytes that no header of a chunk of this shape exceeds."""
    layout = GroupLayout.of_shape(shape)
    # Dose, four sizes, weight sets and checksum: a group has one position or more. Level and constant of a pixel.
    per_position = (1 + 4) * NUMBER_BYTES + 8 + 4
    # Two maps of double precision, and two of corrections, which are in no proportion to positions or pixels alone.
    per_pixel = 8 if version == 4 else 2
    corrections = MAX_CORRECTIONS * layout.n_positions * layout.n_pixels if version == 4 else 0
    return _MODEL_BYTES + per_position * layout.n_positions + NUMBER_BYTES * (per_pixel * layout.n_pixels + corrections)


def read_header(data: bytes | memoryview, declared: tuple[int, ...] | None = None) -> Header:
    """Parse and check the header that begins ``data``; inverse of :func:`write_header`.

    Parameters
    ----------
    data : bytes
        A chunk, or its header.
    declared : tuple of int, optional
        Shape that the chunk must have: held against it before the group table, which is as large as the scan, is laid
        out.

    Raises
    ------
    CorruptChunkError, FormatVersionError
        As :func:`header_length`, or if the checksum or any field is wrong.
    """
    data = memoryview(data)
    length = header_length(data)
    if len(data) < length:
        raise CorruptChunkError(f"the header has {length} bytes, only {len(data)} are there")
    if checksum(data[: length - 4]) != struct.unpack_from("<I", data, length - 4)[0]:
        raise CorruptChunkError("the checksum of the header is wrong")
    version, kind, code, flags, ndim, zero, zeros, _ = _PREFIX.unpack_from(data, 4)
    if (
        kind not in (STORED, COUNTS)
        or (version > 1 and kind != COUNTS)
        or code >= len(DTYPES)
        or flags > 3
        or ndim > 32
        or zero
        or zeros
    ):
        raise CorruptChunkError("unknown kind, dtype, flags or number of dimensions")
    at = PREFIX + 8 * ndim
    if at + 4 > length:
        raise CorruptChunkError("the shape is cut off")
    shape = tuple(int(s) for s in struct.unpack_from(f"<{ndim}Q", data, PREFIX))
    # Python integers: no product of 64-bit lengths can wrap round to something harmless.
    if math.prod(max(s, 1) for s in shape) >= 1 << 48 or (kind == COUNTS and 0 in shape):
        raise CorruptChunkError("impossible shape")
    dtype = np.dtype(DTYPES[code])
    if declared is not None and shape != declared:
        raise CorruptChunkError(f"the chunk holds {dtype}{shape}, the array expects the shape {declared}")
    r = Reader(data[at : length - 4])
    if kind == STORED:
        header = _stored_header(r, dtype, shape, flags, length)
    else:
        header = _counts_header(r, dtype, shape, flags, length, version)
    r.end()
    return header


def _stored_header(r: Reader, dtype: np.dtype[Any], shape: tuple[int, ...], flags: int, length: int) -> Header:
    crcs = r.section()
    if len(crcs) != 4:
        raise CorruptChunkError("impossible group table")
    crc = int(np.frombuffer(crcs, "<u4")[0])
    entry = GroupEntry(offset=length, words=0, low=0, patches=0, exceptions=0, crc=crc)
    nothing = np.zeros(0, np.int64)
    return Header(
        kind=STORED,
        dtype=dtype,
        shape=shape,
        flags=flags,
        length=length,
        doses=nothing,
        selections=nothing,
        groups=(entry,),
    )


def _number_map(section: memoryview) -> NumberMap:
    n_specials, rest = divmod(len(section) - _NUMBER_MAP.size, 8)
    if rest or not 0 <= n_specials <= MAX_SPECIALS:
        raise CorruptChunkError("impossible number map")
    offset, gain, divide, low_bits, negatives = _NUMBER_MAP.unpack_from(section)
    # A gain of 0 or infinity would decode, to nonsense.
    if low_bits > 15 or divide > 1 or not np.isfinite(gain) or gain == 0 or negatives + n_specials >= PLANE_TOP:
        raise CorruptChunkError("impossible number map")
    specials = struct.unpack_from(f"<{n_specials}Q", section, _NUMBER_MAP.size)
    return NumberMap(
        offset=offset, gain=gain, divide=bool(divide), low_bits=low_bits, negatives=negatives, specials=specials
    )


def _most_of_group(layout: GroupLayout, numbers: NumberMap) -> Array:
    """Bytes that no group exceeds, part by part: int64[4]. A partial read makes room for what the table says."""
    values = 64 * layout.n_pixels
    # One value takes at most two words. A patch is two numbers, an exception one and the bits of its value.
    return np.array(
        [
            4 * values + 512,
            -(-values // 8) * numbers.low_bits,
            2 * NUMBER_BYTES * values + 512,
            (NUMBER_BYTES + 9) * values + 512,
        ]
    )


def _counts_header(
    r: Reader, dtype: np.dtype[Any], shape: tuple[int, ...], flags: int, length: int, version: int
) -> Header:
    numbers = _number_map(r.section())
    if numbers.low_bits and (dtype.kind == "f" or dtype.itemsize < 4):
        # All values of 16 bits are counts, and floats have no low bits: the planes would be wider than the array.
        raise CorruptChunkError("impossible number map")
    calibration: Calibration | SharedCalibration | None = SharedCalibration() if version == 3 else None
    if version == 5:
        calibration = SharedCalibration(_read_scales(r.section(), GroupLayout.of_shape(shape).n_positions, dtype))
    if version == 6:
        calibration = SharedCalibration(shift=_read_shifts(r, GroupLayout.of_shape(shape).n_positions, dtype))
    if version in (2, 4, 7):
        calibration = read_calibration(r.section(), shape, dtype, extended=version == 4, listed=version == 7)
    if calibration is not None and (numbers.low_bits or dtype.kind == "b"):
        raise CorruptChunkError("raw low bits or booleans with a calibration")
    tile = (r.varint(), r.varint())
    # A tile larger than the scan would make rows that no position fills.
    scan = GroupLayout.of_shape(shape).scan
    if not (1 <= tile[0] <= scan[0] and 1 <= tile[1] <= scan[1] and tile[0] * tile[1] <= MAX_TILE):
        raise CorruptChunkError("impossible scan tile")
    blocks = r.varint()
    if blocks not in (1, 2, 4):
        raise CorruptChunkError("impossible number of blocks")
    layout = GroupLayout.of_shape(shape, tile)
    if tile != (1, 1) and tile[0] * tile[1] * FEWEST_TILES > layout.n_positions:
        raise CorruptChunkError("impossible scan tile")
    shared = r.varint()
    model = bytes(r.section())
    if shared not in (INLINE, SHARED) or (shared == SHARED and len(model) != 32):
        raise CorruptChunkError("impossible model reference")
    if isinstance(calibration, SharedCalibration) and shared != SHARED:
        raise CorruptChunkError("the calibration of a shared model without one")
    # A group, of up to 64 positions, takes at least four bytes of header: bound the layout before it is laid out.
    if layout.n_positions > 16 * length:
        raise CorruptChunkError("more positions than the header can describe")
    doses = r.numbers(layout.n_positions)
    if doses.size:
        doses = doses + 4096
        if doses.size != layout.n_positions or (doses < 0).any() or (doses > 65535).any():
            raise CorruptChunkError("impossible doses")
    selections = np.frombuffer(r.section(), np.uint8)
    n_groups = int((layout.chains >= 0).any(axis=2).sum())
    # The four kinds of size have contexts of their own: words are thousands, patches mostly 0.
    sizes = r.numbers(4 * n_groups, np.tile(np.arange(4), n_groups)).reshape(-1, 4)
    crcs = np.frombuffer(r.section(), np.uint8)
    if len(sizes) != n_groups or crcs.size != 4 * n_groups or selections.size not in (0, 8 * n_groups):
        raise CorruptChunkError("impossible group table")
    if (sizes < 0).any() or (sizes > _most_of_group(layout, numbers)).any() or (sizes[:, 0] & 1).any():
        raise CorruptChunkError("impossible group sizes")
    ends = length + np.cumsum(sizes.sum(axis=1))
    groups = tuple(
        GroupEntry(
            offset=int(end - row.sum()), words=int(row[0]), low=int(row[1]), patches=int(row[2]),
            exceptions=int(row[3]), crc=int(crc),
        )
        for row, end, crc in zip(sizes, ends, crcs.view("<u4"), strict=True)
    )  # fmt: skip
    return Header(
        kind=COUNTS, dtype=dtype, shape=shape, flags=flags, length=length,
        numbers=numbers, calibration=calibration,
        tile=tile, blocks=blocks, shared=bool(shared), model=model, doses=doses,
        selections=selections.reshape(-1, 8), groups=groups,
    )  # fmt: skip
