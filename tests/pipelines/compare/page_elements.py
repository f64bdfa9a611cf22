"""A page as its elements, and how far two colours are from each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

EMPTY = {"meta", "link", "img", "wbr", "br", "line", "rect", "path", "use"}
"""Elements that have no end tag, or are closed at once."""


@dataclass
class Element:
    """A tag with its attributes, what lies above it, and the text within it."""

    tag: str
    attributes: dict[str, str | None]
    above: tuple[str, ...]
    text: str = ""
    parents: list[Element] = field(default_factory=list, repr=False)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self.open: list[Element] = []
        self.declaration = ""

    def handle_decl(self, decl: str) -> None:
        self.declaration = decl

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        element = Element(tag, dict(attrs), tuple(e.tag for e in self.open), parents=list(self.open))
        self.elements.append(element)
        if tag not in EMPTY:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in EMPTY:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in EMPTY:
            return
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data


def elements_of(page: str) -> list[Element]:
    """Every element of a page in its order; what is not closed in the right order is an error."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert reader.declaration == "DOCTYPE html"
    assert not reader.open
    return reader.elements


def contrast(first: tuple[float, float, float], second: tuple[float, float, float]) -> float:
    """Contrast of two colours (0 to 255) as WCAG 2.2 defines it, 1 to 21: https://www.w3.org/TR/WCAG22/."""
    bright, dark = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def _luminance(colour: tuple[float, float, float]) -> float:
    linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
