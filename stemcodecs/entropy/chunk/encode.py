"""Encode an array to the bytes of a chunk."""

from __future__ import annotations

from typing import Any

import numcodecs
import numpy as np

from stemcodecs.entropy.chunk.choose_calibration import calibrated_plane, plane_behind
from stemcodecs.entropy.chunk.encoded_group import (
    EncodedGroup,
    blocks_for,
    exceptions_by_group,
    low_bits,
    patch_bytes,
)
from stemcodecs.entropy.chunk.header import (
    BIG_ENDIAN,
    COLUMN_MAJOR,
    COUNTS,
    STORED,
    STORED_PIECE,
    Header,
    checksum,
    write_header,
)
from stemcodecs.entropy.chunk.shared_calibration import calibration_of
from stemcodecs.entropy.chunk.unrolled_model import decoder_of
from stemcodecs.entropy.fit.fit_model import Fit, FitOptions, fit_model
from stemcodecs.entropy.fit.grouped_counts import GroupedCounts
from stemcodecs.entropy.fit.tile import choose_layout, typical_bits
from stemcodecs.entropy.kernels.coding_tables import STRIDE, build_encode_tables
from stemcodecs.entropy.kernels.cpu import simd_path
from stemcodecs.entropy.kernels.encode_group import encode_group, encoder_room
from stemcodecs.entropy.kernels.kernel_arguments import EncodeTables, Patches, Stream
from stemcodecs.entropy.kernels.rans import LANES
from stemcodecs.entropy.kernels.scratch import SLACK, lent_output, lent_rows
from stemcodecs.entropy.kernels.threads import begin, run_all
from stemcodecs.entropy.model.group_layout import GroupLayout
from stemcodecs.entropy.model.histogram_model import HistogramModel
from stemcodecs.entropy.model.model_bytes import Writer, write_histogram_model
from stemcodecs.entropy.model.shared_model import SharedModel
from stemcodecs.entropy.values.calibration import (
    Calibration,
    FloatCalibration,
    IntegerCalibration,
    SharedCalibration,
)
from stemcodecs.entropy.values.listed_floats import listed_plane
from stemcodecs.entropy.values.pattern_parameters import with_parameters
from stemcodecs.entropy.values.plane import Plane, to_plane
from stemcodecs.entropy.values.ranked_floats import ranked_plane
from stemcodecs.errors import ConfigurationError

__all__ = ["encode_array", "size_by_pixel", "smaller_of_small", "state_blocks"]

Array = np.ndarray[Any, Any]

SMALL = 1 << 16
"""Below this many bytes the generic coder is tried as well: a model may cost more than it saves."""
_PATCHES_OF_ANOTHER_MODEL = 20
"""Where patches and exceptions are more than a twentieth of the bytes, a shared model was fitted to other data."""
_MARGIN = 4
"""Rows of the detector before a pattern: two rows above and two pixels beside are the farthest a context looks."""
PROBE = 1 << 16
"""Bytes of an array that the generic coder is tried on, if not a 64th of it."""


def encode_array(array: Array, options: FitOptions | None = None, shared: SharedModel | None = None) -> bytes:
    """Encode any real numeric array, losslessly.

    Parameters
    ----------
    array : ndarray
        Booleans, integers or floats of any width; the last two axes are the detector.
    options : FitOptions, optional
        Mode of the entropy coder.
    shared : SharedModel, optional
        Model to use instead of one fitted to the array.

    Returns
    -------
    bytes
        A chunk, see ``FORMAT.md``.
    """
    options = options or FitOptions()
    flags = COLUMN_MAJOR * bool(array.flags.f_contiguous and not array.flags.c_contiguous)
    flags |= BIG_ENDIAN * (array.dtype.str[0] == ">")
    # Chunks are in C order whatever the array was; the flags say how to hand it back.
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)
    if array.size == 0:
        return _encode_stored(array, flags)
    data, suits = (None, False) if shared is None else _encode_by_shared(array, flags, shared)
    smallest = None if data is None else _or_stored(array, data, flags)
    if data is not None and suits and smallest is data:
        return data
    # Values that the scan's map or its model does not give have their own, if that takes less.
    own = _encode_own(array, options, flags)
    return own if smallest is None or len(own) < len(smallest) else smallest


def _encode_own(array: Array, options: FitOptions, flags: int) -> bytes:
    """A chunk with a calibration and a model of its own, where there are any."""
    plane, rival = calibrated_plane(array, to_plane(array), size_by_pixel)
    if plane is None:
        layout = GroupLayout.of_shape(array.shape)
        plane = _listed_plane(array.reshape(layout.n_positions, layout.n_pixels))
    if plane is None:
        return _encode_stored(array, flags)
    data = _encode_counts(array, plane, options, flags)
    if rival is not None:
        other = _encode_counts(array, rival, options, flags)
        data = other if len(other) <= len(data) else data
    return _or_stored(array, data, flags)


def _listed_plane(values: Array) -> Plane | None:
    """Places in a list of all values of an array, or of those of each pixel, where no map gives counts."""
    if values.dtype.kind != "f" or values.dtype.itemsize > 8:
        return None
    plane = listed_plane(values)
    return ranked_plane(values) if plane is None else plane


def _or_stored(array: Array, data: bytes, flags: int) -> bytes:
    """The chunk ``data`` of an array, or what the generic coder makes of it, if that is smaller."""
    if array.nbytes >= PROBE and _may_store_smaller(array, len(data)):
        stored = _encode_stored(array, flags)
        return stored if len(stored) < len(data) else data
    return smaller_of_small(array, data, flags)


def smaller_of_small(array: Array, data: bytes, flags: int = 0) -> bytes:
    """The chunk ``data`` of an array, or what the generic coder makes of a small one, if that is smaller."""
    if array.nbytes >= SMALL:
        return data
    stored = _encode_stored(array, flags)
    return stored if len(stored) < len(data) else data


def _by_shared(array: Array, shared: SharedModel) -> Plane | None:
    """Counts by the map of a whole scan, if it gives nearly all values; as they are, if it has no map."""
    layout = GroupLayout.of_shape(array.shape)
    _check_detector(layout, shared)
    if not shared.behind:
        return to_plane(array)
    numbers, calibration = calibration_of(shared)
    if isinstance(calibration, FloatCalibration) != (array.dtype.kind == "f") or array.dtype.kind == "b":
        return None
    if shared.scaled:
        patterns = array.reshape(layout.n_positions, layout.n_pixels)
        calibration = with_parameters(patterns, calibration)
    return plane_behind(array, numbers, calibration)


def _check_detector(layout: GroupLayout, shared: SharedModel) -> None:
    if shared.detector != layout.detector:
        raise ConfigurationError(
            f"the shared model is of a detector of {shared.detector} pixels, the chunk has {layout.detector}: "
            "chunks must span the whole detector"
        )


def size_by_pixel(array: Array, plane: Plane) -> int:
    """Bytes of an array whose counts are coded pixel by pixel: to choose between maps on a sample."""
    return len(_encode_counts(array, plane, FitOptions(mode="pixel"), 0))


def _may_store_smaller(array: Array, size: int) -> bool:
    """Whether the generic coder may beat the model, by what it makes of a piece from the middle of the array."""
    raw = array.reshape(-1).view(np.uint8)
    n = min(raw.size, max(PROBE, raw.size // 64)) // array.itemsize * array.itemsize
    start = (raw.size - n) // 2 // array.itemsize * array.itemsize
    piece = numcodecs.Shuffle(array.itemsize).encode(raw[start : start + n])
    return len(numcodecs.Zstd(1).encode(piece)) * raw.size < 1.05 * size * n


def _encode_stored(array: Array, flags: int) -> bytes:
    """Byte-shuffled Zstandard in pieces: for true floats, for numbers without a common gain, for tiny arrays."""
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    raw = little.reshape(-1).view(np.uint8)
    w = Writer()
    shuffle, zstd = numcodecs.Shuffle(little.dtype.itemsize), numcodecs.Zstd(5)
    for start in range(0, raw.size, STORED_PIECE):
        w.section(bytes(zstd.encode(shuffle.encode(raw[start : start + STORED_PIECE]))))
    body = w.getvalue()
    nothing = np.zeros(0, np.int64)
    # The same header as for counts, so that a reader finds shape and dtype in one place.
    header = Header(kind=STORED, dtype=array.dtype, shape=array.shape, flags=flags, doses=nothing, selections=nothing)
    return write_header(header, nothing, np.array([checksum(body)])) + body


def _encode_by_shared(array: Array, flags: int, shared: SharedModel) -> tuple[bytes | None, bool]:
    """A chunk with the map and the model of a whole scan, if it can be, and whether these are of such data."""
    plane = _by_shared(array, shared)
    if plane is None:
        return None, False
    # A shared model knows no scan neighbours, so that chunks of one group stay independent.
    layout = GroupLayout.of_shape(array.shape)
    patterns = plane.counts.reshape(layout.n_positions, layout.n_pixels)
    decoder = decoder_of(shared.model, layout.detector)
    counts = GroupedCounts(patterns, layout, max(_MARGIN * layout.detector[1], decoder.model.margin()))
    # The doses of all chunks relative to one pattern: the model was fitted to those.
    counts.set_reference(shared.mean_frame_sum)
    fit = Fit(model=decoder.model, program=decoder.program, selections={})
    blocks = state_blocks(fit.model)
    groups = _encode_groups(counts, fit, plane, blocks)
    rare = sum(g.sizes[2] + g.sizes[3] for g in groups)
    suits = rare * _PATCHES_OF_ANOTHER_MODEL < sum(len(g.payload) for g in groups)
    return _assemble(array, flags, plane, counts, fit, blocks, groups, shared.digest, shared=True), suits


def _encode_counts(array: Array, plane: Plane, options: FitOptions, flags: int) -> bytes:
    layout = GroupLayout.of_shape(array.shape)
    patterns = plane.counts.reshape(layout.n_positions, layout.n_pixels)
    layout = choose_layout(patterns, layout, options.mode)
    counts = GroupedCounts(patterns, layout, _MARGIN * layout.detector[1])
    fit = fit_model(counts, options)
    blocks = state_blocks(fit.model)
    # The model's bytes are made while the groups are coded: they need nothing of each other.
    serialised = begin(write_histogram_model, fit.model)
    groups = _encode_groups(counts, fit, plane, blocks)
    return _assemble(array, flags, plane, counts, fit, blocks, groups, serialised(), shared=False)


def _assemble(
    array: Array, flags: int, plane: Plane, counts: GroupedCounts, fit: Fit, blocks: int,
    groups: list[EncodedGroup], model: bytes, *, shared: bool,
) -> bytes:  # fmt: skip
    header = Header(
        kind=COUNTS, dtype=array.dtype, shape=array.shape, flags=flags, numbers=plane.numbers,
        calibration=_shared(plane.calibration) if shared else plane.calibration,
        tile=counts.layout.tile, blocks=blocks, shared=shared, model=model,
        doses=counts.doses.astype(np.int64) if fit.model.neighbours else np.zeros(0, np.int64),
        selections=np.array([np.packbits(s, bitorder="little") for s in fit.selections.values()], np.uint8),
    )  # fmt: skip
    head = write_header(header, np.array([g.sizes for g in groups], np.int64), np.array([g.crc for g in groups]))
    return b"".join([head, *(g.payload for g in groups)])


def _shared(calibration: Calibration | None) -> SharedCalibration | None:
    """What a chunk has of a calibration whose other parts the shared model has."""
    if calibration is None:
        return None
    return SharedCalibration(
        scale=calibration.scale if isinstance(calibration, FloatCalibration) else None,
        shift=calibration.shift if isinstance(calibration, IntegerCalibration) else None,
    )


def state_blocks(model: HistogramModel) -> int:
    """Blocks of lanes to use: all four are fastest, but their states would weigh too much in a group of few bytes."""
    return blocks_for(typical_bits(model.means()[model.levels >= 0] / 2.0**16).sum())


def _encode_groups(counts: GroupedCounts, fit: Fit, plane: Plane, blocks: int) -> list[EncodedGroup]:
    model = fit.model
    program = fit.program
    n_tables = model.frequencies.shape[0]
    tables = EncodeTables(entries=np.zeros(n_tables * STRIDE, np.uint32), likeliest=np.empty(n_tables, np.int64))
    build_encode_tables(model.frequencies, *tables)
    simd = simd_path()
    n = counts.layout.n_pixels
    exceptions = exceptions_by_group(plane, counts.layout)

    def encode_one(rows: Array, chain: int, step: int) -> EncodedGroup:
        positions = counts.layout.chains[chain, step]
        group = counts.group_rows(chain, step, model, fit.selections.get((chain, step)), rows)
        # The worst case is two words a value; untouched pages cost nothing.
        with lent_output(n * LANES) as (words, patch_at, patch_value):
            stream = Stream(words=words, start=SLACK, end=words.size - SLACK, blocks=blocks)
            free = Patches(patch_at, patch_value)
            pos, patches = encode_group(simd, group, program, tables, stream, free, encoder_room())
            # The kernel codes backwards, and finds the last patch first.
            rare = patch_bytes(patch_at[:patches][::-1], patch_value[:patches][::-1])
            # A copy by NumPy, which lets the other threads go on, unlike one to bytes.
            coded = words[pos : stream.end].astype("<u2").view(np.uint8).data
        return EncodedGroup.of(coded, low_bits(plane, positions, n), rare, exceptions.get((chain, step), b""))

    steps_of: dict[int, list[int]] = {}
    for chain, step in counts.groups():
        steps_of.setdefault(chain, []).append(step)
    # Chains may be as large as the chunk: one at a time, its steps on all threads.
    if counts.layout.chain_length > 1:
        counts.forget()
        out = []
        for chain, steps in steps_of.items():
            with lent_rows(counts.origin(counts.layout.chain_length)) as rows:
                counts.load_chain(chain, rows)
                out += run_all(encode_one, [(rows, chain, step) for step in steps])
        return out

    def encode_single(chain: int) -> EncodedGroup:
        with counts.chain(chain) as rows:
            return encode_one(rows, chain, 0)

    # Those that the fit has left come first, so that others can have their rows.
    order = sorted(steps_of, key=counts.holds, reverse=True)
    done = dict(zip(order, run_all(encode_single, [(chain,) for chain in order]), strict=True))
    return [done[chain] for chain in steps_of]
