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
from stemcodecs.entropy.model.shared_model import SharedModel
from stemcodecs.errors import CorruptChunkError
from stemcodecs.learned.unrolled_network import unrolled_network

__all__ = ["decode_network_positions"]

Array = np.ndarray[Any, Any]


def decode_network_positions(
    header: Header, fetch: Fetch, positions: Array | None, shared: SharedModel | None = None
) -> Array:
    """As :func:`stemcodecs.entropy.chunk.decode.decode_positions`, of a chunk whose model is a network."""
    unrolled = unrolled_network(model_bytes(header, shared), header.layout.detector)
    if header.doses.size == 0 or header.selections.size:
        raise CorruptChunkError("no doses, or sets of weights, for a network")

    def of_chain(chain: int, n_steps: int) -> DecodeGroup:
        state = unrolled.chain(header.layout, n_steps)

        def decode(rows: Array, step: int, index: int, payload: memoryview) -> int:
            entry = header.groups[index]
            stream = stream_of(payload[: entry.words], header.blocks)
            patches = patches_of(payload, entry, header.layout.n_pixels)
            return state.decode(rows, step, header.layout.chains[chain, step], header.doses, stream, patches)

        return decode

    return decode_groups(header, fetch, positions, 0, of_chain)
