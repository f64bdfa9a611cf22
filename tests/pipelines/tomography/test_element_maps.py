"""Blocks of rows on the engine, and the store that they make."""

from __future__ import annotations

import numpy as np
import pytest
import xarray
import zarr

from stemcodecs.errors import ConfigurationError, DestinationError, SourceError
from stemcodecs.readers import open_scan
from stemcodecs_pipelines.run.engine import DaskEngine
from stemcodecs_pipelines.tomography.element_maps import LARGEST_BLOCK, element_maps, plan_rows
from stemcodecs_pipelines.tomography.reconstruct import element_densities
from stemcodecs_pipelines.tomography.settings import DescentSettings
from stemcodecs_pipelines.tomography.volume import open_volume
from tests.pipelines.conftest import client  # noqa: F401  the fixture

pytest.importorskip("torch")
pytest.importorskip("xraylib")

QUICK = DescentSettings(epochs=2)


@pytest.fixture(scope="module")
def whole(problem):
    return element_densities(problem, QUICK)


@pytest.mark.slow
def test_a_store_that_xarray_opens(problem, whole, tmp_path):
    told = []
    plans = []
    out = tmp_path / "densities.zarr"
    result = element_maps(problem, out, QUICK, workers=3, start=plans.append, progress=told.append)
    assert plans[0].blocks == 3
    assert sum(told) == plans[0].blocks * QUICK.epochs
    with xarray.open_zarr(out) as dataset:
        assert dataset["Fe"].dims == ("y", "x", "z")
        assert dataset["Fe"].attrs["units"] == "g/cm3"
        assert dataset["x"].attrs["units"] == "um"
        assert float(dataset["x"][1] - dataset["x"][0]) == pytest.approx(50 / 16)
        assert float(dataset["z"].mean()) == pytest.approx(0)
        for i, symbol in enumerate(("Ca", "Fe")):
            np.testing.assert_allclose(dataset[symbol], whole.density[i], rtol=0, atol=2e-3)
            mass = float(dataset[symbol].sum(dtype="f8")) * (50e-4 / 16) ** 3
            assert result.masses[symbol] == pytest.approx(mass)
            assert dataset.attrs["mass_g"][symbol] == pytest.approx(mass)
        np.testing.assert_allclose(dataset["deviance"], whole.deviance, rtol=1e-3)
    volume = open_volume(out)
    assert volume.elements == ("Ca", "Fe")
    assert volume.density().shape == whole.density.shape
    assert (volume.section("Fe", 8) == volume.density()[1, 8]).all()


@pytest.mark.slow
def test_the_same_on_a_cluster_from_files(problem, whole, tmp_path, client):  # noqa: F811
    maps = []
    for name, counts in zip(("ca", "fe", "t"), [*problem.counts, problem.transmission], strict=True):
        np.save(tmp_path / f"{name}.npy", counts)
        maps.append(open_scan(tmp_path / f"{name}.npy"))
    from_files = type(problem)(
        counts=maps[:2], transmission=maps[2], geometry=problem.geometry, sections=problem.sections
    )
    out = tmp_path / "densities.zarr"
    told = []
    element_maps(from_files, out, QUICK, workers=2, engine=DaskEngine(client), progress=told.append)
    assert sum(told) == 2 * QUICK.epochs
    np.testing.assert_allclose(open_volume(out).density(), whole.density, rtol=0, atol=2e-3)


def test_nothing_is_left_of_a_run_that_fails(problem, tmp_path):
    broken = [counts.astype(float) for counts in problem.counts]
    broken[0][0, 15, 0] = np.nan
    with pytest.raises(SourceError, match="no count"):
        element_maps(problem.with_counts(broken), tmp_path / "densities.zarr", QUICK)
    assert list(tmp_path.iterdir()) == []


def test_maps_that_change_meanwhile_make_no_densities(problem, tmp_path):
    maps = []
    for name, counts in zip(("ca", "fe"), problem.counts, strict=True):
        np.save(tmp_path / f"{name}.npy", counts)
        maps.append(open_scan(tmp_path / f"{name}.npy"))

    def change(plan):
        np.save(tmp_path / "other.npy", problem.counts[0])
        (tmp_path / "other.npy").replace(tmp_path / "ca.npy")

    with pytest.raises(SourceError, match="not what it was when it was opened"):
        element_maps(problem.with_counts(maps), tmp_path / "out.zarr", DescentSettings(epochs=1), start=change)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca.npy", "fe.npy"]


def test_only_what_is_ours_is_replaced(problem, tmp_path):
    out = tmp_path / "densities.zarr"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(DestinationError, match="exists already"):
        element_maps(problem, out, QUICK)
    with pytest.raises(DestinationError, match="remove it yourself"):
        element_maps(problem, out, QUICK, overwrite=True)
    assert (out / "thesis.txt").exists()
    ours = tmp_path / "ours.zarr"
    for epochs in (1, 2):
        element_maps(problem, ours, DescentSettings(epochs=epochs), overwrite=True)
        assert zarr.open_group(ours, mode="r")["deviance"].shape == (epochs,)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["densities.zarr", "ours.zarr"]
    with pytest.raises(DestinationError, match="does not exist"):
        element_maps(problem, tmp_path / "no" / "where.zarr", QUICK)
    with pytest.raises(DestinationError, match="local folder"):
        element_maps(problem, "s3://bucket/densities.zarr", QUICK)
    with pytest.raises(SourceError, match="no densities"):
        open_volume(out)


def test_memory_is_said_before_and_rows_are_cut_to_fit(problem):
    plan = plan_rows(problem, workers=2)
    assert (plan.block, plan.blocks, plan.workers) == (8, 2, 2)
    assert "16 rows in 2 blocks of 8, 2 workers, memory at most" in plan.describe()
    assert [plan.region(i) for i in range(2)] == [slice(0, 8), slice(8, 16)]

    class Wide:
        shape = (180, 2000, 2000)

    large = type(problem)(
        counts=[Wide(), Wide()],
        geometry=type(problem.geometry)(
            angles=np.linspace(0, 3, 180),
            pixel_size=1e-5,
            photons=1e7,
            detector_distance=1.6,
            detector_diameter=0.9,
        ),
        sections=problem.sections,
    )
    plan = plan_rows(large, workers=4)
    assert plan.block == 1 or plan.block * plan.row_bytes <= LARGEST_BLOCK
    with pytest.raises(ConfigurationError, match="0 workers"):
        plan_rows(problem, workers=0)
