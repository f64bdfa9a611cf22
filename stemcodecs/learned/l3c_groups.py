"""Encode and decode groups of 64 patterns by a network of architecture ``l3c``: latents first, from the coarsest on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.entropy.chunk.decode import DecodeGroup, Fetch, decode_groups, model_bytes, patches_of, stream_of
from stemcodecs.entropy.chunk.header import Header
from stemcodecs.entropy.fit.grouped_counts import active_lanes
from stemcodecs.entropy.kernels.kernel_arguments import Patches, Stream
from stemcodecs.entropy.kernels.rans import LANES
from stemcodecs.entropy.model.shared_model import SharedModel
from stemcodecs.errors import CorruptChunkError
from stemcodecs.learned.group_steps import OVERRUN, is_at_end, lanes_in_use
from stemcodecs.learned.l3c_coding_kernels import (
    CURSOR,
    Plane,
    decode_row,
    encode_items,
    interval_row,
    lookups,
)
from stemcodecs.learned.l3c_unrolled import UnrolledL3c, unrolled_l3c
from stemcodecs.learned.mixture_ir import LOGISTIC_WINDOW
from stemcodecs.learned.path import network_path
from stemcodecs.learned.rans15_steps import fresh_states, read_lane_states
from stemcodecs.learned.tables import tables

__all__ = ["L3cIntervals", "decode_l3c_positions", "encode_l3c_group", "l3c_intervals"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class L3cIntervals:
    """Intervals of a group's values, in the order in which they are decoded.

    Attributes
    ----------
    entries, low : uint32, flat
        64 an item, as :func:`stemcodecs.learned.mixture_ir.count_intervals` gives them; 0 where a value is constant.
    patches : int
        Values outside their windows.
    ends : list of int
        Items behind the last one of every plane, the coarsest plane first.
    """

    entries: Array
    low: Array
    patches: int
    ends: list[int]


def l3c_intervals(unrolled: UnrolledL3c, rows: Array, active: int, patches: Patches) -> L3cIntervals:
    """Intervals of a group: rows : uint16[n_pixels, 64], counts; active : bit mask of the lanes with a position."""
    entries, low = (np.empty(unrolled.items * LANES, np.uint32) for _ in range(2))
    cursor, path, mask = np.zeros(CURSOR, np.int64), network_path(), np.uint64(active)
    latents = unrolled.latents_of(rows)
    above = None
    ends = []
    for s in range(unrolled.model.scales, -1, -1):
        found, plane = _lookups(unrolled), _plane(unrolled, s, latents[s - 1] if s else rows)
        kept = unrolled.room_for_features(s) if s else None
        for y, features in unrolled.features(s, latents[s] if s < len(latents) else None, above):
            if kept is not None:
                kept[y] = features.reshape(kept.shape[1:])
            interval_row(path, unrolled.predictors[s], features, y, plane, found, mask, entries, low, patches, cursor)
        above = kept
        ends.append(int(cursor[0]))
    return L3cIntervals(entries=entries, low=low, patches=int(cursor[1]), ends=ends)


def encode_l3c_group(
    unrolled: UnrolledL3c, rows: Array, active: int, stream: Stream, patches: Patches
) -> tuple[int, int]:
    """Encode a group.

    Parameters
    ----------
    unrolled, rows, active
        See :func:`l3c_intervals`.
    stream, patches
        Where the words go, from the end backwards, and the values outside their windows.

    Returns
    -------
    start, patches
        The first word, and the number of patches.
    """
    found = l3c_intervals(unrolled, rows, active, patches)
    start = encode_items(network_path(), found.entries, found.low, unrolled.items, np.uint64(active), stream)
    return int(start), found.patches


def decode_l3c_positions(
    header: Header, fetch: Fetch, positions: Array | None, shared: SharedModel | None = None
) -> Array:
    """As :func:`stemcodecs.entropy.chunk.decode.decode_positions`, of a chunk whose model is such a network."""
    unrolled = unrolled_l3c(model_bytes(header, shared), header.layout.detector)
    if header.doses.size or header.selections.size or header.layout.chain_length > 1:
        raise CorruptChunkError("doses, sets of weights, or chains, for a network that has none")

    def of_chain(chain: int, n_steps: int) -> DecodeGroup:
        def decode(rows: Array, step: int, index: int, payload: memoryview) -> int:
            active = active_lanes(header.layout.chains[chain, step])
            return _decode_group(header, unrolled, rows, active, index, payload)

        return decode

    return decode_groups(header, fetch, positions, 0, of_chain)


def _decode_group(
    header: Header, unrolled: UnrolledL3c, rows: Array, active: int, index: int, payload: memoryview
) -> int:
    entry, model = header.groups[index], unrolled.model
    stream = stream_of(payload[: entry.words], header.blocks)
    patches = patches_of(payload, entry, unrolled.items)
    path, mask, states = network_path(), np.uint64(active), fresh_states()
    lanes = np.uint64(lanes_in_use(mask, stream.blocks))
    pos = read_lane_states(states, lanes, stream.words, stream.start)
    cursor = np.array([0, 0, pos], np.int64)
    latents = above = None
    for s in range(model.scales, -1, -1):
        values = np.zeros((*model.sizes[s], model.latents, LANES), np.uint16) if s else rows
        found, plane = _lookups(unrolled), _plane(unrolled, s, values)
        kept = unrolled.room_for_features(s) if s else None
        for y, features in unrolled.features(s, latents, above):
            if kept is not None:
                kept[y] = features.reshape(kept.shape[1:])
            failed = decode_row(
                path, unrolled.predictors[s], features, y, plane, found, mask, states, stream, patches, cursor
            )
            if failed:
                return int(failed)
        latents, above = values, kept
    _, patch, pos = cursor
    return 0 if is_at_end(states, stream, patches, patch, pos) else OVERRUN


def _lookups(unrolled: UnrolledL3c) -> Any:
    found = tables()
    window = np.array(LOGISTIC_WINDOW, np.int32)
    return lookups(found.sigmoid, found.mantissa, found.threshold10, window, unrolled.model.width)


def _plane(unrolled: UnrolledL3c, s: int, values: Array) -> Plane:
    rows, columns = unrolled.model.sizes[s]
    return Plane(
        values=values.reshape(-1), rows=rows, columns=columns, channels=unrolled.model.channels(s),
        roots=unrolled.roots[s], constants=unrolled.constants[s],
    )  # fmt: skip
