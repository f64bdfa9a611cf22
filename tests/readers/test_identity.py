"""A source is what it was when it was opened: another file under its name is refused, and named."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil

import h5py
import numpy as np
import pytest
import zarr

from stemcodecs.errors import SourceError
from stemcodecs.readers import open_scan
from stemcodecs.readers.identity import Identity

DATA = np.random.default_rng(0).poisson(3, (4, 4, 8, 8)).astype("u2") + 1


def write(kind, folder, data):
    """A source of one kind; returns its path and the file that holds values."""
    if kind == "npy":
        np.save(folder / "a.npy", data)
        return folder / "a.npy", "a.npy"
    if kind == "hdf5":
        with h5py.File(folder / "a.h5", "w") as file:
            file["data"] = data
        return folder / "a.h5", "a.h5"
    if kind == "zarr":
        zarr.create_array(folder / "a.zarr", data=data, chunks=(2, 4, 8, 8), overwrite=True)
        return folder / "a.zarr", "a.zarr"
    if kind == "zip":
        with zarr.storage.ZipStore(folder / "a.zip", mode="w") as store:
            zarr.create_array(store, data=data, chunks=(2, 4, 8, 8))
        return folder / "a.zip", "a.zip"
    with h5py.File(folder / "part.h5", "w") as file:
        file["data"] = data
    if kind == "external":
        (folder / "raw.bin").write_bytes(data.tobytes())
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_external(b"raw.bin", 0, data.nbytes)
        with h5py.File(folder / "a.h5", "w") as file:
            h5py.h5d.create(file.id, b"data", h5py.h5t.STD_U16LE, h5py.h5s.create_simple(data.shape), plist)
        return folder / "a.h5", "raw.bin"
    with h5py.File(folder / "a.h5", "w", libver="latest") as file:
        if kind == "link":
            file["data"] = h5py.ExternalLink("part.h5", "/data")
        else:
            layout = h5py.VirtualLayout(data.shape, data.dtype)
            layout[:] = h5py.VirtualSource("part.h5", "data", data.shape)
            file.create_virtual_dataset("data", layout)
    return folder / "a.h5", "part.h5"


KINDS = ["npy", "hdf5", "zarr", "zip", "link", "virtual", "external"]


@pytest.mark.parametrize("kind", KINDS)
def test_replaced_file_is_named(kind, tmp_path):
    path, changing = write(kind, tmp_path, DATA)
    scan = open_scan(path)
    copy, pickled = pickle.loads(pickle.dumps(scan)), pickle.dumps(scan)
    scan.check_unchanged()
    np.testing.assert_array_equal(scan.read(()), DATA)
    other = tmp_path / "other"
    other.mkdir()
    write(kind, other, DATA[::-1])
    # Same size and same time: what a copy that keeps times, and a program that writes a file anew, leave.
    for found in other.rglob("*"):
        if found.is_file():
            target = tmp_path / found.relative_to(other)
            os.utime(found, ns=(target.stat().st_atime_ns, target.stat().st_mtime_ns))
    if (tmp_path / changing).is_dir():
        shutil.rmtree(tmp_path / changing)
    os.replace(other / changing, tmp_path / changing)
    with pytest.raises(SourceError, match=rf"{changing}.* was replaced.*start again with the new file"):
        scan.check_unchanged()
    with pytest.raises(SourceError, match="start again with the new file"):
        copy.read(())
    scan.release()
    with pytest.raises(SourceError, match="start again with the new file"):
        scan.read(())
    scan.close()
    with open_scan(path) as again:
        assert pickle.dumps(again) != pickled
        np.testing.assert_array_equal(again.read(()), DATA[::-1])


@pytest.mark.parametrize("kind", KINDS)
def test_file_that_has_gone_is_named(kind, tmp_path):
    path, changing = write(kind, tmp_path, DATA)
    with open_scan(path) as scan:
        place = tmp_path / changing
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        with pytest.raises(SourceError, match=rf"{changing} is gone"):
            scan.check_unchanged()


def test_released_scan_is_opened_again(tmp_path):
    path, _ = write("hdf5", tmp_path, DATA)
    with open_scan(path) as scan:
        scan.release()
        with h5py.File(path, "r+", locking=True):
            pass  # nobody holds it
        stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, scan.identity.parts[0].modified_ns))
    with open_scan(path) as scan:
        scan.release()
        scan.release()
        np.testing.assert_array_equal(scan.read(()), DATA)


def test_lost_chunk_is_a_change(tmp_path):
    path, _ = write("zarr", tmp_path, DATA)
    with open_scan(path) as scan:
        (path / "c" / "1" / "0" / "0" / "0").unlink()
        with pytest.raises(SourceError, match=r"a\.zarr was replaced: 3 files, .* → 2 files"):
            scan.check_unchanged()


def test_identity_reads_like_a_sentence_and_goes_through_json(tmp_path):
    for name, size in (("a", 12_345), ("b", 7)):
        (tmp_path / name).write_bytes(bytes(size))
        os.utime(tmp_path / name, (1_700_000_000, 1_700_000_000))
    known = Identity.of([tmp_path / "b", tmp_path / "a", str(tmp_path / "a"), (tmp_path / "a").as_uri()])
    assert [part.size for part in known.parts] == [12_345, 7]
    assert Identity.from_dict(json.loads(json.dumps(known.to_dict()))) == known == known.now()
    assert known.difference(known.now()) is None
    (tmp_path / "a").write_bytes(bytes(12_400))
    change = known.difference(known.now())
    assert change.startswith(f"{tmp_path / 'a'} was replaced: 12,345 bytes modified 2023-11-1")
    assert "→ 12,400 bytes modified 20" in change
    assert known.difference(Identity.of([tmp_path / "a"])).startswith(f"{tmp_path / 'a'} was")
    assert Identity.of([]).difference(known) == f"{tmp_path / 'a'} was added to it"
    assert known.difference(Identity(known.parts[:1])) == f"{tmp_path / 'b'} is no longer a part of it"
    (tmp_path / "b").unlink()
    with pytest.raises(SourceError, match="b is gone"):
        known.now()


def test_inodes_are_compared_on_one_machine_only(tmp_path):
    (tmp_path / "a").write_bytes(b"values")
    (part,) = Identity.of([tmp_path / "a"]).parts
    other = dataclasses.replace(part, inode=part.inode + 1)
    assert "another file of the same size" in Identity((part,)).difference(Identity((other,)))
    elsewhere = dataclasses.replace(other, machine="another")
    assert Identity((part,)).difference(Identity((elsewhere,))) is None
    longer = dataclasses.replace(elsewhere, size=7)
    assert "was replaced" in Identity((part,)).difference(Identity((longer,)))


def test_remote_objects(tmp_path):
    import fsspec

    memory = fsspec.filesystem("memory")
    array = zarr.create_array("memory://identity.zarr", data=DATA, chunks=(2, 4, 8, 8))
    try:
        with open_scan("memory://identity.zarr") as scan:
            scan.check_unchanged()
            assert scan.remarks == ()
            memory.rm("/identity.zarr/c/1/0/0/0")
            with pytest.raises(SourceError, match=r"memory://identity\.zarr was replaced: 3 files, .* → 2 files"):
                scan.check_unchanged()
        with open_scan("memory://identity.zarr") as scan:
            assert scan.remarks == ("1 chunk is not in the store and is read as the fill value 0 (c/1/0/0/0)",)
            array[:2] = 7
            with pytest.raises(SourceError, match="was replaced"):
                scan.check_unchanged()
    finally:
        memory.rm("/identity.zarr", recursive=True)
