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
    logarithmic_to,
    picture,
    side_within,
    symmetric_to,
)
from stemcodecs_pipelines.compare.page.number_text import short, signed, visible
from stemcodecs_pipelines.compare.page.plots import draw_curve
from stemcodecs_pipelines.compare.page.ranking import Ranked
from stemcodecs_pipelines.compare.report import Report

__all__ = ["Patterns", "Shown", "data_pictures", "noun", "patterns", "reconstructions"]

Image = np.ndarray[Any, Any]

# Pixels of all pictures of a kind: together they keep the page below two megabytes, whatever they show.
_DATA_PIXELS = 400_000
_PATTERN_PIXELS = 600_000
_RECONSTRUCTION_PIXELS = 400_000


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
    images = {k: v for k, v in seen.virtual_images.items() if np.ndim(v) == 2}
    side = side_within(len(images) + 2, _DATA_PIXELS)
    shown = []
    if seen.mean_pattern is not None:
        scale = logarithmic_to(seen.mean_pattern, "magma")
        shown.append(_shown(seen.mean_pattern, scale, side, f"Mean {noun(report)}", "counts"))
    if seen.bits_map is not None:
        scale = Scale(colours="viridis", low=0.0, high=float(np.nanmax(seen.bits_map)))
        shown.append(_shown(seen.bits_map, scale, side, "Bits of each detector pixel", "bits"))
    for name, image in images.items():
        low, high = _ends(image)
        scale = Scale(colours="gray", low=low, high=high)
        shown.append(_shown(image, scale, side, f"Virtual image: {visible(name)}", "counts"))
    curves = []
    for i, (name, values) in enumerate((k, v) for k, v in seen.virtual_images.items() if np.ndim(v) == 1):
        what = f"Virtual image of each {noun(report)}: {visible(name)}"
        label = (
            f"{what}. {len(values)} values between {short(float(np.min(values)))} and {short(float(np.max(values)))}."
        )
        curves.append(Plot(svg=draw_curve(values, noun(report), f"stack-{i}", label), caption=what))
    return shown, curves


def _shown(image: Image, scale: Scale, side: int, title: str, unit: str) -> Shown:
    """A picture of everything, averaged where it is too large."""
    small, step = averaged(image, side)
    parts = [f"{image.shape[0]} × {image.shape[1]} pixels"]
    parts += [f"each pixel shown is the mean of {step} × {step}"] if step > 1 else []
    parts += ["logarithmic scale"] if scale.logarithmic else []
    brightest = np.unravel_index(int(np.argmax(np.nan_to_num(small, nan=-np.inf))), small.shape)
    alt = (
        f"{title}, {image.shape[0]} × {image.shape[1]} pixels, between {short(float(np.nanmin(image)))} and "
        f"{short(float(np.nanmax(image)))} {unit}, mean {short(float(np.nanmean(image)))}; brightest in row "
        f"{brightest[0] * step}, column {brightest[1] * step}."
    )
    return Shown(
        picture=picture(small, scale),
        alt=alt,
        title=title,
        caption=", ".join(parts),
        bar=bar_of(scale),
        low=short(scale.low),
        high=f"{short(scale.high)} {unit}",
    )


def _ends(image: Image) -> tuple[float, float]:
    """Ends of a scale that a few outliers do not decide."""
    seen = image[np.isfinite(image)]
    low, high = np.quantile(seen, (0.005, 0.995)) if seen.size else (0.0, 1.0)
    return float(low), float(high)


@dataclass(frozen=True, kw_only=True)
class Patterns:
    """Original, decoded and difference of each lossy method, at equal scales.

    Attributes
    ----------
    rows : sequence of (str, sequence of Shown)
        Name of the method, and three pictures.
    caption : str
    counts, errors : Shown
        The two scales.
    """

    rows: Sequence[tuple[str, Sequence[Shown]]]
    caption: str
    counts: Shown
    errors: Shown


def patterns(report: Report, ranked: Sequence[Ranked]) -> Patterns | None:
    """One pattern before and after every lossy method; None where there is nothing to compare."""
    original = report.pictures.original
    found = [(r, report.pictures.decoded[r.row.name]) for r in ranked if r.row.name in report.pictures.decoded]
    if original is None or not found:
        return None
    side = side_within(3 * len(found), _PATTERN_PIXELS)
    window, where = _window(original, side)
    before = np.asarray(original, np.float64)
    sigma = np.sqrt(np.maximum(before, 1.0))
    differences = {r.number: (np.asarray(decoded, np.float64) - before) / sigma for r, decoded in found}
    scale = logarithmic_to(before, "magma")
    largest = max(float(np.nanmax(np.abs(d))) for d in differences.values()) or 1.0
    signs = symmetric_to(largest)
    rows = []
    for r, decoded in found:
        name, difference = visible(r.row.name), differences[r.number]
        rms, furthest = float(np.sqrt(np.nanmean(difference**2))), float(np.nanmax(np.abs(difference)))
        seen = f"brightest {short(float(np.nanmax(before)))} counts"
        back = f"brightest {short(float(np.nanmax(decoded)))} counts"
        three = (
            (before, scale, "original", f"Original {noun(report)}, {seen}."),
            (np.asarray(decoded), scale, "decoded", f"The same {noun(report)} decoded by {name}, {back}."),
            (
                difference,
                signs,
                "difference",
                f"Decoded minus original for {name}: largest {short(furthest)} σ, root mean square {short(rms)} σ.",
            ),
        )
        rows.append((name, [_part(image[window], of, title, alt) for image, of, title, alt in three]))
    caption = (
        f"One {noun(report)}{where}: original, decoded, and decoded minus original in σ = √max(N, 1) of each count N. "
        f"All methods have the same scales."
    )
    return Patterns(rows=rows, caption=caption, counts=_legend(scale, "counts"), errors=_legend(signs, "σ"))


def _window(image: Image, side: int) -> tuple[tuple[slice, slice], str]:
    """Where most counts are: averages would hide the noise that is to be compared."""
    height, width = image.shape
    if height <= side and width <= side:
        return (slice(None), slice(None)), ""
    weights = np.maximum(np.nan_to_num(np.asarray(image, np.float64)), 0)
    total = weights.sum() or 1.0
    centre = [float((weights.sum(axis=1 - axis) * np.arange(image.shape[axis])).sum() / total) for axis in (0, 1)]
    starts = [
        int(min(max(c - side / 2, 0), max(length - side, 0))) for c, length in zip(centre, (height, width), strict=True)
    ]
    ends = [min(start + side, length) for start, length in zip(starts, (height, width), strict=True)]
    where = f" (rows {starts[0]} to {ends[0] - 1}, columns {starts[1]} to {ends[1] - 1} of {height} × {width})"
    return (slice(starts[0], ends[0]), slice(starts[1], ends[1])), where


def _part(image: Image, scale: Scale, title: str, alt: str) -> Shown:
    return Shown(picture=picture(image, scale), alt=alt, title=title, caption="", bar=bar_of(scale), low="", high="")


def _legend(scale: Scale, unit: str) -> Shown:
    bar = bar_of(scale)
    low = short(scale.low) if scale.low >= 0 else signed(scale.low)
    high = f"{short(scale.high) if scale.low >= 0 else signed(scale.high)} {unit}"
    caption = "logarithmic" if scale.logarithmic else ""
    return Shown(picture=bar, alt="", title=unit, caption=caption, bar=bar, low=low, high=high)


def reconstructions(report: Report) -> list[Shown]:
    """Phases of the object, that from the source first, all on one scale."""
    found = report.pictures.reconstructions
    names = [name for name in found if name == "source"] + [name for name in found if name != "source"]
    if not names:
        return []
    side = side_within(len(names), _RECONSTRUCTION_PIXELS, most=320)
    low, high = _ends(found[names[0]])
    scale = Scale(colours="gray", low=low, high=high)
    shown = []
    for name in names:
        image, step = averaged(found[name], side)
        title = "From the source" if name == "source" else f"From {visible(name)}"
        error = (
            float(np.sqrt(np.nanmean((found[name] - found[names[0]]) ** 2)))
            if found[name].shape == found[names[0]].shape
            else None
        )
        differs = (
            ""
            if name == names[0] or error is None
            else f"; differs from the first by {short(error)} rad, root mean square"
        )
        alt = f"Phase of the reconstructed object {title.lower()}, {found[name].shape[0]} × {found[name].shape[1]} pixels{differs}."
        caption = f"each pixel shown is the mean of {step} × {step}" if step > 1 else ""
        shown.append(
            Shown(
                picture=picture(image, scale),
                alt=alt,
                title=title,
                caption=caption,
                bar=bar_of(scale),
                low=signed(low),
                high=f"{signed(high)} rad",
            )
        )
    return shown


def noun(report: Report) -> str:
    """What one image of the source is called."""
    return "frame" if "time" in report.dims else "pattern"
