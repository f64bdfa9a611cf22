from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import xarray as xr

import stemcodecs
from stemcodecs.errors import ConfigurationError
from stemcodecs.simulate import simulate_scan
from stemcodecs_pipelines.store.compress import compress

DERIVED = ["mean_pattern", "sum_image", "bright_field", "annular_dark_field", "com_y", "com_x"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A simulated scan, opened from its store."""
    place = tmp_path_factory.mktemp("store") / "scan.zarr"
    with simulate_scan("grains", (6, 7), (24, 24), mean_counts=2).scan() as scan:
        compress(scan, place, chunk=(3, 4))
    return stemcodecs.open(place)


@pytest.fixture
def counts(dataset):
    """Its counts."""
    return dataset["data"].values.astype(float)


def test_masks_give_virtual_images(dataset, counts):
    mask = np.random.default_rng(0).random((24, 24)) > 0.5
    image = dataset.stem.virtual_image(mask)
    assert image.dims == ("scan_y", "scan_x")
    assert image.chunks is not None
    assert image.dtype == np.int64
    assert np.array_equal(image, (counts * mask).sum((2, 3)))
    assert np.array_equal(image["scan_y"], dataset["scan_y"])


def test_weights_give_weighted_images(dataset, counts):
    weights = np.random.default_rng(1).normal(size=(24, 24))
    image = dataset.stem.virtual_image(weights)
    assert np.allclose(image, (counts * weights).sum((2, 3)))


def test_annulus_and_disks(dataset, counts):
    y, x = np.mgrid[:24, :24]
    r = np.hypot(y - 11, x - 12)
    assert np.array_equal(dataset.stem.annulus(3, 6, center=(11, 12)), (counts * ((r > 3) & (r <= 6))).sum((2, 3)))
    assert np.array_equal(dataset.stem.bright_field(4, center=(11, 12)), (counts * (r <= 4)).sum((2, 3)))
    assert np.array_equal(dataset.stem.dark_field(4, 8, center=(11, 12)), (counts * ((r > 4) & (r <= 8))).sum((2, 3)))


def test_stored_images_equal_computed_ones_and_come_first(dataset):
    bare = dataset.drop_vars(DERIVED)
    pairs = [
        (dataset.stem.bright_field(), bare.stem.bright_field()),
        (dataset.stem.dark_field(), bare.stem.dark_field()),
        (dataset.stem.sum_image(), bare.stem.sum_image()),
        (dataset.stem.mean_pattern(), bare.stem.mean_pattern()),
        (dataset.stem.center_of_mass()["com_y"], bare.stem.center_of_mass()["com_y"]),
        (dataset.stem.center_of_mass()["com_x"], bare.stem.center_of_mass()["com_x"]),
    ]
    for stored, computed in pairs:
        assert stored.name in dataset
        assert computed.chunks is not None
        np.testing.assert_allclose(stored, computed, rtol=1e-6)


def test_cuts_never_show_stale_values(dataset, counts):
    scan = dataset.isel(scan_y=slice(0, 2))
    assert np.allclose(scan.stem.mean_pattern(), counts[:2].mean((0, 1)))
    assert np.array_equal(scan.stem.sum_image(), counts[:2].sum((2, 3)))
    detector = dataset.isel(det_x=slice(4, 20))
    assert np.array_equal(detector.stem.sum_image(), counts[..., 4:20].sum((2, 3)))
    assert np.allclose(detector.stem.mean_pattern(), counts[..., 4:20].mean((0, 1)))


def test_center_of_mass_of_masked_and_empty_patterns():
    data = np.zeros((2, 1, 4, 4), np.uint8)
    data[0, 0, 1, 2] = 3
    dataset = xr.Dataset({"data": (("scan_y", "scan_x", "det_y", "det_x"), data)})
    found = dataset.stem.center_of_mass()
    assert (found["com_y"][0, 0], found["com_x"][0, 0]) == (1, 2)
    assert np.isnan(found["com_y"][1, 0])
    mask = np.ones((4, 4))
    mask[1, 2] = 0
    assert np.isnan(dataset.stem.center_of_mass(mask)["com_x"]).all()


def test_detector_cut_into_chunks_works(dataset, counts):
    cut = dataset.drop_vars(DERIVED).chunk(det_x=10)
    assert np.array_equal(cut.stem.sum_image(), counts.sum((2, 3)))


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda stem: stem.virtual_image(np.ones((3, 3))), "the mask has shape"),
        (lambda stem: stem.annulus(5, 5, center=(1, 1)), "is empty"),
        (lambda stem: stem.bright_field(), "bright-field disk is"),
        (lambda stem: stem.bright_field(2.0), "give center="),
    ],
)
def test_unusable_requests_are_refused(use, message):
    dataset = xr.Dataset({"data": (("scan_y", "scan_x", "det_y", "det_x"), np.zeros((2, 2, 4, 4)))})
    with pytest.raises(ConfigurationError, match=message):
        use(dataset.stem)


def test_dataset_without_a_scan_is_refused():
    with pytest.raises(ConfigurationError, match="no variable data"):
        xr.Dataset({"other": ("x", [1])}).stem.sum_image()


def test_hyperspy_gets_calibrated_axes(dataset, monkeypatch):
    made = {}

    class Signal2D:
        def __init__(self, data, axes):
            made.update(data=data, axes=axes)

        def as_lazy(self):
            return self

    module = types.ModuleType("hyperspy.signals")
    module.Signal2D = Signal2D
    monkeypatch.setitem(sys.modules, "hyperspy", types.ModuleType("hyperspy"))
    monkeypatch.setitem(sys.modules, "hyperspy.signals", module)
    assert isinstance(dataset.stem.to_hyperspy(), Signal2D)
    assert [a["navigate"] for a in made["axes"]] == [True, True, False, False]
    assert made["axes"][1]["name"] == "scan_x"
    assert made["axes"][1]["scale"] == pytest.approx(0.5)
    assert made["axes"][3]["units"] == "mrad"


def test_missing_hyperspy_is_one_clear_error(dataset, monkeypatch):
    monkeypatch.setitem(sys.modules, "hyperspy", None)
    monkeypatch.setitem(sys.modules, "hyperspy.signals", None)
    with pytest.raises(ConfigurationError, match="pip install hyperspy"):
        dataset.stem.to_hyperspy()
