"""Decode the bytes of a chunk, whole or only the scan positions that are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numcodecs
import numpy as np

from stemcodecs.entropy.chunk.header import (
    BIG_ENDIAN,
    COLUMN_MAJOR,
    COUNTS,
    STORED_PIECE,
    GroupEntry,
    Header,
    checksum,
    read_header,
)
from stemcodecs.entropy.chunk.shared_calibration import shared_calibration
from stemcodecs.entropy.chunk.unrolled_model import Decoder, decoder_of
from stemcodecs.entropy.chunk.zstd_frame import check_content, decompress
from stemcodecs.entropy.fit.grouped_counts import active_lanes, doses_of_lanes
from stemcodecs.entropy.kernels.cpu import simd_path
from stemcodecs.entropy.kernels.decode_group import decode_group
from stemcodecs.entropy.kernels.kernel_arguments import GroupRows, Patches, Stream, mixture_of
from stemcodecs.entropy.kernels.pixel_methods import step_masks
from stemcodecs.entropy.kernels.rans import LANES
from stemcodecs.entropy.kernels.scratch import SLACK, lent_rows
from stemcodecs.entropy.kernels.threads import run_all
from stemcodecs.entropy.kernels.transpose import scatter_rows
from stemcodecs.entropy.model.histogram_model import HistogramModel
from stemcodecs.entropy.model.model_bytes import Reader
from stemcodecs.entropy.model.shared_model import SharedModel
from stemcodecs.entropy.values.calibration import Calibration, Restoration, SharedCalibration
from stemcodecs.entropy.values.plane import insert_exceptions, restore
from stemcodecs.errors import CorruptChunkError

__all__ = [
    "DecodeGroup",
    "DecodePositions",
    "Fetch",
    "decode_array",
    "decode_groups",
    "decode_parsed",
    "decode_positions",
    "model_bytes",
    "model_of",
    "patches_of",
    "stored_pieces",
    "stream_of",
]

Array = np.ndarray[Any, Any]
Fetch = Callable[[int, int], "bytes | memoryview"]
"""Bytes ``[start, stop)`` of a chunk."""
DecodePositions = Callable[[Header, Fetch, Array | None, SharedModel | None], Array]
""":func:`decode_positions`, or what a model of another kind has in its place."""
DecodeGroup = Callable[[Array, int, int, memoryview], int]
"""Decodes the group of a step of a chain into the chain's rows, given these, the step, the index of the group's entry,
and its bytes; 0 if it came out whole."""


def model_bytes(header: Header, shared: SharedModel | None) -> bytes:
    """The model of a counts chunk, its own or the shared one."""
    if not header.shared:
        return header.model
    # By digest, not by place: a chunk copied into another array must not decode with that one's model.
    if shared is None or shared.digest != header.model:
        raise CorruptChunkError("it needs another shared model than the one in the array's metadata")
    if shared.detector != header.layout.detector:
        raise CorruptChunkError("its shared model is of another detector")
    return shared.model


def model_of(header: Header, shared: SharedModel | None = None) -> HistogramModel:
    """Model of a counts chunk."""
    return decoder_of(model_bytes(header, shared), header.layout.detector).model


def decode_array(data: bytes | memoryview, shared: SharedModel | None = None) -> Array:
    """Decode a whole chunk.

    Returns
    -------
    ndarray
        Writable, with the memory order and byte order of the array that was encoded.

    Raises
    ------
    CorruptChunkError
        If anything about the bytes is wrong, including bytes left over.
    FormatVersionError
        If a newer stemcodecs wrote them.
    """
    data = memoryview(data)
    return decode_parsed(read_header(data), data, shared)


def decode_parsed(
    header: Header, data: memoryview, shared: SharedModel | None = None, decode: DecodePositions | None = None
) -> Array:
    """Decode a whole chunk whose header has been read, by :func:`decode_positions` or another function like it."""
    if header.kind == COUNTS:
        # Bytes behind the last group would be a chunk that two readers read differently.
        header.check_end(len(data))
        out = (decode or decode_positions)(header, lambda start, stop: data[start:stop], None, shared)
    else:
        out = _decode_stored(header, data)
    if header.flags & BIG_ENDIAN:
        out = out.astype(out.dtype.newbyteorder(">"))
    return np.asfortranarray(out) if header.flags & COLUMN_MAJOR else out


def _decode_stored(header: Header, data: memoryview) -> Array:
    pieces = stored_pieces(header, data)
    first = next(pieces, None)
    # The first piece has been decompressed, and all were found to state the right size, before there is room for all.
    out = np.empty(header.shape, header.dtype)
    raw = out.reshape(-1).view(np.uint8)
    shuffle = numcodecs.Shuffle(header.dtype.itemsize)
    at = 0
    while first is not None:
        shuffle.decode(first, out=raw[at : at + first.size])
        at += first.size
        first = None
        first = next(pieces, None)
    return out.astype(header.dtype.newbyteorder("="), copy=False)


def stored_pieces(header: Header, data: memoryview) -> Iterator[Array]:
    """Shuffled bytes of a stored chunk, ``STORED_PIECE`` of them at a time; all frames are checked before the first.

    Raises
    ------
    CorruptChunkError
        If a frame is missing, is one too many, or does not hold the bytes of its piece.
    """
    body = data[header.length :]
    if checksum(body) != header.groups[0].crc:
        raise CorruptChunkError("the checksum of the data is wrong")
    nbytes = math.prod(header.shape) * header.dtype.itemsize
    # Zstandard makes at most 128 kB of three bytes: refuse what cannot be, before it is allocated.
    if nbytes > (len(body) + 64) << 16:
        raise CorruptChunkError("more values than the stored data can hold")
    r = Reader(body)
    sizes = [min(STORED_PIECE, nbytes - start) for start in range(0, nbytes, STORED_PIECE)]
    try:
        frames = [r.section() for _ in sizes]
        r.end()
        for frame, size in zip(frames, sizes, strict=True):
            check_content(frame, size)
        for frame, size in zip(frames, sizes, strict=True):
            yield decompress(frame, size)
    except (RuntimeError, ValueError) as error:
        if isinstance(error, CorruptChunkError):
            raise
        raise CorruptChunkError(f"the stored data does not decompress ({error})") from None


def decode_positions(header: Header, fetch: Fetch, positions: Array | None, shared: SharedModel | None = None) -> Array:
    """Decode scan positions of a counts chunk, reading only the groups that hold them.

    Parameters
    ----------
    header : Header
        Of the chunk.
    fetch : callable
        Gives bytes ``[start, stop)`` of the chunk.
    positions : int64[n], increasing, or None
        Flat scan positions; None for all.
    shared : SharedModel, optional
        Of the configuration.

    Returns
    -------
    ndarray
        The whole array if ``positions`` is None, else of shape (n, n_pixels).
    """
    decoder = decoder_of(model_bytes(header, shared), header.layout.detector)
    if decoder.model.neighbours and header.doses.size == 0:
        raise CorruptChunkError("no doses for a model with contexts")

    def of_chain(chain: int, n_steps: int) -> DecodeGroup:
        return lambda rows, step, index, payload: _decode_group(header, decoder, rows, chain, step, index, payload)

    calibration = None
    if isinstance(header.calibration, SharedCalibration) and shared is not None:
        # The digest of the model, which was compared, is that of its calibration too.
        calibration = shared_calibration(shared, header.dtype, header.calibration)[1]
    return decode_groups(header, fetch, positions, decoder.margin, of_chain, calibration)


def decode_groups(
    header: Header,
    fetch: Fetch,
    positions: Array | None,
    margin: int,
    of_chain: Callable[[int, int], DecodeGroup],
    calibration: Calibration | None = None,
) -> Array:
    """As :func:`decode_positions`, whatever the model is.

    Parameters
    ----------
    header, fetch, positions
        See :func:`decode_positions`.
    margin : int
        Rows of zeros that the chain's rows begin with.
    of_chain : callable
        Given a chain and the steps that are decoded of it, in order, what decodes its groups.
    calibration : Calibration, optional
        Of the shared model, where the chunk takes that.
    """
    if not isinstance(header.calibration, SharedCalibration):
        calibration = header.calibration
    elif calibration is None:
        raise CorruptChunkError("its values come from counts by a map of a shared model, which this is not")
    layout = header.layout
    everything = positions is None
    wanted = np.arange(layout.n_positions) if positions is None else positions
    row_of = np.full(layout.n_positions, -1, np.int64)
    row_of[wanted] = np.arange(wanted.size)
    native = header.dtype.newbyteorder("=")
    # Bytes stay bytes: the plane of a large chunk would else take twice its size. A calibration may want more counts.
    narrow = native.itemsize == 1 and native.kind in "bu"
    kind = native if calibration is not None else np.dtype(np.uint8 if narrow else np.uint16)
    plane = np.empty((wanted.size, layout.n_pixels), kind)
    low = np.zeros(plane.shape, np.uint16) if header.numbers.low_bits else None
    restoration = None if calibration is None else Restoration(header.numbers, calibration, native, layout.n_pixels)
    jobs = header.jobs(wanted)

    def decode_chain(chain: int, first_entry: int, n_steps: int) -> list[tuple[Array, Array]]:
        # One allocation for all steps of a chain: later steps look back into the rows of earlier ones.
        with lent_rows(margin + n_steps * layout.n_pixels) as rows:
            # Contexts of the first rows look above the detector: there must be zeros, not what the last chunk left.
            rows[:margin] = 0
            decode = of_chain(chain, n_steps)
            return _decode_chain(
                header, decode, margin, fetch, rows, chain, first_entry, n_steps, row_of, plane, low, restoration
            )

    found = [pair for chain in run_all(decode_chain, jobs) for pair in chain]
    at = np.concatenate([a for a, _ in found]) if found else np.zeros(0, np.int64)
    values = np.concatenate([v for _, v in found]) if found else np.zeros(0, np.uint64)
    if restoration is not None:
        out = plane
        insert_exceptions(out.reshape(-1), at, values)
    else:
        out = restore(plane.reshape(-1), low if low is None else low.reshape(-1), header.numbers, native, at, values)
    return out.reshape(header.shape if everything else plane.shape)


def _restore_group(
    rows: Array, origin: int, positions: Array, target: Array, plane: Array, restoration: Restoration
) -> None:
    """Values of a group into their rows of the result; its counts need no room of their own."""
    n = plane.shape[1]
    with lent_rows(n) as room:
        counts = room[:n].reshape(LANES, n)
        scatter_rows(rows, origin, np.where(target >= 0, np.arange(LANES), -1), counts)
        restoration.restore(counts, positions, target, plane)


def _decode_chain(
    header: Header, decode: DecodeGroup, margin: int, fetch: Fetch, rows: Array, chain: int,
    first_entry: int, n_steps: int, row_of: Array, plane: Array, low: Array | None, restoration: Restoration | None,
) -> list[tuple[Array, Array]]:  # fmt: skip
    layout = header.layout
    n = layout.n_pixels
    found: list[tuple[Array, Array]] = []
    entry_index = first_entry - 1
    for step in range(n_steps):
        positions = layout.chains[chain, step]
        origin = margin + step * n
        # A step without positions is not stored, but later steps may look at its rows.
        if active_lanes(positions) == 0:
            rows[origin : origin + n] = 0
            continue
        entry_index += 1
        entry = header.groups[entry_index]
        # The checksum comes first: only bytes that some encoder wrote reach the kernel.
        payload = memoryview(fetch(entry.offset, entry.offset + entry.size))
        if len(payload) != entry.size or checksum(payload) != entry.crc:
            raise CorruptChunkError(f"the checksum of group {entry_index} is wrong")
        if decode(rows, step, entry_index, payload) != 0:
            raise CorruptChunkError(f"group {entry_index} does not decode to its end")
        # Lanes that nobody asked for are decoded, since the group is one stream, but not copied.
        target = np.where(positions >= 0, row_of[positions], -1)
        if restoration is None:
            scatter_rows(rows, origin, target, plane)
        else:
            _restore_group(rows, origin, positions, target, plane, restoration)
        _read_rest(header, payload, entry, positions, target, n, low, found)
    return found


def _decode_group(
    header: Header, decoder: Decoder, rows: Array, chain: int, step: int, index: int, payload: memoryview
) -> int:
    layout, entry = header.layout, header.groups[index]
    positions = layout.chains[chain, step]
    active = active_lanes(positions)
    selection = _selection(header, decoder, index, step)
    group = GroupRows(
        rows=rows,
        origin=decoder.margin + step * layout.n_pixels,
        active=np.uint64(active),
        step_masks=step_masks(active),
        neighbours=decoder.model.row_offsets(layout, step),
        dose=doses_of_lanes(header.doses, positions) if header.doses.size else np.zeros(LANES, np.int32),
        selection=selection,
        mixture=mixture_of(selection),
    )
    stream = stream_of(payload[: entry.words], header.blocks)
    patches = patches_of(payload, entry, layout.n_pixels)
    return int(decode_group(simd_path(), group, decoder.program, decoder.tables, stream, patches))


def stream_of(payload: memoryview, blocks: int) -> Stream:
    """The words of a group, with slack on both sides."""
    # The kernel looks for the end once a pixel, not once a word: what it reads beyond must be ours.
    words = np.zeros(len(payload) // 2 + 2 * SLACK, np.uint16)
    end = SLACK + len(payload) // 2
    words[SLACK:end] = np.frombuffer(payload, "<u2")
    return Stream(words=words, start=SLACK, end=end, blocks=blocks)


def patches_of(payload: memoryview, entry: GroupEntry, n_pixels: int) -> Patches:
    """Values of a group that its model could not express, from the group's bytes."""
    if entry.patches == 0:
        return Patches(at=np.zeros(0, np.int64), values=np.zeros(0, np.uint16))
    start = entry.words + entry.low
    section = payload[start : start + entry.patches]
    # The count is needed for the contexts, before the numbers can be read.
    probe = Reader(section)
    n = probe.varint()
    # A place and a value each; more than one a value cannot be.
    if n % 2 or n > 2 * n_pixels * LANES:
        raise CorruptChunkError("impossible number of patches")
    if n:
        probe.coded(n)
    r = Reader(section)
    numbers = r.numbers(n, np.repeat([0, 1], n // 2))
    r.end()
    at, values = np.cumsum(numbers[: n // 2]), numbers[n // 2 :]
    # Strictly increasing: the kernel walks along them once, and would otherwise wait for one that is past.
    if n and (numbers[1 : n // 2].min(initial=1) < 1 or at[0] < 0 or at[-1] >= n_pixels * LANES):
        raise CorruptChunkError("patches out of order")
    if (values < 0).any() or (values > 65535).any():
        raise CorruptChunkError("impossible patch")
    return Patches(at=at, values=values.astype(np.uint16))


def _selection(header: Header, decoder: Decoder, entry_index: int, step: int) -> Array:
    """Lanes of a group that use the second weight set: bool[64]."""
    if decoder.n_sets < 2 or step == 0:
        return np.zeros(LANES, bool)
    if header.selections.size == 0:
        raise CorruptChunkError("no weight sets for a model with two")
    return np.unpackbits(header.selections[entry_index], bitorder="little").astype(bool)


def _read_rest(
    header: Header, payload: memoryview, entry: GroupEntry, positions: Array, target: Array, n_pixels: int,
    low: Array | None, found: list[tuple[Array, Array]],
) -> None:  # fmt: skip
    """Raw low bits into ``low``, exceptions into ``found``."""
    held = np.flatnonzero(positions >= 0)
    if low is not None:
        raw = np.frombuffer(payload[entry.words : entry.words + entry.low], np.uint8)
        n_values = held.size * n_pixels
        plane_bytes = -(-n_values // 8)
        if raw.size != plane_bytes * header.numbers.low_bits:
            raise CorruptChunkError("impossible size of the low bits")
        total = np.zeros(n_values, np.uint16)
        for b, bits in enumerate(raw.reshape(header.numbers.low_bits, plane_bytes)):
            total |= np.unpackbits(bits, count=n_values, bitorder="little").astype(np.uint16) << b
        keep = target[held] >= 0
        low[target[held][keep]] = total.reshape(held.size, n_pixels)[keep]
    elif entry.low:
        raise CorruptChunkError("unexpected low bits")
    if entry.exceptions == 0:
        return
    r = Reader(payload[entry.words + entry.low + entry.patches :])
    index = np.cumsum(r.numbers(LANES * n_pixels))
    try:
        values = decompress(r.section(), 8 * index.size).view("<u8")
    except (RuntimeError, ValueError) as error:
        raise CorruptChunkError(f"exceptions do not decompress ({error})") from None
    r.end()
    if index.size and (index.min() < 0 or index.max() >= LANES * n_pixels):
        raise CorruptChunkError("exceptions out of range")
    lane, pixel = np.divmod(index, n_pixels)
    row = target[lane]
    found.append((row[row >= 0] * n_pixels + pixel[row >= 0], values[row >= 0].astype(np.uint64)))
