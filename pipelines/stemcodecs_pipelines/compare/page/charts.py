"""Charts of a report: sizes, ratio against speed, errors, ring correlation; each with words for what is seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs_pipelines.compare.page.number_text import percent, short, visible
from stemcodecs_pipelines.compare.page.plots import RingCurve, SpeedPoint, draw_errors, draw_rings, draw_speed, front
from stemcodecs_pipelines.compare.page.ranking import Ranked, column_of
from stemcodecs_pipelines.compare.page.tables import length_unit
from stemcodecs_pipelines.compare.report import Report

__all__ = [
    "MethodPlot",
    "Plot",
    "SizeBar",
    "bars",
    "error_histograms",
    "front_of",
    "rings",
    "speeds",
]

Image = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class SizeBar:
    """A method's size; `share` is its length in per cent of the longest."""

    number: int
    name: str
    ours: bool
    lossless: bool
    share: str
    bits: str
    ratio: str


def bars(ranked: Sequence[Ranked], longest: float, *, lossless: bool) -> list[SizeBar]:
    """Sizes of all lossless or all lossy methods; a bar of `longest` bytes takes the whole width."""
    bits = column_of(ranked, [r.row.bits_per_value for r in ranked])
    ratios = column_of(ranked, [r.ratio for r in ranked])
    return [
        SizeBar(
            number=r.number,
            name=visible(r.row.name),
            ours=r.row.group.ours,
            lossless=lossless,
            share=f"{100 * r.size / longest:.2f}",
            bits=bit,
            ratio=ratio,
        )
        for r, bit, ratio in zip(ranked, bits, ratios, strict=True)
        if r.row.group.lossless == lossless
    ]


@dataclass(frozen=True, kw_only=True)
class Plot:
    """An SVG element that is safe as it stands, and its caption."""

    svg: str
    caption: str


def speeds(ranked: Sequence[Ranked]) -> list[Plot]:
    """Ratio against the speeds of encoding and of decoding, of lossless and of lossy methods.

    Those of which fewer than two are known are left out.
    """
    plots = []
    for lossless, kind in ((True, "Lossless"), (False, "Lossy")):
        of = [r for r in ranked if r.row.group.lossless == lossless]
        for verb, rates in (
            ("encoding", [r.row.encode_rate for r in of]),
            ("decoding", [r.row.decode_rate for r in of]),
        ):
            methods = _methods(of, rates)
            if len(methods) < 2:
                continue
            best, fastest = max(methods, key=lambda m: m.ratio), max(methods, key=lambda m: m.speed)
            title = f"{kind}, {verb}"
            label = (
                f"{title}: ratio against speed of {len(methods)} methods. Number {best.number} is smallest, ratio "
                f"{short(best.ratio)} at {short(best.speed)} MB/s; number {fastest.number} is fastest, "
                f"{short(fastest.speed)} MB/s at ratio {short(fastest.ratio)}."
            )
            svg = draw_speed(methods, title.lower().replace(", ", "-"), label, f"{verb}, MB/s")
            plots.append(Plot(svg=svg, caption=title))
    return plots


def front_of(ranked: Sequence[Ranked]) -> list[tuple[str, list[str]]]:
    """Names on the fronts of ratio and decoding speed, lossless and lossy; what the plots show by numbers."""
    methods = _methods(ranked, [r.row.decode_rate for r in ranked])
    names = {r.number: visible(r.row.name) for r in ranked}
    found = []
    for lossless, words in ((True, "lossless"), (False, "lossy")):
        best = front([m for m in methods if m.lossless == lossless])
        if best:
            found.append((words, [f"{names[m.number]} ({m.number})" for m in best]))
    return found


def _methods(ranked: Sequence[Ranked], rates: Sequence[float | None]) -> list[SpeedPoint]:
    return [
        SpeedPoint(number=r.number, ratio=r.ratio, speed=rate, ours=r.row.group.ours, lossless=r.row.group.lossless)
        for r, rate in zip(ranked, rates, strict=True)
        if rate
    ]


@dataclass(frozen=True, kw_only=True)
class MethodPlot:
    """A plot of one method; without a number, of the source."""

    name: str
    number: int | None
    plot: Plot


def error_histograms(report: Report, ranked: Sequence[Ranked]) -> list[MethodPlot]:
    """Errors of each lossy method, all on the same axes."""
    found = [(r, *report.pictures.errors[r.row.name]) for r in ranked if r.row.name in report.pictures.errors]
    found = [(r, edges, counts) for r, edges, counts in found if np.sum(counts) > 0]
    reach = max((_reach(edges, counts) for _, edges, counts in found), default=1.0)
    rarest = min((float(np.min(counts[counts > 0]) / np.sum(counts)) for _, _, counts in found), default=1.0)
    histograms = []
    for r, edges, counts in found:
        name, largest = visible(r.row.name), None if r.row.loss is None else r.row.loss.largest_error
        middles = (edges[:-1] + edges[1:]) / 2
        within = float(np.sum(counts[np.abs(middles) <= 0.5]) / np.sum(counts))
        furthest = "" if largest is None else f"; the largest is {short(largest)} σ"
        label = f"Errors of {name}: {percent(within)} of the values within half a σ{furthest}."
        svg = draw_errors(edges, counts, reach, rarest, f"errors-{r.number}", label)
        histograms.append(MethodPlot(name=name, number=r.number, plot=Plot(svg=svg, caption=name)))
    return histograms


def _reach(edges: Image, counts: Image) -> float:
    seen = np.flatnonzero(counts)
    return float(max(abs(edges[seen[0]]), abs(edges[seen[-1] + 1])))


def rings(report: Report, ranked: Sequence[Ranked]) -> list[MethodPlot]:
    """Ring correlations of what each method gives back, and of the source, which comes first; all on the same axes."""
    found = report.pictures.frc
    if not found:
        return []
    unit, size = length_unit(report)
    source = found.get("source")
    curves: list[tuple[int | None, str, RingCurve]] = [(None, "the source", source)] if source is not None else []
    curves += [(r.number, visible(r.row.name), found[r.row.name]) for r in ranked if r.row.name in found]
    lowest = min(0.0, *(1.05 * float(np.min(curve[1])) for _, _, curve in curves))
    plots = []
    for number, name, curve in curves:
        behind = None if number is None else source
        label = f"Fourier ring correlation of {name} over spatial frequency: ends at {short(float(curve[1][-1]))}."
        axis, place = f"frequency, 1/{unit}", "rings-source" if number is None else f"rings-{number}"
        svg = draw_rings(curve, behind, 1 / size, lowest, axis, place, label)
        plots.append(MethodPlot(name=name, number=number, plot=Plot(svg=svg, caption=name)))
    return plots
