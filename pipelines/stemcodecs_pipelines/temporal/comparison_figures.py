"""Pictures of a comparison of movies, as in TCS-DL: frames with their Fourier transforms, and quality over B."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stemcodecs.errors import ConfigurationError

__all__ = ["draw_frames", "draw_quality"]

Array = np.ndarray[Any, Any]


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigurationError("drawing needs matplotlib; install it with: pip install 'stemcodecs[plot]'") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def spectrum(frame: Array) -> Array:
    """Logarithm of the power of a frame's Fourier transform, its middle in the middle; float64 (y, x).

    A Hann window keeps the edges of the frame from crossing it.
    """
    window = np.outer(np.hanning(frame.shape[0]), np.hanning(frame.shape[1]))
    power = np.abs(np.fft.fftshift(np.fft.fft2((frame - frame.mean()) * window))) ** 2
    out: Array = np.log10(power + 1e-9 * max(float(power.max()), 1e-300))
    return out


def draw_frames(movies: Mapping[str, Array], times: Sequence[int], path: Path) -> Path:
    """A row for each movie: some of its frames, and the Fourier transform of the first of these (its Figure 3).

    Parameters
    ----------
    movies : mapping of str to ndarray
        (time, y, x), all of one shape; the first one sets the scale of grey.
    times : sequence of int
        Frames that are shown.
    path : Path
        Picture that is written.

    Raises
    ------
    ConfigurationError
        matplotlib is not installed.
    """
    columns = len(times) + 1
    figure = _figure(1.9 * columns, 2.0 * len(movies))
    axes = figure.subplots(len(movies), columns, squeeze=False)
    first = next(iter(movies.values()))
    low, high = np.percentile(first, (0.5, 99.5))
    power = spectrum(first[times[0]])
    for row, (name, frames) in zip(axes, movies.items(), strict=True):
        for place, t in zip(row, times, strict=False):
            place.imshow(frames[t], cmap="gray", vmin=low, vmax=high)
        row[-1].imshow(
            spectrum(frames[times[0]].astype(np.float64)), cmap="magma", vmin=power.max() - 5, vmax=power.max()
        )
        row[0].set_ylabel(name, fontsize=9)
        for place in row:
            place.set_xticks([])
            place.set_yticks([])
    for place, title in zip(axes[0], [*(f"frame {t}" for t in times), f"transform of frame {times[0]}"], strict=True):
        place.set_title(title, fontsize=9)
    figure.savefig(path, dpi=130)
    return path


def draw_quality(curves: Mapping[str, Mapping[int, tuple[float, float]]], path: Path) -> Path:
    """PSNR and SSIM over the frames B of a measurement (its Figure 5).

    Parameters
    ----------
    curves : mapping
        By name, for each B: PSNR in dB, and SSIM.
    path : Path
        Picture that is written.

    Raises
    ------
    ConfigurationError
        matplotlib is not installed.
    """
    figure = _figure(9, 3.6)
    axes = figure.subplots(1, 2)
    for name, points in curves.items():
        at = sorted(points)
        for number, place in enumerate(axes):
            place.plot(at, [points[b][number] for b in at], "o-", label=name, markersize=4)
    for place, label in zip(axes, ("PSNR (dB)", "SSIM"), strict=True):
        place.set_xlabel("frames B of a measurement")
        place.set_ylabel(label)
        place.set_xticks(sorted({b for points in curves.values() for b in points}))
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=130)
    return path
