"""From a measurement back to frames: GAP-TV, interpolation of bins, or a network."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.temporal.gap_tv import add_missing_binned, add_missing_masked, denoise
from stemcodecs.temporal.interpolate import between_bins
from stemcodecs.temporal.sampling import Sampling

__all__ = ["gap_tv_frames", "interpolated_frames"]

Array = np.ndarray[Any, Any]

ROUNDS, INNER = 40, 3
"""Projections, and denoising steps after each."""
SMOOTH, TIME = 0.06, 3.0
"""Weight of the total variation, in standard deviations of a measurement, and how much more a change in time counts
than one in space: best over simulated movies."""


def interpolated_frames(total: Array, sampling: Sampling, shape: tuple[int, int]) -> Array:
    """Frames between the means of space–time bins: float32 (B, y, x).

    Parameters
    ----------
    total : ndarray
        Sums, (planes, y, x).
    sampling : Sampling
        How they were measured: bins.
    shape : tuple of int
        Of a frame.
    """
    means = (total / sampling.opened(shape)).astype(np.float32)
    return between_bins(means, sampling.bin_edges, sampling.space_bins, shape)


def gap_tv_frames(total: Array, sampling: Sampling, shape: tuple[int, int]) -> Array:
    """Frames that are smooth in space and time and would have been measured so, about: float32 (B, y, x).

    Parameters
    ----------
    total : ndarray
        Sums, (planes, y, x).
    sampling : Sampling
        How they were measured.
    shape : tuple of int
        Of a frame.
    """
    opened = sampling.opened(shape)
    mean = (total / np.maximum(opened, 1)).astype(np.float32)
    weight = SMOOTH * max(float(mean.std(dtype=np.float64)), 1e-6)
    bins = sampling.measurement == "bins"
    if bins:
        frames = between_bins(mean, sampling.bin_edges, sampling.space_bins, shape)
    else:
        frames = np.repeat(mean, sampling.frames, axis=0)
    projected, dual = frames.copy(), np.zeros((3, *frames.shape), np.float32)
    for _ in range(ROUNDS):
        projected[:] = frames
        if bins:
            add_missing_binned(projected, sampling.bin_edges, sampling.space_bins, mean, opened)
        else:
            add_missing_masked(projected, sampling.masks(shape), mean[0], opened[0])
        denoise(projected, dual, weight, TIME, INNER, frames)
    return frames
