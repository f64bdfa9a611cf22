"""Dose equivalents where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from stemcodecs.errors import ConfigurationError
from stemcodecs.metrics import dose_equivalent, smse

RATE = 50.0


@pytest.fixture(scope="module")
def counts():
    return np.random.default_rng(1).poisson(RATE, (64, 64, 16)).astype(np.uint16)


@pytest.mark.parametrize("fraction", [0.95, 0.6, 0.3, 0.06])
def test_noise_of_a_known_dose_is_found_against_the_truth(counts, fraction):
    lower = np.random.default_rng(2).poisson(fraction * RATE, counts.shape) / fraction
    found = dose_equivalent(counts, lower, lambda values: smse(values, np.full(counts.shape, RATE)))
    assert found == pytest.approx(fraction, rel=0.03)


def test_added_variance_against_the_original(counts):
    # Thinning adds N(1/f − 1); rounding to multiples of 21 adds (21² − 1)/12.
    rounded = np.rint(counts / 21.0) * 21
    added = float(((rounded - counts) ** 2).mean())
    assert added == pytest.approx(440 / 12, rel=0.1)
    found = dose_equivalent(counts, rounded, lambda values: smse(values, counts))
    assert found == pytest.approx(1 / (1 + added / RATE), rel=0.02)


def test_lossless_costs_nothing_and_ruin_everything(counts):
    def against_truth(values):
        return smse(values, np.full(counts.shape, RATE))

    assert dose_equivalent(counts, counts, against_truth) == 1.0
    assert dose_equivalent(counts, np.full(counts.shape, 51.0), against_truth) == 1.0
    assert dose_equivalent(counts, 1e4 * counts, against_truth) == 0.0


def test_same_seed_same_result(counts):
    rounded = np.rint(counts / 20.0) * 20
    results = [dose_equivalent(counts, rounded, lambda v: smse(v, counts), seed=s) for s in (3, 3, 4)]
    assert results[0] == results[1] != results[2]


def test_what_cannot_be_thinned(counts):
    for original in (counts + 0.5, counts - 100.0):
        with pytest.raises(ConfigurationError, match="only counts can be thinned"):
            dose_equivalent(original, counts, np.mean)
    with pytest.raises(ConfigurationError, match="the statistic gave nan"):
        dose_equivalent(counts, counts, lambda values: float("nan"))
    with pytest.raises(ConfigurationError, match="smallest between 0 and 1"):
        dose_equivalent(counts, counts, np.mean, smallest=2)
