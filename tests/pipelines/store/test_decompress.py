"""What `decompress` writes, where it refuses to, and that whatever ends it leaves nothing behind."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import fsspec
import h5py
import numpy as np
import pytest
import zarr

from stemcodecs.errors import DestinationError, SourceError
from stemcodecs_pipelines.store import decompress as module
from stemcodecs_pipelines.store import sinks
from stemcodecs_pipelines.store.compress import compress
from stemcodecs_pipelines.store.decompress import decompress

SLOW = """
import sys, time
from stemcodecs_pipelines.store import decompress
plain = decompress._decoded
def slowly(contents, plan):
    for block in plain(contents, plan):
        yield block
        time.sleep(0.5)
decompress._decoded = slowly
from stemcodecs_pipelines.cli import main
main()
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def begun(store, out):
    """A process that is in the middle of writing `out`."""
    process = subprocess.Popen([sys.executable, "-c", SLOW, "decompress", str(store), str(out)], stderr=subprocess.PIPE)
    while not list(out.parent.glob(f".{out.name}.*.part/whole*")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    return process


@pytest.mark.slow
def test_file_urls_are_local_paths(store, counts, tmp_path):
    decompress(store, f"file://{tmp_path}/out.npy")
    assert np.array_equal(np.load(tmp_path / "out.npy"), counts)
    assert names(tmp_path) == ["out.npy", "scan.zarr"]


@pytest.mark.slow
def test_zarr_is_written_to_urls(store, counts):
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    decompress(store, "memory://folder/out.zarr")
    group = zarr.open_group("memory://folder/out.zarr", mode="r")
    assert np.array_equal(group["data"][...], counts)
    assert group["scan_y"].shape == (10,)
    assert not os.path.exists("memory:")
    with pytest.raises(DestinationError, match="write to a new URL"):
        decompress(store, "memory://folder/out.zarr", overwrite=True)


@pytest.mark.slow
@pytest.mark.parametrize("out", ["memory://out.npy", "s3://bucket/out.h5"])
def test_other_formats_are_not_written_to_urls(store, out):
    with pytest.raises(DestinationError, match=r"only \.zarr is written to a URL"):
        decompress(store, out)


@pytest.mark.slow
@pytest.mark.parametrize("failure", [OSError(errno.EIO, "it failed"), RuntimeError("no\ncredentials")])
def test_a_url_that_refuses_is_one_line_and_left_empty(store, monkeypatch, failure):
    memory = fsspec.filesystem("memory")
    memory.store.clear()

    def refuse(self, region, block):
        assert "/out.zarr/data/zarr.json" in memory.store
        assert "/out.zarr/zarr.json" not in memory.store
        raise failure

    monkeypatch.setattr(sinks._ZarrSink, "write", refuse)
    with pytest.raises(DestinationError, match="cannot be written") as error:
        decompress(store, "memory://out.zarr")
    assert "\n" not in str(error.value)
    assert not memory.store


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".npy", ".h5", ".zarr"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG])
def test_a_full_disk_is_one_line_and_leaves_nothing(store, tmp_path, monkeypatch, suffix, number):
    # Room runs out in the middle: what was asked before said that there was enough.
    class Full(io.FileIO):
        limit = 30_000

        def write(self, data):
            if self.tell() + len(data) > self.limit:
                raise OSError(number, os.strerror(number))
            return super().write(data)

    monkeypatch.setattr(sinks, "open", lambda path, mode, buffering: Full(path, mode), raising=False)
    if suffix == ".zarr":
        monkeypatch.setattr(
            sinks._ZarrSink, "write", lambda *_: (_ for _ in ()).throw(OSError(number, os.strerror(number)))
        )
    with pytest.raises(DestinationError) as error:
        decompress(store, tmp_path / f"out{suffix}")
    assert ("the disk is full" in str(error.value)) == (number == errno.ENOSPC)
    assert "--resume" not in str(error.value)
    assert names(tmp_path) == ["scan.zarr"]


@pytest.mark.slow
def test_hdf5_survives_a_limit_on_the_size_of_files(store, tmp_path):
    resource = pytest.importorskip("resource")
    code = "from stemcodecs_pipelines.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "decompress", str(store), str(tmp_path / "out.h5")],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000)),
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("stemcodecs: ")
    assert "Traceback" not in done.stderr
    assert names(tmp_path) == ["scan.zarr"]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".npy", ".h5"])
def test_too_little_room_is_said_before_the_first_block(store, tmp_path, monkeypatch, suffix):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    monkeypatch.setattr(sinks.shutil, "disk_usage", lambda path: SimpleNamespace(free=9))
    monkeypatch.setattr(module, "_decoded", lambda *_: pytest.fail("decoded"))
    with pytest.raises(DestinationError, match="the disk is full; free some space, or write to another disk"):
        decompress(store, tmp_path / f"out{suffix}")
    assert names(tmp_path) == ["scan.zarr"]


@pytest.mark.slow
@pytest.mark.parametrize("answer", [None, errno.EOPNOTSUPP, errno.EINVAL])
def test_room_cannot_be_reserved_everywhere(store, counts, tmp_path, monkeypatch, answer):
    def refuse(descriptor, start, size):
        raise OSError(answer, os.strerror(answer))

    if answer is None:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    else:
        monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    decompress(store, tmp_path / "out.npy")
    assert np.array_equal(np.load(tmp_path / "out.npy"), counts)


@pytest.mark.slow
def test_a_terminated_run_leaves_nothing(store, tmp_path):
    process = begun(store, tmp_path / "out.npy")
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143
    assert error.decode().splitlines()[-1].startswith("stemcodecs: terminated")
    assert b"Traceback" not in error
    assert names(tmp_path) == ["scan.zarr"]


@pytest.mark.slow
@pytest.mark.parametrize("out", ["out.npy", "out.zarr"])
def test_what_a_killed_run_left_goes_with_the_next_one(store, tmp_path, out):
    pytest.importorskip("fcntl")
    process = begun(store, tmp_path / out)
    with pytest.raises(DestinationError, match="is being written by another run"):
        decompress(store, tmp_path / out)
    process.kill()
    process.communicate(timeout=60)
    assert len(names(tmp_path)) == 2
    decompress(store, tmp_path / out)
    assert names(tmp_path) == [out, "scan.zarr"]


@pytest.mark.slow
def test_without_locks_it_works_all_the_same(store, counts, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    decompress(store, tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        assert np.array_equal(file["data"][...], counts)
    assert names(tmp_path) == ["out.h5", "scan.zarr"]


@pytest.mark.slow
@pytest.mark.parametrize("old", ["out.npy", "out.zarr"])
@pytest.mark.parametrize("new", [".npy", ".zarr"])
def test_what_is_there_is_replaced_on_request_only(store, tmp_path, old, new):
    out = tmp_path / f"out{new}"
    decompress(store, tmp_path / old)
    if old != out.name:
        (tmp_path / old).rename(out)
    with pytest.raises(DestinationError, match="--overwrite"):
        decompress(store, out)
    decompress(store, out, overwrite=True)
    assert out.is_dir() == (new == ".zarr")
    assert names(tmp_path) == [out.name, "scan.zarr"]


@pytest.mark.slow
def test_a_file_that_appears_meanwhile_is_kept(store, tmp_path):
    out = tmp_path / "out.npy"
    with pytest.raises(DestinationError, match="exists"):
        decompress(store, out, progress=lambda _: out.write_text("mine"))
    assert out.read_text() == "mine"
    assert names(tmp_path) == ["out.npy", "scan.zarr"]


@pytest.mark.slow
def test_damaged_coordinates_are_not_passed_on(store, tmp_path):
    path = store / "scan_x/c/0"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    for suffix in (".h5", ".zarr"):
        with pytest.raises(SourceError, match="scan_x/c/0 is damaged"):
            decompress(store, tmp_path / f"out{suffix}")
    decompress(store, tmp_path / "out.npy")
    assert names(tmp_path) == ["out.npy", "scan.zarr"]


@pytest.mark.slow
def test_configured_zarr_format_changes_nothing(scan, counts, tmp_path, digests):
    compress(scan, tmp_path / "plain.zarr", chunk=(4, 8))
    with zarr.config.set({"default_zarr_format": 2}):
        compress(scan, tmp_path / "scan.zarr", chunk=(4, 8))
        decompress(tmp_path / "scan.zarr", tmp_path / "out.zarr")
    assert digests(tmp_path / "scan.zarr") == digests(tmp_path / "plain.zarr")
    assert np.array_equal(zarr.open_group(tmp_path / "out.zarr", mode="r")["data"][...], counts)
    assert (tmp_path / "out.zarr/zarr.json").exists()
