"""SLURM jobs with Dask workers: submitted, watched, and replaced when they end too early.

dask-jobqueue makes the job script, submits and cancels. Which jobs are alive we ask SLURM itself:
Dask only knows jobs whose worker has connected, so that it waits forever for one that was cancelled
in the queue, that died while it started, or that sbatch refused.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from dask_jobqueue.slurm import SLURMCluster, SLURMJob
from distributed import SchedulerPlugin
from distributed.deploy.spec import ProcessInterface

from stemcodecs.errors import ConfigurationError, WorkersLostError

__all__ = ["JobKeeper", "kept_jobs"]

LOOK_SECONDS = 10.0
"""How often SLURM is asked; slower while jobs die at once."""
SUBMIT_SECONDS = 60.0
"""How long sbatch may take to accept or refuse a job before the run goes on without knowing."""
FRUITLESS = 5
"""Jobs in a row that may end before their worker connects."""


class _Job(SLURMJob):  # type: ignore[misc]
    """A job that remembers why SLURM refused it, and whose end its cluster can see."""

    refusal: str | None = None

    async def start(self) -> None:
        try:
            await super().start()  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError, OSError) as error:
            # Raised here, it would end in a log that nobody reads; the keeper tries again.
            self.refusal = _last_words(error)
            await ProcessInterface.start(self)  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        await super().close()  # type: ignore[no-untyped-call]
        # dask-jobqueue forgets this, and a cluster that finds a job "running" stops closing itself halfway.
        await ProcessInterface.close(self)  # type: ignore[no-untyped-call]


def _last_words(error: Exception) -> str:
    """What sbatch wrote to stderr, in one line."""
    text = str(error).rpartition("stderr:")[2] or type(error).__name__
    return " ".join(text.replace("sbatch: error: ", "").split())


class _Arrivals(SchedulerPlugin):
    """Names of all workers that ever connected."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def add_worker(self, scheduler: Any, worker: str) -> None:
        self.names.add(str(scheduler.workers[worker].name))

    def of(self, job: str) -> bool:
        """Whether a job had a worker; several processes of one job have a number after its name."""
        return job in self.names or any(name.startswith(f"{job}-") for name in self.names)


class JobKeeper:
    """Keeps a number of jobs in SLURM, whatever becomes of the single job.

    Parameters
    ----------
    cluster : SLURMCluster
        Cluster without jobs, whose `job_cls` is ours.
    jobs : int
        Jobs to keep.
    cores : int
        Threads of the workers of one job.
    """

    def __init__(self, cluster: Any, jobs: int, cores: int) -> None:
        self.cluster = cluster
        self.jobs = jobs
        self.threads = jobs * cores
        self._arrivals = _Arrivals()
        cluster.scheduler.add_plugin(self._arrivals)
        self._numbers = itertools.count()
        self._states: dict[str, str] = {}
        self._accepted = False
        self._fruitless: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stemcodecs-slurm", daemon=True)

    def start(self) -> None:
        """Submit the jobs, and watch them from now on.

        Raises
        ------
        ConfigurationError
            SLURM refuses them.
        """
        self.cluster.loop.add_callback(self._replace, {})
        deadline = time.monotonic() + SUBMIT_SECONDS
        while not self.cluster.workers and time.monotonic() < deadline:
            time.sleep(0.05)
        self.reason()
        self._look()
        self._thread.start()

    def stop(self) -> None:
        """Replace no job any more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def reason(self) -> str:
        """Why there is no worker, in words for a user who waits.

        Raises
        ------
        ConfigurationError
            SLURM never accepted a job.
        WorkersLostError
            Job after job ends before its worker connects.
        """
        held = list(self.cluster.workers.values())
        refusals = [job.refusal for job in held if job.refusal]
        if held and len(refusals) == len(held):
            if not self._accepted:
                raise ConfigurationError(
                    f"SLURM refuses the jobs: {refusals[0]}; check that it runs (sinfo), "
                    "and what jobqueue.slurm in ~/.config/dask/jobqueue.yaml asks for"
                )
            return f"SLURM refuses new jobs ({refusals[0]})"
        if len(self._fruitless) >= FRUITLESS:
            raise WorkersLostError(
                f"{len(self._fruitless)} SLURM jobs in a row ended before their worker connected (the last: "
                f"{self._fruitless[-1]}); read what they wrote into {_logs(held)}, then continue with --resume"
            )
        if not self._states:
            return "the SLURM jobs are being submitted"
        counts = Counter(self._states.values())
        return "no worker yet; SLURM jobs: " + ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))

    def _run(self) -> None:
        pause = 1.0
        while not self._stop.wait(pause):
            self._look()
            # The user sees soon what becomes of the jobs; later SLURM is spared, most of all where jobs die at once.
            pause = min(2 * pause, LOOK_SECONDS * 2 ** min(len(self._fruitless) // self.jobs, 4))

    def _look(self) -> None:
        held = {name: job.job_id for name, job in list(self.cluster.workers.items())}
        alive = _alive()
        if alive is None:
            return
        self._states = {job: alive[job] for job in held.values() if job in alive}
        self._accepted |= any(held.values())
        ended = {name: job for name, job in held.items() if job not in alive}
        self.cluster.loop.add_callback(self._replace, ended)

    def _replace(self, ended: dict[str, str | None]) -> None:
        """Forget jobs that ended, and have as many new ones submitted. Runs on the cluster's event loop."""
        wanted = self.cluster.worker_spec
        if self._stop.is_set():
            return
        for name, job in ended.items():
            if wanted.pop(name, None) is not None and job is not None:
                self._fruitless = [] if self._arrivals.of(name) else [*self._fruitless, job]
        while len(wanted) < self.jobs:
            # Never a name again: the scheduler may not have noticed yet that its last bearer is dead.
            wanted[f"{self.cluster.name}-{next(self._numbers)}"] = self.cluster.new_spec
        self.cluster.scale(jobs=self.jobs)


def _alive() -> dict[str, str] | None:
    """States of this user's jobs by their ids; None when SLURM does not answer."""
    command = ["squeue", "--noheader", "--user", str(os.getuid()), "--format", "%i|%T|%r"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return None
    states = {}
    for line in done.stdout.split("\n"):
        job, _, rest = line.partition("|")
        state, _, reason = rest.partition("|")
        if state and state != "COMPLETING":
            states[job.strip()] = state.lower() + (f" ({reason})" if reason not in ("", "None") else "")
    return states


def _logs(held: list[Any]) -> str:
    folder = next((job.log_directory for job in held if job.log_directory), None)
    return str(folder) if folder else "slurm-<job>.out"


@contextlib.contextmanager
def kept_jobs(jobs: int, **options: Any) -> Iterator[JobKeeper]:
    """A Dask scheduler in this process, and SLURM jobs with its workers; all of it closed afterwards.

    Parameters
    ----------
    jobs : int
        Jobs to keep.
    **options
        For :class:`dask_jobqueue.SLURMCluster`.

    Raises
    ------
    ConfigurationError
        The configuration of the jobs makes no cluster.
    """
    import dask

    # Two runs on one machine must not fight for a port; a dashboard that the user configured stays.
    scheduler = {"dashboard_address": ":0"} | (dask.config.get("jobqueue.slurm.scheduler-options", None) or {})
    own: dict[str, Any] = {"job_cls": _Job, "scheduler_options": scheduler}
    try:
        cluster = SLURMCluster(**own | options)
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        raise ConfigurationError(
            f"the SLURM jobs cannot be set up: {error}; change jobqueue.slurm in ~/.config/dask/jobqueue.yaml"
        ) from error
    with cluster:
        cores = options.get("cores") or dask.config.get("jobqueue.slurm.cores")
        keeper = JobKeeper(cluster, jobs, int(cores))
        try:
            keeper.start()
            yield keeper
        finally:
            keeper.stop()
