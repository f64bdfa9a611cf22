"""A network unrolled for the kernels: what a pixel adds to the first layer is added up once."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.entropy.model.group_layout import GroupLayout
from stemcodecs.entropy.model.model_bytes import Reader
from stemcodecs.last_used import LastUsed
from stemcodecs.learned.context_chain import ContextChain
from stemcodecs.learned.context_model import ContextModel
from stemcodecs.learned.context_model_bytes import read_network
from stemcodecs.learned.group_kernels import Network
from stemcodecs.learned.image_chain import UnrolledImages
from stemcodecs.learned.image_model import IMAGES, read_image_network
from stemcodecs.learned.integer_weights import packed_int32, weight_pairs
from stemcodecs.learned.mixture_ir import LOGISTIC_WINDOW, NORMAL_WINDOW
from stemcodecs.learned.tables import tables

__all__ = ["Unrolled", "UnrolledNetwork", "unrolled_network"]

Array = np.ndarray[Any, Any]

KEPT_BYTES = 64 << 20
"""What may be kept: the first layer's bias of every pixel takes 8 MB for 256×256 pixels."""


class UnrolledNetwork:
    """A network for counts ready to code: the model, and what the kernels take of it."""

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
            first=weight_pairs(first.weights[:, :lanes]),
            second=weight_pairs(second.weights),
            last=weight_pairs(last.weights),
            second_bias=packed_int32(second.bias),
            last_bias=packed_int32(last.bias),
            shifts=np.array([layer.shift for layer in model.layers], np.int64),
            hidden=model.hidden,
            sigmoid=found.sigmoid,
            mantissa=found.mantissa,
            root6=found.root6,
            threshold10=found.threshold10,
            cumulative=found.normal if model.normal else found.sigmoid,
            window=np.array(NORMAL_WINDOW if model.normal else LOGISTIC_WINDOW, np.int32),
        )
        maps = sum(array.nbytes for array in (model.levels, model.constants, model.roots, *model.maps))
        self.nbytes = maps + self.network.first_bias.nbytes + self.network.roots.nbytes

    @property
    def size(self) -> str:
        """In words."""
        return f"network of {self.model.hidden} and {self.model.hidden} units, {len(self.model.maps)} maps"

    def chain(self, layout: GroupLayout, steps: int) -> ContextChain:
        """What codes the groups of a chain of so many steps."""
        return ContextChain(self.model, self.network, layout, steps)


Unrolled = UnrolledNetwork | UnrolledImages
"""What codes the groups of a chunk: each architecture has its own, with ``model``, ``chain`` and sizes."""
_kept: LastUsed[tuple[bytes, tuple[int, int]], Unrolled] = LastUsed(KEPT_BYTES)


def unrolled_network(data: bytes, detector: tuple[int, int]) -> Unrolled:
    """Of a serialised network of any architecture; the last ones are kept for the next read."""
    key = (data, detector)
    found = _kept.get(key)
    if found is None:
        found = _read(data, detector)
        found = _kept.put(key, found, found.nbytes)
    return found


def _read(data: bytes, detector: tuple[int, int]) -> Unrolled:
    if Reader(data).varint() == IMAGES:
        return UnrolledImages(read_image_network(data, detector))
    return UnrolledNetwork(read_network(data, detector))
