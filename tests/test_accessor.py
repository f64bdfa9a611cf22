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


@pytest.mark.slow
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


def computed(dataset):
    """All derived values, from the data alone."""
    bare = dataset.drop_vars(DERIVED)
    return {
        "mean_pattern": bare.stem.mean_pattern(),
        "sum_image": bare.stem.sum_image(),
        **bare.stem.center_of_mass(),
    }


def shown(dataset):
    """The same as the accessor gives them."""
    return {
        "mean_pattern": dataset.stem.mean_pattern(),
        "sum_image": dataset.stem.sum_image(),
        **dataset.stem.center_of_mass(),
    }


CHANGES = {
    "scan rows": lambda ds: ds.isel(scan_y=slice(0, 2)),
    "scan positions by index": lambda ds: ds.isel(scan_y=[4, 1, 1], scan_x=[0, 6]),
    "flipped scan": lambda ds: ds.isel(scan_x=slice(None, None, -1)),
    "detector cut": lambda ds: ds.isel(det_x=slice(4, 20)),
    "detector cut, by value": lambda ds: ds.sel(det_y=slice(0, None)),
    "detector pixels by index": lambda ds: ds.isel(det_y=np.r_[12:24, 0:12]),
    "one pixel many times": lambda ds: ds.isel(det_y=[11] * 24),
    "flipped detector": lambda ds: ds.isel(det_y=slice(None, None, -1)),
    "sorted detector": lambda ds: ds.sortby("det_x", ascending=False),
    "rolled detector": lambda ds: ds.roll(det_x=3),
    "rolled with coordinates": lambda ds: ds.roll(det_x=3, roll_coords=True),
    "transposed detector": lambda ds: ds.transpose("scan_y", "scan_x", "det_x", "det_y"),
    "transposed scan": lambda ds: ds.transpose("scan_x", "scan_y", "det_y", "det_x"),
    "scaled": lambda ds: ds.assign(data=2 * ds.data),
    "background subtracted": lambda ds: ds.assign(data=ds.data.astype("f4") - ds.data.mean(("scan_y", "scan_x"))),
    "masked": lambda ds: ds.assign(data=ds.data.where(ds.det_x > 0, 0)),
    "copied with other values": lambda ds: ds.assign(data=ds.data.copy(data=ds.data.data + 1)),
    "assigned, flipped, without coordinates": lambda ds: ds.drop_vars(["scan_y", "scan_x", "det_y", "det_x"]).pipe(
        lambda bare: bare.assign(data=bare.data.isel(scan_y=slice(None, None, -1)))
    ),
    "loaded and changed": lambda ds: ds.load().pipe(lambda held: held.assign(data=held.data + 1)),
    "rechunked": lambda ds: ds.chunk(scan_y=2, scan_x=7),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_nothing_shows_stale_values(dataset, change):
    changed = CHANGES[change](dataset.copy())
    for name, value in computed(changed).items():
        np.testing.assert_allclose(shown(changed)[name], value, rtol=1e-6, err_msg=name)


@pytest.mark.slow
def test_data_of_another_store_are_not_taken_for_this_one(dataset, tmp_path):
    with simulate_scan("grains", (6, 7), (24, 24), mean_counts=2, seed=9).scan() as scan:
        compress(scan, tmp_path / "other.zarr", chunk=(3, 4))
    other = stemcodecs.open(tmp_path / "other.zarr")
    mixed = dataset.assign(data=other["data"])
    assert np.array_equal(mixed.stem.sum_image(), other["data"].sum(("det_y", "det_x")))


@pytest.mark.parametrize("change", ["scan rows", "scan positions by index", "flipped scan", "rechunked"])
def test_cuts_along_the_scan_keep_the_stored_images(dataset, change):
    # Decoding the data would raise: what is shown does not need it.
    changed = CHANGES[change](dataset.copy())
    name = changed.data.data.name
    image = changed.stem.sum_image()
    assert name not in image.data.dask.layers
    assert image.identical(changed["sum_image"])


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
