"""The residual coder: exact or within its bound for any counts and any prediction."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemcodecs.errors import CorruptChunkError
from stemcodecs.lowrank import residual
from stemcodecs.lowrank.residual import LARGEST, LARGEST_BOUNDED, decode_residual, encode_residual
from stemcodecs.metrics import poisson_entropy

Array = np.ndarray[Any, Any]


def round_trip(counts: Array, rates: Array, width: int, bound: Fraction | None) -> tuple[Array, int]:
    def rates_of(first: int, last: int) -> Array:
        return np.array(rates[first:last].T, order="C")

    data = encode_residual(counts, rates_of, width, bound)
    out = np.empty_like(counts)
    decode_residual(memoryview(data), counts.shape, rates_of, width, bound, out)
    return out, len(data)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)  # the first call compiles
@given(
    seed=st.integers(0, 2**32),
    positions=st.integers(1, 150),
    detector=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    mean=st.sampled_from([0.0, 0.02, 1.0, 30.0, 3e3, 4e5, 1e9]),
    skill=st.sampled_from([0.0, 0.3, 1.0]),
    bound=st.sampled_from([None, Fraction(1, 2), Fraction(1), Fraction(3)]),
)
def test_any_counts_and_any_prediction(
    seed: int, positions: int, detector: tuple[int, int], mean: float, skill: float, bound: Fraction | None
) -> None:
    generator = np.random.default_rng(seed)
    pixels = detector[0] * detector[1]
    rate = generator.gamma(0.5, 2.0, (positions, pixels)) * mean
    counts = generator.poisson(rate)
    counts = np.minimum(counts, LARGEST - 1 if bound is None else LARGEST_BOUNDED)
    guess = rate**skill * generator.gamma(1, 1, rate.shape) ** (1 - skill)
    out, _ = round_trip(counts, (guess * 4096).astype(np.int64), detector[1], bound)
    if bound is None:
        assert np.array_equal(out, counts)
    else:
        # In integers: |N' − N| · q ≤ p · √N.
        error = (out - counts).astype(object) ** 2 * bound.denominator**2
        assert (error <= counts.astype(object) * bound.numerator**2).all()
        assert (out[counts == 0] == 0).all()


def test_what_is_kept_between_passes_changes_no_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = np.random.default_rng(0).poisson(7.0, (300, 35))

    def rates_of(first: int, last: int) -> Array:
        return np.full((35, last - first), 7 << 12, np.int64)

    whole = encode_residual(counts, rates_of, 7)
    for room in (0, 30_000):
        monkeypatch.setattr(residual, "KEPT_BYTES", room)
        assert encode_residual(counts, rates_of, 7) == whole


def test_counts_far_above_and_below_their_prediction() -> None:
    """Differences that no table holds, in groups that the tables were not fitted to."""
    counts = np.full((700, 24), 3, np.int64)
    counts[450:455] = LARGEST - 1
    rates = np.full((700, 24), 3 << 12, np.int64)
    rates[460:470] = 1 << 46
    out, _ = round_trip(counts, rates, 6, None)
    assert np.array_equal(out, counts)


@pytest.mark.slow
@pytest.mark.parametrize("mean", [0.1, 1.0, 8.0, 40.0, 900.0])
def test_known_rates_reach_the_entropy(mean: float) -> None:
    generator = np.random.default_rng(0)
    rate = generator.gamma(4.0, mean / 4, 900)
    counts = generator.poisson(rate, (320, 900))
    rates = np.broadcast_to((rate * 4096).astype(np.int64), counts.shape)
    _, size = round_trip(counts, rates, 30, None)
    entropy = float(poisson_entropy(rate).mean())
    assert 8 * size / counts.size < 1.03 * entropy + 0.01


def test_neighbours_catch_what_the_prediction_misses() -> None:
    generator = np.random.default_rng(0)
    # Charge sharing: each event also counts in the pixel to its right.
    events = generator.poisson(2.0, (128, 24, 25))
    counts = (events[:, :, 1:] + events[:, :, :-1]).reshape(128, -1)
    rates = np.full(counts.shape, 4 * 4096, np.int64)
    _, shared = round_trip(counts, rates, 24, None)
    _, shuffled = round_trip(generator.permuted(counts, axis=1), rates, 24, None)
    assert shared < 0.97 * shuffled


def test_every_truncation_and_many_mutations_raise_or_stay_in_range() -> None:
    generator = np.random.default_rng(0)
    counts = generator.poisson(5.0, (70, 12)).astype(np.uint16)
    rates = np.full((12, 70), 5 * 4096, np.int64)

    def rates_of(first: int, last: int) -> Array:
        return np.array(rates[:, first:last], order="C")

    data = encode_residual(counts, rates_of, 4)
    out = np.empty_like(counts)
    for size in range(len(data)):
        with pytest.raises(CorruptChunkError):
            decode_residual(memoryview(data[:size]), counts.shape, rates_of, 4, None, out)
    silent = 0
    for at in range(len(data)):
        broken = bytearray(data)
        broken[at] ^= 1 + int(generator.integers(255))
        try:
            decode_residual(memoryview(bytes(broken)), counts.shape, rates_of, 4, None, out)
        except CorruptChunkError:
            continue
        silent += 1
    # The chunk's checksum comes first; even without it the end state of the coder tells nearly all.
    assert silent < 0.02 * len(data)
