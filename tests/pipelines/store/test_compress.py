from __future__ import annotations

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import xarray
import zarr

from stemcodecs.errors import ConfigurationError, ReadBackError, VerificationError
from stemcodecs.location import Location
from stemcodecs.readers import Axis, open_scan
from stemcodecs.simulate import simulate_scan
from stemcodecs_pipelines.store import compress as compress_module
from stemcodecs_pipelines.store.compress import compress
from stemcodecs_pipelines.store.compress_block import compress_block


def compressed(array, tmp_path, **options):
    np.save(tmp_path / "source.npy", array)
    with open_scan(tmp_path / "source.npy") as scan:
        return compress(scan, tmp_path / "out.zarr", **options)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["u1", "u2", ">u2", "i4", "u8", "f4", "f8", "?"])
def test_every_dtype_round_trips(dtype, tmp_path):
    values = np.random.default_rng(0).poisson(2, (5, 6, 7, 8)).astype(dtype)
    result = compressed(values, tmp_path, chunk=(2, 4))
    back = zarr.open_array(tmp_path / "out.zarr" / "data", mode="r")[:]
    assert np.array_equal(back, values)
    assert back.dtype == values.dtype.newbyteorder("=")
    assert result.verified
    assert result.raw_bytes == values.nbytes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((7, 9), {}),
        ((7, 9), {"chunk": (4, 5)}),
        ((11, 7, 9), {"chunk": (4,)}),
        ((11, 7, 9), {"chunk": (4, 7, 3)}),
        ((5, 6, 7, 8), {}),
        ((5, 6, 7, 8), {"chunk": (2, 3, 4, 5)}),
        ((9, 9, 4, 4), {"chunk": (2, 2), "shards": (4, 4)}),
        ((1, 1, 1, 1), {}),
    ],
)
def test_any_chunking_gives_the_same_values_and_images(shape, options, tmp_path):
    values = np.random.default_rng(1).poisson(1.5, shape).astype("u2")
    compressed(values, tmp_path, **options)
    dataset = xarray.open_zarr(tmp_path / "out.zarr")
    assert np.array_equal(dataset["data"].values, values)
    if len(shape) > 2:
        positions = tuple(range(len(shape) - 2))
        assert np.array_equal(dataset["sum_image"], values.sum((-2, -1)))
        assert np.allclose(dataset["mean_pattern"], values.mean(positions))
    if len(shape) == 4:
        y, x = np.indices(shape[2:])
        weight = values.sum((2, 3), dtype=float)
        with np.errstate(invalid="ignore"):
            assert np.allclose(dataset["com_y"], (values * y).sum((2, 3)) / weight, equal_nan=True)
            assert np.allclose(dataset["com_x"], (values * x).sum((2, 3)) / weight, equal_nan=True)
        known = dataset.attrs["stemcodecs"]["virtual_detectors"]
        disk = (y - known["center_y"]) ** 2 + (x - known["center_x"]) ** 2 <= known["radius"] ** 2
        assert np.array_equal(dataset["bright_field"], (values * disk).sum((2, 3)))


@pytest.mark.slow
def test_calibrations_and_units_arrive_as_coordinates(tmp_path):
    simulation = simulate_scan("unstructured", (4, 5), (8, 8))
    with simulation.scan() as scan:
        compress(scan, tmp_path / "out.zarr")
        axes = scan.axes
    dataset = xarray.open_zarr(tmp_path / "out.zarr")
    assert dataset["data"].dims == tuple(axis.name for axis in axes)
    for axis in axes:
        assert isinstance(axis, Axis)
        assert np.array_equal(dataset[axis.name], axis.coordinates)
        assert dataset[axis.name].attrs["units"] == axis.units


@pytest.mark.slow
def test_store_opens_without_a_warning(store):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = xarray.open_zarr(store)
        assert dataset["data"].chunks is not None
        assert zarr.open_group(store, mode="r")["data"].shape == dataset["data"].shape


@pytest.mark.slow
def test_fresh_process_reads_the_store_without_importing_us(store, counts):
    code = "import sys, zarr; print(zarr.open(sys.argv[1], mode='r')['data'][:].sum())"
    done = subprocess.run([sys.executable, "-c", code, str(store)], capture_output=True, text=True, check=True)
    assert int(done.stdout) == counts.sum()


@pytest.mark.slow
def test_provenance_says_what_the_store_holds(store, scan):
    known = json.loads((store / "zarr.json").read_text())["attributes"]["stemcodecs"]
    chunks = [p for p in (store / "data" / "c").rglob("*") if p.is_file()]
    assert known["complete"] is True
    assert known["blocks"] == len(chunks) == 6
    assert known["stored_bytes"] == sum(p.stat().st_size for p in chunks)
    assert known["raw_bytes"] == scan.nbytes
    assert known["source"]["path"] == "scan.npy"
    assert known["guarantee"].startswith("lossless")
    assert not (store / ".stemcodecs").exists()


@pytest.mark.slow
def test_all_zero_chunks_are_stored_too(tmp_path):
    compressed(np.zeros((4, 4, 8, 8), "u2"), tmp_path, chunk=(2, 2))
    assert len([p for p in (tmp_path / "out.zarr/data/c").rglob("*") if p.is_file()]) == 4


@pytest.mark.slow
def test_number_of_workers_does_not_change_a_byte(scan, tmp_path, digests):
    compress(scan, tmp_path / "one.zarr", chunk=(4, 4), workers=1)
    compress(scan, tmp_path / "four.zarr", chunk=(4, 4), workers=4)
    assert digests(tmp_path / "one.zarr") == digests(tmp_path / "four.zarr")


@pytest.mark.slow
def test_every_block_of_the_source_is_read_once(scan, tmp_path, monkeypatch):
    read = []
    plain = type(scan).read

    def counted(self, region):
        read.append(region)
        return plain(self, region)

    monkeypatch.setattr(type(scan), "read", counted)
    result = compress(scan, tmp_path / "out.zarr", chunk=(4, 8))
    whole = [region for region in read if len(region) == 4]
    assert sorted(whole, key=str) == sorted(map(result.plan.region, range(6)), key=str)


def test_a_coder_that_lies_is_found_at_once(scan, tmp_path, monkeypatch):
    from stemcodecs_pipelines.store.block_coder import BlockCoder

    plain = BlockCoder.decode

    def wrong(self, objects, region):
        values = plain(self, objects, region).copy()
        if region[0].start == 4 and region[1].start == 8:
            values[1, 2, 3, 4] ^= 1
        return values

    monkeypatch.setattr(BlockCoder, "decode", wrong)
    with pytest.raises(VerificationError, match="differs from its source") as error:
        compress(scan, tmp_path / "out.zarr", chunk=(4, 8))
    assert error.value.index == (5, 10, 3, 4)
    assert not (tmp_path / "out.zarr" / "zarr.json").exists()


def test_a_disk_that_lies_is_found_at_once(scan, tmp_path, monkeypatch):
    plain = Location.read

    def wrong(self, key):
        data = plain(self, key)
        return data[:-1] + b"x" if data is not None and key.startswith("data/c") else data

    monkeypatch.setattr(Location, "read", wrong)
    with pytest.raises(ReadBackError, match="check the disk"):
        compress(scan, tmp_path / "out.zarr", chunk=(4, 8))


@pytest.mark.slow
def test_a_path_is_taken_like_an_open_scan(source, scan, counts, tmp_path, digests):
    compress(source, tmp_path / "path.zarr", chunk=(4, 8))
    compress(scan, tmp_path / "scan.zarr", chunk=(4, 8))
    assert digests(tmp_path / "path.zarr") == digests(tmp_path / "scan.zarr")
    counts.tofile(tmp_path / "scan.bin")
    result = compress(tmp_path / "scan.bin", tmp_path / "raw.zarr", shape=counts.shape, dtype="u2")
    assert result.raw_bytes == counts.nbytes
    with pytest.raises(ConfigurationError, match="open already"):
        compress(scan, tmp_path / "out.zarr", dataset="data")


@pytest.mark.slow
def test_plan_is_told_before_the_first_block(scan, tmp_path, monkeypatch):
    events = []

    def noted(handle, index):
        events.append("block")
        return compress_block(handle, index)

    monkeypatch.setattr(compress_module, "compress_block", noted)
    compress(scan, tmp_path / "out.zarr", start=lambda plan: events.append(plan.memory_bound))
    assert isinstance(events[0], int)
    assert events[1:] == ["block"]


@pytest.mark.slow
def test_memory_urls_work(scan, counts):
    import fsspec

    fsspec.filesystem("memory").store.clear()
    compress(scan, "memory://folder/scan.zarr", chunk=(4, 8))
    dataset = xarray.open_zarr("memory://folder/scan.zarr")
    assert np.array_equal(dataset["data"].values, counts)
    assert not fsspec.filesystem("memory").exists("/folder/scan.zarr/.stemcodecs")
