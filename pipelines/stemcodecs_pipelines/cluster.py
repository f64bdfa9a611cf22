"""Where tasks run: threads of this process, a scheduler that is there already, or SLURM jobs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.engine import DaskEngine, Engine, WorkersLostError

__all__ = ["cluster_engine", "slurm_cluster"]


@contextlib.contextmanager
def cluster_engine(
    *, scheduler: str | None = None, slurm: bool = False, workers: int | None = None
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

    Yields
    ------
    engine : Engine or None
        None for threads, which the pipeline starts itself.
    workers : int or None
        Blocks in work at once, for the memory bound.

    Raises
    ------
    ConfigurationError
        Both were asked for, or dask-jobqueue or its configuration is missing.
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
        if slurm:
            target = stack.enter_context(slurm_cluster(workers or 2))
        elif scheduler == "local":
            target = stack.enter_context(_local_cluster(workers))
        try:
            client = stack.enter_context(Client(target, set_as_default=False))  # type: ignore[no-untyped-call]
        except (OSError, TimeoutError, ValueError) as error:
            raise WorkersLostError(
                f"no scheduler answers at {scheduler} ({type(error).__name__}); "
                "check the address, or start one with: dask scheduler"
            ) from error
        if slurm:
            client.wait_for_workers(1)
        threads = sum(client.nthreads().values())
        yield DaskEngine(client), max(threads, workers or 1)


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

    from stemcodecs_pipelines.plan import available_cores

    with LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=workers or available_cores(),
        threads_per_worker=1,
        dashboard_address=":0",
        silence_logs=50,
    ) as cluster:
        yield cluster


@contextlib.contextmanager
def slurm_cluster(jobs: int, **options: Any) -> Iterator[Any]:
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
        dask-jobqueue is not installed, or cores and memory of a job are not configured.
    """
    try:
        from dask_jobqueue import SLURMCluster  # type: ignore[attr-defined]
    except ImportError as error:
        raise ConfigurationError(
            "--slurm needs dask-jobqueue; install it with: pip install 'stemcodecs[slurm]'"
        ) from error
    import dask

    missing = [
        name
        for name in ("cores", "memory")
        if name not in options and dask.config.get(f"jobqueue.slurm.{name}", None) is None
    ]
    if missing:
        raise ConfigurationError(
            f"the SLURM jobs have no {' and no '.join(missing)}; set jobqueue.slurm in ~/.config/dask/jobqueue.yaml"
        )
    cluster = SLURMCluster(**options)
    with cluster:
        # adapt, not scale: only adapt starts a new job when one disappears.
        cluster.adapt(minimum_jobs=jobs, maximum_jobs=jobs)
        yield cluster
