"""The bound and the number of levels, against independent solvers in plain integers."""

from __future__ import annotations

from fractions import Fraction
from math import isqrt

import numpy as np
import pytest

from stemcodecs.errors import ConfigurationError
from stemcodecs.quantize import PRESETS, PoissonQuantizer, huang_levels, optimal_levels
from stemcodecs.quantize.levels import preset_bound, radius

R_GRID = ("0.05", "0.1", "0.2", "0.25", "1/3", "0.354", "0.5", "0.7", "0.75", "1", "1.5", "2", "3")
UINT16 = np.arange(1 << 16, dtype=np.uint16)


def within(a: int, b: int, k2: Fraction) -> bool:
    """The definition of the bound, for a decoded and an original value."""
    return (a - b) ** 2 * k2.denominator <= k2.numerator * b


def fewest_levels(k2: Fraction, top: int, exact_below: int) -> list[int]:
    """Fewest levels for 0..n, for each n up to top: dynamic programming over all intervals.

    Whether an interval can share a value is found by trying every value, from the definition alone.
    """

    def shared(low: int, high: int) -> bool:
        values = range(low, high + 1)
        return any(all(within(value, x, k2) for x in values) for value in values)

    best = [0] * (top + 1)
    for high in range(top + 1):
        choices = []
        for low in range(high, -1, -1):
            if low < high and (low < exact_below or not shared(low, high)):
                break
            choices.append(1 + (best[low - 1] if low else 0))
        best[high] = min(choices)
    return best


@pytest.mark.slow
@pytest.mark.parametrize("r", R_GRID)
@pytest.mark.parametrize("exact_below", [1, 5])
def test_fewest_levels(r: str, exact_below: int) -> None:
    k2 = Fraction(r) ** 2
    top = 130
    expected = fewest_levels(k2, top, exact_below)
    counts = [optimal_levels(k2, n, exact_below).count for n in range(top + 1)]
    assert counts == expected


def levels_by_steps(k2: Fraction, top: int, *, upwards: bool) -> int:
    """Levels when bins are laid from one end by steps of one, from the definition of the bound alone."""
    count = 1
    edge = 1 if upwards else top
    while 1 <= edge <= top:
        value = edge
        step = 1 if upwards else -1
        while within(value + step, edge, k2):
            value += step
        end = value
        while 1 <= end + step <= top and within(value, end + step, k2):
            end += step
        count, edge = count + 1, end + step
    return count


@pytest.mark.slow
@pytest.mark.parametrize("r", R_GRID)
@pytest.mark.parametrize("top", [254, 255, 1000, 4095, 16383, 65534, 65535])
def test_fewest_levels_of_large_ranges(r: str, top: int) -> None:
    k2 = Fraction(r) ** 2
    count = optimal_levels(k2, top).count
    assert count == levels_by_steps(k2, top, upwards=True) == levels_by_steps(k2, top, upwards=False)


def test_counts_of_the_literature() -> None:
    quarter = Fraction(1, 4)
    assert [optimal_levels(quarter, (1 << b) - 1).count for b in (12, 14, 16)] == [128, 256, 512]
    third = Fraction("0.354") ** 2
    assert [optimal_levels(third, (1 << b) - 1).count for b in (12, 14, 16)] == [181, 362, 724]


@pytest.mark.parametrize("bits", [8, 14, 16, 32])
def test_one_sigma_is_the_integer_square_root(bits: int) -> None:
    top = (1 << bits) - 1
    levels = optimal_levels(Fraction(1), top)
    assert levels.count == isqrt(top) + 1
    roots = np.arange(levels.count, dtype=np.int64)
    assert np.array_equal(levels.lows, roots**2)
    assert np.array_equal(levels.midpoints, roots * (roots + 1))


@pytest.mark.parametrize(("preset", "distinct"), [("huang-255", 255), ("huang-191", 191)])
def test_preset_has_its_number_of_values(preset: str, distinct: int) -> None:
    table = PoissonQuantizer(preset=preset, saturation=1 << 14).table(np.uint16)
    counts = UINT16[: 1 << 14]
    assert table.levels.count == distinct
    assert np.unique(table.decode(table.encode(counts, np.dtype(np.uint16)))).size == distinct


def test_huang_511_counts_quarters() -> None:
    # 14-bit counts in quarters are 16-bit values with a gain of 4: all of the 511 levels are met.
    quarters = PoissonQuantizer(preset="huang-511", gain=4, saturation=1 << 16).table(np.uint16)
    decoded = quarters.decode(quarters.encode(UINT16, np.dtype(np.uint16)))
    assert quarters.levels.count == np.unique(decoded).size == 511
    # Whole counts use the same 511 codes but cannot reach three of them.
    whole = PoissonQuantizer(preset="huang-511", saturation=1 << 14).table(np.uint16)
    codes = whole.encode(UINT16[: 1 << 14], np.dtype(np.uint16))
    assert (whole.levels.count, codes.max(), np.unique(codes).size) == (511, 510, 508)


def all_quantizers() -> list[PoissonQuantizer]:
    optimal = [PoissonQuantizer(r=r, saturation=1 << 16) for r in R_GRID]
    presets = [PoissonQuantizer(preset=p, saturation=1 << 16) for p in PRESETS if p != "optimal"]
    gains = [
        PoissonQuantizer(r="0.5", gain=gain, offset=offset, saturation=1 << 16)
        for gain, offset in [(4, 0), ("5/2", 100), (0.3, 7), (33.7, 1000)]
    ]
    gains.append(PoissonQuantizer(preset="huang-511", gain=4, saturation=1 << 16))
    return optimal + presets + gains


@pytest.mark.parametrize("quantizer", all_quantizers(), ids=lambda q: f"{q.preset}-{q.r}-{q.gain}")
@pytest.mark.parametrize("decoder", ["midpoint", "low-centroid", "high-centroid"])
def test_bound_of_every_uint16(quantizer: PoissonQuantizer, decoder: str) -> None:
    if decoder != "midpoint":
        # The most one-sided scans that exist: every bin's values all at one end.
        levels = quantizer.levels(np.uint16)
        ends = levels.lows if decoder == "low-centroid" else levels.highs
        values = (ends[levels.highs >= levels.lows] + quantizer.offset).astype(np.uint16)
        sums = quantizer.table(np.uint16).level_sums(values)
        quantizer = quantizer.with_centroids(sums, np.uint16)
        assert np.array_equal(quantizer.levels(np.uint16).lows, levels.lows)
    table = quantizer.table(np.uint16)
    codes = table.encode(UINT16, np.dtype(np.uint16))
    decoded = table.decode(codes)
    x = UINT16.astype(object) - quantizer.offset
    d = decoded.astype(object) - UINT16
    k2 = quantizer.k2
    inside = quantizer.offset <= UINT16
    assert np.all((d * d * k2.denominator <= k2.numerator * x)[inside])
    assert np.array_equal(decoded[~inside], UINT16[~inside])
    assert np.array_equal(table.encode(decoded, np.dtype(np.uint16)), codes)
    assert decoded[quantizer.offset] == quantizer.offset


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["0.1", "0.5", "1", "2", "huang-511", "huang-255", "huang-191"])
def test_bound_at_every_bin_edge_up_to_32_bits(choice: str) -> None:
    top = (1 << 32) - 1
    if choice in PRESETS:
        quantizer = PoissonQuantizer(preset=choice)
        levels = huang_levels(choice, Fraction(1), top)
    else:
        quantizer = PoissonQuantizer(r=choice)
        levels = optimal_levels(Fraction(choice) ** 2, top)
    assert levels.lows[0] == 0
    assert levels.highs[-1] == top
    occupied = levels.highs >= levels.lows
    values, lows, highs = (a[occupied] for a in (levels.midpoints, levels.lows, levels.highs))
    # Bins leave no gap, and the error is largest at a bin's ends; Python integers cannot overflow.
    assert np.array_equal(lows[1:], highs[:-1] + 1)
    p, q = levels.k2.numerator, levels.k2.denominator
    for edge in (lows, highs):
        d = (values - edge).astype(object)
        assert np.all(d * d * q <= p * edge.astype(object))
    table = quantizer.table(np.uint32)
    edges = np.concatenate([lows, highs])
    edges = edges[edges < top].astype(np.uint32)
    codes = table.encode(edges, np.dtype(np.uint32))
    expected = table.levels.lows.searchsorted(edges.astype(np.int64), side="right") - 1
    assert np.array_equal(codes, expected)


@pytest.mark.slow
def test_radius_is_exact() -> None:
    rng = np.random.default_rng(1)
    squares = np.arange(1 << 16, dtype=np.int64) ** 2
    x = np.concatenate([squares, squares[1:] - 1, squares + 1, rng.integers(0, 1 << 32, 2000)])
    for k2 in (Fraction(1), Fraction(1, 4), Fraction("0.354") ** 2, Fraction("33.7") / 4):
        expected = [isqrt(k2.numerator * int(v) // k2.denominator) for v in x]
        assert np.array_equal(radius(x, k2), expected)


def test_refusals() -> None:
    with pytest.raises(ConfigurationError, match="levels"):
        optimal_levels(Fraction(1, 10**8), (1 << 32) - 1)
    with pytest.raises(ConfigurationError, match="does not suit this gain"):
        huang_levels("huang-511", Fraction(1, 3), 65535)
    with pytest.raises(ConfigurationError, match="unknown preset"):
        preset_bound("huang-512")
