"""A figure of matplotlib as SVG within a page: its colours and its type are those of the page, in either theme."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

__all__ = ["PAINTS", "drawing", "inline_svg"]

PAINTS = {
    "ink": "#010101",
    "muted": "#010102",
    "rule": "#010103",
    "accent": "#010104",
    "other": "#010105",
    "paper": "#010106",
}
"""Colours of the page, and what stands for them while matplotlib draws: they become CSS variables of these names."""

_VARIABLES = {value: f"var(--{name})" for name, value in PAINTS.items()}
_LINK = "{http://www.w3.org/1999/xlink}href"
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
# The page gives the font: that of matplotlib is not on every machine.
_SHORTHAND = re.compile(r"^(?:.*\s)?([\d.]+px)\s")

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.usetex": False,
    "text.parse_math": False,
    "svg.hashsalt": "stemcodecs",
    "font.size": 11,
    "axes.labelsize": 11,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "axes.edgecolor": PAINTS["muted"],
    "axes.labelcolor": PAINTS["ink"],
    "text.color": PAINTS["ink"],
    "xtick.color": PAINTS["muted"],
    "ytick.color": PAINTS["muted"],
    "xtick.labelcolor": PAINTS["ink"],
    "ytick.labelcolor": PAINTS["ink"],
    "axes.linewidth": 0.8,
    "grid.color": PAINTS["rule"],
    "grid.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
}

_MARGINS = (46.0, 40.0, 14.0, 8.0)
"""Left, bottom, right and top of the axes, in pixels: room for numbers of five characters, and a name beside them."""


@contextmanager
def drawing(width: float, height: float) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes, in CSS pixels, in the style of the page.

    Text stays text, and the same figure gives the same bytes.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # The page has fonts of its own: what the font of matplotlib lacks is no loss.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        # An SVG of matplotlib has 72 points an inch; here a point is a pixel of the page.
        figure = Figure(figsize=(width / 72, height / 72), facecolor="none")
        FigureCanvasSVG(figure)
        # Fixed margins: a layout that measures text would draw everything again, and with a font that no page has.
        left, bottom, right, top = _MARGINS
        inner = (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
        axes = figure.add_axes(inner, facecolor="none")
        yield figure, axes


def inline_svg(figure: Any, name: str, label: str) -> str:
    """SVG element of a figure, safe to stand in HTML as it is.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Drawn in :data:`PAINTS`.
    name : str
        Unique in the page: begins what the figure's parts refer to each other by.
    label : str
        What is seen, for those who do not see it.
    """
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = ElementTree.fromstring(file.getvalue())
    _without_metadata(root)
    referred = {link.removeprefix("#") for e in root.iter() if (link := e.get(_LINK))}
    referred |= {found for e in root.iter() for value in e.attrib.values() for found in _REFERENCE.findall(value)}
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = dict(_attributes(element.attrib, referred, name))
    width, height = (root.attrib.pop(side).removesuffix("pt") for side in ("width", "height"))
    root.attrib = {"class": "plot", "role": "img", "aria-label": label, "width": width, "height": height, **root.attrib}
    root.attrib.pop("version", None)
    return ElementTree.tostring(root, encoding="unicode")


def _without_metadata(root: ElementTree.Element) -> None:
    """Leave out what names a vocabulary elsewhere, and style sheets, which would hold for the whole page."""
    for parent in root.iter():
        for child in list(parent):
            tag = child.tag.rpartition("}")[2]
            if tag in ("metadata", "style"):
                parent.remove(child)
            elif tag == "defs":
                _without_metadata(child)


def _attributes(attributes: dict[str, str], referred: set[str], name: str) -> Iterator[tuple[str, str]]:
    for key, value in attributes.items():
        if key == "id":
            if value in referred:
                yield "id", f"{name}-{value}"
        elif key == _LINK:
            yield "href", f"#{name}-{value.removeprefix('#')}"
        elif key == "style":
            yield "style", _style(value, name)
        else:
            yield key.rpartition("}")[2], _REFERENCE.sub(rf"url(#{name}-\1)", value)


def _style(style: str, name: str) -> str:
    """Declarations with the colours of the page, and of fonts only the size."""
    kept = []
    for declaration in style.split(";"):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key == "font":
            size = _SHORTHAND.match(value)
            kept += [f"font-size: {size.group(1)}"] if size else []
        elif key and key != "font-family":
            referring = _REFERENCE.sub(rf"url(#{name}-\1)", value)
            kept.append(f"{key}: {_VARIABLES.get(value, referring)}")
    return "; ".join(kept)
