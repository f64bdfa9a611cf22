"""The network of architecture ``images``: what it knows of a pixel of a movie or a tilt series, and its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.entropy.model.model_bytes import Reader, Writer
from stemcodecs.errors import CorruptChunkError
from stemcodecs.learned.context_model import (
    MAX_HIDDEN,
    MAX_NEIGHBOURS,
    MOST_SHIFT,
    OUTPUTS,
    Dense,
    lane_features,
    may_be_seen,
)
from stemcodecs.learned.network_bytes import read_layer, read_neighbours, write_layers, write_neighbours

__all__ = ["IMAGES", "IMAGE_FEATURES", "ImageModel", "read_image_network", "write_image_network"]

Array = np.ndarray[Any, Any]

IMAGES = 3
"""Architecture of a network for images."""
IMAGE_FEATURES = 5
"""Activity, its mantissa, the brightness, and how far the predictor was off to the left and above."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageModel:
    """A network for the pixels of images.

    Attributes
    ----------
    detector : tuple of int
        Rows and columns of an image.
    first : int
        What the first pixel of an image is taken to be where no image was decoded before.
    neighbours : tuple of (reference, dy, dx)
        Pixels that the network sees; reference 0 is the same image, 1 the one before.
    layers : tuple of Dense
        Three of them. All inputs of the first differ from lane to lane.
    """

    detector: tuple[int, int]
    first: int
    neighbours: tuple[tuple[int, int, int], ...]
    layers: tuple[Dense, Dense, Dense]

    @property
    def hidden(self) -> int:
        """Units of each of the two layers between."""
        return len(self.layers[0].bias)

    @property
    def chained(self) -> bool:
        """Whether it looks at images before."""
        return any(reference > 0 for reference, _, _ in self.neighbours)

    @property
    def inputs(self) -> int:
        """Of the first layer."""
        return lane_features(self.neighbours) + IMAGE_FEATURES

    def check(self) -> None:
        """Refuse what the kernels cannot run.

        Raises
        ------
        CorruptChunkError
            If a number is out of range.
        """
        if not 0 <= self.first <= 65535:
            raise CorruptChunkError("impossible network: first pixel")
        if not 4 <= self.hidden <= MAX_HIDDEN or self.hidden % 4:
            raise CorruptChunkError("impossible network: hidden units")
        if len(self.neighbours) > MAX_NEIGHBOURS or not all(may_be_seen(n, self.detector) for n in self.neighbours):
            raise CorruptChunkError("impossible network: neighbours")
        shapes = ((self.hidden, self.inputs), (self.hidden, self.hidden), (OUTPUTS, self.hidden))
        for layer, shape in zip(self.layers, shapes, strict=True):
            if layer.weights.shape != shape or layer.bias.shape != shape[:1] or not 0 <= layer.shift <= MOST_SHIFT:
                raise CorruptChunkError("impossible network: layers")
            if np.abs(layer.weights).max(initial=0) > 32767 or np.abs(layer.bias).max(initial=0) > (1 << 31) - 1:
                raise CorruptChunkError("impossible network: weights")


def write_image_network(model: ImageModel) -> bytes:
    """Serialise a network."""
    w = Writer()
    w.varint(IMAGES)
    w.varint(model.first)
    write_neighbours(w, model.neighbours)
    w.varint(model.hidden)
    write_layers(w, model.layers)
    return w.getvalue()


def read_image_network(data: bytes | memoryview, detector: tuple[int, int]) -> ImageModel:
    """Inverse of :func:`write_image_network`.

    Raises
    ------
    CorruptChunkError
        If the bytes are not a network for images of this size that the kernels can run.
    """
    r = Reader(data)
    if r.varint() != IMAGES:
        raise CorruptChunkError("a network of an unknown architecture")
    first = r.varint()
    neighbours = read_neighbours(r)
    hidden = r.varint()
    if not 4 <= hidden <= MAX_HIDDEN:
        raise CorruptChunkError("impossible network: hidden units")
    inputs = lane_features(neighbours) + IMAGE_FEATURES
    shapes = ((hidden, inputs), (hidden, hidden), (OUTPUTS, hidden))
    one, two, last = (read_layer(r, *shape) for shape in shapes)
    r.end()
    model = ImageModel(detector=detector, first=first, neighbours=neighbours, layers=(one, two, last))
    # The kernels index by these numbers without looking.
    model.check()
    return model
