"""Turning, rays and detector points; geometries that cannot be."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.tomography.geometry import back_from_rays, rotation, to_rays
from tests.pipelines.tomography.specimens import geometry


def test_rotation_is_right_handed_about_y():
    # A quarter turn takes +z, where the beam goes, to +x, where the detector is.
    n = 5
    section = np.zeros((n, n))
    section[2, 4] = 1.0
    entries = rotation(n, np.pi / 2)
    lab = np.zeros(n * n)
    np.add.at(lab, entries.target, entries.weight * section.ravel()[entries.source])
    assert lab.reshape(n, n)[4, 2] == pytest.approx(1.0)


def test_rays_run_to_the_detector_and_back_weights_add_up():
    n = 16
    here = geometry(n)
    for point in here.detector()[0]:
        entries = back_from_rays(here, n, point)
        sums = np.bincount(entries.target, entries.weight, n * n)
        np.testing.assert_allclose(sums, 1.0)  # every voxel lies between two rays
        _, steps = to_rays(here, n, point)
        np.testing.assert_allclose(steps, here.pixel_size * math.hypot(1, point / 1.6), rtol=1e-3)


def test_detector_points_integrate_over_the_disk():
    points, shares = geometry(points=4).detector()
    assert shares.sum() == pytest.approx(1)
    # Mean of z² and of z⁴ over a disk of radius R: R²/4 and R⁴/8.
    assert (shares * points**2).sum() == pytest.approx(0.45**2 / 4)
    assert (shares * points**4).sum() == pytest.approx(0.45**4 / 8)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"angles": np.zeros(3)}, "3 angles are too few"),
        ({"angles": np.full(20, np.nan)}, "finite numbers in radian"),
        ({"angles": np.zeros((4, 5))}, "finite numbers in radian"),
        ({"pixel_size": 0.0}, "pixel_size 0.0 cannot be"),
        ({"photons": math.inf}, "photons inf cannot be"),
        ({"detector_distance": -1.0}, "detector_distance -1.0 cannot be"),
        ({"detector_points": 0}, "0 detector points"),
    ],
)
def test_geometry_that_cannot_be(changes, words):
    with pytest.raises(ConfigurationError, match=words):
        geometry(**changes)
