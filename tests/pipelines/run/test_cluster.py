"""Processes that the command starts, and those that it only uses."""

from __future__ import annotations

import sys

import pytest

from stemcodecs_pipelines.run import memory
from stemcodecs_pipelines.run.cluster import cluster_engine
from tests.pipelines.clusters import cluster_of

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc is told anything")


@pytest.mark.slow
def test_workers_that_are_started_share_freed_blocks():
    with cluster_engine(scheduler="local", workers=1) as (engine, _):
        engine.client.wait_for_workers(1, timeout=60)
        assert list(engine.client.run(lambda: sys.modules[memory.__name__]._shared).values()) == [True]


def test_workers_of_others_are_left_alone(monkeypatch):
    told = []
    monkeypatch.setattr(memory, "_tell", told.append)
    with cluster_of(1) as client, cluster_engine(scheduler=client.cluster.scheduler_address) as (engine, _):
        engine.client.wait_for_workers(1, timeout=60)
    assert told == []
