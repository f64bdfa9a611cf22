"""What a sample tells once every pixel and every pattern has been freed of its own offset: shifts, and direction.

Counts spread further above their median than below. Where values spread further below, they count backwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.entropy.values.median_kernels import lower_medians

__all__ = ["Residuals", "median_residuals", "pattern_shifts"]

Array = np.ndarray[Any, Any]

_ROUNDS = 3
_QUIET_PIXELS = 512
"""Pixels whose medians tell the shift of a pattern: those that vary least, which are the dimmest."""
_SAME = 0.4
_ALIKE = 0.9
"""Share of the patterns with the same shift from which there is none."""
_WIDEST = 6.0
"""Standard deviations of their pixel beyond which values are outliers, not the shape of a distribution."""


@dataclass(frozen=True)
class Residuals:
    """A sample without the offsets of its pixels and patterns.

    Attributes
    ----------
    values : int64[k, n]
        What is left.
    pixels : int64[n]
        Medians of the pixels.
    patterns : int64[k]
        Medians of the patterns above these.
    """

    values: Array
    pixels: Array
    patterns: Array

    def skewness(self) -> tuple[float, float]:
        """Third moment over the 3/2th power of the second, and about how large it is by chance."""
        real = self.values - self.values.mean(axis=0)
        deviation = np.sqrt((real * real).mean(axis=0))
        real = real[:, deviation > 0] / float(np.sqrt((deviation * deviation).mean()) or 1.0)
        # A single value far off would say more than all the others.
        real = real[:, np.abs(real).max(axis=0, initial=0) < _WIDEST * max(1.0, float(deviation.max(initial=0)))]
        if real.size == 0:
            return 0.0, 1.0
        second, third = float((real * real).mean()), float((real * real * real).mean())
        return third / max(second, 1e-30) ** 1.5, float(np.sqrt(15.0 / real.size))


def median_residuals(some: Array) -> Residuals:
    """Take the medians of pixels and patterns off some values int64[k, n], in turn (Tukey's median polish)."""
    left = some.astype(np.int64)
    pixels, patterns = np.zeros(left.shape[1], np.int64), np.zeros(left.shape[0], np.int64)
    for _ in range(_ROUNDS):
        of_pixels = _medians(left, axis=0)
        left -= of_pixels
        of_patterns = _medians(left, axis=1)
        left -= of_patterns[:, None]
        pixels, patterns = pixels + of_pixels, patterns + of_patterns
        if not of_patterns.any():
            break
    return Residuals(left, pixels, patterns)


def pattern_shifts(values: Array, chosen: Array, residuals: Residuals) -> tuple[Array | None, bool]:
    """Offset of every pattern of integers[n_positions, n_pixels], int64, or None if all have the same.

    The second value: whether it is certain that they are offsets, and not doses.

    chosen : int64[n], pixels that the residuals are of.
    """
    if float((residuals.patterns == _medians(residuals.patterns[None], axis=1)).mean()) > _ALIKE:
        return None, True
    # Doses change what bright pixels have; dark ones have their offset.
    noise = np.abs(residuals.values).mean(axis=0)
    quiet = np.sort(np.argsort(noise, kind="stable")[:_QUIET_PIXELS])
    # Numbers of 32 bits are parted in half the time.
    left = values.take(chosen[quiet], axis=1).astype(np.int32 if values.dtype.itemsize <= 2 else np.int64)
    # Differences of a pixel's counts are as often positive as negative, and 0 oftener than any: their median is exact.
    left = left - left[len(left) // 2]
    shift = _medians(left, axis=1)
    common = _medians(shift[None], axis=1)[0]
    if float((shift == common).mean()) > _ALIKE:
        return None, True
    # The very same difference in many pixels is no accident of bright ones.
    return (shift - common).astype(np.int64), float((left == shift[:, None]).mean()) > _SAME


def _medians(values: Array, axis: int) -> Array:
    """Lower medians: integers stay what they are."""
    rows = np.ascontiguousarray(values if axis == 1 else values.T)
    out = np.empty(len(rows), values.dtype)
    lower_medians(rows, out)
    return out
