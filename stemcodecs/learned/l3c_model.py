"""The network of architecture ``l3c``: a pyramid of latents, each plane predicted from the coarser ones.

F. Mentzer et al., "Practical full resolution learned lossless image compression", CVPR 2019,
doi:10.1109/CVPR.2019.01088, at a size that a processor can run ("L3C-mini"). Planes are numbered by how often the
detector was halved: plane 0 is the pattern itself, planes 1 to S are latents of 25 levels. What is coded of plane s is
predicted on a grid that is half as fine, from the latents and the features there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from stemcodecs.errors import CorruptChunkError
from stemcodecs.learned.context_model import MOST_SHIFT, OUTPUTS, Dense, pixel_roots

__all__ = ["LATENT_LEVELS", "MIDDLE_LATENT", "TAPS", "L3cModel", "Stack", "half", "input_channels", "plane_sizes"]

Array = np.ndarray[Any, Any]

LATENT_LEVELS = 25
MIDDLE_LATENT = 12
TAPS = 9
"""Of a convolution: 3×3."""
SUBPIXELS = 4
"""Places of a plane under one site of the grid that predicts it."""
MAX_LATENTS, MAX_SCALES, MAX_WIDTH = 8, 4, 64
MOST_GAIN = 32767


@dataclass(frozen=True, kw_only=True, eq=False)
class Stack:
    """Two convolutions of 3×3 and one of 1×1: ``Dense`` each, the weights of a unit by tap, then by input."""

    layers: tuple[Dense, Dense, Dense]

    @property
    def width(self) -> int:
        """Units of each of the two hidden layers."""
        return len(self.layers[0].bias)


@dataclass(frozen=True, kw_only=True, eq=False)
class L3cModel:
    """A network for the patterns of a detector.

    Attributes
    ----------
    detector : tuple of int
        (det_y, det_x).
    level_scale : int
        Mean of a pixel of level L: ``L**2 * level_scale``, in units of 2**-32.
    levels : int64[n_pixels]
        Quantised root-mean count; -1 for a pixel that never changes. A network that is not to know where it is has one
        level for all.
    constants : int64[n_pixels]
        Value of the pixels that never change.
    gain : int
        Of the residuals as inputs, in units of 2**-8.
    level_offset, level_gain : int
        Of the levels as inputs: the offset has six fraction bits, the gain eight.
    latents : int
        Channels of a latent plane, even.
    encoders : tuple of Stack
        Of planes 1 to S: what makes the latents. A decoder has no use for them.
    predictors : tuple of Stack
        Of planes 0 to S.
    """

    detector: tuple[int, int]
    level_scale: int
    levels: Array
    constants: Array
    gain: int
    level_offset: int
    level_gain: int
    latents: int
    encoders: tuple[Stack, ...]
    predictors: tuple[Stack, ...]

    @property
    def scales(self) -> int:
        """Latent planes S."""
        return len(self.encoders)

    @property
    def width(self) -> int:
        """Hidden units of every stack."""
        return self.predictors[0].width

    @property
    def n_weights(self) -> int:
        """Weights and biases."""
        stacks = (*self.encoders, *self.predictors)
        return sum(layer.weights.size + layer.bias.size for stack in stacks for layer in stack.layers)

    @cached_property
    def roots(self) -> Array:
        """``1024 * sqrt(mean + 3/8)`` of every pixel: int64[n_pixels]."""
        return pixel_roots(self.levels, self.level_scale)

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """Rows and columns of planes 0 to S + 1."""
        return plane_sizes(self.detector, self.scales)

    def channels(self, plane: int) -> int:
        """Channels of a plane."""
        return self.latents if plane else 1

    def inputs(self, plane: int) -> int:
        """Inputs of the predictor of a plane."""
        return input_channels(plane, self.scales, self.latents, self.width)

    def check(self) -> None:
        """Refuse what the kernels cannot run.

        Raises
        ------
        CorruptChunkError
            If a number is out of range.
        """
        n, width = self.detector[0] * self.detector[1], self.width
        if not (1 <= self.level_scale < 1 << 48) or self.levels.shape != (n,) or self.constants.shape != (n,):
            raise CorruptChunkError("impossible network: levels")
        highest = int(self.levels.max(initial=0))
        if int(self.levels.min(initial=0)) < -1 or highest * highest * self.level_scale >= 1 << 51:
            raise CorruptChunkError("impossible network: levels")
        if (self.constants < 0).any() or (self.constants > 65535).any():
            raise CorruptChunkError("impossible network: constant pixels")
        if not (1 <= self.gain <= MOST_GAIN and 1 <= self.level_gain <= MOST_GAIN and 0 <= self.level_offset <= 32767):
            raise CorruptChunkError("impossible network: gains")
        if not 2 <= self.latents <= MAX_LATENTS or self.latents % 2 or not 1 <= self.scales <= MAX_SCALES:
            raise CorruptChunkError("impossible network: latents")
        if not 4 <= width <= MAX_WIDTH or width % 4 or len(self.predictors) != self.scales + 1:
            raise CorruptChunkError("impossible network: hidden units")
        for plane, stack in enumerate(self.predictors):
            _check_stack(stack, self.inputs(plane), width, SUBPIXELS * self.channels(plane) * OUTPUTS)
        for stack in self.encoders:
            _check_stack(stack, 2 * SUBPIXELS, width, self.latents)


def _check_stack(stack: Stack, inputs: int, width: int, outputs: int) -> None:
    shapes = ((width, TAPS * inputs), (width, TAPS * width), (outputs, width))
    for layer, shape in zip(stack.layers, shapes, strict=True):
        if layer.weights.shape != shape or layer.bias.shape != shape[:1] or not 0 <= layer.shift <= MOST_SHIFT:
            raise CorruptChunkError("impossible network: layers")
        if np.abs(layer.weights).max(initial=0) > 32767 or np.abs(layer.bias).max(initial=0) > (1 << 31) - 1:
            raise CorruptChunkError("impossible network: weights")


def half(size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the grid that is half as fine; the last one may reach beyond the edge."""
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def plane_sizes(detector: tuple[int, int], scales: int) -> list[tuple[int, int]]:
    """Rows and columns of the planes, and of the grid that predicts the last one."""
    sizes = [detector]
    for _ in range(scales + 1):
        sizes.append(half(sizes[-1]))
    return sizes


def input_channels(plane: int, scales: int, latents: int, width: int) -> int:
    """Inputs of the predictor of a plane: the levels below it, and but for the last one latents and features."""
    return SUBPIXELS + (latents + width if plane < scales else 0)
