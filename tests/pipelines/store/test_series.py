"""Series of scans, 5 dimensions and more: stored whole, with images of every scan."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

import stemcodecs
from stemcodecs.readers import open_scan
from stemcodecs_pipelines import compress, decompress
from stemcodecs_pipelines.run.plan import choose_chunk


@pytest.fixture(scope="module")
def series() -> np.ndarray:
    """2 tilts × 3 times of a scan of 5×6 positions, with a bright-field disk that moves with the tilt."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:12, :16]
    rates = [np.where((y - 5) ** 2 + (x - 7 - tilt) ** 2 <= 16, 8.0, 0.2) for tilt in range(2)]
    return np.stack([rng.poisson(rate, (3, 5, 6, 12, 16)) for rate in rates]).astype("u2")


@pytest.fixture
def source(series, tmp_path):
    with h5py.File(tmp_path / "series.h5", "w") as file:
        file["counts"] = series
        file["mask"] = np.ones((12, 16), "u1")
        for i, name in enumerate(("tilt", "time")):
            file["counts"].dims[i].label = name
    return tmp_path / "series.h5"


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [None, (1, 2, 3, 4), (2, 2, 2, 6, 12, 16)])
def test_series_comes_back_whole_with_its_images(chunk, source, series, tmp_path):
    with open_scan(source) as scan:
        made = compress(scan, tmp_path / "a.zarr", chunk=chunk)
    assert made.verified
    dataset = stemcodecs.open(tmp_path / "a.zarr")
    assert dataset["data"].dims == ("tilt", "time", "scan_y", "scan_x", "det_y", "det_x")
    np.testing.assert_array_equal(dataset["data"].values, series)
    assert dataset["sum_image"].dims == dataset["data"].dims[:-2]
    np.testing.assert_array_equal(dataset["sum_image"].values, series.sum((-2, -1)))
    np.testing.assert_allclose(dataset["mean_pattern"].values, series.mean((0, 1, 2, 3)), rtol=1e-6)
    rows = np.arange(12)[:, None] * series.astype(np.int64)
    expected = rows.sum((-2, -1)) / series.sum((-2, -1))
    np.testing.assert_allclose(dataset["com_y"].values, expected, rtol=1e-5)
    one = dataset.isel(time=1).stem.mean_pattern()
    np.testing.assert_allclose(one.values, series[:, 1].mean((0, 1, 2)), rtol=1e-6)
    for name in ("back.npy", "back.h5", "back.zarr"):
        decompress(tmp_path / "a.zarr", tmp_path / name)
        with open_scan(tmp_path / name) as scan:
            np.testing.assert_array_equal(scan.read(()), series)


@pytest.mark.parametrize(
    ("shape", "chunk"),
    [
        ((5, 256, 256, 128, 128), (1, 32, 32, 128, 128)),  # each scan as it would be cut alone
        ((100, 32, 32, 32, 32), (32, 32, 32, 32, 32)),  # as many whole scans as fit
        ((7, 10, 16, 16, 64, 64), (3, 10, 16, 16, 64, 64)),
        ((2, 3, 5, 6, 12, 16), (2, 3, 5, 6, 12, 16)),
    ],
)
def test_chunks_of_a_series(shape, chunk):
    assert choose_chunk(shape, 2) == chunk
    assert choose_chunk(shape[-4:], 2) == chunk[-4:]
