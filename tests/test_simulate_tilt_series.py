"""Simulated tilt series: what the detector gives scatters about what it should, and the seed decides all of it."""

from __future__ import annotations

import numpy as np
import pytest

from stemcodecs.errors import ConfigurationError
from stemcodecs.simulate import simulate_tilt_series


def test_images_scatter_about_the_clean_ones() -> None:
    series = simulate_tilt_series((9, 48, 40), dose=400.0, seed=1)
    assert series.images.shape == series.clean.shape == (9, 48, 40)
    assert series.images.dtype == np.int16
    assert series.angles[[0, -1]].tolist() == [-70.0, 70.0]
    error = series.images - series.clean
    assert abs(error.mean()) < 0.5
    assert 5 < error.std() < 60
    # The film is thicker along the beam at high angles.
    assert np.median(series.clean[0]) > 1.2 * (np.median(series.clean[4]) + 31_900) - 31_900


def test_the_seed_decides() -> None:
    one, same, other = (simulate_tilt_series((3, 16, 16), seed=seed).images for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("wrong", [{"shape": (3, 4, 16)}, {"dose": 0.0}, {"most_angle": 80.0}])
def test_impossible_values_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="must be"):
        simulate_tilt_series(**({"shape": (3, 16, 16)} | wrong))  # type: ignore[arg-type]
