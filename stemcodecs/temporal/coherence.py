"""Whether frames change little enough to share a measurement.

Of two frames, the difference of sums over 2 × 2 pixels has the variance of the noise and of what moved. The differences
of the single pixels give the noise alone, as far as it is white; the rest, over the contrast of a frame, says how much
of the image was replaced. A scene cut replaces all of it between two frames; motion too fast does so within half of a
measurement. Measured on every fourth pair of rows, so that it costs little beside a camera.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.compiled import kernel

__all__ = ["MOST_REPLACED", "replaced"]

Array = np.ndarray[Any, Any]

MOST_REPLACED = 0.7
"""Of the contrast of a frame: from here on a measurement would mix two images. Two unrelated frames have 1."""
_ROWS = 8
"""Of so many rows two are looked at."""


@kernel
def _moments(one: Array, other: Array, step: int) -> tuple[float, float, float, float, float]:
    """Sums over 2 × 2 blocks: of squared block differences, squared pixel differences, of block sums of ``one``, their
    squares; and the number of blocks."""
    blocks, pixels, total, squares, count = 0.0, 0.0, 0.0, 0.0, 0
    for y in range(0, one.shape[0] - 1, step):
        for x in range(0, one.shape[1] - 1, 2):
            change, block = 0, 0
            for j in range(2):
                for i in range(2):
                    a, b = np.int64(one[y + j, x + i]), np.int64(other[y + j, x + i])
                    change += a - b
                    block += a
                    pixels += (a - b) * (a - b)
            blocks += change * change
            total += block
            squares += block * block
            count += 1
    return blocks, pixels, total, squares, float(count)


def replaced(frames: Array) -> float:
    """Largest share of the contrast that is replaced between two frames of a measurement: 0 to about 1.

    Parameters
    ----------
    frames : ndarray of uint8 or uint16
        (time, y, x), of one measurement.
    """
    n, height, width = frames.shape
    if n < 2 or height < 2 or width < 2:
        return 0.0
    step = _ROWS if height >= 8 * _ROWS else 2
    half = max(1, n // 2)
    pairs = [(b, b + 1) for b in range(n - 1)] + [(b, b + half) for b in range(0, n - half, max(1, half // 2))]
    worst = 0.0
    for one, other in pairs:
        blocks, pixels, total, squares, count = _moments(frames[one], frames[other], step)
        # White noise: the squared difference of a sum of four is that of four pixels. What exceeds it has moved.
        moved = max(0.0, blocks - pixels) / count
        contrast = squares / count - (total / count) ** 2 - pixels / count / 2
        # Frames without contrast have nothing that a measurement could mix.
        noise = pixels / count / np.sqrt(count)
        if contrast > 4 * noise:
            worst = max(worst, moved / (2 * contrast))
    return worst
