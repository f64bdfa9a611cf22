"""Small scans that every reader is tested with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session")
def scan_4d() -> np.ndarray[Any, Any]:
    """Counts of a scan: every dimension has its own size, so that no two can be mixed up."""
    return np.random.default_rng(4).poisson(3.0, (5, 6, 7, 8)).astype(np.uint16)


@pytest.fixture(scope="session")
def stack_3d() -> np.ndarray[Any, Any]:
    """Counts of a stack of frames."""
    return np.random.default_rng(3).poisson(3.0, (11, 7, 8)).astype(np.uint16)
