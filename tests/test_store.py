from __future__ import annotations

import functools
import http.server
import json
import threading

import numpy as np
import pytest

import stemcodecs
from stemcodecs.errors import IncompleteStoreError, SourceError
from stemcodecs.simulate import simulate_scan
from stemcodecs.store import JOURNAL, Location, require_complete, state
from stemcodecs_pipelines.store.compress import compress


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A simulated scan and its store."""
    place = tmp_path_factory.mktemp("store") / "scan.zarr"
    simulation = simulate_scan("unstructured", (6, 8), (16, 16), mean_counts=3)
    with simulation.scan() as scan:
        compress(scan, place, chunk=(3, 4))
    return simulation, place


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


def test_open_reads_memory_and_http(written):
    import fsspec

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
