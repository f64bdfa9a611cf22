"""Counts that were divided by a dose or a monitor: a pattern's own values tell its scale, and so its counts' noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemcodecs.codecs import PoissonHistogram
from stemcodecs.codecs.poisson_histogram import NumcodecsPoissonHistogram
from stemcodecs.counts.beside_counts import BesideCounts
from stemcodecs.counts.counts_map import CountsMap
from stemcodecs.counts.deviation import deviation_behind
from stemcodecs.counts.find_map import find_map
from stemcodecs.counts.words import words_of_map
from stemcodecs.entropy.values.calibration import FloatCalibration
from stemcodecs.errors import CorruptChunkError
from stemcodecs.quantize import PoissonQuantizer
from tests.strategies import same_bits

Array = np.ndarray[Any, Any]
DETECTOR = (12, 10)
PIXELS = 120
PATTERNS = 20


def scaled_map(gain: Array, *, divides: bool = True, first: bool = False, single: bool = True) -> CountsMap:
    calibration = FloatCalibration(gain=gain, scale_divides=divides, scale_first=first, single=single)
    return CountsMap(detector=DETECTOR, calibration=calibration, zero=np.zeros(PIXELS, np.int64), scaled=True)


def made(seed: int, rate: float, single: bool, divides: bool, first: bool) -> tuple[CountsMap, Array, Array, Array]:
    """A map, counts[k, pixels], the scales of patterns, and the values."""
    random = np.random.default_rng(seed)
    kind = np.float32 if single else np.float64
    counts = random.poisson(random.gamma(1, rate, PIXELS), (PATTERNS, PIXELS))
    gain = random.lognormal(0, 0.2, PIXELS).astype(kind)
    scales = (random.lognormal(0, 3, PATTERNS) if seed % 2 else counts.sum(1) + 1.0).astype(kind)
    found = scaled_map(gain.astype(np.float64), divides=divides, first=first, single=single)
    return found, counts, scales, found.values(counts, np.dtype(kind), scales.astype(np.float64))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 99), st.sampled_from([0.3, 2.0, 40.0, 2000.0]), st.booleans(), st.booleans(), st.booleans(),
    st.sampled_from([0.25, 0.5, 1.0]),
)  # fmt: skip
def test_the_bound_is_that_of_the_counts_whatever_divided_them(
    seed: int, rate: float, single: bool, divides: bool, first: bool, r: float
) -> None:
    found, counts, scales, values = made(seed, rate, single, divides, first)
    random = np.random.default_rng(seed)
    values[random.random(values.shape) < 0.01] = np.nan
    values[1, 3], values[2, 4], values[3] = -0.0, values[2, 4] * 1.37, 0
    told = found.scales(values)
    assert told is not None
    lit = np.count_nonzero(values > 0, axis=1)
    # Values tell their scale, but where they are few; what they tell is no other.
    assert (told[lit > 60] > 0).all()
    known = told > 0
    given_back = found.values(counts[known], values.dtype, told[known])
    wrong = ~np.isnan(values[known]) & (given_back != values[known])
    assert np.count_nonzero(wrong) <= 0.05 * wrong.size
    assert (np.abs(told[known] / scales[known] - 1) < 1e-6).all()
    # A pattern by itself tells what it tells among others: who verifies sees other blocks than who encoded.
    alone = np.concatenate([found.scales(values[i : i + 1]) for i in range(PATTERNS)])  # type: ignore[arg-type, misc]
    assert same_bits(alone, told)
    configuration: dict[str, Any] = {"r": r, "map": found.to_uri()}
    codec, other = PoissonHistogram(**configuration), NumcodecsPoissonHistogram(**configuration)
    scan = values.reshape(4, 5, *DETECTOR)
    decoded = codec.decode_chunk(codec.encode_chunk(scan))
    assert other.decode(other.encode(scan)).tobytes() == decoded.tobytes()
    assert deviation_behind(scan, decoded, PoissonQuantizer(r=r), found, (0,) * 4).violations == 0
    # By hand, with what the counts and the scales really are.
    kind = np.longdouble
    gain = found.calibration.gain.astype(kind)  # type: ignore[union-attr]
    real = decoded.reshape(-1, PIXELS).astype(kind)
    behind = real * scales.astype(kind)[:, None] if divides else real / scales.astype(kind)[:, None]
    behind /= gain
    bits = f"u{values.dtype.itemsize}"
    changed = decoded.reshape(values.shape).view(bits) != values.view(bits)
    assert not changed[np.isnan(values) | (values == 0)].any()
    far = np.abs(behind - counts) <= r * np.sqrt(counts) * (1 + 1e-5) + 1e-5 * np.maximum(counts, 1)
    assert far[changed].all()


def test_few_counts_are_kept_exactly() -> None:
    """Ten pixels of two counts each look like single counts of twice the dose: the bound would be another."""
    values = np.zeros((4, PIXELS), np.float32)
    values[:, ::12] = 1 / np.float32(20)
    values[1:, :40] = np.random.default_rng(1).poisson(9, (3, 40)) / np.float32(360)
    found = scaled_map(np.ones(PIXELS))
    counts, unknown = found.counts(values)
    assert (unknown[0] == (values[0] != 0)).all()
    assert not unknown[1:].any()
    codec = PoissonHistogram(r=1, map=found.to_uri())
    scan = values.reshape(4, *DETECTOR)
    decoded = codec.decode_chunk(codec.encode_chunk(scan))
    assert decoded[0].tobytes() == scan[0].tobytes()
    assert (decoded != scan).any()
    assert (counts[0] == 0).all()


@pytest.mark.parametrize("gained", [False, True])
def test_dead_and_hot_pixels_have_no_counts(gained: bool) -> None:
    random = np.random.default_rng(3)
    counts = random.poisson(random.gamma(1, 1.5, PIXELS), (200, PIXELS))
    gain = random.normal(1, 0.05, PIXELS).astype("f4") if gained else np.ones(PIXELS, "f4")
    values = counts.astype("f4") * gain / random.normal(1, 0.05, (200, 1)).astype("f4")
    values[:, 7], values[:, 55] = 0.123, np.nan
    if not gained:
        values[:, 30] = random.normal(50, 1, 200)
    found = find_map(values.reshape(-1, *DETECTOR), np.arange(200), (10, 20)).map
    assert found is not None
    assert found.scaled
    told, unknown = found.counts(values)
    special = np.isin(np.arange(PIXELS), (7, 55) if gained else (7, 30, 55))
    assert unknown[:, special].mean() > 0.99
    assert (told == counts)[:, ~special].mean() > 0.99
    assert words_of_map(found).endswith("divided by a dose of each pattern")


def test_damage_to_scales_is_refused() -> None:
    found, _, _, values = made(3, 9.0, True, True, False)
    _, _, beside = BesideCounts.split(values, found)
    data = beside.to_bytes()
    for n in range(len(data)):
        with pytest.raises(CorruptChunkError):
            BesideCounts.from_bytes(data[:n], found, values.shape, 4)
    negative = BesideCounts(map=found, scales=-np.ones(PATTERNS), exact=beside.exact)
    with pytest.raises(CorruptChunkError, match="negative"):
        BesideCounts.from_bytes(negative.to_bytes(), found, values.shape, 4)
