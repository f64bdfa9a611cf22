"""GAP-TV: alternating projection with a total-variation denoiser (Yuan 2016, doi:10.1109/ICIP.2016.7532817).

Each round projects the frames onto those that would have been measured so, then takes a few steps of Chambolle's dual
(2004, doi:10.1023/B:JMIV.0000011325.36760.1e) in space and time, continued from the round before.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.compiled import kernel

__all__ = ["add_missing_binned", "add_missing_masked", "denoise"]

Array = np.ndarray[Any, Any]


@kernel
def add_missing_masked(frames: Array, masks: Array, mean: Array, opened: Array) -> None:
    """Projection: float32 ``frames`` (B, y, x) whose masked means become ``mean`` (y, x)."""
    for y in range(mean.shape[0]):
        for x in range(mean.shape[1]):
            total = np.float32(0)
            for b in range(frames.shape[0]):
                if masks[b, y, x]:
                    total += frames[b, y, x]
            if opened[y, x]:
                missing = mean[y, x] - total / np.float32(opened[y, x])
                for b in range(frames.shape[0]):
                    if masks[b, y, x]:
                        frames[b, y, x] += missing


@kernel
def add_missing_binned(frames: Array, edges: Array, space: int, mean: Array, opened: Array) -> None:
    """Projection: float32 ``frames`` (B, y, x) whose bins get the means ``mean`` (bins, rows, columns)."""
    height, width = frames.shape[1], frames.shape[2]
    for t in range(mean.shape[0]):
        for i in range(mean.shape[1]):
            for j in range(mean.shape[2]):
                total = np.float32(0)
                for b in range(edges[t], edges[t + 1]):
                    for y in range(i * space, min(height, (i + 1) * space)):
                        for x in range(j * space, min(width, (j + 1) * space)):
                            total += frames[b, y, x]
                missing = mean[t, i, j] - total / np.float32(opened[t, i, j])
                for b in range(edges[t], edges[t + 1]):
                    for y in range(i * space, min(height, (i + 1) * space)):
                        for x in range(j * space, min(width, (j + 1) * space)):
                            frames[b, y, x] += missing


@kernel
def denoise(noisy: Array, dual: Array, weight: float, time: float, rounds: int, out: Array) -> None:
    """Total-variation denoising in space and time: float32 ``noisy`` (t, y, x) into ``out``.

    Changes from frame to frame count ``time`` times as much as those from pixel to pixel. ``dual`` float32 (3, t, y, x)
    is where the last call left off; zeros at first.
    """
    # The largest step of the dual that converges: 1/6 where time counts as much as space.
    step, pace = np.float32(0.5 / (2 + time * time)), np.float32(time)
    slope = step / np.float32(weight)
    nt, ny, nx = noisy.shape
    for turn in range(rounds + 1):
        for t in range(nt):
            for y in range(ny):
                for x in range(nx):
                    value = noisy[t, y, x] - pace * dual[0, t, y, x] - dual[1, t, y, x] - dual[2, t, y, x]
                    if t:
                        value += pace * dual[0, t - 1, y, x]
                    if y:
                        value += dual[1, t, y - 1, x]
                    if x:
                        value += dual[2, t, y, x - 1]
                    out[t, y, x] = value
        if turn == rounds:
            return
        for t in range(nt):
            for y in range(ny):
                for x in range(nx):
                    here = out[t, y, x]
                    gt = pace * (out[t + 1, y, x] - here) if t + 1 < nt else np.float32(0)
                    gy = out[t, y + 1, x] - here if y + 1 < ny else np.float32(0)
                    gx = out[t, y, x + 1] - here if x + 1 < nx else np.float32(0)
                    norm = np.float32(1) + slope * np.sqrt(gt * gt + gy * gy + gx * gx)
                    dual[0, t, y, x] = (dual[0, t, y, x] - step * gt) / norm
                    dual[1, t, y, x] = (dual[1, t, y, x] - step * gy) / norm
                    dual[2, t, y, x] = (dual[2, t, y, x] - step * gx) / norm
