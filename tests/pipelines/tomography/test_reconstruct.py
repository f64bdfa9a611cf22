"""Densities that come back, and what leaving self-absorption out does to them."""

from __future__ import annotations

import numpy as np
import pytest

from stemcodecs.errors import ConfigurationError, SourceError
from stemcodecs_pipelines.tomography.judge import concentration_errors
from stemcodecs_pipelines.tomography.problem import simulate
from stemcodecs_pipelines.tomography.reconstruct import element_densities, reconstruct_rows
from stemcodecs_pipelines.tomography.settings import DescentSettings
from stemcodecs_pipelines.tomography.survey import expected_deviance, survey
from tests.pipelines.tomography.specimens import geometry

pytest.importorskip("torch")
pytest.importorskip("xraylib")

QUICK = DescentSettings(epochs=12)


@pytest.fixture(scope="module")
def found(problem):
    return element_densities(problem, QUICK)


def by_element(density, phantom):
    return {error.element: error for error in concentration_errors(phantom.elements, density, phantom.density)}


def test_masses_and_maps_come_back(found, phantom):
    errors = by_element(found.density, phantom)
    for error in errors.values():
        assert error.mass_ratio == pytest.approx(1, abs=0.01)
    assert errors["Fe"].relative_error < 0.05
    assert errors["Ca"].relative_error < 0.15
    assert found.density.dtype == np.float32
    assert found.density.min() >= 0
    assert found.deviance[-1] < 0.01 * found.deviance[0]


@pytest.mark.slow
def test_without_self_absorption_mass_is_lost(problem, phantom):
    errors = by_element(element_densities(problem, DescentSettings(epochs=6, self_absorption=False)).density, phantom)
    assert errors["Fe"].mass_ratio < 0.9
    assert errors["Ca"].mass_ratio < 0.95


@pytest.mark.slow
def test_rows_do_not_depend_on_each_other(problem):
    settings = DescentSettings(epochs=4)
    together = element_densities(problem, settings).density
    for rows in (slice(0, 7), slice(7, 16)):
        alone = reconstruct_rows(problem, rows, settings, survey(problem, 5))
        np.testing.assert_allclose(alone.density, together[:, rows], rtol=0, atol=2e-3)


def test_same_seed_same_densities(problem):
    settings = [DescentSettings(epochs=1, seed=seed) for seed in (0, 0, 1)]
    first, second, other = (element_densities(problem, s).density for s in settings)
    assert (first == second).all()
    assert (first != other).any()


def test_progress_is_told_every_epoch(problem):
    told = []
    element_densities(problem, DescentSettings(epochs=2), progress=told.append)
    assert told == [1, 1]


@pytest.mark.slow
def test_rows_stop_at_the_noise(problem):
    stopped = element_densities(problem, DescentSettings(epochs=12, stop_at_noise=True))
    # Above and below the bead nothing is counted, and nothing is left to fit.
    assert stopped.epochs[0] < 12
    assert stopped.density[:, 0].max() < 0.05
    assert stopped.epochs[8] > stopped.epochs[0]


@pytest.mark.slow
def test_total_variation_flattens_weak_maps(phantom):
    faint = simulate(phantom, geometry(photons=3e4), 10.0, seed=2)
    plain, flat = (
        by_element(element_densities(faint, DescentSettings(epochs=8, total_variation=tv)).density, phantom)["Ca"]
        for tv in (0.0, 0.1)
    )
    assert flat.relative_error < 0.8 * plain.relative_error


@pytest.mark.slow
def test_an_element_without_a_line_is_found_by_transmission():
    from stemcodecs_pipelines.tomography.phantom import pillars_in_bead

    phantom = pillars_in_bead(16, {"Si": 2.0}, [{"Fe": 3.0}], lines=["Fe"])
    seen = simulate(phantom, geometry(), 10.0, transmission_photons=1e6)
    errors = by_element(element_densities(seen, DescentSettings(epochs=8)).density, phantom)
    assert errors["Si"].mass_ratio == pytest.approx(1, abs=0.05)
    blind = type(seen)(counts=seen.counts, geometry=seen.geometry, sections=seen.sections)
    with pytest.raises(ConfigurationError, match="nothing determines Si"):
        element_densities(blind)


def test_empty_maps_are_refused(problem):
    with pytest.raises(SourceError, match="all maps are empty"):
        element_densities(problem.with_counts([np.zeros(problem.shape)] * 2))


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.5, 3.0, 30.0, 40.0, 1e4])
def test_expected_deviance_is_the_mean_of_many(rate):
    counts = np.random.default_rng(0).poisson(rate, 400_000).astype(float)
    logs = np.log(np.maximum(counts, 1) / max(rate, 1e-9))
    deviance = 2 * (counts * logs - counts + rate)
    assert expected_deviance(np.array(rate)) == pytest.approx(deviance.mean(), rel=0.02, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 0}, "0 epochs"),
        ({"seed": -1}, "seed -1"),
        ({"step": 0.0}, "step 0.0"),
        ({"decay": 1.5}, "decay 1.5"),
        ({"total_variation": -1.0}, "total_variation -1.0"),
        ({"transmission_weight": float("nan")}, "transmission_weight nan"),
    ],
)
def test_settings_that_cannot_be(changes, words):
    with pytest.raises(ConfigurationError, match=words):
        DescentSettings(**changes)


def test_concentrations_that_cannot_be_compared():
    with pytest.raises(ConfigurationError, match="do not fit"):
        concentration_errors(["Ca"], np.ones((1, 2, 2, 2)), np.ones((1, 2, 2, 3)))
    with pytest.raises(ConfigurationError, match="there is no Ca"):
        concentration_errors(["Ca"], np.ones((1, 2, 2, 2)), np.zeros((1, 2, 2, 2)))
