"""Measurements: simulated ones, and those that cannot be."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from stemcodecs.errors import ConfigurationError, SourceError
from stemcodecs_pipelines.tomography.phantom import PHANTOMS, make_phantom, pillars_in_bead
from stemcodecs_pipelines.tomography.problem import simulate
from tests.pipelines.tomography.specimens import ANGLES, PIXELS, geometry


def test_counts_are_poisson_about_the_model(phantom, problem):
    rates = simulate(phantom, geometry(), 10.0, noise=False)
    for counts, rate in zip(problem.counts, rates.counts, strict=True):
        assert counts.dtype == np.uint32
        dense = rate > 20
        assert ((counts - rate)[dense] ** 2 / rate[dense]).mean() == pytest.approx(1, abs=0.05)
    assert np.std(problem.transmission - rates.transmission) < 0.02
    assert rates.transmission.min() > 0.3


def test_noise_follows_from_the_seed(phantom, problem):
    again, other = (simulate(phantom, geometry(), 10.0, seed=seed) for seed in (1, 2))
    assert (again.counts[0] == problem.counts[0]).all()
    assert (other.counts[0] != problem.counts[0]).any()


@pytest.mark.parametrize("name", PHANTOMS)
def test_phantoms_lie_within_the_cylinder_that_is_always_seen(name):
    phantom = make_phantom(name, 24)
    place = (np.arange(24) - 11.5) / 12
    outside = np.hypot(place[:, None], place) > 0.8
    assert phantom.density.shape == (len(phantom.elements), 24, 24, 24)
    assert not phantom.density[:, :, outside].any()
    assert phantom.density.max((1, 2, 3)).min() > 0


def test_phantoms_that_cannot_be():
    with pytest.raises(ConfigurationError, match="no phantom 'gold'"):
        make_phantom("gold")
    with pytest.raises(ConfigurationError, match="at least 8"):
        make_phantom("calcium-iron", 4)
    with pytest.raises(ConfigurationError, match="not negative"):
        pillars_in_bead(16, {"Ca": -1.0}, [{"Fe": 1.0}])
    with pytest.raises(ConfigurationError, match="needs pillars"):
        pillars_in_bead(16, {"Ca": 1.0}, [])


def changed(problem, **changes):
    return dataclasses.replace(problem, **changes)


def test_maps_that_do_not_fit(problem):
    with pytest.raises(ConfigurationError, match="1 maps of counts for 2 lines"):
        problem.with_counts(problem.counts[:1])
    with pytest.raises(ConfigurationError, match="give a stack of maps"):
        problem.with_counts([counts[0] for counts in problem.counts])
    with pytest.raises(ConfigurationError, match=f"23 maps for {ANGLES} angles"):
        problem.with_counts([counts[1:] for counts in problem.counts])
    with pytest.raises(ConfigurationError, match="give maps of one shape"):
        problem.with_counts([problem.counts[0], problem.counts[1][:, 1:]])
    with pytest.raises(ConfigurationError, match="transmission has shape"):
        changed(problem, transmission=problem.transmission[:, :, 1:])


def test_values_that_cannot_be_are_named_by_place(problem):
    broken = [counts.astype(float) for counts in problem.counts]
    broken[1][2, 3, 4] = np.nan
    with pytest.raises(SourceError, match="Fe-K: nan at angle 2, row 3, pixel 4 is no count"):
        problem.with_counts(broken).read(slice(1, PIXELS))
    broken[1][2, 3, 4] = -1
    with pytest.raises(SourceError, match="-1 at angle 2"):
        problem.with_counts(broken).read(slice(1, PIXELS))
    dark = problem.transmission.copy()
    dark[5, 6, 7] = 0
    with pytest.raises(SourceError, match="transmission: 0 at angle 5, row 6, pixel 7 has no logarithm"):
        changed(problem, transmission=dark).read(slice(0, PIXELS))
