from __future__ import annotations

import fcntl
import os

import numpy as np
import pytest
import zarr

from stemcodecs.errors import DestinationError, StemcodecsError
from stemcodecs.readers import open_scan
from stemcodecs.store import state
from stemcodecs_pipelines.store.compress import compress


@pytest.mark.slow
def test_existing_store_is_kept_without_overwrite(scan, store, digests):
    before = digests(store)
    with pytest.raises(DestinationError, match="--overwrite"):
        compress(scan, store)
    assert digests(store) == before


@pytest.mark.slow
def test_old_store_stays_until_the_new_one_is_complete(scan, store, digests):
    before = digests(store)

    class Killed(BaseException):
        pass

    class Engine:
        def map(self, function, common, indices):
            yield function(common, 0)
            raise Killed

        def tell(self, function, argument):
            function(argument)

    with pytest.raises(Killed):
        compress(scan, store, chunk=(2, 8), overwrite=True, engine=Engine())
    assert digests(store) == before
    result = compress(scan, store, overwrite=True, resume=True)
    assert result.kept_blocks == 1
    assert zarr.open_group(store, mode="r")["data"].chunks[:2] == (2, 8)
    assert sorted(p.name for p in store.parent.iterdir()) == ["scan.zarr"]


@pytest.mark.slow
def test_death_between_the_two_renames_loses_nothing(scan, store, monkeypatch):
    rename = os.rename
    calls = []

    class Killed(BaseException):
        pass

    def brittle(a, b):
        calls.append(a)
        if len(calls) == 2:
            raise Killed
        rename(a, b)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", brittle)
        with pytest.raises(Killed):
            compress(scan, store, chunk=(2, 8), overwrite=True)
    with pytest.raises(DestinationError, match="about to become"):
        compress(scan, store)
    compress(scan, store, resume=True)
    assert zarr.open_group(store, mode="r")["data"].chunks[:2] == (2, 8)
    assert sorted(p.name for p in store.parent.iterdir()) == ["scan.zarr"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_not_zarr_is_never_touched(scan, tmp_path, overwrite):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter1.tex").write_text("years of work")
    file = tmp_path / "notes.txt"
    file.write_text("more work")
    for place in (folder, file):
        with pytest.raises(DestinationError, match="not a Zarr store"):
            compress(scan, place, overwrite=overwrite)
    assert (folder / "chapter1.tex").read_text() == "years of work"
    assert file.read_text() == "more work"


def test_empty_folder_needs_overwrite(scan, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(DestinationError):
        compress(scan, tmp_path / "out")
    compress(scan, tmp_path / "out", overwrite=True)
    assert state(tmp_path / "out").kind == "complete"


@pytest.mark.slow
def test_foreign_zarr_store_is_replaced_only_on_request(scan, tmp_path):
    zarr.create_array(tmp_path / "other.zarr", shape=(3,), dtype="u1")[:] = 1
    with pytest.raises(DestinationError, match="--overwrite"):
        compress(scan, tmp_path / "other.zarr")
    with pytest.raises(DestinationError, match="--overwrite"):
        compress(scan, tmp_path / "other.zarr", resume=True)
    compress(scan, tmp_path / "other.zarr", overwrite=True)
    assert state(tmp_path / "other.zarr").kind == "complete"


@pytest.mark.parametrize("inside", ["", "data/c", ".."])
def test_source_and_destination_may_not_overlap(counts, tmp_path, inside):
    place = tmp_path / "here" / "raw.zarr"
    zarr.create_group(place).create_array("data", data=counts, dimension_names=("scan_y", "scan_x", "det_y", "det_x"))
    with open_scan(place) as scan, pytest.raises(DestinationError, match="inside each other"):
        compress(scan, place / inside, overwrite=True)
    assert np.array_equal(zarr.open_group(place, mode="r")["data"][:], counts)


def test_two_runs_on_one_store_exclude_each_other(scan, tmp_path):
    place = tmp_path / "scan.zarr"
    place.mkdir()
    descriptor = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(DestinationError, match="another run"):
            compress(scan, place, overwrite=True)
    finally:
        os.close(descriptor)


def test_refused_job_leaves_nothing_behind(scan, tmp_path):
    with pytest.raises(StemcodecsError):
        compress(scan, tmp_path / "out.zarr", method="telepathy")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_place_is_one_clear_error(scan, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DestinationError, match="cannot be written"):
        compress(scan, tmp_path / "file" / "out.zarr")


def test_remote_store_is_not_overwritten(scan):
    import fsspec

    fsspec.filesystem("memory").store.clear()
    compress(scan, "memory://a.zarr")
    with pytest.raises(DestinationError, match="object store"):
        compress(scan, "memory://a.zarr", overwrite=True)
