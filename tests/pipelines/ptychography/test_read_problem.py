"""Data sets of other programs, positions from files, and what the user adds."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from stemcodecs.errors import ConfigurationError, SourceError
from stemcodecs.readers import open_scan
from stemcodecs_pipelines.ptychography.amplitudes import Amplitudes
from stemcodecs_pipelines.ptychography.array_files import load_array, load_positions
from stemcodecs_pipelines.ptychography.data_sets import read_data_set
from stemcodecs_pipelines.ptychography.geometry import Orientation, wavelength_of
from stemcodecs_pipelines.ptychography.problem import MARGIN
from stemcodecs_pipelines.ptychography.read_problem import Known, read_problem
from stemcodecs_pipelines.store.compress import compress

N, COUNT = 16, 10
ENERGY = 6.2e3
DISTANCE, PIXEL = 1.5, 75e-6
OBJECT_PIXEL = wavelength_of(ENERGY, "photon") * DISTANCE / (N * PIXEL)


@pytest.fixture(scope="module")
def counts():
    y, x = np.mgrid[:N, :N]
    disc = np.hypot(y - 8, x - 7) < 5
    return np.random.default_rng(0).poisson(np.where(disc, 9.0, 0.1), (COUNT, N, N)).astype(np.uint16)


@pytest.fixture(scope="module")
def positions():
    """(y, x) in metres."""
    return np.random.default_rng(1).uniform(0, 30, (COUNT, 2)) * OBJECT_PIXEL


@pytest.fixture
def probe(tmp_path):
    np.save(tmp_path / "probe.npy", np.ones((1, 1, 2, N, N), complex))
    return str(tmp_path / "probe.npy")


def measured(problem):
    """Counts as the reconstruction sees them, in the order of the positions."""
    numbers, amplitudes = next(Amplitudes(problem).segments(np.random.default_rng(0)))
    return np.rint(np.fft.fftshift(amplitudes, axes=(1, 2))[np.argsort(numbers)] ** 2)


def holds(problem, counts, positions):
    assert problem.pixel_size == pytest.approx(OBJECT_PIXEL, rel=1e-6)
    shifted = positions / OBJECT_PIXEL
    assert np.allclose(problem.positions, shifted - shifted.min(0) + MARGIN, atol=1e-6)
    assert np.array_equal(measured(problem), counts)


def test_ptyd(counts, positions, probe, tmp_path):
    path = str(tmp_path / "sample.ptyd")
    with h5py.File(path, "w") as file:
        for key, value in (("energy", ENERGY / 1e3), ("distance", DISTANCE), ("psize", [PIXEL, PIXEL])):
            file[f"meta/{key}"] = value
        for number, part in enumerate((slice(0, 3), slice(3, 9), slice(9, 10))):
            file[f"chunks/{number}/data"] = counts[part]
            file[f"chunks/{number}/positions"] = positions[part]
        weights = np.ones((N, N))
        file["meta/weight2d"] = weights
    problem = read_problem(path, Known(probe=probe))
    holds(problem, counts, positions)
    assert len(problem.probe) == 2
    assert problem.wavelength == pytest.approx(wavelength_of(ENERGY, "photon"))


def cxi(path, counts, positions, basis=None):
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry_1")
        entry["data_1/data"] = counts
        entry["data_1/translation"] = np.column_stack([positions[:, 1], positions[:, 0], np.zeros(COUNT)])
        entry["instrument_1/source_1/energy"] = ENERGY * 1.602176634e-19
        detector = entry["instrument_1"].create_group("detector_1")
        detector["distance"], detector["x_pixel_size"], detector["y_pixel_size"] = DISTANCE, PIXEL, PIXEL
        mask = np.zeros((N, N), np.uint32)
        mask[3, 4] = 1
        detector["mask"] = mask
        if basis is not None:
            detector["basis_vectors"] = basis


def test_cxi(counts, positions, probe, tmp_path):
    path = str(tmp_path / "sample.cxi")
    cxi(path, counts, positions)
    problem = read_problem(path, Known(probe=probe))
    assert np.argwhere(~problem.mask).tolist() == [[3, 4]]
    clean = counts * problem.mask
    # The sample moves against the probe, and the detector's axes against those of the laboratory.
    holds(problem, clean, positions)
    path = str(tmp_path / "other.cxi")
    cxi(path, counts, positions, np.array([[0.0, PIXEL], [PIXEL, 0.0], [0.0, 0.0]]))
    holds(read_problem(path, Known(probe=probe)), clean, -positions)


def test_ptychoshelves(counts, positions, probe, tmp_path):
    path = str(tmp_path / "data_roi0_dp.hdf5")
    with h5py.File(path, "w") as file:
        file["dp"] = counts.swapaxes(1, 2)
    with pytest.raises(ConfigurationError, match="says no positions"):
        read_problem(path, Known(probe=probe, pixel_size=OBJECT_PIXEL))
    with h5py.File(tmp_path / "data_roi0_para.hdf5", "w") as file:
        file["ppX"], file["ppY"] = positions[:, 1], positions[:, 0]
    holds(read_problem(path, Known(probe=probe, pixel_size=OBJECT_PIXEL)), counts, positions)
    with h5py.File(tmp_path / "data_roi0_para.hdf5", "a") as file:
        file["dx"] = OBJECT_PIXEL
    holds(read_problem(path, Known(probe=probe)), counts, positions)
    # Written by a program that keeps rows and columns.
    turned = read_problem(path, Known(probe=probe, orientation=Orientation(transpose=True)))
    assert np.array_equal(measured(turned), counts.swapaxes(1, 2))


def test_csaxs(counts, positions, probe, tmp_path):
    path = str(tmp_path / "prepared.h5")
    with h5py.File(path, "w") as file:
        file["measurement/n0/data"] = np.fft.ifftshift(counts.swapaxes(1, 2), axes=(1, 2))
        file["measurement/n0/positions"] = positions / OBJECT_PIXEL
    holds(read_problem(path, Known(probe=probe, pixel_size=OBJECT_PIXEL)), counts, positions)


def test_a_part_that_is_missing_is_named(counts, tmp_path):
    path = str(tmp_path / "sample.ptyd")
    with h5py.File(path, "w") as file:
        file["chunks/0/data"] = counts
    with pytest.raises(SourceError, match="a part of it is missing"):
        read_data_set(path)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["something"] = counts
    assert read_data_set(str(tmp_path / "other.h5")) is None


@pytest.fixture
def store(counts, tmp_path):
    """Two rows of five positions, calibrated, in a store of ours."""
    with h5py.File(tmp_path / "scan.emd", "w") as file:
        file.attrs["version_major"], file.attrs["version_minor"] = 0, 2
        group = file.create_group("data/scan")
        group.attrs["emd_group_type"] = 1
        group["data"] = counts.reshape(2, 5, N, N)
        for number, (size, step, units) in enumerate(
            ((2, 3, "[n_m]"), (5, 2, "[n_m]"), (N, 0.05, "[n_m^-1]"), (N, 0.05, "[n_m^-1]")), 1
        ):
            dim = group.create_dataset(f"dim{number}", data=step * np.arange(size))
            dim.attrs["name"], dim.attrs["units"] = f"axis {number}", units
    with open_scan(tmp_path / "scan.emd") as scan:
        compress(scan, tmp_path / "scan.zarr")
    return str(tmp_path / "scan.zarr")


def test_the_calibration_of_a_store_is_enough(store, counts):
    known = Known(energy_ev=300e3, defocus=1e-6)
    problem = read_problem(store, known)
    pixel = 1 / (N * 0.05) * 1e-9
    assert problem.pixel_size == pytest.approx(pixel)
    step = problem.positions[[0, 1, 5]] - problem.positions[0]
    assert np.allclose(step * pixel, [[0, 0], [0, 2e-9], [3e-9, 0]])
    assert np.array_equal(measured(problem), counts)
    # The aperture is what the patterns show.
    aperture = np.abs(np.fft.fftshift(np.fft.fft2(problem.probe[0]))) > 1e-3
    assert np.array_equal(aperture, np.hypot(*(np.mgrid[:N, :N] - np.array([8, 7])[:, None, None])) < 5)
    turned = read_problem(store, Known(energy_ev=300e3, defocus=1e-6, scan_rotation=90))
    step = turned.positions[1] - turned.positions[0]
    assert np.allclose(step * pixel, [2e-9, 0])


def test_what_the_user_says_goes_first(store, probe, tmp_path):
    np.save(tmp_path / "p.npy", np.random.default_rng(0).random((2, 5, 2)) * 40)
    known = Known(probe=probe, positions=str(tmp_path / "p.npy"), position_units="nm", pixel_size=2e-9)
    problem = read_problem(store, known)
    assert problem.pixel_size == 2e-9
    assert np.ptp(problem.positions, axis=0).max() < 20
    steps = read_problem(store, Known(probe=probe, scan_step=(4e-9, 2e-9), pixel_size=1e-9))
    assert np.allclose(steps.positions[6] - steps.positions[0], [4, 2])
    angle = Known(probe=probe, energy_ev=300e3, detector_angle=1e-4)
    assert read_problem(store, angle).pixel_size == pytest.approx(wavelength_of(300e3, "electron") / N / 1e-4)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("no probe", {}),
        ("but not both", {"probe": "PROBE", "defocus": 1e-6}),
        ("needs the object pixel and the energy", {"defocus": 1e-6}),
        ("the wavelength; give --energy", {"probe": "PROBE", "detector_angle": 1e-4}),
        ("or the angle of a pixel", {"probe": "PROBE", "energy_ev": 3e5, "distance": 1.0}),
        ("but not both", {"probe": "PROBE", "pixel_size": 1e-9, "energy_ev": 3e5, "detector_angle": 1e-4}),
        ("but not both", {"probe": "PROBE", "positions": "PROBE", "scan_step": (1e-9, 1e-9)}),
        ("holds no positions", {"probe": "PROBE", "positions": "PROBE"}),
        ("no length is called", {"probe": "PROBE", "positions": "P", "position_units": "ell"}),
        ("holds real numbers", {"probe": "P"}),
    ],
)
def test_refusals(store, probe, tmp_path, message, said):
    np.save(tmp_path / "p.npy", np.zeros((10, 2)))
    places = {"PROBE": probe, "P": str(tmp_path / "p.npy")}
    known = Known(**{key: places.get(value, value) if isinstance(value, str) else value for key, value in said.items()})
    with pytest.raises((ConfigurationError, SourceError), match=message) as caught:
        read_problem(store, known)
    assert "\n" not in str(caught.value)


def test_positions_of_tables(tmp_path):
    for name, text in (
        ("plain.csv", "1,2\n3,4\n5,6\n"),
        ("named.csv", "n,x (um),y (um)\n0,2,1\n1,4,3\n2,6,5\n"),
        ("spaces.txt", "# y x\n1 2\n3 4\n5 6\n"),
        ("semicolons.csv", "\ufeffpos_y;pos_x\n1;2\n3;4\n5;6\n"),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert load_positions(str(tmp_path / name)).tolist() == [[1, 2], [3, 4], [5, 6]], name
    for name, text, message in (
        ("ragged.csv", "1,2\n3\n", "different numbers of columns"),
        ("empty.csv", "\n", "empty"),
        ("words.csv", "y,x\n1,two\n", "no number"),
        ("one.csv", "1\n2\n", "holds no positions"),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(SourceError, match=message):
            load_positions(str(tmp_path / name))


def test_arrays_of_files(tmp_path):
    np.savez(tmp_path / "two.npz", scan=np.eye(2), probe=np.ones(3))
    assert load_array(f"{tmp_path}/two.npz::scan").tolist() == [[1, 0], [0, 1]]
    with h5py.File(tmp_path / "one.h5", "w") as file:
        file["a/b"] = np.arange(3)
    assert load_array(str(tmp_path / "one.h5")).tolist() == [0, 1, 2]
    (tmp_path / "text.npy").write_text("no array")
    for place, message in (
        ("two.npz", "choose one as"),
        ("two.npz::mask", "there is no mask"),
        ("one.h5::c", "no dataset c|there is no c"),
        ("none.npy", "no such file"),
        ("text.npy", "cannot be read"),
    ):
        with pytest.raises(SourceError, match=message):
            load_array(str(tmp_path / place))
