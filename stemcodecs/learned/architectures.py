"""Which code belongs to the architecture of a network that a chunk or a configuration carries."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.entropy.chunk.decode import Fetch, model_bytes
from stemcodecs.entropy.chunk.header import Header
from stemcodecs.entropy.model.shared_model import SharedModel
from stemcodecs.learned.decode import decode_network_positions
from stemcodecs.learned.encode import LearnedOptions, encode_learned
from stemcodecs.learned.l3c_encode import encode_l3c
from stemcodecs.learned.l3c_groups import decode_l3c_positions
from stemcodecs.learned.l3c_model_bytes import is_l3c

__all__ = ["decode_positions_by_network", "encode_by_network"]

Array = np.ndarray[Any, Any]


def decode_positions_by_network(
    header: Header, fetch: Fetch, positions: Array | None, shared: SharedModel | None = None
) -> Array:
    """As :func:`stemcodecs.entropy.chunk.decode.decode_positions`, of a chunk whose model is a network of any kind."""
    decode = decode_l3c_positions if is_l3c(model_bytes(header, shared)) else decode_network_positions
    return decode(header, fetch, positions, shared)


def encode_by_network(array: Array, options: LearnedOptions, shared: SharedModel | None) -> bytes:
    """Encode by the shared network, or by one of another architecture that is fitted to the array."""
    if shared is not None and is_l3c(shared.model):
        return encode_l3c(array, shared)
    return encode_learned(array, options, shared)
