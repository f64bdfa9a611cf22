"""Whether frames change little enough to share a measurement.

What two frames differ by is noise and what was replaced between them; over twice the contrast of a frame, the second is
1 where nothing is left of the image. Noise is taken from the two consecutive frames that differ least: that finds scene
cuts and steady motion. Where every frame is another image, no two are alike, but sums over 2 × 2 pixels differ by more
than white noise would let them. Some rows of a frame tell, so that it costs little beside
a camera.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from stemcodecs.compiled import kernel

__all__ = ["MOST_REPLACED", "replaced"]

Array = np.ndarray[Any, Any]

MOST_REPLACED = 0.6
"""Of the contrast of a frame: from here on a measurement would mix two images. Two unrelated frames have about 1."""
_PAIRS = 32
"""Pairs of rows that are looked at, evenly spread: a large frame tells no more than a small one."""
_LEAST_CONTRAST, _DEVIATIONS = 0.05, 6.0
"""Relative to the noise, and in standard deviations of its estimate: frames with less contrast have nothing that a
measurement could mix."""


@kernel
def _difference(one: Array, other: Array, step: int) -> tuple[float, float]:
    """Mean squared difference of pixels, and of sums over 2 × 2 pixels."""
    # Whole numbers, which the compiler may add up in any order: many at once.
    pixels, blocks, count = np.int64(0), np.int64(0), 0
    half = one.shape[1] // 2
    for y in range(0, one.shape[0] - 1, step):
        above, below, other_above, other_below = one[y], one[y + 1], other[y], other[y + 1]
        for x in range(half):
            a = np.int64(above[2 * x]) - np.int64(other_above[2 * x])
            b = np.int64(above[2 * x + 1]) - np.int64(other_above[2 * x + 1])
            c = np.int64(below[2 * x]) - np.int64(other_below[2 * x])
            d = np.int64(below[2 * x + 1]) - np.int64(other_below[2 * x + 1])
            pixels += a * a + b * b + c * c + d * d
            blocks += (a + b + c + d) * (a + b + c + d)
        count += half
    return pixels / (4 * count), blocks / count


@kernel
def _contrast(frame: Array, step: int) -> tuple[float, float]:
    """Variance of pixels, and of sums over 2 × 2 pixels."""
    total, squares, blocks, count = np.int64(0), np.int64(0), np.int64(0), 0
    half = frame.shape[1] // 2
    for y in range(0, frame.shape[0] - 1, step):
        above, below = frame[y], frame[y + 1]
        for x in range(half):
            a, b = np.int64(above[2 * x]), np.int64(above[2 * x + 1])
            c, d = np.int64(below[2 * x]), np.int64(below[2 * x + 1])
            squares += a * a + b * b + c * c + d * d
            total += a + b + c + d
            blocks += (a + b + c + d) * (a + b + c + d)
        count += half
    mean = total / count
    return squares / (4 * count) - mean * mean / 16, blocks / count - mean * mean


def replaced(frames: Array, edges: Array | None = None) -> float:
    """Largest share of the contrast that is replaced between two frames of a measurement: 0 to about 1.

    Parameters
    ----------
    frames : ndarray of uint8 or uint16
        (time, y, x), of one measurement.
    edges : ndarray of int64, optional
        First frame of each time bin, and one behind the last. Frames that are not consecutive are then compared within
        a bin only, so that bins take faster motion than masks.
    """
    n, height, width = frames.shape
    if n < 2 or height < 2 or width < 2:
        return 0.0
    step = max(2, height // _PAIRS)
    half = max(1, n // 2)
    if edges is None or len(edges) == 2:
        far = [(b, b + half) for b in range(0, n - half, max(1, half // 2))]
    else:
        far = [(int(a), int(b) - 1) for a, b in pairwise(edges) if a + 2 <= b - 1 < n]
    next_to = [_difference(frames[b], frames[b + 1], step) for b in range(n - 1)]
    apart = [_difference(frames[one], frames[other], step) for one, other in far]
    noise = min(pixels for pixels, _ in next_to)
    found = [_contrast(frames[b], step) for b in {0, half, n - 1}]
    contrast = max(pixels for pixels, _ in found) - noise / 2
    of_blocks = max(blocks for _, blocks in found) - 2 * noise
    seen = 2 * len(range(0, height - 1, step)) * width
    least = noise * (_LEAST_CONTRAST + _DEVIATIONS / np.sqrt(seen))
    if contrast <= least:
        return 0.0
    worst = max(pixels - noise for pixels, _ in next_to + apart) / (2 * contrast)
    if of_blocks > 4 * least:
        worst = max(worst, max(blocks - 4 * pixels for pixels, blocks in next_to + apart) / (2 * of_blocks))
    return float(worst)
