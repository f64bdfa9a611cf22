"""Small low-rank Poisson scans."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


def low_rank_scan(
    positions: tuple[int, ...] = (9, 11),
    detector: tuple[int, int] = (12, 10),
    rank: int = 4,
    mean: float = 3.0,
    seed: int = 0,
) -> np.ndarray[Any, Any]:
    """Rates of exact rank ``rank``, float64, positions + detector."""
    generator = np.random.default_rng(seed)
    patterns = generator.gamma(0.7, size=(rank, *detector))
    mixture = generator.random((*positions, rank))
    rate = np.einsum("...k,kyx->...yx", mixture, patterns)
    return rate * (mean / rate.mean())


@pytest.fixture
def rate() -> np.ndarray[Any, Any]:
    return low_rank_scan()


@pytest.fixture
def scan(rate: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).poisson(rate).astype(np.uint16)
