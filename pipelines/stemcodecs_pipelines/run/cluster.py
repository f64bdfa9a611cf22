"""Where tasks run: threads of this process, a scheduler that is there already, or SLURM jobs."""

from __future__ import annotations

import contextlib
import logging
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from stemcodecs.errors import ConfigurationError, WorkersLostError
from stemcodecs_pipelines.run.engine import DaskEngine, Engine, Patience

if TYPE_CHECKING:
    from stemcodecs_pipelines.run.slurm import JobKeeper

__all__ = ["cluster_engine", "slurm_jobs"]


@contextlib.contextmanager
def cluster_engine(
    *,
    scheduler: str | None = None,
    slurm: bool = False,
    workers: int | None = None,
    wait: float = 3600.0,
    report: Callable[[str], None] | None = None,
) -> Iterator[tuple[Engine | None, int | None]]:
    """Engine for the place that the user named, closed afterwards.

    Parameters
    ----------
    scheduler : str, optional
        Address such as ``tcp://host:8786``, or ``local`` for processes of this machine.
    slurm : bool
        Start SLURM jobs with the user's dask-jobqueue configuration.
    workers : int, optional
        SLURM jobs, or local processes.
    wait : float
        Seconds that the engine waits while there is no worker, e.g. because the jobs are in the queue.
    report : callable, optional
        Called with one line that says what is being waited for.

    Yields
    ------
    engine : Engine or None
        None for threads, which the pipeline starts itself.
    workers : int or None
        Blocks in work at once, for the memory bound.

    Raises
    ------
    ConfigurationError
        Both were asked for, dask-jobqueue, its configuration or SLURM is missing, or SLURM refuses
        the jobs.
    WorkersLostError
        The scheduler cannot be reached.
    """
    if scheduler and slurm:
        raise ConfigurationError("--scheduler and --slurm exclude each other; give one of them")
    if not scheduler and not slurm:
        yield None, workers
        return
    from distributed import Client

    with contextlib.ExitStack() as stack:
        stack.enter_context(_quiet_client())
        target: Any = scheduler
        threads = workers or 1
        patience = Patience(
            wait,
            report=report,
            reason=lambda: f"the scheduler at {scheduler} has no workers",
            advice=f"start some with: dask worker {scheduler}; then continue with --resume",
        )
        if slurm:
            keeper = stack.enter_context(slurm_jobs(workers or 2))
            target, threads = keeper.cluster, keeper.threads
            patience = Patience(
                wait,
                report=report,
                reason=keeper.reason,
                advice="wait longer with --wait, or choose another queue in ~/.config/dask/jobqueue.yaml, "
                "then continue with --resume",
            )
        elif scheduler == "local":
            target = stack.enter_context(_local_cluster(workers))
        try:
            client = stack.enter_context(Client(target, set_as_default=False))  # type: ignore[no-untyped-call]
        except (OSError, TimeoutError, ValueError) as error:
            raise WorkersLostError(
                f"no scheduler answers at {scheduler} ({type(error).__name__}); "
                "check the address, or start one with: dask scheduler"
            ) from error
        if slurm or scheduler == "local":
            from stemcodecs_pipelines.run.worker_memory import SharedBlocks

            # These processes are ours; those of another scheduler may do other work too.
            client.register_plugin(SharedBlocks())  # type: ignore[no-untyped-call]
        # Nobody waits for a worker here: what there is to check or to fit before the first block comes first.
        yield DaskEngine(client, patience=patience), max(sum(client.nthreads().values()), threads)


@contextlib.contextmanager
def _quiet_client() -> Iterator[None]:
    """Keep `distributed` from printing tracebacks: a lost connection becomes one line of ours."""
    handlers = {
        handler
        for name, logger in list(logging.Logger.manager.loggerDict.items())
        if name.split(".")[0] == "distributed" and isinstance(logger, logging.Logger)
        for handler in logger.handlers
    }
    levels = {handler: handler.level for handler in handlers}
    for handler in handlers:
        handler.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for handler, level in levels.items():
            handler.setLevel(level)


@contextlib.contextmanager
def _local_cluster(workers: int | None) -> Iterator[Any]:
    from distributed import LocalCluster

    from stemcodecs_pipelines.run.plan import available_cores

    with LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=workers or available_cores(),
        threads_per_worker=1,
        dashboard_address=":0",
        silence_logs=50,
    ) as cluster:
        yield cluster


@contextlib.contextmanager
def slurm_jobs(jobs: int, **options: Any) -> Iterator[JobKeeper]:
    """SLURM jobs that replace each other when one is cancelled or its node fails.

    Parameters
    ----------
    jobs : int
        Jobs kept running.
    **options
        For :class:`dask_jobqueue.SLURMCluster`, over the user's configuration
        (``~/.config/dask/jobqueue.yaml``).

    Raises
    ------
    ConfigurationError
        dask-jobqueue or SLURM is not installed, or cores and memory of a job are not configured.
    """
    _require_jobqueue()
    import dask

    for command in ("sbatch", "squeue", "scancel"):
        if shutil.which(command) is None:
            raise ConfigurationError(
                f"--slurm needs SLURM, and this machine has no command {command}; "
                "run it where jobs are submitted, or leave --slurm out"
            )
    missing = [
        name
        for name in ("cores", "memory")
        if name not in options and dask.config.get(f"jobqueue.slurm.{name}", None) is None
    ]
    if missing:
        raise ConfigurationError(
            f"the SLURM jobs have no {' and no '.join(missing)}; set jobqueue.slurm in ~/.config/dask/jobqueue.yaml"
        )
    from stemcodecs_pipelines.run.slurm import kept_jobs

    with kept_jobs(jobs, **options) as keeper:
        yield keeper


def _require_jobqueue() -> None:
    if sys.modules.get("dask_jobqueue") is not None:
        return
    really = signal.signal
    # Its import makes Ctrl-C a silent end of the process, with the exit code of a success, and outside the main thread
    # it fails for that alone.
    signal.signal = lambda *_: None  # type: ignore[assignment]
    try:
        import dask_jobqueue  # noqa: F401  brings the defaults of its configuration
    except ImportError as error:
        raise ConfigurationError(
            "--slurm needs dask-jobqueue; install it with: pip install 'stemcodecs[slurm]'"
        ) from error
    finally:
        signal.signal = really
