"""What a network learned about a chunk: bits of every pixel, and of every class next to what histograms take."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from stemcodecs.entropy.chunk.choose_calibration import plane_behind
from stemcodecs.entropy.chunk.decode import decode_parsed, model_bytes
from stemcodecs.entropy.chunk.describe import ChunkDetail, ClassDetail, describe
from stemcodecs.entropy.chunk.encode import encode_array
from stemcodecs.entropy.chunk.header import Header, read_header
from stemcodecs.entropy.fit.fit_model import FitOptions
from stemcodecs.entropy.fit.grouped_counts import GroupedCounts
from stemcodecs.entropy.kernels.kernel_arguments import Patches, Stream
from stemcodecs.entropy.kernels.rans import LANES
from stemcodecs.entropy.kernels.scratch import SLACK, lent_output
from stemcodecs.entropy.model.shared_model import SharedModel
from stemcodecs.entropy.values.plane import to_plane
from stemcodecs.learned.decode import decode_network_positions
from stemcodecs.learned.image_chain import UnrolledImages
from stemcodecs.learned.l3c_describe import describe_l3c
from stemcodecs.learned.l3c_groups import decode_l3c_positions
from stemcodecs.learned.l3c_model_bytes import is_l3c
from stemcodecs.learned.mixture_ir import Q_FREQUENCY
from stemcodecs.learned.prefix import LENGTH, NETWORK, read_prefix
from stemcodecs.learned.unrolled_network import Unrolled, unrolled_network

__all__ = ["describe_learned"]

Array = np.ndarray[Any, Any]


def describe_learned(data: bytes, shared: SharedModel | None = None) -> ChunkDetail:
    """As :func:`stemcodecs.entropy.chunk.describe.describe`, of a learned chunk.

    Classes are those that histograms would make, each with what the network takes in it and how much less that is.

    Raises
    ------
    CorruptChunkError, FormatVersionError
        As for decoding it.
    """
    kind, chunk = read_prefix(data), data[LENGTH:]
    if kind != NETWORK:
        return replace(describe(chunk), size=len(data))
    header = read_header(chunk)
    by_l3c = is_l3c(model_bytes(header, shared))
    decode = decode_l3c_positions if by_l3c else decode_network_positions
    array = decode_parsed(header, memoryview(chunk), shared, decode)
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    if by_l3c:
        return describe_l3c(native, header, len(data), shared)
    unrolled = unrolled_network(model_bytes(header, shared), header.layout.detector)
    bits = _bits(native, header, unrolled)
    by_histograms = describe(encode_array(native, FitOptions(mode="scan" if unrolled.model.chained else "auto")))
    return ChunkDetail(
        mode=unrolled.size,
        shape=header.shape, size=len(data), header=header.length + LENGTH,
        model=0 if header.shared else len(header.model), patches=sum(g.patches for g in header.groups),
        shared=header.shared, groups=len(header.groups), positions_to_read_one=header.layout.chain_length,
        neighbours=unrolled.model.neighbours, constant_pixels=int((~_live(unrolled)).sum()),
        classes=_classes(bits, by_histograms, unrolled, native), bits=bits,
    )  # fmt: skip


def _bits(array: Array, header: Header, unrolled: Unrolled) -> Array:
    """Mean bits of every pixel, float64[det_y, det_x]: what the intervals of its counts are worth."""
    known, layout = header.calibration, header.layout
    plane = to_plane(array) if known is None else plane_behind(array, header.numbers, known)
    assert plane is not None
    n = layout.n_pixels
    counts = GroupedCounts(plane.counts.reshape(layout.n_positions, n), layout, 0)
    counts.doses = header.doses.astype(np.int32)
    live = _live(unrolled)
    total = np.zeros(n)
    entries, low = np.zeros((n, LANES), np.uint32), np.zeros((n, LANES), np.uint32)
    for chain in range(len(layout.chains)):
        state = unrolled.chain(layout, layout.chain_length)
        with counts.chain(chain) as rows:
            for step, positions in enumerate(layout.chains[chain]):
                if (positions < 0).all():
                    continue
                with lent_output(n * LANES) as (words, patch_at, patch_value):
                    stream = Stream(words=words, start=SLACK, end=words.size - SLACK, blocks=header.blocks)
                    flat, patches = (entries.reshape(-1), low.reshape(-1)), Patches(patch_at, patch_value)
                    state.encode(rows, step, positions, counts.doses, *flat, stream, patches)
                held = positions >= 0
                frequency = np.maximum(entries[live][:, held] >> 16, 1)
                total[live] += (Q_FREQUENCY - np.log2(frequency) + (low[live][:, held] >> 16)).sum(axis=1)
    return (total / max(layout.n_positions, 1)).reshape(layout.detector)


def _live(unrolled: Unrolled) -> Array:
    """Which pixels take bits: bool[n_pixels]."""
    if isinstance(unrolled, UnrolledImages):
        return np.ones(unrolled.network.pixels, bool)
    live: Array = unrolled.model.levels >= 0
    return live


def _classes(
    bits: Array, by_histograms: ChunkDetail, unrolled: Unrolled, array: Array
) -> tuple[ClassDetail, ...]:  # fmt: skip
    """Bits by the mean of the pixels, next to what histograms take there; of images, all in one."""
    if isinstance(unrolled, UnrolledImages):
        saved = 100 * (1 - float(bits.mean()) * array.size / 8 / by_histograms.size)
        means = array.reshape(-1, bits.size).mean(axis=0, dtype=np.float64)
        whole = ClassDetail(
            method=f"network, {saved:+.1f} % saved", pixels=bits.size, lowest_mean=float(means.min()),
            highest_mean=float(means.max()), histograms=0, bits=float(bits.mean()),
        )  # fmt: skip
        return (whole,)
    model, live = unrolled.model, _live(unrolled)
    means = ((np.maximum(model.levels, 0) ** 2 * model.level_scale) >> 16) / 2.0**16
    out = []
    for c in by_histograms.classes:
        here = live & (means >= c.lowest_mean) & (means <= c.highest_mean)
        if not here.any():
            continue
        mine = float(bits.ravel()[here].mean())
        saved = 100 * (1 - mine / c.bits) if c.bits else 0.0
        method = f"network, {saved:+.1f} % saved"
        out.append(replace(c, method=method, pixels=int(here.sum()), histograms=0, bits=mine))
    return tuple(out)
