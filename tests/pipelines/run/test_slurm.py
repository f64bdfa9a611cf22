"""A real SLURM scheduler (see start-slurm beside this file): jobs die and the store is whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from stemcodecs.errors import ConfigurationError, WorkersLostError
from stemcodecs.readers import open_scan
from stemcodecs_pipelines.run.cluster import cluster_engine, slurm_jobs
from stemcodecs_pipelines.store.compress import compress
from stemcodecs_pipelines.store.verify import verify

NAME = f"stemcodecs-tests-{os.getpid()}"
"""Of our jobs, so that nobody else's are counted or cancelled."""
JOB = {
    "name": NAME,
    "queue": "debug",
    "cores": 1,
    "processes": 1,
    "memory": "1GB",
    "walltime": "00:10:00",
    "interface": "lo",
}


def jobs(*words: str) -> list[str]:
    done = subprocess.run(["squeue", "-h", "-n", NAME, "-o", "%i", *words], capture_output=True, text=True, check=True)
    return done.stdout.split()


def wait_for(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "SLURM is too slow, or stuck"
        time.sleep(0.2)


@pytest.fixture
def slurm():
    """Skip where no scheduler answers. No job is there before a test, and none may stay after it."""
    if shutil.which("sinfo") is None or subprocess.run(["sinfo"], capture_output=True).returncode:
        pytest.skip("no SLURM here; start one with tests/pipelines/start-slurm")
    wait_for(lambda: not jobs())
    yield
    wait_for(lambda: not jobs())


@pytest.fixture
def configured(slurm, tmp_path):
    """A user's jobqueue configuration, to be changed by name."""
    import dask
    import dask_jobqueue  # noqa: F401  its defaults must be there before they are changed

    def change(**options):
        return dask.config.set({f"jobqueue.slurm.{key.replace('_', '-')}": value for key, value in options.items()})

    with change(**JOB, log_directory=str(tmp_path / "logs")):
        yield change


@pytest.fixture
def larger(tmp_path):
    """A scan whose encoding takes long enough to be disturbed."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "scan.npy", rng.poisson(1, (96, 96, 64, 64)).astype("u2"))
    with open_scan(tmp_path / "scan.npy") as scan:
        yield scan


@pytest.mark.slurm
def test_cancelled_jobs_are_replaced_and_the_store_is_whole(configured, larger, tmp_path, digests):
    results, cancelled = [], []

    def cancel_now_and_then(result):
        results.append(result)
        if len(results) < 10 + 150 * len(cancelled) or len(cancelled) == 3:
            return
        if running := jobs("-t", "R"):
            # Once all of them: nothing is left for a while.
            cancelled.append(running if len(cancelled) == 1 else running[:1])
            subprocess.run(["scancel", *cancelled[-1]], check=True)
            time.sleep(0.5)  # what arrives meanwhile was made by jobs that are dead when it is taken

    with cluster_engine(slurm=True, workers=2) as (engine, workers):
        assert workers == 2
        wait_for(lambda: len(jobs("-t", "R")) == 2)
        result = compress(
            larger,
            tmp_path / "slurm.zarr",
            chunk=(4, 4),
            engine=engine,
            workers=workers,
            progress=cancel_now_and_then,
        )
        assert verify(larger, tmp_path / "slurm.zarr", engine=engine).intact
    assert len(cancelled) == 3
    assert sorted(r.index for r in results) == list(range(result.plan.blocks)) == list(range(576))
    compress(larger, tmp_path / "threads.zarr", chunk=(4, 4))
    assert digests(tmp_path / "slurm.zarr") == digests(tmp_path / "threads.zarr")


@pytest.mark.slurm
def test_a_job_cancelled_in_the_queue_is_replaced(configured, scan, tmp_path):
    """Dask alone never notices: no worker of it was ever there."""
    with configured(job_extra_directives=["--begin=now+1hour"]), slurm_jobs(1) as keeper:
        wait_for(jobs)
        first = jobs()
        subprocess.run(["scancel", *first], check=True)
        wait_for(lambda: jobs() and jobs() != first)
        assert len(jobs()) == 1
        assert keeper.jobs == 1


@pytest.mark.slurm
def test_a_job_of_several_processes_is_one_job_and_is_replaced(configured):
    """Its workers have other names than the job, by which Dask alone does not find it."""
    with configured(cores=2, processes=2), slurm_jobs(1) as keeper:

        def workers():
            return {worker.name for worker in keeper.cluster.scheduler.workers.values()}

        wait_for(lambda: len(workers()) == 2)
        first, names = jobs(), workers()
        subprocess.run(["scancel", *first], check=True)
        wait_for(lambda: len(workers() - names) == 2)
        assert len(first) == len(jobs()) == 1


@pytest.mark.slurm
def test_a_job_script_is_the_users(configured):
    with slurm_jobs(1) as keeper:
        script = keeper.cluster.job_script()
    assert "#SBATCH -p debug" in script
    assert "#SBATCH -t 00:10:00" in script


@pytest.mark.slurm
def test_a_failing_run_leaves_nothing_behind(configured):
    """Two runs side by side, both break off, and the next one finds neither jobs nor ports of theirs."""
    with contextlib.suppress(ZeroDivisionError), slurm_jobs(1) as one, slurm_jobs(1) as other:
        wait_for(lambda: len(jobs()) == 2)
        held = [*one.cluster.workers.values(), *other.cluster.workers.values()]
        raise ZeroDivisionError
    assert {keeper.cluster.status.name for keeper in (one, other)} == {"closed"}
    assert {job.status.name for job in held} == {"closed"}


@pytest.mark.slurm
def test_jobs_that_wait_are_said_and_given_up_in_the_end(configured, source, tmp_path, capfd):
    from stemcodecs_pipelines.cli import app

    store = str(tmp_path / "scan.zarr")
    with configured(job_extra_directives=["--begin=now+1hour"]), pytest.raises(SystemExit) as end:
        app(["compress", str(source), store, "--slurm", "--workers", "1", "--wait", "0.1"])
    assert end.value.code == 2
    lines = capfd.readouterr().err.splitlines()
    assert "stemcodecs: waiting: no worker yet; SLURM jobs: 1 pending (BeginTime)" in lines
    assert lines[-1] == (
        "stemcodecs: gave up after 6 seconds: no worker yet; SLURM jobs: 1 pending (BeginTime); "
        "wait longer with --wait, or choose another queue in ~/.config/dask/jobqueue.yaml, then continue with --resume"
    )
    app(["compress", str(source), store, "--slurm", "--workers", "1", "--resume"], standalone_mode=False)
    app(["verify", str(source), store], standalone_mode=False)


@pytest.mark.slurm
def test_ctrl_c_while_jobs_wait_cancels_them(slurm, source, tmp_path):
    environment = {f"DASK_JOBQUEUE__SLURM__{key.upper()}": str(value) for key, value in JOB.items()}
    environment["DASK_JOBQUEUE__SLURM__JOB_EXTRA_DIRECTIVES"] = "['--begin=now+1hour']"
    command = [sys.executable, "-c", "from stemcodecs_pipelines.cli import main; main()"]
    run = subprocess.Popen(
        [*command, "compress", source, tmp_path / "scan.zarr", "--slurm"],
        env=os.environ | environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    with run:
        while "waiting" not in run.stderr.readline():
            assert run.poll() is None
        assert len(jobs()) == 2
        run.send_signal(signal.SIGINT)
        assert run.stderr.read().endswith("stemcodecs: interrupted; a compression continues with --resume\n")
    assert run.returncode == 130


@pytest.mark.slurm
def test_jobs_that_die_at_once_are_one_clear_error(configured, monkeypatch, scan, tmp_path):
    monkeypatch.setattr("stemcodecs_pipelines.run.slurm.LOOK_SECONDS", 1.0)
    with (
        configured(python="/no/python"),
        cluster_engine(slurm=True, workers=5) as (engine, _),
        pytest.raises(WorkersLostError, match=r"SLURM jobs in a row ended before their worker connected .*logs"),
    ):
        compress(scan, tmp_path / "scan.zarr", engine=engine)
    assert "/no/python" in "".join(path.read_text() for path in (tmp_path / "logs").glob("*.err"))


@pytest.mark.slurm
def test_refused_jobs_are_one_clear_error(configured):
    with (
        configured(queue="none"),
        pytest.raises(ConfigurationError, match=r"SLURM refuses the jobs: .*invalid partition specified: none.*yaml"),
        cluster_engine(slurm=True, workers=2),
    ):
        pass


def test_a_machine_without_slurm_is_one_clear_line(monkeypatch, source, tmp_path, capsys):
    from stemcodecs_pipelines.cli import app

    pytest.importorskip("dask_jobqueue")
    monkeypatch.setattr("shutil.which", lambda command: None)
    with pytest.raises(SystemExit) as end:
        app(["compress", str(source), str(tmp_path / "scan.zarr"), "--slurm"])
    assert end.value.code == 2
    assert capsys.readouterr().err == (
        "stemcodecs: --slurm needs SLURM, and this machine has no command sbatch; "
        "run it where jobs are submitted, or leave --slurm out\n"
    )
    assert not (tmp_path / "scan.zarr").exists()


@pytest.mark.parametrize("options", [{"jobqueue.slurm.cores": None}, {"jobqueue.slurm.interface": "no-such-net"}])
def test_a_wrong_configuration_is_one_clear_error(monkeypatch, options):
    import dask

    pytest.importorskip("dask_jobqueue")
    monkeypatch.setattr("shutil.which", lambda command: f"/usr/bin/{command}")
    options = {"jobqueue.slurm.cores": 1, "jobqueue.slurm.memory": "1GB"} | options
    with dask.config.set(options), pytest.raises(ConfigurationError, match=r"jobqueue\.yaml"), slurm_jobs(1):
        pass


def test_missing_package_is_one_clear_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(ConfigurationError, match=r"stemcodecs\[slurm\]"), slurm_jobs(1):
        pass


def test_slurm_is_asked_from_any_thread_and_ctrl_c_stays_as_it_was(monkeypatch):
    """A service calls from a thread of its own, where Python refuses to change signals."""
    pytest.importorskip("dask_jobqueue")
    for name in [name for name in sys.modules if name.split(".")[0] == "dask_jobqueue"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("shutil.which", lambda command: None)
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def ask() -> None:
        try:
            with slurm_jobs(1):
                pass
        except Exception as error:
            seen.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert [type(error) for error in seen] == [ConfigurationError], seen
    assert signal.getsignal(signal.SIGINT) is before
