from __future__ import annotations

import sys

import numpy as np
import pytest
from stemcodecs_pipelines.compare.generic_sizes import GENERIC_CODERS, png_size

from stemcodecs.errors import UnsupportedDtypeError
from stemcodecs_pipelines.compare.demo import run_demo


def test_png_refuses_what_it_cannot_store():
    pytest.importorskip("PIL")
    with pytest.raises(UnsupportedDtypeError):
        png_size(np.zeros((1, 2, 2), np.int32))


def test_png_stores_every_bit_of_16():
    """Noise of 16 bits cannot be stored in fewer: an image that was cut to 8 would be half as large."""
    pytest.importorskip("PIL")
    noise = np.random.default_rng(0).integers(0, 65536, (2, 64, 64)).astype("u2")
    assert png_size(noise) > noise.nbytes


def test_generic_coders_compress_counts():
    pytest.importorskip("PIL")
    patterns = np.random.default_rng(0).poisson(0.3, (4, 32, 32)).astype("u2")
    for size in GENERIC_CODERS.values():
        assert 0 < size(patterns) < patterns.nbytes


def demo(folder):
    lines = []
    run_demo(str(folder), echo=lines.append, scan_shape=(4, 4), detector_shape=(16, 16))
    return lines


@pytest.mark.slow
def test_demo_shows_every_coder_and_the_bound(tmp_path):
    pytest.importorskip("PIL")
    text = "\n".join(demo(tmp_path / "kept"))
    assert "verified: all 4,096 values" in text
    assert "without" not in text
    for name in [*GENERIC_CODERS, "stemcodecs", "Shannon bound"]:
        assert name in text
    assert sorted(p.name for p in (tmp_path / "kept").iterdir()) == ["simulated.npy", "simulated.zarr"]


@pytest.mark.slow
def test_demo_says_which_coder_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    rows = [line for line in demo(tmp_path) if "PNG" in line]
    assert rows == ["(without PNG, an image per pattern: pip install 'stemcodecs[plot]' brings what it needs)"]
