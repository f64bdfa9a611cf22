"""Poisson entropy against direct summation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemcodecs.errors import ConfigurationError
from stemcodecs.metrics import bits_per_pixel, poisson_entropy, shannon_bound


def entropy_by_summation(rate: float) -> float:
    """Σ −p log2 p over ±14 standard deviations, with log p from lgamma."""
    spread = 14 * math.sqrt(rate) + 40
    total = []
    for n in range(max(0, int(rate - spread)), int(rate + spread)):
        log_p = n * math.log(rate) - rate - math.lgamma(n + 1)
        total.append(-math.exp(log_p) * log_p)
    return math.fsum(total) / math.log(2)


@pytest.mark.slow
@given(st.floats(-7.0, 5.0))
def test_entropy_equals_direct_summation(exponent):
    rate = 10.0**exponent
    assert poisson_entropy(rate) == pytest.approx(entropy_by_summation(rate), rel=1e-6)


def test_entropy_at_the_ends_and_at_the_seam():
    for rate in (1e-7, 35.999, 36.0, 36.001, 1e6):
        assert poisson_entropy(rate) == pytest.approx(entropy_by_summation(rate), rel=1e-6)
    assert poisson_entropy(0.0) == 0.0


def test_entropy_is_vectorised_over_any_shape_and_dtype():
    rate = np.array([[0, 1, 5], [40, 500, 3]], np.int32)
    bits = poisson_entropy(rate)
    assert bits.shape == rate.shape
    assert bits.dtype == np.float64
    for value, single in zip(rate.flat, bits.flat, strict=True):
        assert single == poisson_entropy(float(value))
    assert poisson_entropy(np.zeros((0, 3))).shape == (0, 3)


def test_entropy_grows_with_the_rate():
    assert (np.diff(poisson_entropy(np.logspace(-8, 7, 20_000))) > 0).all()


@pytest.mark.parametrize("rate", [-1.0, np.nan, np.inf])
def test_rates_that_cannot_be(rate):
    with pytest.raises(ConfigurationError, match="finite and not negative"):
        poisson_entropy([1.0, rate])


def test_bound_is_the_mean_entropy_also_in_pieces(monkeypatch):
    from stemcodecs.metrics import shannon

    rate = np.random.default_rng(0).gamma(0.5, 4.0, (7, 11, 13))
    expected = poisson_entropy(rate).mean()
    assert shannon_bound(rate) == pytest.approx(expected, rel=1e-12)
    monkeypatch.setattr(shannon, "_PIECE", 100)
    assert shannon_bound(rate) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ConfigurationError, match="no rates"):
        shannon_bound([])


def test_bits_per_pixel():
    assert bits_per_pixel(100, 400) == 2.0
    for nbytes, pixels in [(-1, 1), (1, 0)]:
        with pytest.raises(ConfigurationError, match="give real sizes"):
            bits_per_pixel(nbytes, pixels)
