"""What holds for every source: finding the format, reading regions, threads, pickling, errors."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stemcodecs.errors import IncompleteStoreError, SourceError
from stemcodecs.location import JOURNAL
from stemcodecs.readers import Scan, open_scan

KINDS = ["npy", "npy_fortran", "raw", "hdf5", "zarr2", "zarr3"]


def write(kind: str, folder: Path, data: np.ndarray) -> tuple[Path, dict]:
    """Write data in one of the formats; returns its path and the options to open it."""
    path = folder / kind
    options: dict = {}
    if kind == "npy":
        np.save(path.with_suffix(".npy"), data)
        path = path.with_suffix(".npy")
    elif kind == "npy_fortran":
        np.save(path.with_suffix(".npy"), np.asfortranarray(data))
        path = path.with_suffix(".npy")
    elif kind == "raw":
        data.astype(data.dtype.newbyteorder(">")).tofile(path)
        options = {"shape": data.shape, "dtype": data.dtype.newbyteorder(">")}
    elif kind == "hdf5":
        with h5py.File(path, "w") as file:
            file.create_dataset("scan", data=data, chunks=tuple(min(n, 4) for n in data.shape))
    else:
        array = zarr.create_array(
            path,
            shape=data.shape,
            dtype=data.dtype,
            chunks=tuple(min(n, 4) for n in data.shape),
            zarr_format=int(kind[-1]),
        )
        array[...] = data
    return path, options


@pytest.mark.parametrize("kind", KINDS)
def test_scan_describes_itself_and_reads_its_values(kind, tmp_path, scan_4d):
    path, options = write(kind, tmp_path, scan_4d)
    with open_scan(path, **options) as scan:
        assert scan.shape == scan_4d.shape
        assert scan.dtype == np.dtype("uint16")
        assert scan.dims == ("scan_y", "scan_x", "det_y", "det_x")
        assert [a.name for a in scan.axes] == list(scan.dims)
        assert [a.size for a in scan.axes] == list(scan.shape)
        assert all(a.scale is None for a in scan.axes)
        assert scan.nbytes == scan_4d.nbytes
        assert scan.chunks == (None if "npy" in kind or kind == "raw" else (4, 4, 4, 4))
        block = scan.read((slice(1, 4), slice(None), slice(2, 7), slice(0, 3)))
        np.testing.assert_array_equal(block, scan_4d[1:4, :, 2:7, 0:3])
        assert block.flags.c_contiguous
        assert block.flags.writeable
        assert block.dtype.isnative


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_any_region_equals_numpy(kind, tmp_path_factory, scan_4d):
    path, options = write(kind, tmp_path_factory.mktemp("region"), scan_4d)
    scan = open_scan(path, **options)

    def bounds(size: int) -> st.SearchStrategy[slice]:
        pairs = st.tuples(st.integers(0, size), st.integers(0, size))
        return pairs.map(lambda p: slice(min(p), max(p)))

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.tuples(*(bounds(n) for n in scan.shape)))
    def check(region):
        np.testing.assert_array_equal(scan.read(region), scan_4d[region])

    check()
    scan.close()


@pytest.mark.parametrize("kind", KINDS)
def test_pickled_scan_reads_the_same(kind, tmp_path, scan_4d):
    path, options = write(kind, tmp_path, scan_4d)
    with open_scan(path, **options) as scan:
        copy = pickle.loads(pickle.dumps(scan))
        assert copy.shape == scan.shape
        assert copy.axes == scan.axes
        np.testing.assert_array_equal(copy.read(()), scan_4d)
        copy.close()
        np.testing.assert_array_equal(scan.read(()), scan_4d)  # closing a copy leaves the original


@pytest.mark.slow
def test_pickle_is_read_in_a_fresh_process(tmp_path, scan_4d):
    path, _ = write("hdf5", tmp_path, scan_4d)
    with open_scan(path) as scan:
        (tmp_path / "scan.pickle").write_bytes(pickle.dumps(scan))
    program = (
        "import pickle, sys; scan = pickle.load(open(sys.argv[1], 'rb'));print(int(scan.read((slice(1, 3),)).sum()))"
    )
    out = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "scan.pickle")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(out.stdout) == scan_4d[1:3].sum()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_threads_read_at_once(kind, tmp_path, scan_4d):
    path, options = write(kind, tmp_path, scan_4d)
    regions = [(slice(i, i + 1), slice(j, j + 2)) for i in range(5) for j in range(5) for _ in range(4)]
    with open_scan(path, **options) as scan, ThreadPoolExecutor(8) as pool:
        for region, block in zip(regions, pool.map(scan.read, regions), strict=True):
            np.testing.assert_array_equal(block, scan_4d[region])


def test_long_rows_are_read_in_pieces(tmp_path, monkeypatch, scan_4d):
    """With a span of a few bytes every branch of the reader of plain files is taken."""
    from stemcodecs.readers import file_array

    path, options = write("raw", tmp_path, scan_4d)
    region = (slice(1, 5), slice(2, 6), slice(1, 6), slice(3, 5))
    for span in (1, 20, 120, 700, 10_000):
        monkeypatch.setattr(file_array, "_SPAN_BYTES", span)
        with open_scan(path, **options) as scan:
            np.testing.assert_array_equal(scan.read(region), scan_4d[region])


@pytest.mark.parametrize(
    "region",
    [
        (slice(0, 6),),
        (slice(-1, None),),
        (slice(0, 4, 2),),
        (slice(3, 2),),
        (slice(None),) * 5,
    ],
)
def test_region_beyond_the_scan_is_refused_not_clipped(region, tmp_path, scan_4d):
    path, _ = write("npy", tmp_path, scan_4d)
    with open_scan(path) as scan, pytest.raises(SourceError, match="give"):
        scan.read(region)


def test_closed_scan_refuses_to_read(tmp_path, scan_4d):
    path, _ = write("hdf5", tmp_path, scan_4d)
    scan = open_scan(path)
    scan.close()
    scan.close()
    with pytest.raises(SourceError, match="was closed"):
        scan.read(())


def test_file_that_changed_under_a_pickled_scan_is_refused(tmp_path, scan_4d):
    path, _ = write("hdf5", tmp_path, scan_4d)
    with open_scan(path) as scan:
        copy = pickle.loads(pickle.dumps(scan))
    path.unlink()
    write("hdf5", tmp_path, scan_4d[:3])
    with pytest.raises(SourceError, match="start again with the new file"):
        copy.read((slice(0, 1),))


def test_file_that_shrinks_while_open_is_an_error_not_a_crash(tmp_path, scan_4d):
    path, options = write("raw", tmp_path, scan_4d)
    with open_scan(path, **options) as scan:
        with open(path, "r+b") as file:
            file.truncate(scan_4d.nbytes - 10)
        scan.read((slice(0, 1),))
        with pytest.raises(SourceError, match="ends 10 bytes too early"):
            scan.read((slice(4, 5),))


@pytest.mark.parametrize(("ndim", "dims"), [(3, ("frame", "det_y", "det_x")), (2, ("det_y", "det_x"))])
def test_stacks_and_patterns(ndim, dims, tmp_path, stack_3d):
    data = stack_3d if ndim == 3 else stack_3d[0]
    np.save(tmp_path / "a.npy", data)
    with open_scan(tmp_path / "a.npy") as scan:
        assert scan.dims == dims
        np.testing.assert_array_equal(scan.read(()), data)


@pytest.mark.parametrize("shape", [(5,), (0, 3, 4), (2, 0, 3, 4, 5)])
def test_shapes_that_are_no_scan(shape, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    with pytest.raises(SourceError, match="give"):
        open_scan(tmp_path / "a.npy")


def test_nothing_there(tmp_path):
    with pytest.raises(SourceError, match="no such file; check the path"):
        open_scan(tmp_path / "missing.npy")


def test_paths_that_the_system_refuses(tmp_path):
    name = str(tmp_path / ("a" * 300))
    with pytest.raises(SourceError, match=r"cannot be read|no such file"):
        open_scan(name)


def test_folder_that_is_no_store(tmp_path):
    with pytest.raises(SourceError, match=r"no Zarr store \(no zarr.json"):
        open_scan(tmp_path)


def test_unfinished_store_is_refused(tmp_path):
    journal = tmp_path / "scan.zarr" / JOURNAL
    journal.mkdir(parents=True)
    (journal / "job.json").write_text("{}")
    with pytest.raises(IncompleteStoreError, match="finish it with"):
        open_scan(tmp_path / "scan.zarr")


@pytest.mark.parametrize("extension", [".npy", ".h5", ".hspy", ".ndata1"])
def test_damaged_start_of_a_known_format_is_named(extension, tmp_path):
    (tmp_path / f"a{extension}").write_bytes(bytes(4096))
    with pytest.raises(SourceError, match="restore or rename it"):
        open_scan(tmp_path / f"a{extension}")


@pytest.mark.parametrize("content", [b"", b"abc", b"just some text that is no scan"])
@pytest.mark.parametrize("name", ["noise", "noise.xyz", "noise.npy", "noise.h5", "noise.zarr"])
def test_unknown_content_is_one_clear_line(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError) as caught:
        open_scan(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize("kind", ["npy", "hdf5", "zarr3"])
def test_raw_options_are_refused_where_the_file_says_them(kind, tmp_path, scan_4d):
    path, _ = write(kind, tmp_path, scan_4d)
    with pytest.raises(SourceError, match="leave out --shape"):
        open_scan(path, shape=(5, 6, 7, 8), dtype="u2")


def test_format_is_found_by_content_not_by_extension(tmp_path, scan_4d):
    path, _ = write("hdf5", tmp_path, scan_4d)
    with open_scan(path.rename(tmp_path / "scan.npy")) as scan:
        assert scan.format.startswith("HDF5")
        np.testing.assert_array_equal(scan.read(()), scan_4d)


def test_opening_reads_no_values(tmp_path, monkeypatch, scan_4d):
    from stemcodecs.readers.file_array import FileArray

    def refuse(self, region):
        raise AssertionError("values were read")

    path, _ = write("npy", tmp_path, scan_4d)
    monkeypatch.setattr(FileArray, "read", refuse)
    open_scan(path).close()


def test_scan_says_what_it_is(tmp_path, scan_4d):
    path, _ = write("npy", tmp_path, scan_4d)
    with open_scan(str(path)) as scan:
        assert isinstance(scan, Scan)
        assert "scan_y: 5" in repr(scan)
        assert scan.path == str(path)


def test_file_url_with_spelled_out_characters(tmp_path, scan_4d):
    for name in ("a b.npy", "100%20.npy"):
        np.save(tmp_path / name, scan_4d)
        for url in (f"file://{tmp_path}/{name}", (tmp_path / name).as_uri()):
            open_scan(url).close()


@pytest.mark.parametrize("kind", ["npy", "hdf5", "zarr3"])
@pytest.mark.parametrize("scheme", ["file://", "file://localhost", "local://"])
def test_file_urls_are_paths(kind, scheme, tmp_path, scan_4d):
    path, _ = write(kind, tmp_path, scan_4d)
    with open_scan(f"{scheme}{path}") as scan:
        assert scan.path == str(path)
        np.testing.assert_array_equal(scan.read(()), scan_4d)


def test_zarr_in_memory(scan_4d):
    import fsspec

    fsspec.filesystem("memory").store.clear()
    zarr.create_array("memory://a.zarr", data=scan_4d, chunks=(2, 3, 7, 8))
    with open_scan("memory://a.zarr") as scan:
        np.testing.assert_array_equal(scan.read(()), scan_4d)


@pytest.mark.parametrize("name", ["a.npy", "a.h5", "a", "a.dm4"])
def test_single_files_behind_a_url_are_refused_in_one_line(name, tmp_path):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.store.clear()
    with pytest.raises(SourceError, match="nothing is there; check the URL"):
        open_scan(f"memory://{name}")
    memory.pipe_file(f"/{name}", b"123")
    with pytest.raises(SourceError, match="only Zarr stores are read from URLs; download the file and give its path"):
        open_scan(f"memory://{name}")


def test_unfinished_store_behind_a_url():
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pipe_file(f"/a.zarr/{JOURNAL}/job.json", b"{}")
    with pytest.raises(IncompleteStoreError):
        open_scan("memory://a.zarr")


@pytest.mark.slow
@pytest.mark.parametrize("url", ["http://127.0.0.1:9/a.npy", "nothing://a.npy", "s3://"])
def test_servers_that_do_not_answer_are_one_line(url):
    with pytest.raises(SourceError) as caught:
        open_scan(url)
    assert "\n" not in str(caught.value)
    assert "check the URL" in str(caught.value)


def test_zarr_in_a_folder_of_a_zip_file(tmp_path, scan_4d):
    zarr.create_array(tmp_path / "x" / "a.zarr", data=scan_4d)
    shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path / "x")
    with pytest.raises(SourceError, match="unpack it"):
        open_scan(tmp_path / "a.zip")
    (tmp_path / "begun" / JOURNAL).mkdir(parents=True)
    (tmp_path / "begun" / JOURNAL / "job.json").write_text("{}")
    shutil.make_archive(str(tmp_path / "begun"), "zip", tmp_path / "begun")
    with pytest.raises(IncompleteStoreError):
        open_scan(tmp_path / "begun.zip")
    shutil.make_archive(str(tmp_path / "b.zarr"), "zip", tmp_path / "x" / "a.zarr")
    with open_scan(tmp_path / "b.zarr.zip") as scan:
        np.testing.assert_array_equal(scan.read(()), scan_4d)
