from __future__ import annotations

import functools
import http.server
import json
import shutil
import threading
import zipfile
from pathlib import Path

import fsspec
import numpy as np
import pytest

import stemcodecs
from stemcodecs.errors import DestinationError, IncompleteStoreError, SourceError
from stemcodecs.location import JOURNAL, Location
from stemcodecs.readers import open_scan
from stemcodecs.simulate import simulate_scan
from stemcodecs.store import require_complete, state
from stemcodecs_pipelines.store.compress import compress
from stemcodecs_pipelines.store.decompress import decompress
from stemcodecs_pipelines.store.info import info
from stemcodecs_pipelines.store.verify import verify


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A simulated scan and its store."""
    place = tmp_path_factory.mktemp("store") / "scan.zarr"
    simulation = simulate_scan("unstructured", (6, 8), (16, 16), mean_counts=3)
    with simulation.scan() as scan:
        compress(scan, place, chunk=(3, 4))
    return simulation, place


@pytest.mark.slow
def test_open_is_lazy_and_calibrated(written):
    simulation, place = written
    dataset = stemcodecs.open(place)
    assert dataset["data"].chunks == ((3, 3), (4, 4), (16,), (16,))
    assert np.array_equal(dataset["data"].values, simulation.counts)
    assert dataset["scan_x"].attrs["units"] == "nm"
    assert dataset["data"].sel(scan_x=1.0, method="nearest").shape == (6, 16, 16)


def test_open_takes_other_chunks(written):
    _, place = written
    assert stemcodecs.open(place, chunks={"scan_y": 6})["data"].chunks[0] == (6,)


@pytest.mark.slow
def test_open_reads_memory_and_http(written):
    simulation, place = written
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.put(str(place), "/copy.zarr", recursive=True)
    assert np.array_equal(stemcodecs.open("memory://copy.zarr")["data"], simulation.counts)

    pytest.importorskip("aiohttp")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            """No lines on stderr."""

    handler = functools.partial(Quiet, directory=place.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            dataset = stemcodecs.open(f"http://127.0.0.1:{server.server_port}/scan.zarr")
            assert np.array_equal(dataset["data"], simulation.counts)
        finally:
            server.shutdown()
            thread.join()


def test_states_are_told_apart(tmp_path, written):
    assert state(written[1]).kind == "complete"
    assert state(tmp_path / "none").kind == "absent"
    assert state(tmp_path).kind == "other"
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / ".zgroup").write_text('{"zarr_format": 2}')
    assert state(tmp_path / "foreign").kind == "foreign"
    (tmp_path / "foreign3").mkdir()
    (tmp_path / "foreign3" / "zarr.json").write_text('{"attributes": {"stemcodecs": 1}}')
    assert state(tmp_path / "foreign3").kind == "foreign"
    (tmp_path / "begun" / JOURNAL).mkdir(parents=True)
    (tmp_path / "begun" / JOURNAL / "job.json").write_text(json.dumps({"version": "0"}))
    assert state(tmp_path / "begun").kind == "incomplete"
    with pytest.raises(IncompleteStoreError, match="--resume"):
        require_complete(tmp_path / "begun")
    with pytest.raises(IncompleteStoreError, match="--resume"):
        stemcodecs.open(tmp_path / "begun")
    for place in ("none", "foreign", "foreign3"):
        with pytest.raises(SourceError):
            stemcodecs.open(tmp_path / place)


@pytest.mark.parametrize("remote", [False, True])
def test_locations_hold_objects(tmp_path, remote):
    location = Location.of(f"memory://{tmp_path.name}" if remote else tmp_path / "store")
    assert not location.exists()
    assert location.read("a/b") is None
    assert location.size("a/b") is None
    location.make_folder(JOURNAL)
    location.write("a/b", b"12345")
    location.write("a/b", memoryview(b"123"))
    assert location.exists()
    assert location.read("a/b") == b"123"
    assert location.size("a/b") == 3
    location.remove("a")
    location.remove("a")
    assert location.read("a/b") is None


def test_location_follows_links_and_drops_slashes(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert Location.of(f"{tmp_path}/link/").url == str(tmp_path / "real")
    assert Location.of(f"file://{tmp_path}/real").local
    assert not Location.of("s3://bucket/scan.zarr/").local
    assert Location.of("s3://bucket/scan.zarr/").url == "s3://bucket/scan.zarr"


def test_unknown_attribute_of_the_package():
    with pytest.raises(AttributeError, match="no attribute 'opne'"):
        _ = stemcodecs.opne


@pytest.fixture(params=[zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def packed(request, written, tmp_path):
    """The store of `written` as one .zip file, what is in it at its root."""
    place = tmp_path / "scan.zarr.zip"
    with zipfile.ZipFile(place, "w", request.param) as archive:
        for path in sorted(written[1].rglob("*")):
            archive.write(path, path.relative_to(written[1]))
    return place


@pytest.mark.slow
def test_zipped_store_is_read_like_its_folder(packed, written, tmp_path):
    simulation, place = written
    assert state(packed) == state(place)
    dataset = stemcodecs.open(packed)
    assert np.array_equal(dataset["data"], simulation.counts)
    assert np.array_equal(dataset["mean_pattern"], stemcodecs.open(place)["mean_pattern"])
    with open_scan(packed) as scan:
        assert np.array_equal(scan.read(()), simulation.counts)
    assert info(packed).attributes == info(place).attributes
    assert not verify(None, packed).failures
    decompress(packed, tmp_path / "out.npy")
    assert np.array_equal(np.load(tmp_path / "out.npy"), simulation.counts)


def test_zipped_store_has_the_same_objects(packed, written):
    folder, archive = Location.of(written[1]), Location.of(packed)
    names = {name.removeprefix("./") for name in folder.names("")}
    assert set(archive.names("")) == names
    assert set(archive.names("data")) == {name for name in names if name.startswith("data/")}
    for name in names:
        assert archive.read(name) == folder.read(name)
        assert archive.size(name) == folder.size(name)
    assert archive.read("nothing") is None
    assert archive.size("nothing") is None
    assert archive.is_zarr()


def test_zipped_store_is_never_written(packed):
    before = packed.read_bytes()
    location = Location.of(packed)
    for change in (
        lambda: location.write("data/c/0/0/0/0", b""),
        lambda: location.remove("data"),
        location.remove,
        lambda: location.make_folder(JOURNAL),
    ):
        with pytest.raises(DestinationError, match=r"a \.zip file is only read; unpack it"):
            change()
    location.remove(JOURNAL)  # there is none
    with (
        simulate_scan("unstructured", (4, 4), (8, 8)).scan() as scan,
        pytest.raises(DestinationError, match="is a file"),
    ):
        compress(scan, packed, overwrite=True)
    assert packed.read_bytes() == before


def test_zip_of_the_folder_itself_says_what_to_do(written, tmp_path):
    shutil.make_archive(str(tmp_path / "a"), "zip", written[1].parent)
    with pytest.raises(SourceError, match=r"the store lies in the folder scan\.zarr of this \.zip file; unpack it"):
        stemcodecs.open(tmp_path / "a.zip")


def test_damaged_zips_are_errors(packed):
    content = bytearray(packed.read_bytes())
    with zipfile.ZipFile(packed) as archive:
        chunk = next(i for i in archive.infolist() if i.filename.startswith("data/c/") and not i.is_dir())
    content[chunk.header_offset + 30 + len(chunk.filename) + 20] ^= 1
    packed.write_bytes(content)
    with pytest.raises(SourceError, match=r"is damaged \("):
        Location.of(packed).read(chunk.filename)
    packed.write_bytes(content[:-30])
    assert state(packed).kind == "other"
    with pytest.raises(SourceError):
        stemcodecs.open(packed)


def test_replaced_zip_is_read_again(tmp_path):
    for content in (b"1", b"22"):
        with zipfile.ZipFile(tmp_path / "new.zip", "w") as archive:
            archive.writestr("a", content)
        (tmp_path / "new.zip").replace(tmp_path / "a.zip")
        assert Location.of(tmp_path / "a.zip").read("a") == content


def test_files_that_are_no_stores(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"no zip at all")
    assert state(tmp_path / "a.npy").kind == "other"
    with pytest.raises(SourceError, match="not a store written by stemcodecs"):
        stemcodecs.open(tmp_path / "a.npy")


def test_attributes_can_be_written_as_netcdf(written):
    """Text, numbers and flat lists: xarray refuses anything else."""
    dataset = stemcodecs.open(written[1])
    for attributes in (dataset.attrs, *(v.attrs for v in dataset.variables.values())):
        for name, value in attributes.items():
            assert isinstance(value, str | int | float | list), name
            assert not isinstance(value, list) or all(isinstance(v, str | int | float) for v in value), name
            assert not isinstance(value, bool), name
    assert json.loads(dataset.attrs["stemcodecs"]) == state(written[1]).attributes
    assert dataset.stem.bright_field().shape == (6, 8)


def test_netcdf_keeps_values_and_provenance(written, tmp_path):
    pytest.importorskip("h5netcdf")
    import xarray

    dataset = stemcodecs.open(written[1])
    dataset.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with xarray.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as again:
        assert np.array_equal(again["data"], written[0].counts)
        assert json.loads(again.attrs["stemcodecs"])["codec"] == state(written[1]).attributes["codec"]


class Failing(fsspec.AbstractFileSystem):
    """A backend of which every call fails in its own way."""

    protocol = "failing"
    error: Exception = RuntimeError()

    def _fail(self, *args, **kwargs):
        raise self.error

    info = ls = find = exists = cat_file = pipe_file = rm = _fail


class BackendError(Exception):
    """Stands for aiohttp's, botocore's and all others'."""


@pytest.fixture
def failing():
    fsspec.register_implementation("failing", Failing, clobber=True)
    return Location.of("failing://bucket/scan.zarr")


@pytest.mark.parametrize(
    "error", [BackendError("403\n  Forbidden"), PermissionError("denied"), TimeoutError(), OSError(5, "I/O error")]
)
def test_errors_of_remote_backends_are_one_line(failing, error, monkeypatch):
    monkeypatch.setattr(Failing, "error", error)
    reading = [
        lambda: failing.read("zarr.json"),
        lambda: failing.size("zarr.json"),
        lambda: list(failing.names("data")),
        failing.exists,
        lambda: stemcodecs.open(failing.url),
        lambda: open_scan(failing.url),
    ]
    for call in reading:
        with pytest.raises(SourceError, match="cannot be read") as caught:
            call()
        assert "\n" not in str(caught.value)
        assert type(error).__name__ in str(caught.value)
    for call in (lambda: failing.write("a", b"1"), failing.remove):
        with pytest.raises(DestinationError, match="cannot be written"):
            call()


def test_what_is_not_there_is_an_answer_not_an_error(failing, monkeypatch):
    monkeypatch.setattr(Failing, "error", FileNotFoundError("gone"))
    assert failing.read("zarr.json") is None
    assert failing.size("zarr.json") is None


def test_local_files_that_cannot_be_read_are_one_line(tmp_path, monkeypatch):
    place = tmp_path / "a.zarr"
    place.mkdir()

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(SourceError, match=r"cannot be read \(Permission denied\); check the path, its permissions"):
        stemcodecs.open(place)


def test_unknown_backends_are_one_line():
    with pytest.raises(SourceError, match="check the URL, or install its fsspec package"):
        Location.of("nothing://a/b").read("c")


@pytest.mark.slow
def test_sources_and_destinations_name_the_same_place(tmp_path):
    with simulate_scan("unstructured", (4, 4), (8, 8), mean_counts=3).scan() as scan:
        compress(scan, "memory://agree.zarr")
        compress(scan, f"file://{tmp_path}/agree.zarr")
        data = scan.read(())
    for place in ("memory://agree.zarr", f"file://{tmp_path}/agree.zarr", tmp_path / "agree.zarr"):
        with open_scan(place) as again:
            assert np.array_equal(again.read(()), data)
        assert np.array_equal(stemcodecs.open(place)["data"], data)
