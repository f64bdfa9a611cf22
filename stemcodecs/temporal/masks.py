"""Binary masks of temporal compressive sensing, from a seed by integer arithmetic alone (``FORMAT.md``).

``random``: every pixel of every frame is open with a probability of one half, as in the literature (Llull et al. 2013,
doi:10.1364/OE.21.010526). ``tiled``: a tile of 4 × 4 pixels repeats over the frame; every pixel is open in half of the
frames, and every frame opens nearly half of the tile, so that a network meets the same few masks everywhere.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

__all__ = ["TILE", "mask_of", "mixed"]

Array = np.ndarray[Any, Any]

TILE = 4
"""Rows and columns after which a tiled mask repeats."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def mixed(seed: int, count: int) -> Array:
    """Random 64-bit integers: outputs 0 … count − 1 of SplitMix64 with this seed.

    Steele, Lea and Flood 2014 (doi:10.1145/2660193.2660195): each follows from its number, so that any of them can be
    had alone, in any language.
    """
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * _FIRST
        z = (z ^ (z >> np.uint64(27))) * _SECOND
        out: Array = z ^ (z >> np.uint64(31))
    return out


@lru_cache(maxsize=8)
def mask_of(kind: str, frames: int, seed: int, shape: tuple[int, int]) -> Array:
    """Masks of one measurement.

    Parameters
    ----------
    kind : {"random", "tiled"}
        See above.
    frames : int
        Frames B of a measurement.
    seed : int
        From 0 to 2⁶⁴ − 1.
    shape : tuple of int
        Rows and columns of a frame.

    Returns
    -------
    ndarray of uint8
        0 and 1, (frames, rows, columns), read-only: the same array is handed out again.
    """
    height, width = shape
    if kind == "random":
        masks = (mixed(seed, frames * height * width) >> np.uint64(63)).astype(np.uint8).reshape(frames, height, width)
    else:
        repeats = (1, -(-height // TILE), -(-width // TILE))
        masks = np.ascontiguousarray(np.tile(_tile(frames, seed), repeats)[:, :height, :width])
    masks.flags.writeable = False
    return masks


def _tile(frames: int, seed: int) -> Array:
    """Balanced tile: uint8 (frames, TILE, TILE)."""
    draws = mixed(seed, TILE * TILE * frames).reshape(TILE * TILE, frames)
    tile = np.zeros((frames, TILE * TILE), np.uint8)
    opened = np.zeros(frames, np.int64)
    for place in range(TILE * TILE):
        # The frames that are open least so far; of those, the smallest random numbers.
        chosen = np.lexsort((draws[place], opened))[: max(1, frames // 2)]
        tile[chosen, place] = 1
        opened[chosen] += 1
    return tile.reshape(frames, TILE, TILE)
