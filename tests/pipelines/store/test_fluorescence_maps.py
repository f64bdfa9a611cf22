"""Fluorescence maps are counts: stacks over angles, and spectra at every pixel, go in and come out."""

from __future__ import annotations

import numpy as np
import pytest

import stemcodecs
from stemcodecs.readers import open_scan
from stemcodecs_pipelines.store.compress import compress


@pytest.fixture(scope="module")
def maps():
    """(angle, y, x): a dense disk on nothing, as a projected bead gives."""
    y, x = np.mgrid[-1:1:24j, -1:1:20j]
    rate = 2000 * np.sqrt(np.maximum(0.5 - x**2 - y**2, 0))
    return np.random.default_rng(0).poisson(rate, (30, 24, 20)).astype(np.uint32)


@pytest.fixture(scope="module")
def spectra():
    """(y, x, energy): two lines on a falling background."""
    channel = np.arange(256)
    peaks = sum(50 * np.exp(-((channel - c) ** 2) / 18) for c in (80, 140))
    amount = np.random.default_rng(1).gamma(2, 0.5, (12, 14, 1))
    return np.random.default_rng(2).poisson(amount * peaks + np.exp(-channel / 60)).astype(np.uint16)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["maps", "spectra"])
@pytest.mark.parametrize("method", ["pixel_histogram", "poisson:r=0.5"])
def test_they_go_in_and_come_out(kind, method, tmp_path, request):
    counts = request.getfixturevalue(kind)
    np.save(tmp_path / "counts.npy", counts)
    with open_scan(tmp_path / "counts.npy") as scan:
        assert scan.shape == counts.shape
        result = compress(scan, tmp_path / "counts.zarr", method=method)
    stored = stemcodecs.open(tmp_path / "counts.zarr")["data"].to_numpy()
    if method == "pixel_histogram":
        assert (stored == counts).all()
    else:
        assert ((stored.astype(float) - counts) ** 2 <= 0.25 * counts).all()
    assert result.ratio > 1.5
