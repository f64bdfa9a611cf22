from __future__ import annotations

import itertools
import threading
import time

import pytest

from stemcodecs_pipelines.engine import DaskEngine, ThreadEngine


def double(common, index):
    return common * index


def slow_double(common, index):
    time.sleep(0.11)
    return common * index


class Tracker:
    """Counts how many indices were taken from the source and not yet given back."""

    def __init__(self, count):
        self.taken, self.returned, self.most = 0, 0, 0
        self.count = count

    def indices(self):
        for index in range(self.count):
            self.taken += 1
            self.most = max(self.most, self.taken - self.returned)
            yield index


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_give_every_result_with_few_in_flight(workers):
    tracker = Tracker(200)
    results = []
    for result in ThreadEngine(workers).map(double, 2, tracker.indices()):
        tracker.returned += 1
        results.append(result)
    assert sorted(results) == [2 * i for i in range(200)]
    assert tracker.most <= 4 * workers


def test_first_error_stops_what_has_not_started():
    started = []

    def fail(common, index):
        started.append(index)
        if index == 3:
            raise ValueError("third")
        return index

    with pytest.raises(ValueError, match="third"):
        list(ThreadEngine(2).map(fail, None, itertools.count()))
    assert len(started) < 20
    assert not [t for t in threading.enumerate() if t.name.startswith("stemcodecs-block")]


def test_closing_early_waits_for_what_is_running():
    finished = []

    def slow(common, index):
        finished.append(index)
        return index

    results = ThreadEngine(2).map(slow, None, itertools.count())
    next(results)
    results.close()
    count = len(finished)
    assert count < 20
    assert len(finished) == count


def fail_on_three(common, index):
    if index == 3:
        raise ValueError("third")
    return index


@pytest.fixture(scope="module")
def client():
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def test_cluster_gives_every_result_with_few_in_flight(client):
    tracker = Tracker(30)
    results = []
    for result in DaskEngine(client).map(slow_double, 2, tracker.indices()):
        tracker.returned += 1
        results.append(result)
    assert sorted(results) == [2 * i for i in range(30)]
    assert tracker.most <= 16


def test_cluster_puts_short_blocks_together(client):
    count = 5000
    engine = DaskEngine(client)
    submit, tasks = client.submit, []

    class Counted:
        def __getattr__(self, name):
            return getattr(client, name)

        def submit(self, *args, **options):
            tasks.append(args)
            return submit(*args, **options)

    engine.client = Counted()
    assert sorted(engine.map(double, 2, range(count))) == [2 * i for i in range(count)]
    assert len(tasks) < count / 10


def test_cluster_raises_the_error_of_a_task(client):
    with pytest.raises(ValueError, match="third"):
        list(DaskEngine(client, retries=0).map(fail_on_three, None, range(50)))


def test_cluster_writes_the_same_bytes_as_threads(client, scan, tmp_path, digests):
    from stemcodecs_pipelines.encode import encode

    encode(scan, tmp_path / "threads.zarr", chunk=(4, 4))
    encode(scan, tmp_path / "cluster.zarr", chunk=(4, 4), engine=DaskEngine(client))
    assert digests(tmp_path / "threads.zarr") == digests(tmp_path / "cluster.zarr")
