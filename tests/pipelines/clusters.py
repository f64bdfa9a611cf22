"""Dask clusters for tests."""

from __future__ import annotations

import contextlib


@contextlib.contextmanager
def cluster_of(workers, **options):
    """Workers in this process, and a client."""
    from distributed import Client, LocalCluster

    options = {"processes": False, "protocol": "tcp", "dashboard_address": ":0", "silence_logs": 50} | options
    with LocalCluster(n_workers=workers, **options) as cluster, Client(cluster, set_as_default=False) as client:
        yield client
