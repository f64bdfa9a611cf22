"""A source is what it was when it was opened: replaced under its name it is another one, and nobody says verified."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest
import zarr
from typer.testing import CliRunner

from stemcodecs.errors import SourceError, SourceMismatchError
from stemcodecs.readers import open_scan
from stemcodecs.store import state
from stemcodecs_pipelines.cli import app
from stemcodecs_pipelines.run.engine import DaskEngine
from stemcodecs_pipelines.store.compress import compress
from stemcodecs_pipelines.store.verify import verify
from tests.pipelines.clusters import cluster_of

SHAPE = (6, 8, 12, 16)


def values(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).poisson(3.0, SHAPE).astype("u2")


def write_npy(path: Path, counts: np.ndarray) -> None:
    np.save(path, counts)


def write_hdf5(path: Path, counts: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("scan", data=counts, chunks=(1, 8, 12, 16))


def write_zarr(path: Path, counts: np.ndarray) -> None:
    zarr.save_array(str(path), counts, zarr_format=3)


FORMATS = {"a.npy": write_npy, "a.h5": write_hdf5, "a.zarr": write_zarr}


def replace(name: str, folder: Path, counts: np.ndarray) -> Path:
    """Put a new source under a name, as a program does that writes beside it and renames."""
    path, fresh = folder / name, folder / f"new-{name}"
    FORMATS[name](fresh, counts)
    if path.is_dir():
        os.rename(path, folder / f"old-{len(os.listdir(folder))}")
    os.replace(fresh, path)
    return path


def stored(place: Path) -> np.ndarray:
    return zarr.open_group(str(place), mode="r")["data"][:]


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_a_source_replaced_under_its_name_is_read_anew(name, tmp_path):
    for seed in (1, 2):
        path = replace(name, tmp_path, values(seed))
        result = compress(path, tmp_path / f"{seed}.zarr", chunk=(3, 8))
        assert result.verified
        assert np.array_equal(stored(tmp_path / f"{seed}.zarr"), values(seed))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.h5", "a.zarr"])
def test_long_lived_workers_read_it_anew(name, tmp_path):
    with cluster_of(1) as client:
        for seed in (1, 2):
            path = replace(name, tmp_path, values(seed))
            place = tmp_path / f"{seed}.zarr"
            compress(path, place, chunk=(3, 8), engine=DaskEngine(client))
            assert np.array_equal(stored(place), values(seed))


@pytest.mark.slow
def test_the_model_of_a_scan_is_fitted_to_the_new_one(tmp_path):
    for seed in (1, 2):
        path = replace("a.h5", tmp_path, values(seed) * seed)
        compress(path, tmp_path / f"{seed}.zarr", chunk=(3, 8), method="pixel_histogram:model=scan")
        alone = tmp_path / f"alone-{seed}.npy"
        np.save(alone, values(seed) * seed)
        compress(alone, tmp_path / f"alone-{seed}.zarr", chunk=(3, 8), method="pixel_histogram:model=scan")
        metadata = [(tmp_path / f"{stem}{seed}.zarr" / "data" / "zarr.json").read_bytes() for stem in ("", "alone-")]
        assert metadata[0] == metadata[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_files_are_closed_when_the_run_ends(name, tmp_path):
    path = replace(name, tmp_path, values(1))
    compress(path, tmp_path / "1.zarr", chunk=(3, 8))
    held = [f.path for f in psutil.Process().open_files() if f.path.startswith(str(path))]
    assert not held
    if path.is_file():
        with h5py.File(path, "a") if name.endswith("h5") else path.open("ab"):
            pass  # nobody holds a lock on it


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_a_source_that_changes_while_it_is_read_is_not_verified(name, tmp_path):
    path = replace(name, tmp_path, values(1))
    place = tmp_path / "out.zarr"

    def meanwhile(block):
        if block.index == 0:
            replace(name, tmp_path, values(2))

    with pytest.raises(SourceError, match=r"replaced|is gone|changed"):
        compress(path, place, chunk=(3, 8), workers=1, progress=meanwhile)
    assert state(place).kind == "incomplete"
    with pytest.raises(SourceMismatchError, match="not the source of this unfinished store"):
        compress(path, place, resume=True)
    compress(path, place, overwrite=True)
    assert np.array_equal(stored(place), values(2))


@pytest.mark.slow
def test_a_file_rewritten_in_place_within_a_run_is_not_verified(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, values(1))
    with open_scan(path) as scan:
        compress(scan, tmp_path / "out.zarr")
        np.save(path, values(2))
        with pytest.raises(SourceError, match=r"a\.npy"):
            verify(scan, tmp_path / "out.zarr")


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_resuming_a_complete_store_reads_nothing_and_says_so(name, tmp_path):
    path = replace(name, tmp_path, values(1))
    place = tmp_path / "out.zarr"
    compress(path, place)
    again = compress(path, place, resume=True)
    assert again.already_complete
    assert not again.verified
    said = CliRunner().invoke(app, ["compress", str(path), str(place), "--resume"])
    assert said.exit_code == 0
    assert "nothing was read" in said.output
    assert "verified" not in said.output.replace("stemcodecs verify", "")


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_resuming_a_complete_store_of_another_source_is_refused(name, tmp_path):
    path = replace(name, tmp_path, values(1))
    place = tmp_path / "out.zarr"
    compress(path, place)
    replace(name, tmp_path, values(2))
    said = CliRunner().invoke(app, ["compress", str(path), str(place), "--resume"])
    assert said.exit_code == 2
    assert "is not the source of" in said.output
    assert "verified" not in said.output
    assert np.array_equal(stored(place), values(1))


def test_a_copy_that_kept_size_and_time_is_another_source(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, values(1))
    place = tmp_path / "out.zarr"
    compress(path, place)
    status = path.stat()
    np.save(tmp_path / "b.npy", values(2))
    os.replace(tmp_path / "b.npy", path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(SourceMismatchError, match="another file of the same size"):
        compress(path, place, resume=True)


@pytest.mark.slow
def test_a_store_tells_no_path_of_the_machine(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, values(1))
    compress(path, tmp_path / "out.zarr")
    for document in (tmp_path / "out.zarr").rglob("zarr.json"):
        assert str(tmp_path) not in document.read_text()


@pytest.mark.slow
def test_a_resumed_run_that_compared_nothing_does_not_say_verified(tmp_path, monkeypatch):
    """Killed after its last block, before the store was finished."""
    path = tmp_path / "a.npy"
    np.save(path, values(1))
    place = tmp_path / "out.zarr"

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("stemcodecs_pipelines.store.compress.finish", killed)
        with pytest.raises(Killed):
            compress(path, place, chunk=(3, 8))
    said = CliRunner().invoke(app, ["compress", str(path), str(place), "--resume"])
    assert said.exit_code == 0
    assert "nothing was left to compare" in said.output
    assert "verified:" not in said.output
