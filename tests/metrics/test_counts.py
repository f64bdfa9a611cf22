"""Errors of counts, in pieces."""

from __future__ import annotations

import numpy as np
import pytest

from stemcodecs.errors import ConfigurationError
from stemcodecs.metrics import counts, diffraction_mse, total_count_bias


@pytest.fixture(scope="module")
def scans():
    rng = np.random.default_rng(1)
    original = rng.poisson(40.0, (50, 6, 7)).astype(np.uint16)
    return original + rng.integers(0, 3, original.shape).astype(np.uint16), original


def test_closed_forms(scans):
    decoded, original = scans
    signed = decoded.astype(float) - original
    assert diffraction_mse(decoded, original) == pytest.approx((signed**2).mean())
    assert total_count_bias(decoded, original) == pytest.approx(signed.sum() / original.sum())
    # Unsigned counts that fall below the original do not wrap around.
    assert diffraction_mse(np.zeros(3, np.uint16), np.full(3, 2, np.uint16)) == 4
    assert total_count_bias(np.zeros(3, np.uint16), np.full(3, 2, np.uint16)) == -1


def test_pieces_change_nothing(scans, monkeypatch, tmp_path):
    decoded, original = scans
    whole = diffraction_mse(decoded, original), total_count_bias(decoded, original)
    monkeypatch.setattr(counts, "_PIECE_VALUES", 6 * 7 * 4)
    np.save(tmp_path / "scan.npy", decoded)
    mapped = np.load(tmp_path / "scan.npy", mmap_mode="r")
    assert diffraction_mse(mapped, original) == pytest.approx(whole[0])
    assert total_count_bias(mapped, original) == pytest.approx(whole[1])


def test_what_cannot_be_compared(scans):
    decoded, original = scans
    for metric in (diffraction_mse, total_count_bias):
        with pytest.raises(ConfigurationError, match="compare arrays of one shape"):
            metric(decoded[:-1], original)
        with pytest.raises(ConfigurationError, match="nothing to compare"):
            metric(decoded[:0], original[:0])
    with pytest.raises(ConfigurationError, match="no counts"):
        total_count_bias(decoded, np.zeros_like(original))
