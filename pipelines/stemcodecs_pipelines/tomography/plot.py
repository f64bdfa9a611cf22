"""A picture of densities: a section of every element with a scale bar, and how well the counts are fitted."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.tomography.volume import Volume

__all__ = ["draw_densities", "draw_sections"]

Array = np.ndarray[Any, Any]

_BAR_SHARE = 0.3


def draw_densities(volume: Volume, out: str | os.PathLike[str], row: int | None = None) -> None:
    """Draw one section of each element, and the deviance of every epoch.

    Parameters
    ----------
    volume : Volume
        From `open_volume`.
    out : path
        Picture to write.
    row : int, optional
        Which section; default: the middle one.

    Raises
    ------
    ConfigurationError
        matplotlib is not installed.
    """
    row = volume.rows // 2 if row is None else row
    sections = {symbol: volume.section(symbol, row) for symbol in volume.elements}
    draw_sections({f"row {row}": sections}, volume.step, out, volume.deviance)


def draw_sections(
    rows: dict[str, dict[str, Array]], step: float, out: str | os.PathLike[str], deviance: Array | None = None
) -> None:
    """Draw sections as a table: a row for each name, a column for each element, equal grey levels in a column.

    Parameters
    ----------
    rows : dict of dict of ndarray, (x, z)
        Densities in g/cm³ by name and element.
    step : float
        Edge of a voxel, µm.
    out : path
        Picture to write.
    deviance : ndarray, optional
        Of every epoch; drawn beside the first row.

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
    elements = list(next(iter(rows.values())))
    columns = len(elements) + (deviance is not None)
    figure = Figure(figsize=(3.6 * columns, 3.2 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(len(rows), columns, squeeze=False)
    for column, symbol in enumerate(elements):
        largest = max(float(sections[symbol].max()) for sections in rows.values()) or 1.0
        for axis, (name, sections) in zip(axes[:, column], rows.items(), strict=True):
            # The beam of the first angle runs upwards, the detector stands on the right.
            shown = axis.imshow(sections[symbol].T, origin="lower", cmap="inferno", vmin=0, vmax=largest)
            axis.set_title(f"{symbol}, {name}", fontsize=9)
            axis.set_axis_off()
            _scale_bar(axis, len(sections[symbol]), step)
            figure.colorbar(shown, ax=axis, shrink=0.8, label="g/cm³")
    if deviance is not None:
        curve = axes[0, -1]
        curve.semilogy(np.arange(1, len(deviance) + 1), deviance, "o-", markersize=3)
        curve.axhline(1.0, color="grey", linestyle="--")
        curve.set_xlabel("epoch")
        curve.set_title("Poisson deviance per count", fontsize=9)
        for axis in axes[1:, -1]:
            axis.set_axis_off()
    figure.savefig(out, dpi=120)


def _scale_bar(axis: Any, pixels: int, step: float) -> None:
    length = _round_down(_BAR_SHARE * pixels * step)
    start, height = 0.05 * pixels, 0.06 * pixels
    axis.plot([start, start + length / step], [height, height], color="white", linewidth=3, solid_capstyle="butt")
    axis.text(start, height + 0.02 * pixels, f"{length:g} µm", color="white", fontsize=8, va="bottom")


def _round_down(length: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is not longer."""
    power = 10.0 ** np.floor(np.log10(length))
    return float(max(digit * power for digit in (1, 2, 5) if digit * power <= length))
