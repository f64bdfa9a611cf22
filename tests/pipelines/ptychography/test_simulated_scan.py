"""A simulated ptychographic scan: its parts fit each other, and its object can be found again."""

from __future__ import annotations

import numpy as np
import pytest

from stemcodecs.metrics import phase_mse
from stemcodecs_pipelines import reconstruct
from stemcodecs_pipelines.ptychography.simulated_scan import rough_phase, simulate_ptychography

OPTICS = {"semi_angle": 0.021, "defocus": 8e-9, "pixel_size": 2e-11, "wavelength": 2e-12}


def specimen(shape):
    return np.exp(0.5j * rough_phase(shape, 2.0))


@pytest.fixture(scope="module")
def scan():
    return simulate_ptychography(specimen, rows=7, side=24, step=4.0, **OPTICS)


def test_patterns_are_those_of_a_beam_of_one_count(scan):
    assert scan.rate.shape == (49, 24, 24)
    assert scan.truth.shape == scan.problem.object_shape
    # A phase object takes nothing from the beam.
    np.testing.assert_allclose(scan.rate.sum((1, 2)), 1, rtol=1e-5)


def test_positions_are_off_the_raster_by_no_more_than_the_jitter(scan):
    exact = simulate_ptychography(specimen, rows=7, side=24, step=4.0, jitter=0.0, **OPTICS).problem.positions
    difference = scan.problem.positions - exact
    assert 1.0 < np.ptp(difference, axis=0).max() <= 2.0
    assert np.ptp(np.diff(exact[:7], axis=0), axis=0) == pytest.approx([0, 0], abs=1e-9)


def test_the_object_is_found_again(scan):
    problem = scan.problem.with_patterns(np.random.default_rng(0).poisson(1e6 * scan.rate))
    support = scan.problem.covered(0.5)
    blank = phase_mse(np.ones_like(scan.truth), scan.truth, support)
    assert phase_mse(reconstruct(problem, "epie", iterations=15).object, scan.truth, support) < 0.1 * blank


def test_rough_phase():
    phase = rough_phase((64, 80), 2.0, seed=3)
    assert phase.shape == (64, 80)
    assert phase.std() == pytest.approx(1)
    neighbours = (phase[1:] * phase[:-1]).mean()
    assert neighbours == pytest.approx(np.exp(-1 / 16), abs=0.03)  # a Gaussian smoothed by a Gaussian
    assert not np.array_equal(phase, rough_phase((64, 80), 2.0, seed=4))
