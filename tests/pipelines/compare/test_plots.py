"""The front of ratio and speed, and what plots are made of."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from stemcodecs_pipelines.compare.page.plots import SpeedPoint, draw_curve, draw_rings, draw_speed, front

pytest.importorskip("matplotlib")


def point(number, ratio, speed):
    return SpeedPoint(number=number, ratio=ratio, speed=speed, ours=number % 2 == 0, lossless=True)


def test_front_holds_what_no_other_surpasses_in_both():
    points = [point(i, *at) for i, at in enumerate([(8, 1), (7, 10), (6, 5), (5, 100), (5, 90), (7, 2), (4, 100)])]
    assert [p.number for p in front(points)] == [0, 1, 3]
    for p in points:
        surpassed = any(q.ratio >= p.ratio and q.speed >= p.speed and q is not p for q in points)
        assert (p not in front(points)) == surpassed


def test_front_of_equal_methods_is_one_of_them():
    assert [p.number for p in front([point(2, 3.0, 5.0), point(1, 3.0, 5.0)])] == [1]


def test_every_mark_is_drawn_and_numbers_do_not_overlap():
    rng = np.random.default_rng(0)
    points = [point(i, 2 + 5 * rng.random(), 10 ** (3 * rng.random())) for i in range(1, 26)]
    root = ElementTree.fromstring(draw_speed(points, "speed", "25 methods", "MB/s"))
    numbers = [
        t for t in root.iter("text") if float(t.get("style").partition("font-size: ")[2].partition("px")[0]) == 10
    ]
    assert len(numbers) > 20
    assert {t.text for t in numbers} <= {str(i) for i in range(1, 26)}
    # A font has digits at least half as wide as it is high.
    places = [(float(t.get("x")), float(t.get("y")), 5 * len(t.text)) for t in numbers]
    for i, (x, y, wide) in enumerate(places):
        assert not [p for p in places[:i] if abs(p[0] - x) < (p[2] + wide) / 2 and abs(p[1] - y) < 7]


def test_the_ring_correlation_of_the_source_is_drawn_behind_and_thinned():
    f = np.linspace(0, 1, 2000)
    svg = draw_rings((f, 1 - f, np.full(2000, 0.2)), (f, 1 - f / 2, np.full(2000, 0.2)), 1.0, 0.0, "1/nm", "rings", "x")
    stroked = re.findall(r"stroke: var\(--(ink|other|accent)\)", svg)
    assert stroked.index("other") < stroked.index("accent")
    assert len(svg) < 20_000


@pytest.mark.parametrize("largest", [7.0, 40.0, 280.0, 1400.0, 20_000.0])
def test_numbers_of_an_axis_have_room(largest):
    """At seven pixels a character, those of the horizontal axis do not touch."""
    root = ElementTree.fromstring(draw_speed([point(1, 3.0, 5.0), point(2, 4.0, largest)], "speed", "2", "MB/s"))
    numbers = [t for t in root.iter("text") if re.fullmatch(r"[\d.,]+", t.text)]
    axis = max(float(t.get("y")) for t in numbers)
    places = sorted((float(t.get("x")), len(t.text)) for t in numbers if float(t.get("y")) == axis)
    assert len(places) > 1
    for (x, long), (y, other) in itertools.pairwise(places):
        assert y - x > 7 * (long + other) / 2


def test_two_plots_share_no_name():
    values = np.arange(20.0)
    first, second = (draw_curve(values, ("frame", "counts"), name, "label") for name in ("one", "two"))
    ids = [set(re.findall(r'id="([^"]+)"', svg)) for svg in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
