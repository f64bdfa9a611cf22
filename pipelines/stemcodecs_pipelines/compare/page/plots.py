"""Curves and points of the page: ratio against speed, errors, ring correlation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs_pipelines.compare.page.inline_svg import PAINTS, drawing, inline_svg

__all__ = ["RingCurve", "SpeedPoint", "draw_curve", "draw_errors", "draw_rings", "draw_speed", "front"]

Image = np.ndarray[Any, Any]

RingCurve = tuple[Image, Image, Image]
"""Spatial frequencies, correlation and threshold."""
MOST_RINGS = 120
"""Points of a ring correlation that are drawn."""


@dataclass(frozen=True, kw_only=True)
class SpeedPoint:
    """A point in the plane of ratio and speed: its number in the table, and whose it is."""

    number: int
    ratio: float
    speed: float
    ours: bool
    lossless: bool


def front(methods: Sequence[SpeedPoint]) -> list[SpeedPoint]:
    """Methods for which no other is both smaller and faster, from the slowest to the fastest."""
    best: list[SpeedPoint] = []
    for method in sorted(methods, key=lambda m: (-m.speed, -m.ratio, m.number)):
        if not best or method.ratio > best[-1].ratio:
            best.append(method)
    return best[::-1]


def draw_speed(methods: Sequence[SpeedPoint], name: str, label: str, axis: str) -> str:
    """Ratio against speed: a mark a method with its number, and the front of those that none surpasses."""
    with drawing(352, 300) as (figure, axes):
        edge = front(methods)
        axes.plot([m.speed for m in edge], [m.ratio for m in edge], color=PAINTS["muted"], lw=1.2, zorder=1)
        for method in methods:
            colour = PAINTS["accent" if method.ours else "other"]
            axes.plot(
                [method.speed],
                [method.ratio],
                marker="o" if method.ours else "s",
                ms=7 if method.ours else 6,
                mfc=colour if method.lossless else PAINTS["paper"],
                mec=colour,
                mew=1.6,
                ls="none",
                zorder=3 if method.ours else 2,
                clip_on=False,
            )
        _numbered(axes.set_xscale, axes.xaxis, [m.speed for m in methods])
        _numbered(axes.set_yscale, axes.yaxis, [m.ratio for m in methods])
        axes.margins(0.08, 0.1)
        axes.set_xlabel(axis)
        axes.set_ylabel("ratio")
        _write_numbers(axes, methods)
        return inline_svg(figure, name, label)


def _numbered(set_scale: Any, axis: Any, values: Sequence[float]) -> None:
    """Logarithmic where the largest value is far from the smallest; numbers in full, not as powers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    if max(values) < 8 * min(values):
        return
    set_scale("log")
    span = max(values) / min(values)
    # As many numbers as there is room for.
    between = (1.0, 2.0, 5.0) if span < 60 else (1.0, 3.0) if span < 2000 else (1.0,)
    axis.set_major_locator(LogLocator(subs=between))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))


def _write_numbers(axes: Any, methods: Sequence[SpeedPoint]) -> None:
    """Each number beside its mark where there is room; those of the fronts and of ours first."""
    axes.autoscale_view()
    on_front = {m.number for m in front(methods)}
    places = {m.number: axes.transData.transform((m.speed, m.ratio)) for m in methods}
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in places.values()]
    for method in sorted(methods, key=lambda m: (m.number not in on_front, not m.ours, m.number)):
        x, y = places[method.number]
        wide = 6.5 * len(str(method.number)) / 2
        for dx, dy in ((0, 11), (8 + wide, 6), (-8 - wide, 6), (0, -11), (9 + wide, -6), (-9 - wide, -6), (0, 19)):
            box = (x + dx - wide, y + dy - 5, x + dx + wide, y + dy + 5)
            if not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
                taken.append(box)
                axes.annotate(
                    str(method.number),
                    (method.speed, method.ratio),
                    (dx, dy),
                    textcoords="offset pixels",
                    ha="center",
                    va="center",
                    fontsize=10,
                    annotation_clip=False,
                )
                break


def draw_errors(edges: Image, counts: Image, reach: float, rarest: float, name: str, label: str) -> str:
    """Histogram of errors in σ, as shares of all values; from −`reach` to `reach`, and from the share `rarest` on."""
    shares = np.asarray(counts, np.float64) / max(float(np.sum(counts)), 1.0)
    with drawing(230, 150) as (figure, axes):
        floor = 10.0 ** np.floor(np.log10(rarest))
        axes.set_yscale("log")
        axes.stairs(np.maximum(shares, floor), edges, baseline=floor, fill=True, color=PAINTS["accent"], lw=0.8)
        axes.set_ylim(floor, 1.5)
        axes.set_xlim(-1.05 * reach, 1.05 * reach)
        _powers(axes.yaxis)
        axes.set_xlabel("error, σ")
        axes.set_ylabel("share")
        return inline_svg(figure, name, label)


def _powers(axis: Any) -> None:
    """Powers of ten in characters: mathematical type of matplotlib would need fonts that a page has not."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

    def power(value: float, _: int) -> str:
        exponent = round(float(np.log10(value)))
        return {0: "1", 1: "10", -1: "0.1"}.get(exponent, f"10{str(exponent).translate(raised)}")

    axis.set_minor_locator(NullLocator())
    axis.set_major_locator(LogLocator(numticks=5))
    axis.set_major_formatter(FuncFormatter(power))


def draw_rings(
    ring: RingCurve, source: RingCurve | None, unit: float, lowest: float, axis: str, name: str, label: str
) -> str:
    """Fourier ring correlation over spatial frequency, that of the source behind it, and the half-bit threshold."""
    with drawing(230, 150) as (figure, axes):
        frequencies, correlation, threshold = (_thinned(values) for values in ring)
        axes.plot(frequencies / unit, threshold, color=PAINTS["ink"], lw=1.2, ls=(0, (1, 2)))
        if source is not None:
            axes.plot(_thinned(source[0]) / unit, _thinned(source[1]), color=PAINTS["other"], lw=1.2)
        axes.plot(frequencies / unit, correlation, color=PAINTS["accent"], lw=1.6)
        axes.set_xlabel(axis)
        axes.set_ylabel("correlation")
        axes.set_ylim(lowest, 1.05)
        axes.set_xlim(left=0)
        return inline_svg(figure, name, label)


def _thinned(values: Image) -> Image:
    """Means over neighbouring rings, no more of them than the plot can show."""
    step = -(-len(values) // MOST_RINGS)
    starts = np.arange(0, len(values), step)
    return np.add.reduceat(np.asarray(values, np.float64), starts) / np.diff([*starts, len(values)])


def draw_curve(values: Image, axes_of: tuple[str, str], name: str, label: str) -> str:
    """Values of a stack, one an image; with the names of both axes."""
    from matplotlib.ticker import EngFormatter

    with drawing(352, 200) as (figure, axes):
        axes.plot(np.arange(len(values)), values, color=PAINTS["accent"], lw=1.2)
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlabel(axes_of[0])
        axes.set_ylabel(axes_of[1])
        return inline_svg(figure, name, label)
