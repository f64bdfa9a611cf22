"""Chunks that are not in a Zarr store: lost in one of ours, counted and named in any other."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest
import zarr

import stemcodecs
from stemcodecs.errors import CorruptChunkError, SourceError, StemcodecsError
from stemcodecs.readers import open_scan
from stemcodecs.required_chunks import store_with_every_chunk
from stemcodecs_pipelines import compress

DATA = np.random.default_rng(0).poisson(3, (4, 6, 8, 8)).astype("u2") + 1
DIMS = ("scan_y", "scan_x", "det_y", "det_x")


@pytest.fixture
def store(tmp_path):
    """A finished store of ours, without a chunk."""
    np.save(tmp_path / "a.npy", DATA)
    compress(tmp_path / "a.npy", tmp_path / "a.zarr", chunk=(2, 3))
    (tmp_path / "a.zarr" / "data" / "c" / "1" / "1" / "0" / "0").unlink()
    return tmp_path / "a.zarr"


@pytest.fixture(params=["folder", "array", "zip", "url"])
def place(request, store, tmp_path):
    """The store as a source: its folder, the array in it, packed, and by its URL."""
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(store), "/ours.zarr", recursive=True)
    places = {
        "folder": store,
        "array": store / "data",
        "zip": shutil.make_archive(str(tmp_path / "packed"), "zip", store),
        "url": "memory://ours.zarr",
    }
    yield places[request.param]
    memory.rm("/ours.zarr", recursive=True)


def test_our_store_with_a_lost_chunk_is_no_source(place):
    with pytest.raises(SourceError, match=r"1 of its chunks \(c/1/1/0/0\) are missing; copy .*--partial"):
        open_scan(place)
    with open_scan(place, partial=True) as scan:
        assert scan.remarks == ("1 chunk is not in the store and is read as the fill value 0 (c/1/1/0/0)",)
        np.testing.assert_array_equal(scan.read(())[:2], DATA[:2])


def test_chunk_that_is_lost_while_the_scan_is_read(store):
    chunks = store / "data" / "c"
    shutil.copytree(chunks / "0" / "0", chunks / "1" / "1", dirs_exist_ok=True)
    with open_scan(store) as scan:
        copy = pickle.loads(pickle.dumps(scan))
        (chunks / "0" / "1" / "0" / "0").unlink()
        scan.read((slice(0, 2), slice(0, 3)))
        for region in ((slice(0, 1), slice(3, 4)), (slice(0, 2), slice(2, 4)), ()):
            with pytest.raises(CorruptChunkError, match="c/0/1/0/0 is missing"):
                scan.read(region)
        with pytest.raises(SourceError, match="was replaced"):
            copy.read(())


def test_opened_store_raises_where_a_chunk_is_missing(store):
    for chunks in (None, {"scan_y": 4}):
        dataset = stemcodecs.open(store, chunks=chunks)
        np.testing.assert_array_equal(dataset["data"][:2].values, DATA[:2])
        np.testing.assert_array_equal(dataset["sum_image"].values, DATA.sum((2, 3)))
        with pytest.raises(StemcodecsError, match="data/c/1/1/0/0 is missing"):
            dataset["data"][3, 5].values  # noqa: B018
        with pytest.raises(StemcodecsError, match="data/c/1/1/0/0 is missing"):
            dataset["data"].values  # noqa: B018


def test_store_that_requires_chunks_goes_to_other_processes(store):
    guarded = pickle.loads(pickle.dumps(store_with_every_chunk(store)))
    array = zarr.open(guarded, mode="r")["data"]
    np.testing.assert_array_equal(array[:2], DATA[:2])
    for selection in (np.s_[3, 5], np.s_[2:], np.s_[3, 5, 2:4]):
        with pytest.raises(CorruptChunkError):
            array[selection]
    assert zarr.open(store, mode="r")["data"][3, 5].sum() == 0  # what Zarr itself says


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_chunks_that_another_store_leaves_out_are_counted(zarr_format, tmp_path):
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=DATA.shape, dtype="u2", chunks=(2, 3, 8, 8), fill_value=7, zarr_format=zarr_format
    )
    with pytest.raises(SourceError, match="not one of its 4 chunks is in the store"):
        open_scan(tmp_path / "a.zarr")
    with open_scan(tmp_path / "a.zarr", partial=True) as scan:
        assert "4 chunks are not in the store and are read as the fill value 7" in scan.remarks[0]
    array[:] = DATA
    with open_scan(tmp_path / "a.zarr") as scan:
        assert scan.remarks == ()
    array[:2, :3] = 7  # Zarr removes a chunk of fill values
    with open_scan(tmp_path / "a.zarr") as scan:
        name = "c/0/0/0/0" if zarr_format == 3 else "0.0.0.0"
        assert scan.remarks == (f"1 chunk is not in the store and is read as the fill value 7 ({name})",)
        assert pickle.loads(pickle.dumps(scan)).remarks == scan.remarks


def test_shards_are_counted_as_they_lie(tmp_path):
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=DATA.shape, dtype="u2", chunks=(1, 3, 8, 8), shards=(2, 6, 8, 8)
    )
    array[:2] = DATA[:2]
    with open_scan(tmp_path / "a.zarr") as scan:
        assert "c/1/0/0/0" in scan.remarks[0]
