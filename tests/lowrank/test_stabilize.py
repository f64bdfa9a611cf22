"""The Anscombe transform and its integer inverse."""

from __future__ import annotations

import numpy as np

from stemcodecs.lowrank.stabilize import (
    FRACTION_BITS,
    anscombe,
    anscombe_variance,
    fixed_inverse_table,
    inverse_anscombe,
)


def test_integer_inverse_follows_the_closed_form() -> None:
    table = fixed_inverse_table()
    y = np.arange(table.size) / (1 << FRACTION_BITS)
    assert np.abs(table / (1 << FRACTION_BITS) - inverse_anscombe(y)).max() < 1e-3
    assert (np.diff(table) >= -4).all()  # four floors may each step back by one unit


def test_inverse_is_unbiased_and_variance_is_that_of_poisson_counts() -> None:
    generator = np.random.default_rng(0)
    for rate in (0.05, 0.5, 2.0, 10.0, 200.0):
        values = anscombe(generator.poisson(rate, 400_000)).astype(np.float64)
        assert abs(inverse_anscombe(values.mean()) - rate) < 0.02 + 0.01 * rate
        assert np.isclose(values.var(), anscombe_variance(np.array(rate)), rtol=0.02)
