"""The small measurement that these tests share."""

from __future__ import annotations

import numpy as np

from stemcodecs_pipelines.tomography.geometry import Geometry

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
