"""How well a few measurements of a movie give its frames: what the method chooses by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from stemcodecs.codecs.tcs import Tcs
from stemcodecs.readers.scan import Scan

__all__ = ["noise_step", "samples_of", "squared_distance", "step_scale"]

Array = np.ndarray[Any, Any]

SAMPLES = 3
"""Measurements of the movie that are tried."""
ADDED = 0.5
"""Noise that is added before measuring, in standard deviations of the movie's own."""
BLOCK = 8
"""Rows and columns over which the noise is taken to be alike."""


def samples_of(scan: Scan, frames: int) -> list[Array]:
    """Measurements from the beginning, the middle and the end of a movie: (time, y, x) each."""
    length = scan.shape[-3]
    starts = sorted({max(0, round(i * (length - frames) / (SAMPLES - 1))) for i in range(SAMPLES)})
    first = tuple(slice(n // 2, n // 2 + 1) for n in scan.shape[:-3])
    whole = tuple(slice(0, n) for n in scan.shape[-2:])
    return [
        scan.read((*first, slice(t, min(t + frames, length)), *whole)).reshape(-1, *scan.shape[-2:]) for t in starts
    ]


def noise_step(samples: list[Array]) -> int:
    """Noise of a frame by the differences of consecutive ones, of which motion is a part: at least 1."""
    squares = [np.square(np.diff(s.astype(np.float32), axis=0)).mean() / 2 for s in samples if len(s) > 1]
    return max(1, int(np.sqrt(min(squares, default=0.0))))


def step_scale(codec: Tcs) -> int:
    """How much noisier a sum is than a value: the root of how many it sums."""
    opened = codec.sampling.opened((codec.space_bins * 4, codec.space_bins * 4))
    return max(1, int(opened.mean() ** 0.5))


def squared_distance(codec: Tcs, samples: list[Array]) -> float:
    """Mean squared distance of decoded frames from the frames without noise, about: an estimate, which may be negative.

    A decoder that hands the noise of the frames on would look best beside the noisy frames themselves. So noise n is
    added to what is measured, and n / `ADDED` ² taken off what it is compared with: the noise of both is then
    independent, and adds the same to the distance of every codec (recorrupted-to-recorrupted, Pang et al. 2021,
    doi:10.1109/CVPR46437.2021.00208).

    Parameters
    ----------
    codec : Tcs
        What is tried; frames are measured whether they are alike or not.
    samples : list of ndarray
        See `samples_of`.
    """
    measured = replace(codec, incoherent="measured")
    found = []
    for number, sample in enumerate(samples):
        variance = _variance(sample)
        # The same noise for every codec, so that chance decides nothing between them.
        noise = np.random.default_rng(number).normal(size=sample.shape) * np.sqrt(variance) * ADDED
        limits = np.iinfo(sample.dtype)
        noisier = np.clip(np.rint(sample + noise), limits.min, limits.max).astype(sample.dtype)
        frames = measured.decode_chunk(measured.encode_chunk(noisier))
        apart = np.square(frames - (sample - noise / ADDED**2)).mean()
        found.append(apart - variance.mean() * (1 + 1 / ADDED**2))
    return float(np.mean(found))


def _variance(sample: Array) -> Array:
    """Noise of each pixel, from the differences of consecutive frames around it: float64 (y, x)."""
    height, width = sample.shape[1:]
    if len(sample) < 2:
        return np.zeros((height, width))
    squares = np.square(np.diff(sample.astype(np.float64), axis=0)).mean(axis=0) / 2
    padded = np.pad(squares, ((0, -height % BLOCK), (0, -width % BLOCK)), mode="edge")
    means = padded.reshape(padded.shape[0] // BLOCK, BLOCK, -1, BLOCK).mean(axis=(1, 3))
    return np.repeat(np.repeat(means, BLOCK, axis=0), BLOCK, axis=1)[:height, :width]
