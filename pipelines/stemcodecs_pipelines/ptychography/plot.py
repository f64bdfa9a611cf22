"""A picture of a reconstruction: phase and amplitude with a scale bar, the probe, and the error."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.ptychography.reconstruction import Reconstruction

__all__ = ["draw_reconstruction", "level_phase", "show_image"]

Array = np.ndarray[Any, Any]


def draw_reconstruction(result: Reconstruction, out: str | os.PathLike[str]) -> None:
    """Write a picture.

    Raises
    ------
    ConfigurationError
        matplotlib is not installed.
    """
    figure = new_figure((12, 8.5))
    axes: Any = figure.subplot_mosaic(
        [["phase", "phase", "amplitude", "amplitude"], ["probe", "far", "error", "error"]], height_ratios=(2, 1)
    )
    window = seen(result.covered)
    phase = level_phase(result.object, result.covered)[window]
    show_image(axes["phase"], phase, result.pixel_size, "phase of the object, rad", result.covered[window])
    modulus = np.abs(result.object)[window]
    show_image(axes["amplitude"], modulus, result.pixel_size, "amplitude of the object", result.covered[window])
    first = result.probe[0]
    show_image(axes["probe"], np.abs(first), result.pixel_size, f"probe, {result.probe_shares[0]:.0%} of its energy")
    far = np.abs(np.fft.fftshift(np.fft.fft2(first, norm="ortho")))
    show_image(axes["far"], far, None, "its aperture")
    axes["error"].semilogy(np.arange(1, len(result.errors) + 1), result.errors, "o-", ms=3)
    axes["error"].set_xlabel("iteration")
    axes["error"].set_title(f"amplitude error, {result.error:.4f} in the end", fontsize=9)
    figure.suptitle(result.method, fontsize=9)
    figure.savefig(out, dpi=120)


def new_figure(size: tuple[float, float]) -> Any:
    """An empty figure that needs no display.

    Raises
    ------
    ConfigurationError
        matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigurationError("drawing needs matplotlib; install it with: pip install 'stemcodecs[plot]'") from None
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def show_image(axis: Any, image: Array, pixel_size: float | None, title: str, covered: Array | None = None) -> None:
    """Show an image in gray with its colour bar, and a scale bar where the pixel is known.

    What was not seen is blank.
    """
    low, high = np.quantile(image if covered is None else image[covered], (0.005, 0.995))
    seen_only = image if covered is None else np.where(covered, image, np.nan)
    shown = axis.imshow(seen_only, cmap="gray", vmin=low, vmax=max(high, low + 1e-6))
    axis.figure.colorbar(shown, ax=axis, shrink=0.8)
    axis.set_title(title, fontsize=9)
    axis.set_axis_off()
    if pixel_size is not None:
        length = round_length(0.25 * image.shape[1] * pixel_size)
        y, x = 0.95 * image.shape[0], 0.05 * image.shape[1]
        style = {"color": "white", "path_effects": _outline()}
        axis.plot([x, x + length / pixel_size], [y, y], lw=3, solid_capstyle="butt", **style)
        axis.text(x, 0.98 * y, spell_length(length), va="bottom", fontsize=8, **style)


def _outline() -> list[Any]:
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=4, foreground="black")]


def seen(covered: Array) -> tuple[slice, slice]:
    """The smallest rectangle in which everything lies that was seen."""
    rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def level_phase(image: Array, covered: Array) -> Array:
    """Phase of an object without its mean slope and offset, which say nothing; rad, in (−π, π]."""
    steps = []
    for axis in (0, 1):
        first, second = (np.moveaxis(a, axis, 0) for a in (image, covered))
        both = second[1:] & second[:-1]
        steps.append(np.angle((first[1:] * np.conj(first[:-1]))[both].sum()))
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    level = image * np.exp(-1j * (steps[0] * y + steps[1] * x))
    return np.asarray(np.angle(level * np.exp(-1j * np.angle(level[covered].sum()))))


def round_length(metres: float) -> float:
    """The largest of 1, 2, 5 × 10ⁿ that is not above a length."""
    power = 10.0 ** math.floor(math.log10(metres))
    return next(step * power for step in (5, 2, 1) if step * power <= metres * (1 + 1e-9))


def spell_length(metres: float) -> str:
    """A length in the unit that suits it."""
    for unit, name in ((1e-3, "mm"), (1e-6, "µm"), (1e-9, "nm"), (1e-10, "Å")):
        if metres >= unit * (1 - 1e-9):
            return f"{metres / unit:.3g} {name}"
    return f"{metres / 1e-12:.3g} pm"
