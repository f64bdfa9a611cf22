"""One network for a whole scan, from patterns spread over it; and whether it pays."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from stemcodecs.codecs import Learned, PixelHistogram
    from stemcodecs.learned.fit import NetworkOptions
    from stemcodecs.readers.scan import Region, Scan
    from stemcodecs_pipelines.methods.base import Learning

__all__ = ["fitted", "sample_values"]

Array = np.ndarray[Any, Any]

SAMPLE_BYTES = 128 << 20
FEWEST_PATTERNS, MOST_PATTERNS = 64, 2048
"""Patterns that a network is fitted to."""
BLOCK = 24
"""Scan positions along each side of the block that tells whether scan neighbours pay."""
LEAST_GAIN = 0.001
"""Share of the bytes that a network must save, its own included, to be worth its lower speed."""


def fitted(scan: Scan, alone: Learned, learning: Learning, *, try_chunks: bool) -> Learned | PixelHistogram:
    """The codec of a scan: with a network for all chunks; or what is better here, said to whoever learns.

    Parameters
    ----------
    scan : Scan
    alone : Learned
        Fits a network to every chunk, with the steps and the seed to use.
    learning : Learning
        Whom to tell.
    try_chunks : bool
        Whether a network a chunk may be chosen, where scan neighbours pay: chunks of a scan cannot share one that
        looks at them.

    Returns
    -------
    Learned or PixelHistogram
        The latter where the network gains less than it costs.
    """
    from stemcodecs.codecs import PixelHistogram
    from stemcodecs.entropy.chunk.encode import encode_array
    from stemcodecs.learned.encode import fit_patterns
    from stemcodecs.learned.fit import NetworkOptions

    if try_chunks and _scan_neighbours_pay(scan):
        learning.report("scan neighbours pay: a network in every chunk", 1, 1)
        return alone
    patterns = _sample(scan)
    text = f"fitting a network to {len(patterns)} of {math.prod(scan.shape[:-2])} patterns"
    learning.report(text, 0, 1)
    values = math.prod(scan.shape)
    options = NetworkOptions(
        steps=alone.steps, seed=alone.seed, progress=lambda done, total: learning.report(text, done, total)
    )
    found = fit_patterns(patterns, options, values)
    if found is None:
        learning.report("there is nothing for a network to learn: stored by pixel_histogram", 1, 1)
        return PixelHistogram()
    shared, bits = found
    if try_chunks and alone.arch == "auto" and _are_images(patterns, options, bits):
        learning.report("the patterns are images: a network for images in every chunk", 1, 1)
        return replace(alone, arch="images")
    configuration = shared.configuration()
    codec = replace(alone, model=configuration["model"], model_sha256=configuration["model_sha256"])
    share = patterns.size / values
    # Coded, not estimated: of few groups, the states of the coder and the headers weigh as much as a network may gain.
    by_network = len(codec.encode_chunk(patterns)) + share * 4 / 3 * len(shared.model)
    by_histograms = len(encode_array(patterns))
    gain = 1 - by_network / by_histograms
    if gain < LEAST_GAIN:
        learning.report(
            f"the network would gain {100 * gain:.1f} %, less than it costs: stored by pixel_histogram, as --method "
            "pixel_histogram does",
            1,
            1,
        )
        return PixelHistogram()
    learning.report(f"the network is estimated to save {100 * gain:.1f} % of what pixel_histogram takes", 1, 1)
    return codec


def _are_images(patterns: Array, options: NetworkOptions, bits: float) -> bool:
    """Whether a network for images needs less than so many bits a value, tried on images one by one."""
    from stemcodecs.entropy.model.group_layout import GroupLayout
    from stemcodecs.entropy.values.plane import to_plane
    from stemcodecs.learned.fit_images import FEWEST_ROWS, images_pay

    plane = to_plane(np.ascontiguousarray(patterns, patterns.dtype.newbyteorder("=")))
    if plane is None or patterns.shape[-2] < FEWEST_ROWS:
        return False
    layout = GroupLayout.of_shape(patterns.shape)
    counts = plane.counts.reshape(layout.n_positions, layout.n_pixels)
    return images_pay(counts, [layout], options, bits - plane.numbers.low_bits)


def sample_values(scan: Scan) -> int:
    """How many values a network is fitted to."""
    pattern = math.prod(scan.shape[-2:])
    wanted = int(np.clip(SAMPLE_BYTES // (scan.dtype.itemsize * pattern), FEWEST_PATTERNS, MOST_PATTERNS))
    return min(math.prod(scan.shape[:-2]), wanted) * pattern


def _sample(scan: Scan) -> Array:
    """Patterns at random positions: regular ones could follow a pattern of the scan."""
    n, wanted = math.prod(scan.shape[:-2]), sample_values(scan) // math.prod(scan.shape[-2:])
    if wanted == n:
        return scan.read(tuple(slice(0, size) for size in scan.shape)).reshape(-1, *scan.shape[-2:])
    positions = np.sort(np.random.default_rng(0).choice(n, wanted, replace=False, shuffle=False))
    return np.concatenate([scan.read(_pattern(int(p), scan.shape)).reshape(1, *scan.shape[-2:]) for p in positions])


def _pattern(position: int, shape: tuple[int, ...]) -> Region:
    at = np.unravel_index(position, shape[:-2]) if len(shape) > 2 else ()
    return (*(slice(int(i), int(i) + 1) for i in at), slice(0, shape[-2]), slice(0, shape[-1]))


def _scan_neighbours_pay(scan: Scan) -> bool:
    """Whether the histograms would take scan neighbours, on a block from the middle of the scan."""
    from stemcodecs.entropy.fit.tile import choose_layout
    from stemcodecs.entropy.model.group_layout import GroupLayout
    from stemcodecs.entropy.values.plane import to_plane

    sides = [BLOCK if axis >= len(scan.shape) - 4 else 1 for axis in range(len(scan.shape) - 2)]
    if len(sides) == 1:
        sides = [BLOCK * BLOCK]
    region = []
    for size, side in zip(scan.shape[:-2], sides, strict=True):
        side = min(size, side)
        region.append(slice((size - side) // 2, (size - side) // 2 + side))
    block = np.ascontiguousarray(scan.read((*region, *(slice(0, size) for size in scan.shape[-2:]))))
    plane = to_plane(block.astype(block.dtype.newbyteorder("="), copy=False))
    if plane is None or not sides:
        return False
    layout = GroupLayout.of_shape(block.shape)
    counts = plane.counts.reshape(layout.n_positions, layout.n_pixels)
    return choose_layout(counts, layout, "auto").tile != (1, 1)
