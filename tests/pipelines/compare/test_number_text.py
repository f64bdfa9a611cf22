"""Numbers of the page: as exact as they are, in a column below each other."""

from __future__ import annotations

import math

import pytest

from stemcodecs_pipelines.compare.page.number_text import breakable, column, percent, short, signed, size_unit, visible


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([2.25, 17.391], ["2.25", "17.39"]),
        ([0.161, 10.85, 10850.0], ["0.2", "10.8", "10,850.0"]),
        ([0.0, None, 4.5], ["0.00", "–", "4.50"]),
        ([2e-5, 5e-6], ["2.00 × 10⁻⁵", "5.00 × 10⁻⁶"]),
        ([0.9, 2e-6], ["0.90000", "2.00 × 10⁻⁶"]),
        ([None, math.nan, math.inf], ["–", "–", "∞"]),
        ([], []),
    ],
)
def test_columns(values, texts):
    assert column(values) == texts


def test_low_and_high_similarities_share_a_column():
    assert column([0.019573, 0.99998, 1.0], 5) == ["0.01957", "0.99998", "1.00000"]


def test_signs():
    assert column([-0.5, 0.25, -1e-9], 2, sign=True) == ["−0.50000", "+0.25000", "−1.0 × 10⁻⁹"]
    assert signed(0.0) == "0"
    assert column([-0.0004, 2.0], 2) == ["−0.0004", "2.0000"]


def test_single_numbers():
    assert short(4096) == "4,096"
    assert short(-3.0) == "−3"
    assert short(5.4321) == "5.43"
    assert percent(0.0101) == "1.0 %"
    assert percent(0.99999) == "more than 99.9 %"
    assert percent(1.0) == "100 %"
    assert size_unit([1.18e6, 900.0]) == ("MB", 1e6)
    assert size_unit([12.0]) == ("bytes", 1.0)


def test_names():
    assert visible("a\u200bb\n\u202ec") == "a\\u200bb\\u000a\\u202ec"
    assert visible("Å, 日本, √N") == "Å, 日本, √N"
    assert breakable("pca:residual=bounded,r=0.5") == ["pca:", "residual=bounded,", "r=0.5"]
    assert "".join(breakable("a/b: c")) == "a/b: c"
