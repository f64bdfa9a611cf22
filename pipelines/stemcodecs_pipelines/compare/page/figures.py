"""Pictures of a report: the data, a pattern before and after each method, reconstructions; each with an alt text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs_pipelines.compare.page.charts import Plot
from stemcodecs_pipelines.compare.page.images import (
    Picture,
    Scale,
    averaged,
    bar_of,
    known,
    logarithmic_to,
    picture,
    side_within,
    symmetric_to,
)
from stemcodecs_pipelines.compare.page.number_text import short, signed, visible
from stemcodecs_pipelines.compare.page.plots import draw_curve
from stemcodecs_pipelines.compare.page.ranking import Ranked
from stemcodecs_pipelines.compare.report import Report

__all__ = ["Patterns", "Phases", "Shown", "data_pictures", "noun", "patterns", "reconstructions"]

Image = np.ndarray[Any, Any]

# Pixels of all pictures of a kind: together they keep the page below two megabytes, whatever they show.
_DATA_PIXELS = 400_000
_PATTERN_PIXELS = 600_000
_RECONSTRUCTION_PIXELS = 400_000

_FURTHEST = 3.0
"""Difference in σ beyond which colours do not change."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A picture with its scale.

    Attributes
    ----------
    picture : Picture
    alt : str
        What is seen.
    title, caption : str
    bar : Picture
        Colours of the scale.
    low, high : str
        Values at its ends, with their unit.
    """

    picture: Picture
    alt: str
    title: str
    caption: str
    bar: Picture
    low: str
    high: str


def data_pictures(report: Report) -> tuple[list[Shown], list[Plot]]:
    """Mean pattern, bits of each pixel, virtual images; and the virtual images of stacks, which are curves."""
    seen = report.pictures
    images = {name: image for name, image in seen.virtual_images.items() if np.ndim(image) == 2}
    arrays = [*images.values(), *(image for image in (seen.mean_pattern, seen.bits_map) if image is not None)]
    side = side_within([image.shape for image in arrays], _DATA_PIXELS)
    shown = []
    if seen.mean_pattern is not None:
        scale = logarithmic_to(seen.mean_pattern, "magma")
        shown.append(_whole(seen.mean_pattern, scale, side, f"Mean {noun(report)}", "counts"))
    if seen.bits_map is not None:
        scale = Scale(colours="viridis", low=0.0, high=float(known(seen.bits_map).max()))
        shown.append(_whole(seen.bits_map, scale, side, "Bits of each detector pixel", "bits"))
    for name, image in images.items():
        scale = _within(image, "gray")
        shown.append(_whole(image, scale, side, _spelt(name), _UNITS.get(name, "counts")))
    curves = []
    stacks = {name: values for name, values in seen.virtual_images.items() if np.ndim(values) == 1}
    for i, (name, values) in enumerate(stacks.items()):
        unit, range_ = _UNITS.get(name, "counts"), known(values)
        title = f"{_spelt(name)} of each {noun(report)}"
        label = f"{title}: {len(values)} values between {short(range_.min())} and {short(range_.max())} {unit}."
        curves.append(Plot(svg=draw_curve(values, (noun(report), unit), f"stack-{i}", label), caption=title))
    return shown, curves


_UNITS = {"com_y": "pixels", "com_x": "pixels"}
"""Units of virtual images that are no sums of counts."""

_NAMES = {"com_y": "centre of mass, y", "com_x": "centre of mass, x"}


def _spelt(name: str) -> str:
    text = _NAMES.get(name, visible(name).replace("_", " "))
    return text[:1].upper() + text[1:]


def _whole(image: Image, scale: Scale, side: int, title: str, unit: str) -> Shown:
    """A picture of everything, averaged where it is too large."""
    small, step = averaged(image, side)
    values = known(image)
    parts = [f"{image.shape[0]} × {image.shape[1]} pixels"]
    parts += [f"each pixel shown is the mean of {step} × {step}"] if step > 1 else []
    parts += ["logarithmic scale"] if scale.logarithmic else []
    row, column = np.unravel_index(int(np.argmax(np.nan_to_num(small, nan=-np.inf))), small.shape)
    alt = (
        f"{title}, {parts[0]}, between {short(values.min())} and {short(values.max())} {unit}, mean "
        f"{short(values.mean())}; largest near row {row * step}, column {column * step}."
    )
    return _shown(small, scale, title=title, alt=alt, caption=", ".join(parts), unit=unit)


def _within(image: Image, colours: str) -> Scale:
    """A scale whose ends a few outliers do not decide."""
    low, high = np.quantile(known(image), (0.005, 0.995))
    return Scale(colours=colours, low=float(low), high=float(high))


def _shown(image: Image, scale: Scale, *, title: str, alt: str, unit: str, caption: str = "") -> Shown:
    spell = signed if scale.low < 0 else short
    return Shown(
        picture=picture(image, scale),
        alt=alt,
        title=title,
        caption=caption,
        bar=bar_of(scale),
        low=spell(scale.low),
        high=f"{spell(scale.high)} {unit}",
    )


@dataclass(frozen=True, kw_only=True)
class Patterns:
    """Original, decoded and difference of each lossy method, at equal scales.

    Attributes
    ----------
    rows : sequence of (int, str, sequence of Shown)
        Number and name of the method, and three pictures.
    where : str
        Which part of the pattern is shown; empty for all of it.
    logarithmic : bool
        Whether the scale of the counts is.
    """

    rows: Sequence[tuple[int, str, Sequence[Shown]]]
    where: str
    logarithmic: bool


def patterns(report: Report, ranked: Sequence[Ranked]) -> Patterns | None:
    """One pattern before and after every lossy method; None where there is nothing to compare."""
    found = [(r, report.pictures.decoded[r.row.name]) for r in ranked if r.row.name in report.pictures.decoded]
    if report.pictures.original is None or not found:
        return None
    original = np.asarray(report.pictures.original, np.float64)
    window, where = _window(original, side_within([original.shape] * 3 * len(found), _PATTERN_PIXELS))
    sigma = np.sqrt(np.maximum(original, 1.0))
    differences = [(np.asarray(decoded, np.float64) - original) / sigma for _, decoded in found]
    counts = logarithmic_to(original, "magma")
    # One method with rare large errors is not to make those of all others invisible.
    errors = symmetric_to(min(max(float(np.abs(known(d)).max()) for d in differences) or 1.0, _FURTHEST))
    rows = []
    for (r, decoded), difference in zip(found, differences, strict=True):
        name, error = visible(r.row.name), known(difference)
        before = f"Original {noun(report)}, brightest {short(known(original).max())} counts."
        after = f"The same {noun(report)} decoded by {name}, brightest {short(known(decoded).max())} counts."
        between = (
            f"Decoded minus original for {name}: largest {short(np.abs(error).max())} σ, root mean square "
            f"{short(np.sqrt((error**2).mean()))} σ."
        )
        three = [
            _shown(original[window], counts, title="original", alt=before, unit="counts"),
            _shown(np.asarray(decoded)[window], counts, title="decoded", alt=after, unit="counts"),
            _shown(difference[window], errors, title="difference", alt=between, unit="σ"),
        ]
        rows.append((r.number, name, three))
    return Patterns(rows=rows, where=where, logarithmic=counts.logarithmic)


def _window(image: Image, side: int) -> tuple[tuple[slice, slice], str]:
    """A square where most counts are: averages would hide the noise that is to be compared."""
    if max(image.shape) <= side:
        return (slice(None), slice(None)), ""
    weights = np.maximum(np.nan_to_num(image), 0)
    spans = []
    for axis, length in enumerate(image.shape):
        profile = weights.sum(axis=1 - axis)
        centre = float((profile * np.arange(length)).sum() / (profile.sum() or 1.0))
        start = int(min(max(centre - side / 2, 0), max(length - side, 0)))
        spans.append(slice(start, min(start + side, length)))
    rows, columns = spans
    where = (
        f"rows {rows.start} to {rows.stop - 1} and columns {columns.start} to {columns.stop - 1} of "
        f"{image.shape[0]} × {image.shape[1]}"
    )
    return (rows, columns), where


@dataclass(frozen=True, kw_only=True)
class Phases:
    """Phases of the object.

    Attributes
    ----------
    pictures : sequence of (int or None, Shown)
        Each with the number of its method; that from the source, which has none, is the first.
    step : int
        Pixels along each side of the squares whose means are shown.
    """

    pictures: Sequence[tuple[int | None, Shown]]
    step: int


def reconstructions(report: Report, ranked: Sequence[Ranked]) -> Phases | None:
    """Phases of the object in the order of the methods, all on one scale; None where there are none."""
    found = report.pictures.reconstructions
    images: list[tuple[int | None, str, Image]] = [(None, "source", found["source"])] if "source" in found else []
    images += [(r.number, r.row.name, found[r.row.name]) for r in ranked if r.row.name in found]
    if not images:
        return None
    first = images[0][2]
    side = side_within([image.shape for _, _, image in images], _RECONSTRUCTION_PIXELS, most=320)
    scale = _within(first, "gray")
    shown, steps = [], [1]
    for number, name, image in images:
        small, step = averaged(image, side)
        steps.append(step)
        title = "the source" if number is None else visible(name)
        size = f"{image.shape[0]} × {image.shape[1]} pixels"
        alt = f"Phase of the object, from {title}, {size}{_unlike(image, first)}."
        shown.append((number, _shown(small, scale, title=title, alt=alt, unit="rad")))
    return Phases(pictures=shown, step=max(steps))


def _unlike(image: Image, first: Image) -> str:
    if image is first or image.shape != first.shape:
        return ""
    return f"; unlike the first by {short(np.sqrt((known(image - first) ** 2).mean()))} rad, root mean square"


def noun(report: Report) -> str:
    """What one image of the source is called."""
    return "frame" if "time" in report.dims else "pattern"
