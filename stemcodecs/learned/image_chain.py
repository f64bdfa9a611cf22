"""Chains of images as the kernels take them, and a network for images made ready for them."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.entropy.fit.grouped_counts import active_lanes, doses_of_lanes
from stemcodecs.entropy.kernels.kernel_arguments import Patches, Stream
from stemcodecs.entropy.kernels.rans import LANES
from stemcodecs.entropy.model.group_layout import GroupLayout
from stemcodecs.learned.dose import dose_roots
from stemcodecs.learned.image_kernels import ImageLanes, ImageNetwork, decode_image_group, encode_image_group
from stemcodecs.learned.image_model import ImageModel
from stemcodecs.learned.integer_weights import packed_int32, weight_pairs
from stemcodecs.learned.path import network_path
from stemcodecs.learned.tables import tables

__all__ = ["ImageChain", "UnrolledImages"]

Array = np.ndarray[Any, Any]


class UnrolledImages:
    """A network for images ready to code: the model, and what the kernels take of it."""

    def __init__(self, model: ImageModel) -> None:
        self.model = model
        found = tables()
        first, second, last = model.layers
        height, width = model.detector
        self.network = ImageNetwork(
            width=width,
            height=height,
            pixels=height * width,
            first_pixel=model.first,
            neighbours=np.array(model.neighbours, np.int64).reshape(-1, 3),
            inputs=model.inputs + model.inputs % 2,
            first=weight_pairs(first.weights),
            second=weight_pairs(second.weights),
            last=weight_pairs(last.weights),
            first_bias=packed_int32(first.bias),
            second_bias=packed_int32(second.bias),
            last_bias=packed_int32(last.bias),
            shifts=np.array([layer.shift for layer in model.layers], np.int64),
            hidden=model.hidden,
            sigmoid=found.sigmoid,
            mantissa=found.mantissa,
        )
        self.nbytes = sum(layer.weights.nbytes + layer.bias.nbytes for layer in model.layers)

    @property
    def size(self) -> str:
        """In words."""
        return f"network for images, of {self.model.hidden} and {self.model.hidden} units"

    def chain(self, layout: GroupLayout, steps: int) -> ImageChain:
        """What codes the groups of a chain."""
        return ImageChain(self, layout)


class ImageChain:
    """Codes the groups of a chain of images, step by step."""

    def __init__(self, unrolled: UnrolledImages, layout: GroupLayout) -> None:
        self._unrolled, self._layout = unrolled, layout

    def _lanes(self, rows: Array, step: int, positions: Array, doses: Array) -> ImageLanes:
        chained = self._unrolled.model.chained
        return ImageLanes(
            rows=rows,
            origin=step * self._layout.n_pixels,
            active=np.uint64(active_lanes(positions)),
            dose=dose_roots(doses_of_lanes(doses, positions)),
            back=np.ascontiguousarray(self._layout.references[step] * chained, np.int64),
            chained=chained,
        )

    def encode(
        self, rows: Array, step: int, positions: Array, doses: Array, entries: Array, low: Array, stream: Stream,
        patches: Patches,
    ) -> tuple[int, int]:  # fmt: skip
        """A step's group, of rows without a margin; returns where its words begin, and the number of patches."""
        lanes = self._lanes(rows, step, positions, doses)
        # A row of 64 lanes a pixel.
        assert entries.size >= self._layout.n_pixels * LANES
        pos, found = encode_image_group(network_path(), self._unrolled.network, lanes, entries, low, stream, patches)
        return int(pos), int(found)

    def decode(
        self, rows: Array, step: int, positions: Array, doses: Array, stream: Stream, patches: Patches
    ) -> int:  # fmt: skip
        """A step's group into its rows; the steps before it must have been decoded. 0 if it came out whole."""
        lanes = self._lanes(rows, step, positions, doses)
        return int(decode_image_group(network_path(), self._unrolled.network, lanes, stream, patches))
