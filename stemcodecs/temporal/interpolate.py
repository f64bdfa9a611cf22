"""Frames of space–time bins by interpolation: cubic in space (Keys 1981, doi:10.1109/TASSP.1981.1163711), linear in
time. Sums of four terms in a fixed order, so that the same bytes give the same frames on any number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["between_bins"]

Array = np.ndarray[Any, Any]


def _cubic(centres: Array, length: int) -> tuple[Array, Array]:
    """For each of ``length`` pixels, four samples and their weights, given the middle of each bin in pixels."""
    at = np.interp(np.arange(length), centres, np.arange(len(centres)))
    first = np.floor(at).astype(np.int64)
    f = at - first
    # Keys' kernel with a = −1/2; beyond the outermost bins their values go on.
    weights = np.stack(
        [
            ((-0.5 * f + 1) * f - 0.5) * f,
            (1.5 * f - 2.5) * f * f + 1,
            ((-1.5 * f + 2) * f + 0.5) * f,
            (0.5 * f - 0.5) * f * f,
        ]
    )
    index = np.clip(first + np.arange(-1, 3)[:, None], 0, len(centres) - 1)
    return index, weights.astype(np.float32)


def between_bins(means: Array, edges: Array, space: int, shape: tuple[int, int]) -> Array:
    """Frames whose bins have these means, about.

    Parameters
    ----------
    means : ndarray of float32
        Mean of each bin, (time bins, rows, columns).
    edges : ndarray of int64
        First frame of each time bin, and one behind the last.
    space : int
        Rows and columns of a bin.
    shape : tuple of int
        Of a frame.

    Returns
    -------
    ndarray of float32
        (frames, y, x).
    """
    planes = means
    for axis, length in enumerate(shape, 1):
        borders = np.append(np.arange(0, length, space), length)
        index, weights = _cubic((borders[:-1] + borders[1:] - 1) / 2, length)
        form = (-1, 1) if axis == 1 else (-1,)
        terms = [np.take(planes, i, axis=axis) * w.reshape(form) for i, w in zip(index, weights, strict=True)]
        planes = ((terms[0] + terms[1]) + terms[2]) + terms[3]
    centres = (edges[:-1] + edges[1:] - 1) / 2
    at = np.interp(np.arange(edges[-1]), centres, np.arange(len(centres)))
    before = np.floor(at).astype(np.int64)
    after = np.minimum(before + 1, len(centres) - 1)
    f = (at - before).astype(np.float32)[:, None, None]
    out: Array = planes[before] * (1 - f) + planes[after] * f
    return out
