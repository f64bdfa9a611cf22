"""A real SLURM scheduler (see start-slurm beside this file): jobs die and the store is whole."""

from __future__ import annotations

import shutil
import subprocess
import time

import numpy as np
import pytest

from stemcodecs.errors import ConfigurationError
from stemcodecs.readers import open_scan
from stemcodecs_pipelines.cluster import cluster_engine, slurm_cluster
from stemcodecs_pipelines.encode import encode
from stemcodecs_pipelines.verify import verify

JOB = {
    "queue": "debug",
    "cores": 1,
    "processes": 1,
    "memory": "1GB",
    "walltime": "00:10:00",
    "interface": "lo",
}


@pytest.fixture
def slurm():
    """Skip where no scheduler answers; two jobs at most fit the test."""
    if shutil.which("sinfo") is None or subprocess.run(["sinfo"], capture_output=True).returncode:
        pytest.skip("no SLURM here; start one with tests/pipelines/start-slurm")


@pytest.fixture
def configured(slurm, tmp_path):
    """A user's jobqueue configuration."""
    import dask
    import dask_jobqueue  # noqa: F401  its defaults must be there before they are changed

    job = JOB | {"log-directory": str(tmp_path / "logs")}
    with dask.config.set({f"jobqueue.slurm.{key}": value for key, value in job.items()}):
        yield


@pytest.fixture
def larger(tmp_path):
    """A scan whose encoding takes long enough to be disturbed."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "scan.npy", rng.poisson(1, (96, 96, 64, 64)).astype("u2"))
    with open_scan(tmp_path / "scan.npy") as scan:
        yield scan


def running_jobs() -> list[str]:
    done = subprocess.run(["squeue", "-h", "-t", "R", "-o", "%i"], capture_output=True, text=True)
    return done.stdout.split()


@pytest.mark.slurm
def test_cancelled_job_is_replaced_and_the_store_is_whole(configured, larger, tmp_path, digests):
    results, cancelled = [], []

    def cancel_one(result):
        results.append(result)
        jobs = running_jobs()
        if len(results) >= 10 and len(jobs) == 2 and not cancelled:
            cancelled.append(jobs[0])
            subprocess.run(["scancel", jobs[0]], check=True)

    with cluster_engine(slurm=True, workers=2) as (engine, workers):
        deadline = time.monotonic() + 60
        while len(running_jobs()) < 2 and time.monotonic() < deadline:
            time.sleep(0.2)
        result = encode(
            larger,
            tmp_path / "slurm.zarr",
            chunk=(4, 4),
            engine=engine,
            workers=workers,
            progress=cancel_one,
        )
        assert verify(larger, tmp_path / "slurm.zarr", engine=engine).intact
    assert cancelled
    assert len(results) == result.plan.blocks == 576
    encode(larger, tmp_path / "threads.zarr", chunk=(4, 4))
    assert digests(tmp_path / "slurm.zarr") == digests(tmp_path / "threads.zarr")


@pytest.mark.slurm
def test_job_script_is_the_users(configured):
    with slurm_cluster(1) as cluster:
        script = cluster.job_script()
    assert "#SBATCH -p debug" in script
    assert "#SBATCH -t 00:10:00" in script


def test_missing_configuration_is_one_clear_error():
    import dask

    pytest.importorskip("dask_jobqueue")
    with (
        dask.config.set({"jobqueue.slurm.cores": None}),
        pytest.raises(ConfigurationError, match=r"jobqueue\.yaml"),
        slurm_cluster(1),
    ):
        pass


def test_missing_package_is_one_clear_error(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(ConfigurationError, match=r"stemcodecs\[slurm\]"), slurm_cluster(1):
        pass
