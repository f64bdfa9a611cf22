"""A small measurement, where torch and xraylib are installed."""

from __future__ import annotations

import pytest

from stemcodecs_pipelines.tomography.phantom import make_phantom
from stemcodecs_pipelines.tomography.problem import simulate
from tests.pipelines.tomography.specimens import PIXELS, geometry


@pytest.fixture(scope="session")
def phantom():
    """A bead of Ca with pillars of Fe."""
    return make_phantom("calcium-iron", PIXELS)


@pytest.fixture(scope="session")
def problem(phantom):
    """Poisson counts of it."""
    pytest.importorskip("torch")
    pytest.importorskip("xraylib")
    return simulate(phantom, geometry(), 10.0, seed=1)
