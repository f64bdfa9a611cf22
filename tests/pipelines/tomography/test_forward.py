"""The forward model against sums ray by ray, closed forms, and its own differences."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.tomography.cross_sections import cross_sections
from stemcodecs_pipelines.tomography.forward import Projector
from tests.pipelines.tomography import ray_sum
from tests.pipelines.tomography.specimens import geometry

torch = pytest.importorskip("torch")
pytest.importorskip("xraylib")

SECTIONS = ("Ca", "Fe")


@pytest.fixture(scope="module")
def sections():
    return cross_sections(SECTIONS, 10.0)


def flat(density):
    """(element, row, x, z) as the model takes it."""
    values = torch.as_tensor(np.ascontiguousarray(np.transpose(density, (2, 3, 1, 0))))
    return values.reshape(-1, *values.shape[2:])


@pytest.mark.parametrize("points", [1, 3, 4])
def test_counts_are_those_of_a_sum_over_rays(sections, points):
    n = 13
    # A near and wide detector, and dense matter: rays of very different slopes and depths.
    here = geometry(n, points=points, detector_distance=0.02, detector_diameter=0.02, pixel_size=4e-4)
    density = np.random.default_rng(points).uniform(0, 4, (2, 2, n, n))
    project = Projector(here, sections, n, dtype=torch.float64)
    for angle in (0, 1, 7, 17):
        counts, passed = project(flat(density), angle)
        for row in range(2):
            expected, through = ray_sum.counts(density[:, row], here.angles[angle], here, sections)
            np.testing.assert_allclose(counts[:, row], expected, rtol=1e-9)
            np.testing.assert_allclose(passed[row], through, rtol=1e-9)


def test_single_precision_keeps_five_digits(sections, phantom):
    here = geometry()
    project = Projector(here, sections, 16)
    density = phantom.density[:, 7:9]
    counts, passed = project(flat(density), 5)
    for row in range(2):
        expected, through = ray_sum.counts(density[:, row].astype(float), here.angles[5], here, sections)
        np.testing.assert_allclose(counts[:, row], expected, rtol=1e-5)
        np.testing.assert_allclose(passed[row], through, rtol=1e-5)


def test_a_grid_of_rays_comes_close_to_the_rays_themselves():
    # On a smooth object the interpolation between rays costs less than three thousandths of the depth.
    n = 24
    here = geometry(n)
    x, z = np.meshgrid(np.linspace(-1, 1, n), np.linspace(-1, 1, n), indexing="ij")
    smooth = np.exp(-4 * (x**2 + z**2))
    point, distance = here.detector()[0][0] / here.pixel_size, here.detector_distance / here.pixel_size
    for i, k in [(3, 12), (12, 12), (12, 5), (20, 15)]:
        true = ray_sum.true_depth(smooth, i, k, distance, point)
        assert ray_sum.depth(smooth, i, k, distance, point) == pytest.approx(true, abs=3e-3 * smooth.sum(0).max())


def test_a_uniform_slab_by_its_closed_form():
    """A block of Ca, a far detector: both absorptions are geometric sums."""
    n = 15
    sections = cross_sections(["Ca"], 10.0)
    here = geometry(n, points=1, detector_distance=1e6, detector_diameter=1e5, pixel_size=1e-3)
    counts, passed = Projector(here, sections, n, dtype=torch.float64)(flat(np.full((1, 1, n, n), 1.5)), 0)
    beam, out = (1.5 * 1e-3 * float(mu) for mu in (sections.beam[0], sections.emitted[0, 0]))
    arrived = sum(math.exp(-beam * (k + 0.5)) for k in range(n))
    escaped = np.exp(-out * (np.arange(n)[::-1] + 0.5))
    expected = 1e7 * here.solid_angle * 1e-3 * 1.5 * sections.produced[0] * arrived * escaped
    np.testing.assert_allclose(counts[0, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(passed[0], math.exp(-n * beam), rtol=1e-12)


def test_without_self_absorption_all_gets_out(sections, phantom):
    here = geometry()
    with_it, without = (Projector(here, sections, 16, self_absorption=s) for s in (True, False))
    density = flat(phantom.density)
    assert (with_it(density, 3)[0] <= without(density, 3)[0]).all()
    thin = 1e-6 * density
    torch.testing.assert_close(with_it(thin, 3)[0], without(thin, 3)[0], rtol=1e-5, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("points", [1, 3])
def test_gradients_are_those_of_finite_differences(sections, points):
    n = 5
    here = geometry(n, points=points, detector_distance=0.02, detector_diameter=0.01, pixel_size=8e-4, photons=1e3)
    project = Projector(here, sections, n, dtype=torch.float64)
    density = torch.rand((n * n, 2, 2), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for angle in (0, 5):
        assert torch.autograd.gradcheck(lambda c, a=angle: project(c, a), density.requires_grad_(True))


def test_gradient_runs_through_self_absorption(sections):
    """Fe that nothing is seen of darkens the line of Ca behind it; a detached S would not know."""
    n = 9
    project = Projector(geometry(n, points=1), sections, n, dtype=torch.float64)
    density = np.zeros((2, 1, n, n))
    density[0, 0, 2, 4] = 1.0
    values = flat(density).requires_grad_(True)
    counts, _ = project(values, 0)
    counts[0].sum().backward()
    gradient = values.grad.reshape(n, n, 1, 2)
    assert (gradient[3:, 4, 0, 1] < 0).all()  # Fe between the Ca and the detector
    assert (gradient[:2, 4, 0, 1] == 0).all()  # behind it


def test_a_specimen_that_reaches_to_the_detector(sections):
    with pytest.raises(ConfigurationError, match="reaches to the detector"):
        Projector(geometry(pixel_size=0.5), sections, 16)
    with pytest.raises(ConfigurationError, match="at least two"):
        Projector(geometry(), sections, 1)
