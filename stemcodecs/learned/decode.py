"""Decode the groups of a chunk whose model is a network."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.entropy.chunk.decode import (
    DecodeGroup,
    Fetch,
    decode_groups,
    model_bytes,
    patches_of,
    stream_of,
)
from stemcodecs.entropy.chunk.header import Header
from stemcodecs.entropy.fit.grouped_counts import active_lanes, doses_of_lanes
from stemcodecs.entropy.kernels.rans import LANES
from stemcodecs.entropy.model.group_layout import GroupLayout
from stemcodecs.entropy.model.shared_model import SharedModel
from stemcodecs.errors import CorruptChunkError
from stemcodecs.learned.context_model import ContextModel, ResidualRows
from stemcodecs.learned.group_kernels import Lanes, decode_network_group, feature_rows_of_lanes
from stemcodecs.learned.path import network_path
from stemcodecs.learned.unrolled_network import UnrolledNetwork, dose_roots, unrolled_network

__all__ = ["ChainLanes", "decode_network_positions"]

Array = np.ndarray[Any, Any]


class ChainLanes:
    """Residuals of a chain, and its groups as the kernels take them, step by step."""

    def __init__(self, model: ContextModel, layout: GroupLayout, steps: int, blocks: int) -> None:
        self._frame = ResidualRows(model, layout, steps)
        self._residuals = np.zeros((self._frame.rows, LANES), np.int16)
        self._chained = model.chained
        self._pixels, self._blocks = layout.n_pixels, blocks

    def lanes(self, rows: Array, step: int, positions: Array, doses: Array) -> Lanes:
        """A step's group, of rows without a margin; the steps before it must have been coded."""
        active = active_lanes(positions)
        dose = dose_roots(doses_of_lanes(doses, positions))
        feature_rows_of_lanes(self._residuals, self._frame.zero, dose, self._chained and step > 0)
        at, moves = self._frame.features(step)
        return Lanes(
            rows=rows,
            origin=step * self._pixels,
            active=np.uint64(active),
            dose=dose,
            residuals=self._residuals,
            first_residual=self._frame.origin(step),
            stride=self._frame.stride,
            feature_rows=at,
            feature_moves=moves,
            blocks=self._blocks,
        )


def decode_network_positions(
    header: Header, fetch: Fetch, positions: Array | None, shared: SharedModel | None = None
) -> Array:
    """As :func:`stemcodecs.entropy.chunk.decode.decode_positions`, of a chunk whose model is a network."""
    unrolled = unrolled_network(model_bytes(header, shared), header.layout.detector)
    if header.doses.size == 0 or header.selections.size:
        raise CorruptChunkError("no doses, or sets of weights, for a network")

    def of_chain(chain: int, n_steps: int) -> DecodeGroup:
        state = ChainLanes(unrolled.model, header.layout, n_steps, header.blocks)

        def decode(rows: Array, step: int, index: int, payload: memoryview) -> int:
            return _decode_group(header, unrolled, state, rows, chain, step, index, payload)

        return decode

    return decode_groups(header, fetch, positions, 0, of_chain)


def _decode_group(
    header: Header, unrolled: UnrolledNetwork, state: ChainLanes, rows: Array, chain: int, step: int, index: int,
    payload: memoryview,
) -> int:  # fmt: skip
    entry = header.groups[index]
    lanes = state.lanes(rows, step, header.layout.chains[chain, step], header.doses)
    stream = stream_of(payload[: entry.words], header.blocks)
    patches = patches_of(payload, entry, header.layout.n_pixels)
    return int(decode_network_group(network_path(), unrolled.network, lanes, stream, patches))
