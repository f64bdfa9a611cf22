"""Arrays as small PNG pictures in data URIs, with the words that describe them."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "Picture",
    "Scale",
    "averaged",
    "bar_of",
    "known",
    "logarithmic_to",
    "picture",
    "side_within",
    "symmetric_to",
]

Image = np.ndarray[Any, Any]

_LEVELS = 255
"""Colours of a picture; the last of 256 is for what is not a number."""
_NOT_A_NUMBER = (128, 128, 128)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How values become colours.

    Attributes
    ----------
    colours : str
        Name of a colour map of matplotlib.
    low, high : float
        Values at its ends; what lies beyond has the colour of the end.
    logarithmic : bool
        Whether colours follow log(1 + value).
    """

    colours: str
    low: float
    high: float
    logarithmic: bool = False

    def position(self, values: Image) -> Image:
        """Where values lie between the ends, 0 to 1; not a number where they are none."""
        low, high = self.low, self.high
        values = np.asarray(values, np.float64)
        if self.logarithmic:
            # Marks and dark-corrected counts may be negative: they have the colour of the end.
            values, low, high = np.log1p(np.maximum(values, 0)), math.log1p(low), math.log1p(high)
        return np.clip((values - low) / ((high - low) or 1.0), 0, 1)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG for the page.

    Attributes
    ----------
    uri : str
        ``data:image/png;base64,…``.
    width, height : int
        In pixels of the file.
    """

    uri: str
    width: int
    height: int

    @property
    def coarse(self) -> bool:
        """Whether its pixels are to be seen as squares when it is shown larger."""
        return max(self.width, self.height) <= 160


def picture(values: Image, scale: Scale) -> Picture:
    """Draw an array of shape (y, x): one pixel a value."""
    position = scale.position(values)
    index = np.where(np.isfinite(position), np.rint(np.nan_to_num(position) * (_LEVELS - 1)), _LEVELS)
    return _png(index.astype(np.uint8), scale.colours)


def bar_of(scale: Scale) -> Picture:
    """The colours of a scale from its lower to its upper end, to be stretched to a bar."""
    return _png(np.arange(_LEVELS, dtype=np.uint8)[np.newaxis], scale.colours)


def _png(index: Image, colours: str) -> Picture:
    import matplotlib
    from PIL import Image as PillowImage

    table = matplotlib.colormaps[colours](np.linspace(0, 1, _LEVELS), bytes=True)[:, :3]
    image = PillowImage.fromarray(index)
    image.putpalette([*table.reshape(-1).tolist(), *_NOT_A_NUMBER])
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    text = base64.b64encode(file.getvalue()).decode("ascii")
    return Picture(uri=f"data:image/png;base64,{text}", width=index.shape[1], height=index.shape[0])


def known(values: Image) -> Image:
    """The finite values of an array, float64; a single one that is not a number where there are none."""
    values = np.asarray(values, np.float64)
    finite = values[np.isfinite(values)]
    return finite if finite.size else np.array([np.nan])


def logarithmic_to(values: Image, colours: str) -> Scale:
    """A scale of counts from 0 to their largest, logarithmic where a linear one would show the brightest only."""
    seen = np.maximum(known(values), 0)
    return Scale(colours=colours, low=0.0, high=float(seen.max()), logarithmic=bool(seen.max() > 8 * seen.mean()))


def symmetric_to(largest: float, colours: str = "RdBu_r") -> Scale:
    """A scale from −`largest` to `largest`, white at 0."""
    return Scale(colours=colours, low=-largest, high=largest)


def side_within(shapes: Sequence[tuple[int, ...]], pixels: int, most: int = 256) -> int:
    """The longest side of pictures, each cut or averaged to it, that together have at most some number of pixels."""
    side = most
    while side > 16 and sum(math.prod(min(length, side) for length in shape) for shape in shapes) > pixels:
        side -= 8
    return side


def averaged(values: Image, side: int) -> tuple[Image, int]:
    """An array whose sides are at most `side`, by means over squares, and the side of these.

    Means leave out what is not a number; squares at the lower and right edge may be cut.
    """
    step = -(-max(values.shape) // side)
    if step == 1:
        return np.asarray(values, np.float64), 1
    starts = [np.arange(0, length, step) for length in values.shape]
    known = np.isfinite(values)

    def sums(array: Image) -> Image:
        return np.add.reduceat(np.add.reduceat(array, starts[0], axis=0), starts[1], axis=1)

    total, number = sums(np.where(known, values, 0).astype(np.float64)), sums(known.astype(np.float64))
    return np.where(number > 0, total / np.maximum(number, 1), np.nan), step
