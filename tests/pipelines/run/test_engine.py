from __future__ import annotations

import collections
import itertools
import os
import signal
import threading
import time

import pytest

from stemcodecs.errors import WorkersLostError
from stemcodecs_pipelines.run.engine import DaskEngine, Patience, ThreadEngine
from tests.pipelines.clusters import cluster_of


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


class Watched:
    """A client whose tasks can be looked at, by their first index."""

    def __init__(self, client, submitted=lambda index, future: None):
        self.client, self.submitted, self.tasks = client, submitted, []

    def __getattr__(self, name):
        return getattr(self.client, name)

    def submit(self, *args, **options):
        future = self.client.submit(*args, **options)
        self.tasks.append((args[3], future))
        self.submitted(args[3][0], future)
        return future


@pytest.mark.slow
def test_cluster_gives_every_result_with_few_in_flight(client):
    tracker = Tracker(30)
    results = []
    for result in DaskEngine(client).map(slow_double, 2, tracker.indices()):
        tracker.returned += 1
        results.append(result)
    assert sorted(results) == [2 * i for i in range(30)]
    assert tracker.most <= 16


@pytest.mark.slow
def test_cluster_puts_short_blocks_together(client):
    count = 5000
    watched = Watched(client)
    assert sorted(DaskEngine(watched).map(double, 2, range(count))) == [2 * i for i in range(count)]
    assert len(watched.tasks) < count / 10


def test_cluster_raises_the_error_of_a_task(client):
    with pytest.raises(ValueError, match="third"):
        list(DaskEngine(client, retries=0).map(fail_on_three, None, range(50)))


def missing_source(common, index):
    raise FileNotFoundError("scan.npy is not on this node")


def test_cluster_does_not_take_an_error_of_a_task_for_a_lost_connection(client):
    with pytest.raises(FileNotFoundError, match="not on this node"):
        list(DaskEngine(client, retries=0).map(missing_source, None, range(5)))


@pytest.mark.slow
def test_results_in_hand_survive_their_worker():
    """The client is busy with one result while others arrive and the worker that made them dies."""
    with cluster_of(1, threads_per_worker=2) as client:
        watched = Watched(client)
        results = DaskEngine(watched).map(double, 2, range(6))
        found = [next(results)]
        while not all(future.done() for _, future in watched.tasks):
            time.sleep(0.01)
        time.sleep(0.3)  # for the values, which follow their status
        cluster = client.cluster
        cluster.scale(2)
        client.wait_for_workers(2)
        cluster.sync(cluster.workers[0].close)
        assert any(future.status in ("lost", "pending") for _, future in watched.tasks)
        assert sorted(found + list(results)) == [2 * i for i in range(6)]


@pytest.mark.slow
def test_lost_blocks_are_submitted_again(client):
    lost = collections.Counter()

    def lose_twice(index, future):
        if index % 3 == 0 and lost[index] < 2:
            lost[index] += 1
            client.cancel([future], force=True)

    watched = Watched(client, lose_twice)
    assert sorted(DaskEngine(watched).map(slow_double, 2, range(20))) == [2 * i for i in range(20)]
    assert len(watched.tasks) == 20 + 2 * 7


def test_a_block_that_is_always_lost_is_one_clear_error(client):
    def lose_three(index, future):
        if index == 3:
            client.cancel([future], force=True, reason="test")

    watched = Watched(client, lose_three)
    with pytest.raises(WorkersLostError, match=r"block 3 was lost 4 times \(test\).*--resume"):
        list(DaskEngine(watched, retries=3).map(slow_double, 2, range(10)))
    assert [run for run, _ in watched.tasks].count([3]) == 4


def kill_once(folder, index):
    """Take the worker down at one block, at the first try only."""
    if index == 3 and not (folder / "killed").exists():
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * index


def kill_on_three(common, index):
    if index == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * index


@pytest.mark.slow
def test_killed_workers_cost_no_block_and_a_block_that_kills_is_one_clear_error(tmp_path):
    import dask

    with (
        # One death of a worker ends a task, so that these tests see it; plain Dask allows three.
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        cluster_of(2, threads_per_worker=1, processes=True) as client,
    ):
        found = list(DaskEngine(client).map(kill_once, tmp_path, range(20)))
        assert sorted(found) == [2 * i for i in range(20)]
        found.clear()
        with pytest.raises(WorkersLostError, match=r"block 3 died again and again.*--chunk"):
            found.extend(DaskEngine(client, retries=1).map(kill_on_three, 2, range(20)))
        assert len(set(found)) == len(found)


@pytest.mark.slow
def test_broken_connection_is_made_again():
    with cluster_of(1, threads_per_worker=2) as client:
        results = DaskEngine(client).map(slow_double, 2, range(20))
        found = [next(results)]
        client.loop.add_callback(client.scheduler_comm.comm.abort)
        found.extend(results)
    assert sorted(found) == [2 * i for i in range(20)]


def test_lost_scheduler_is_one_clear_error():
    with cluster_of(1) as client:
        results = DaskEngine(client).map(slow_double, 2, itertools.count())
        next(results)
        client.cluster.close()
        with pytest.raises(WorkersLostError, match=r"connection to the scheduler was lost.*--resume"):
            list(results)


@pytest.mark.slow
def test_no_worker_is_said_at_once_and_is_an_error_in_the_end():
    said = []
    with cluster_of(0) as client:
        engine = DaskEngine(client, patience=Patience(1.5, report=said.append, reason=lambda: "the queue is full"))
        with pytest.raises(WorkersLostError, match=r"gave up after 1\.5 seconds: the queue is full; start workers"):
            list(engine.map(double, 2, range(5)))
    assert said == ["waiting: the queue is full"]


@pytest.mark.slow
def test_cluster_writes_the_same_bytes_as_threads(client, scan, tmp_path, digests):
    from stemcodecs_pipelines.store.compress import compress

    compress(scan, tmp_path / "threads.zarr", chunk=(4, 4))
    compress(scan, tmp_path / "cluster.zarr", chunk=(4, 4), engine=DaskEngine(client))
    assert digests(tmp_path / "threads.zarr") == digests(tmp_path / "cluster.zarr")
