"""A small measurement; all of this room needs torch and xraylib."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("xraylib")

from stemcodecs_pipelines.tomography.geometry import Geometry
from stemcodecs_pipelines.tomography.phantom import make_phantom
from stemcodecs_pipelines.tomography.problem import simulate

PIXELS, ANGLES = 16, 24


def geometry(pixels=PIXELS, points=3, **changes):
    """The detector of the benchmark, looking at 50 µm."""
    known = {
        "angles": np.linspace(0, 2 * np.pi, ANGLES, endpoint=False),
        "pixel_size": 50e-4 / pixels,
        "photons": 1e7,
        "detector_distance": 1.6,
        "detector_diameter": 0.9,
        "detector_points": points,
    }
    return Geometry(**(known | changes))


@pytest.fixture(scope="session")
def phantom():
    """A bead of Ca with pillars of Fe."""
    return make_phantom("calcium-iron", PIXELS)


@pytest.fixture(scope="session")
def problem(phantom):
    """Poisson counts of it."""
    return simulate(phantom, geometry(), 10.0, seed=1)
