"""Decide whether scan neighbours pay, and which tile of the scan a lane walks through."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stemcodecs.entropy.fit.grouped_counts import GroupedCounts
from stemcodecs.entropy.fit.static import fit_levels
from stemcodecs.entropy.fit.weights import FIRST_RING, SCAN, SECOND_RING, accumulate, context_classes, context_edges
from stemcodecs.entropy.kernels.rans import LANES
from stemcodecs.entropy.model.group_layout import GroupLayout
from stemcodecs.entropy.model.histogram_model import HistogramModel

__all__ = ["choose_layout", "typical_bits"]

Array = np.ndarray[Any, Any]

CHAIN = 16
"""Positions of a tile. One in sixteen does without scan neighbours; to read a pattern, eight are decoded on average."""
SCAN_GAIN = 0.01
"""Share of the bits that scan neighbours must save: they make it slower to read single patterns."""
_SAMPLED_VALUES = 2_000_000
"""Values that the gain is estimated from; of a large detector the brightest band of rows."""
_FEWEST = 512
"""Positions below which scan neighbours are not tried: too few lanes would be in use."""
_FEWEST_PIXELS = 64
FEWEST_TILES = 16
"""Tiles, each a lane, below which a chunk is too small for long chains."""


def choose_layout(plane: Array, layout: GroupLayout, mode: str) -> GroupLayout:
    """Layout of a chunk for a mode: chains where scan neighbours are wanted, or pay.

    plane : uint8 or uint16[n_positions, n_pixels]; layout : of single positions.
    """
    tile = _tile(layout.scan)
    if mode not in ("scan", "auto") or tile == (1, 1):
        return layout
    chained = GroupLayout(scan=layout.scan, detector=layout.detector, tile=tile)
    if mode == "scan":
        return chained
    if layout.n_positions < _FEWEST or layout.n_pixels < _FEWEST_PIXELS:
        return layout
    return chained if _gain(plane, layout, tile) > SCAN_GAIN else layout


def typical_bits(mean: Array) -> Array:
    """About what a Poisson count of a mean takes, in bits."""
    mean = np.maximum(mean, 1e-9)
    return np.where(mean < 0.2, mean * np.log2(math.e / mean), np.log2(1 + 4 * mean) / 2 + 0.3)


def _tile(scan: tuple[int, int]) -> tuple[int, int]:
    """Tile of at most sixteen positions, smaller where there would be few tiles: a lane without one is wasted."""
    chain = min(CHAIN, scan[0] * scan[1] // FEWEST_TILES)
    ty = max(1, min(math.isqrt(max(chain, 1)), scan[0]))
    tx = max(1, min(chain // ty, scan[1]))
    return max(1, min(chain // tx, scan[0])), tx


def _gain(plane: Array, layout: GroupLayout, tile: tuple[int, int]) -> float:
    """Estimated share of the bits that scan neighbours save, from some tiles and a band of the detector."""
    ty, tx = tile
    grid_y, grid_x = layout.scan[0] // ty, layout.scan[1] // tx
    n_tiles = min(LANES, grid_y * grid_x)
    # Whole tiles spread over the scan, put side by side as a scan of one column of tiles.
    chosen = np.linspace(0, grid_y * grid_x - 1, n_tiles).round().astype(np.int64)
    y, x = np.divmod(chosen, grid_x)
    dy, dx = np.divmod(np.arange(ty * tx), tx)
    positions = (y[:, None] * ty + dy) * layout.scan[1] + x[:, None] * tx + dx
    width = layout.detector[1]
    rows = int(np.clip(_SAMPLED_VALUES // (positions.size * width), 4, layout.detector[0]))
    # The brightest band: most bits are there, and so is most to save.
    image = plane[positions[:, 0]].sum(axis=0, dtype=np.int64).reshape(layout.detector)
    profile = np.concatenate([[0], np.cumsum(image.sum(axis=1))])
    first = int(np.argmax(profile[rows:] - profile[:-rows]))
    sample = plane[positions.ravel()[:, None], np.arange(first * width, (first + rows) * width)]
    mini = GroupLayout(scan=(n_tiles * ty, tx), detector=(rows, width), tile=tile)
    counts = GroupedCounts(np.ascontiguousarray(sample), mini, 4 * width)
    level_scale, levels, constants = fit_levels(counts.pixels, mini.detector)
    # All pixels are constant: there is nothing to save.
    if not (levels >= 0).any():
        return 0.0
    base = HistogramModel(
        detector=mini.detector, level_scale=level_scale, levels=levels, constants=constants, classes=(),
        neighbours=(), frequencies=np.zeros((0, 256), np.int32),
    )  # fmt: skip
    of = context_classes(base, context_edges(levels, level_scale))
    # One accumulation for both sets of neighbours: the solver picks the rows that it needs.
    ring = (*SCAN, *(n for n in SECOND_RING if n not in FIRST_RING))
    equations = accumulate(counts, base, of, ring)
    bits = typical_bits(base.means() / 2.0**16)[levels >= 0].mean()
    return equations.gain(SCAN, SECOND_RING) / max(float(bits), 1e-6)
