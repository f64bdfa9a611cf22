"""Interrupted runs: nothing looks complete, nothing is lost, and the end is the same to the byte."""

from __future__ import annotations

import contextlib
import errno
import itertools
import shutil
import threading
import time

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import stemcodecs
from stemcodecs.errors import (
    ConfigurationError,
    DestinationError,
    IncompleteStoreError,
    SourceError,
)
from stemcodecs.location import Location
from stemcodecs.readers import open_scan
from stemcodecs.store import state
from stemcodecs_pipelines.store.compress import compress
from stemcodecs_pipelines.store.finish import _Writer
from stemcodecs_pipelines.store.journal import Record

CHUNK = (2, 8)
BLOCKS = 10


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


class BrittleEngine:
    """Runs blocks in a given order, and dies after some."""

    def __init__(self, order, survive):
        self.order, self.survive = order, survive

    def map(self, function, common, indices):
        assert list(indices) == list(range(BLOCKS))
        for count, index in enumerate(self.order):
            if count == self.survive:
                raise Killed
            yield function(common, index)

    def tell(self, function, argument):
        function(argument)


def interrupted(scan, place, survive=4, **options):
    with pytest.raises(Killed):
        compress(scan, place, chunk=CHUNK, engine=BrittleEngine(range(BLOCKS), survive), **options)


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory, digests):
    place = tmp_path_factory.mktemp("whole") / "scan.zarr"
    with open_scan(source) as scan:
        compress(scan, place, chunk=CHUNK)
    return digests(place)


@pytest.mark.slow
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(BLOCKS)), survive=st.integers(0, BLOCKS - 1), again=st.integers(0, 9))
def test_resumed_store_is_the_uninterrupted_one(scan, tmp_path, whole, digests, order, survive, again):
    place = tmp_path / "scan.zarr"
    shutil.rmtree(place, ignore_errors=True)
    with pytest.raises(Killed):
        compress(scan, place, chunk=CHUNK, engine=BrittleEngine(order, survive))
    with pytest.raises(Killed):
        compress(scan, place, engine=BrittleEngine(order[::-1], again), resume=True)
    result = compress(scan, place, resume=True)
    assert result.kept_blocks >= survive
    assert digests(place) == whole


def test_unfinished_store_never_looks_complete(scan, tmp_path):
    place = tmp_path / "scan.zarr"
    interrupted(scan, place)
    assert state(place).kind == "incomplete"
    with pytest.raises(FileNotFoundError):
        zarr.open(place, mode="r")
    with pytest.raises(IncompleteStoreError, match="--resume"):
        stemcodecs.open(place)


@pytest.mark.slow
@pytest.mark.parametrize("keep", range(12))
def test_death_while_finishing_leaves_no_complete_store(scan, tmp_path, whole, digests, keep, monkeypatch):
    place = tmp_path / "scan.zarr"
    written = []
    plain = _Writer._write

    def brittle(self, key):
        if len(written) == keep:
            raise Killed
        written.append(key)
        plain(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(_Writer, "_write", brittle)
        with pytest.raises(Killed):
            compress(scan, place, chunk=CHUNK)
    assert state(place).kind == "incomplete"
    compress(scan, place, resume=True)
    assert digests(place) == whole


@pytest.mark.slow
def test_death_after_the_last_byte_is_cleaned_up(scan, tmp_path, whole, digests, monkeypatch):
    place = tmp_path / "scan.zarr"

    def die(self, folder=""):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Location, "remove", die)
        with pytest.raises(Killed):
            compress(scan, place, chunk=CHUNK)
    assert state(place).kind == "complete"
    assert compress(scan, place, resume=True).kept_blocks == BLOCKS
    assert digests(place) == whole


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["chunk", "short chunk", "lost chunk", "record", "lost record"])
def test_damaged_blocks_are_done_again(scan, tmp_path, whole, digests, damage):
    place = tmp_path / "scan.zarr"
    interrupted(scan, place)
    chunk = place / "data/c/0/1/0/0"
    record = place / Record.key(1)
    target = record if "record" in damage else chunk
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 1
    if "lost" in damage:
        target.unlink()
    elif "short" in damage:
        target.write_bytes(data[:-1])
    else:
        target.write_bytes(data)
    assert compress(scan, place, resume=True).kept_blocks == 3
    assert digests(place) == whole


@pytest.mark.slow
def test_resume_of_nothing_and_of_a_complete_store(scan, tmp_path, whole, digests):
    place = tmp_path / "scan.zarr"
    assert compress(scan, place, chunk=CHUNK, resume=True).kept_blocks == 0
    assert compress(scan, place, resume=True).kept_blocks == BLOCKS
    assert digests(place) == whole


@pytest.mark.slow
def test_another_source_is_refused(scan, counts, tmp_path):
    place = tmp_path / "scan.zarr"
    interrupted(scan, place)
    np.save(tmp_path / "other.npy", counts[::-1])
    with open_scan(tmp_path / "other.npy") as other, pytest.raises(SourceError, match="not the source"):
        compress(other, place, resume=True)
    compress(scan, place, resume=True)


@pytest.mark.slow
def test_other_choices_are_refused(scan, tmp_path):
    place = tmp_path / "scan.zarr"
    interrupted(scan, place)
    with pytest.raises(ConfigurationError, match="--chunk"):
        compress(scan, place, chunk=(5, 5), resume=True)
    compress(scan, place, chunk=CHUNK, resume=True)


@pytest.mark.slow
def test_damaged_job_is_refused(scan, tmp_path):
    place = tmp_path / "scan.zarr"
    interrupted(scan, place)
    (place / ".stemcodecs/job.json").write_text("{}")
    with pytest.raises(DestinationError, match="job of the unfinished store is damaged"):
        compress(scan, place, resume=True)
    compress(scan, place, overwrite=True)


@pytest.mark.slow
def test_full_disk_says_so_and_can_be_resumed(scan, tmp_path, whole, digests, monkeypatch):
    place = tmp_path / "scan.zarr"
    replace = type(tmp_path).replace
    moved = []

    def full(self, target):
        moved.append(target)
        if len(moved) == 9:
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "replace", full)
        with pytest.raises(DestinationError, match="the disk is full"):
            compress(scan, place, chunk=CHUNK)
    assert state(place).kind == "incomplete"
    assert not list(place.rglob("*.part"))
    compress(scan, place, resume=True)
    assert digests(place) == whole


@pytest.mark.slow
def test_debris_of_a_killed_writer_goes_with_the_journal(scan, tmp_path, whole, digests):
    place = tmp_path / "scan.zarr"
    interrupted(scan, place)
    (place / ".stemcodecs" / "0123.part").write_bytes(b"half a chunk")
    compress(scan, place, resume=True)
    assert digests(place) == whole


@pytest.mark.slow
def test_orphaned_worker_cannot_write_into_a_finished_store(scan, tmp_path, whole, digests):
    place = tmp_path / "scan.zarr"
    compress(scan, place, chunk=CHUNK)
    with pytest.raises(DestinationError, match="has gone"):
        Location.of(place).write("data/c/0/0/0/0", b"late")
    assert digests(place) == whole


class Orphan:
    """Takes the tasks of a run as a worker would, and is still there when its client is dead."""

    def map(self, function, common, indices):
        self.write = lambda: function(common, 1)
        common.job()
        raise Killed
        yield

    def tell(self, function, argument):
        pass


@pytest.mark.slow
def test_orphaned_worker_cannot_write_into_the_next_run(scan, tmp_path, digests):
    """Not even between two blocks of it, where the same chunk with other bytes would look as good."""
    place, fresh, orphan = tmp_path / "scan.zarr", tmp_path / "fresh.zarr", Orphan()
    with pytest.raises(Killed):
        compress(scan, place, chunk=CHUNK, method="pixel_histogram:mode=pixel", engine=orphan)

    def orphan_writes(result):
        with pytest.raises(DestinationError, match="has gone"):
            orphan.write()

    method = "pixel_histogram:mode=neighbour"
    compress(scan, place, chunk=CHUNK, method=method, overwrite=True, workers=1, progress=orphan_writes)
    compress(scan, fresh, chunk=CHUNK, method=method)
    assert digests(place) == digests(fresh)


@pytest.mark.slow
def test_orphaned_worker_does_not_hinder_the_end_of_the_run(scan, tmp_path):
    """It writes while the journal is being removed."""
    location = Location.of(tmp_path / "scan.zarr")
    for _ in range(30):
        location.make_folder(".stemcodecs/records/0")
        for number in range(20):
            location.write(f".stemcodecs/records/0/{number}", b"record")
        refused = threading.Event()

        def write_on(refused=refused):
            with contextlib.suppress(DestinationError):
                for number in itertools.count(20):
                    location.write(f".stemcodecs/records/0/{number}", b"record")
                    time.sleep(0.0005)
            refused.set()

        writer = threading.Thread(target=write_on)
        writer.start()
        location.remove(".stemcodecs")
        writer.join(timeout=60)
        assert refused.is_set()
        assert not (tmp_path / "scan.zarr/.stemcodecs").exists()
