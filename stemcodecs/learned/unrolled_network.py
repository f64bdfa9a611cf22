"""A network unrolled for the kernels: what a pixel adds to the first layer is added up once."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.last_used import LastUsed
from stemcodecs.learned.context_model import ContextModel
from stemcodecs.learned.context_model_bytes import read_network
from stemcodecs.learned.group_kernels import Network
from stemcodecs.learned.tables import tables

__all__ = ["UnrolledNetwork", "dose_roots", "unrolled_network"]

Array = np.ndarray[Any, Any]

KEPT_BYTES = 64 << 20
"""What may be kept: the first layer's bias of every pixel takes 8 MB for 256×256 pixels."""
_kept: LastUsed[tuple[bytes, tuple[int, int]], UnrolledNetwork] = LastUsed(KEPT_BYTES)


class UnrolledNetwork:
    """A network ready to code: the model, and what the kernels take of it."""

    def __init__(self, model: ContextModel) -> None:
        self.model = model
        found = tables()
        first, second, last = model.layers
        lanes = model.n_lane_features
        self.network = Network(
            width=model.detector[1],
            roots=np.where(model.levels < 0, -1, model.roots),
            constants=model.constants.astype(np.uint16),
            first_bias=model.first_bias().ravel(),
            first=_pairs(first.weights[:, :lanes]),
            second=_pairs(second.weights),
            last=_pairs(last.weights),
            second_bias=_int32(second.bias),
            last_bias=_int32(last.bias),
            shifts=np.array([layer.shift for layer in model.layers], np.int64),
            hidden=model.hidden,
            sigmoid=found.sigmoid,
            mantissa=found.mantissa,
            root6=found.root6,
            threshold10=found.threshold10,
        )
        maps = sum(array.nbytes for array in (model.levels, model.constants, model.roots, *model.maps))
        self.nbytes = maps + self.network.first_bias.nbytes + self.network.roots.nbytes


def unrolled_network(data: bytes, detector: tuple[int, int]) -> UnrolledNetwork:
    """Of a serialised network; the last ones are kept for the next read."""
    key = (data, detector)
    found = _kept.get(key)
    if found is None:
        found = UnrolledNetwork(read_network(data, detector))
        found = _kept.put(key, found, found.nbytes)
    return found


def dose_roots(doses: Array) -> Array:
    """``floor(4096 * sqrt(dose / 4096))`` of doses below 2**16: int32, below 2**14."""
    root = np.sqrt(doses.astype(np.float64) * 4096).astype(np.int64)
    # A double is off by less than one, and only squares decide.
    root -= root * root > doses.astype(np.int64) * 4096
    root += (root + 1) * (root + 1) <= doses.astype(np.int64) * 4096
    return root.astype(np.int32)


def _int32(values: Array) -> Array:
    return np.ascontiguousarray(values, np.int64).astype(np.uint32).view(np.int32).ravel()


def _pairs(weights: Array) -> Array:
    """Two weights of a unit in every int32; a missing last one is 0."""
    if weights.shape[1] % 2:
        weights = np.pad(weights, ((0, 0), (0, 1)))
    low, high = weights[:, ::2] & 0xFFFF, weights[:, 1::2] & 0xFFFF
    return _int32(low | high << 16)
