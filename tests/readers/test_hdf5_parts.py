"""Everything that the values of an HDF5 dataset depend on: there, or refused by name, or taken on request."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import h5py
import numpy as np
import pytest

from stemcodecs.errors import SourceError
from stemcodecs.readers import open_scan

FRAMES = np.random.default_rng(5).poisson(3, (8, 6, 4)).astype("u2") + 1


def write_part(path, frames, name="data", **options):
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=frames, **options)


def write_virtual(path, sources, shape=FRAMES.shape, dtype="u2", name="data", fill=0):
    """A virtual dataset; `sources` are (index of the first dimension, file, dataset, its shape)."""
    layout = h5py.VirtualLayout(shape, dtype)
    for where, file, dataset, source_shape in sources:
        layout[where] = h5py.VirtualSource(file, dataset, source_shape)
    with h5py.File(path, "a", libver="latest") as file:
        file.create_virtual_dataset(name, layout, fillvalue=fill)


def halves(names, dataset="data"):
    return [(slice(4 * i, 4 * i + 4), name, dataset, (4, 6, 4)) for i, name in enumerate(names)]


@pytest.fixture
def parts(tmp_path):
    """raw0.h5 and raw1.h5 with half of the frames each, and files that reach them in every way."""
    for i in range(2):
        write_part(tmp_path / f"raw{i}.h5", FRAMES[4 * i : 4 * i + 4])
    write_virtual(tmp_path / "plain.h5", halves(["raw0.h5", "raw1.h5"]))
    write_virtual(tmp_path / "nested.h5", [(slice(None), "plain.h5", "data", FRAMES.shape)])
    write_virtual(tmp_path / "deep.h5", [(slice(None), "nested.h5", "data", FRAMES.shape)])
    with h5py.File(tmp_path / "linked.h5", "w", libver="latest") as file:
        for i in range(2):
            file[f"links/part{i}"] = h5py.ExternalLink(f"raw{i}.h5", "/data")
            file[f"soft/part{i}"] = h5py.SoftLink(f"/links/part{i}")
    write_virtual(
        tmp_path / "linked.h5",
        [(slice(4 * i, 4 * i + 4), ".", f"/soft/part{i}", (4, 6, 4)) for i in range(2)],
        name="entry/data",
    )
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        file["scan"] = h5py.ExternalLink("deep.h5", "/data")
    return tmp_path


KINDS = ["plain", "nested", "deep", "linked", "outside"]


@pytest.mark.parametrize("kind", KINDS)
def test_missing_part_is_named_at_any_depth(kind, parts):
    with open_scan(parts / f"{kind}.h5") as scan:
        np.testing.assert_array_equal(scan.read(()), FRAMES)
        assert {os.path.basename(p.path) for p in scan.identity.parts} >= {f"{kind}.h5", "raw0.h5", "raw1.h5"}
    (parts / "raw1.h5").unlink()
    with pytest.raises(SourceError, match=r"raw1\.h5.*missing; put it next to the file, or take .*4 of 8 frames"):
        open_scan(parts / f"{kind}.h5")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_there_is_taken_on_request(kind, parts):
    (parts / "raw1.h5").unlink()
    with open_scan(parts / f"{kind}.h5", partial=True) as scan:
        assert any("raw1.h5" in remark and "first 4 of 8 frames" in remark for remark in scan.remarks)
        np.testing.assert_array_equal(scan.read(()), FRAMES[:4])
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(scan)).read(()), FRAMES[:4])


def test_hole_in_the_middle_is_named_on_request(parts):
    (parts / "raw0.h5").unlink()
    with open_scan(parts / "deep.h5", partial=True) as scan:
        assert scan.shape == FRAMES.shape
        assert any("4 of these frames (0:4) lack values" in remark for remark in scan.remarks)


def test_moved_folder_and_absolute_names(parts, tmp_path_factory, monkeypatch):
    """HDF5 looks for the last part of an absolute name next to the file; from any working directory."""
    write_virtual(parts / "absolute.h5", halves([f"/long/gone/raw{i}.h5" for i in range(2)]))
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    with open_scan(parts / "absolute.h5") as scan:
        np.testing.assert_array_equal(scan.read(()), FRAMES)


def test_part_that_is_broken_or_being_written_is_refused(parts):
    (parts / "raw1.h5").write_bytes(b"no HDF5" * 100)
    with pytest.raises(SourceError, match=r"raw1\.h5, which cannot be opened"):
        open_scan(parts / "nested.h5")


@pytest.mark.parametrize("rows", [3, 0])
def test_part_with_fewer_frames_than_are_mapped(rows, parts):
    write_part(parts / "raw1.h5", FRAMES[4 : 4 + rows])
    with pytest.raises(SourceError, match=r"raw1\.h5, which with shape .* is smaller than it should be"):
        open_scan(parts / "nested.h5")
    with open_scan(parts / "nested.h5", partial=True) as scan:
        np.testing.assert_array_equal(scan.read(()), FRAMES[: 4 + rows])


def test_part_that_lost_its_dataset(parts):
    write_part(parts / "raw1.h5", FRAMES[4:], name="other")
    with pytest.raises(SourceError, match=r"takes values from data in raw1\.h5, which is missing"):
        open_scan(parts / "plain.h5")


def test_frames_without_a_source(tmp_path):
    write_part(tmp_path / "raw.h5", FRAMES[:3])
    write_virtual(tmp_path / "a.h5", [(slice(0, 3), "raw.h5", "data", (3, 6, 4))])
    with pytest.raises(SourceError, match=r"has no source for 5 of 8 frames \(3:8\).*3 of 8 frames"):
        open_scan(tmp_path / "a.h5")
    with open_scan(tmp_path / "a.h5", partial=True) as scan:
        np.testing.assert_array_equal(scan.read(()), FRAMES[:3])


def test_corner_of_a_detector_without_a_source(tmp_path):
    write_part(tmp_path / "raw.h5", FRAMES[:, :3])
    layout = h5py.VirtualLayout(FRAMES.shape, "u2")
    layout[:, :3] = h5py.VirtualSource("raw.h5", "data", (8, 3, 4))
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        file.create_virtual_dataset("data", layout)
    with pytest.raises(SourceError, match=r"has no source for 8 of 8 frames"):
        open_scan(tmp_path / "a.h5")


def test_interleaved_parts_are_whole(tmp_path):
    layout = h5py.VirtualLayout(FRAMES.shape, "u2")
    for i in range(2):
        write_part(tmp_path / f"raw{i}.h5", FRAMES[i::2])
        layout[i::2] = h5py.VirtualSource(f"raw{i}.h5", "data", (4, 6, 4))
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        file.create_virtual_dataset("data", layout)
    with open_scan(tmp_path / "a.h5") as scan:
        np.testing.assert_array_equal(scan.read(()), FRAMES)


def test_frames_that_a_virtual_dataset_makes_a_scan(tmp_path):
    write_part(tmp_path / "raw.h5", FRAMES)
    write_virtual(tmp_path / "a.h5", [(slice(None), "raw.h5", "data", FRAMES.shape)], shape=(4, 2, 6, 4))
    with open_scan(tmp_path / "a.h5") as scan:
        np.testing.assert_array_equal(scan.read(()), FRAMES.reshape(4, 2, 6, 4))
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        data = file.create_dataset("data", FRAMES.shape, "u2", chunks=(1, 6, 4))
        data[:5] = FRAMES[:5]
    with pytest.raises(SourceError, match=r"raw\.h5, which has 3 of 8 chunks that were never written"):
        open_scan(tmp_path / "a.h5")
    with open_scan(tmp_path / "a.h5", partial=True) as scan:
        assert scan.shape == (3, 2, 6, 4)
        assert any("1 of these scan rows (2) lack values" in remark for remark in scan.remarks)


def counted(path, pattern, dataset, frames=2):
    """A virtual dataset of which HDF5 counts the sources, as long as there are any."""
    space = h5py.h5s.create_simple((frames, 6, 4), (h5py.h5s.UNLIMITED, 6, 4))
    space.select_hyperslab((0, 0, 0), (h5py.h5s.UNLIMITED, 1, 1), (frames, 1, 1), (frames, 6, 4))
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_virtual(space, pattern.encode(), dataset.encode(), h5py.h5s.create_simple((frames, 6, 4)))
    with h5py.File(path, "a", libver="latest") as file:
        h5py.h5d.create(file.id, b"data", h5py.h5t.STD_U16LE, space, plist)


def test_counted_parts(tmp_path):
    for i in range(4):
        write_part(tmp_path / f"run_{i}.h5", FRAMES[2 * i : 2 * i + 2])
    counted(tmp_path / "a.h5", "run_%b.h5", "data")
    with open_scan(tmp_path / "a.h5") as scan:
        np.testing.assert_array_equal(scan.read(()), FRAMES)
    (tmp_path / "run_2.h5").unlink()
    with pytest.raises(SourceError, match=r"run_2\.h5, which is missing, though there is run_3\.h5"):
        open_scan(tmp_path / "a.h5")
    with open_scan(tmp_path / "a.h5", partial=True) as scan:
        np.testing.assert_array_equal(scan.read(()), FRAMES[:4])


def test_counted_datasets_of_one_file(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        for i in (0, 1, 3):
            file[f"blocks/b{i}"] = FRAMES[2 * i : 2 * i + 2]
    counted(tmp_path / "a.h5", ".", "/blocks/b%b")
    with pytest.raises(SourceError, match="b2, which is missing, though there is /blocks/b3"):
        open_scan(tmp_path / "a.h5", dataset="data")


def test_parts_that_grow(tmp_path):
    """Interleaved sources without an end of which one is shorter: HDF5 fills the gaps with zeros."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    for i, count in enumerate((3, 3)):
        write_part(tmp_path / f"raw{i}.h5", FRAMES[i::2][:count], maxshape=(None, 6, 4), chunks=(1, 6, 4))
        space = h5py.h5s.create_simple((2, 6, 4), (h5py.h5s.UNLIMITED, 6, 4))
        space.select_hyperslab((i, 0, 0), (h5py.h5s.UNLIMITED, 1, 1), (2, 1, 1), (1, 6, 4))
        source = h5py.h5s.create_simple((1, 6, 4), (h5py.h5s.UNLIMITED, 6, 4))
        source.select_hyperslab((0, 0, 0), (h5py.h5s.UNLIMITED, 1, 1), (1, 1, 1), (1, 6, 4))
        plist.set_virtual(space, f"raw{i}.h5".encode(), b"data", source)
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        h5py.h5d.create(file.id, b"data", h5py.h5t.STD_U16LE, space, plist)
    with open_scan(tmp_path / "a.h5") as scan:
        np.testing.assert_array_equal(scan.read(()), FRAMES[:6])
    with h5py.File(tmp_path / "raw1.h5", "a") as file:
        file["data"].resize((1, 6, 4))
    with pytest.raises(SourceError, match=r"has no source for 1 of 5 frames \(3\)"):
        open_scan(tmp_path / "a.h5")


def test_values_that_hdf5_would_clip(tmp_path):
    write_part(tmp_path / "raw.h5", FRAMES.astype("u4") + 70_000)
    write_virtual(tmp_path / "a.h5", [(slice(None), "raw.h5", "data", FRAMES.shape)])
    with pytest.raises(SourceError, match=r"takes uint32 values from raw\.h5 as uint16, which HDF5 would clip"):
        open_scan(tmp_path / "a.h5")


def test_dataset_that_takes_values_from_itself(tmp_path):
    write_virtual(tmp_path / "a.h5", [(slice(None), "b.h5", "data", FRAMES.shape)])
    write_virtual(tmp_path / "b.h5", [(slice(None), "a.h5", "data", FRAMES.shape)])
    with pytest.raises(SourceError, match="takes values from itself"):
        open_scan(tmp_path / "a.h5")


@pytest.mark.slow
@pytest.mark.parametrize("reach", ["virtual", "link", "nested"])
def test_filter_of_a_part_is_loaded_or_named(reach, tmp_path, monkeypatch):
    hdf5plugin = pytest.importorskip("hdf5plugin")
    write_part(tmp_path / "raw.h5", FRAMES, chunks=(1, 6, 4), **hdf5plugin.Bitshuffle())
    write_virtual(tmp_path / "virtual.h5", [(slice(None), "raw.h5", "data", FRAMES.shape)])
    write_virtual(tmp_path / "nested.h5", [(slice(None), "virtual.h5", "data", FRAMES.shape)])
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["data"] = h5py.ExternalLink("virtual.h5", "/data")
    program = "import sys; from stemcodecs.readers import open_scan; print(int(open_scan(sys.argv[1]).read(()).sum()))"
    run = [sys.executable, "-c", program, str(tmp_path / f"{reach}.h5")]
    assert int(subprocess.run(run, capture_output=True, text=True, check=True).stdout) == FRAMES.sum()
    from stemcodecs.readers import hdf5_parts

    monkeypatch.setattr(hdf5_parts, "is_filter_available", lambda code: False)
    with pytest.raises(SourceError, match=r"raw\.h5 needs the HDF5 filter 32008.*stemcodecs\[readers\]"):
        open_scan(tmp_path / f"{reach}.h5")


def test_more_parts_than_files_may_be_open(tmp_path):
    """HDF5 reads the parts for which it has no file descriptor left as zeros."""
    resource = pytest.importorskip("resource")
    layout = h5py.VirtualLayout((40, 4), "u2")
    for i in range(40):
        write_part(tmp_path / f"p{i}.h5", np.full((1, 4), i + 1, "u2"))
        layout[i : i + 1] = h5py.VirtualSource(f"p{i}.h5", "data", (1, 4))
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        file.create_virtual_dataset("data", layout)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        with pytest.raises(SourceError, match="raise the limit with ulimit -n"):
            open_scan(tmp_path / "a.h5")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Chunks


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_chunks_that_were_never_written(libver, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w", libver=libver) as file:
        data = file.create_dataset("data", FRAMES.shape, "u2", chunks=(2, 6, 2), maxshape=(None, 6, 4))
        data[:5] = FRAMES[:5]
    with pytest.raises(
        SourceError, match=r"2 of 8 chunks that were never written \(frames 6:8\).*6 of 8 frames.*--partial"
    ):
        open_scan(tmp_path / "a.h5")
    with open_scan(tmp_path / "a.h5", partial=True) as scan:
        assert scan.shape == (6, 6, 4)
        np.testing.assert_array_equal(scan.read(())[:5], FRAMES[:5])


def test_dataset_that_was_never_written(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", FRAMES.shape, "u2")
    for partial in (False, True):
        with pytest.raises(SourceError, match="was created, but never written"):
            open_scan(tmp_path / "a.h5", partial=partial)


# External raw storage


def write_external(path, pieces, shape=FRAMES.shape, dtype=h5py.h5t.STD_U16LE):
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    for name, offset, size in pieces:
        plist.set_external(name.encode(), offset, size)
    with h5py.File(path, "w") as file:
        h5py.h5d.create(file.id, b"data", dtype, h5py.h5s.create_simple(shape), plist)


@pytest.fixture
def external(tmp_path):
    data = FRAMES.tobytes()
    (tmp_path / "one.bin").write_bytes(b"header" + data[:100])
    (tmp_path / "two.bin").write_bytes(data[100:])
    write_external(tmp_path / "a.h5", [("one.bin", 6, 100), ("two.bin", 0, h5py.h5f.UNLIMITED)])
    return tmp_path


def test_external_storage_lies_next_to_the_file(external, monkeypatch, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "two.bin").write_bytes(bytes(FRAMES.nbytes))  # what HDF5 itself would read
    monkeypatch.chdir(elsewhere)
    with open_scan(external / "a.h5") as scan:
        np.testing.assert_array_equal(scan.read(()), FRAMES)
        region = (slice(1, 7), slice(2, 5), slice(1, 3))
        np.testing.assert_array_equal(scan.read(region), FRAMES[region])
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(scan)).read(region), FRAMES[region])
        assert {os.path.basename(p.path) for p in scan.identity.parts} == {"a.h5", "one.bin", "two.bin"}


def test_external_storage_that_is_missing_or_truncated(external):
    (external / "two.bin").write_bytes(FRAMES.tobytes()[100:-60])
    with pytest.raises(
        SourceError, match=r"two\.bin, which is truncated \(224 of 284 bytes\).*6 of 8 frames and parts of 1"
    ):
        open_scan(external / "a.h5")
    (external / "two.bin").unlink()
    with pytest.raises(SourceError, match=r"takes values from two\.bin, which is missing; put it next to"):
        open_scan(external / "a.h5")
    with open_scan(external / "a.h5", partial=True) as scan:
        np.testing.assert_array_equal(scan.read(())[:2], FRAMES[:2])


@pytest.mark.slow
def test_external_storage_behind_a_virtual_dataset(external):
    """HDF5 opens it by itself, in the working directory, unless it is told otherwise before the start."""
    write_virtual(external / "virtual.h5", [(slice(None), "a.h5", "data", FRAMES.shape)])
    program = "import sys; from stemcodecs.readers import open_scan; print(int(open_scan(sys.argv[1]).read(()).sum()))"
    run = [sys.executable, "-c", program, str(external / "virtual.h5")]
    said = subprocess.run(run, capture_output=True, text=True, check=False, cwd="/")
    assert "set HDF5_EXTFILE_PREFIX='${ORIGIN}' before the start" in said.stderr
    told = subprocess.run(
        run, capture_output=True, text=True, check=True, cwd="/", env={**os.environ, "HDF5_EXTFILE_PREFIX": "${ORIGIN}"}
    )
    assert int(told.stdout) == FRAMES.sum()
