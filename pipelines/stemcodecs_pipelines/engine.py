"""Run one function over many blocks with a bounded number of tasks in flight.

A Dask graph over a scan of a million chunks freezes the scheduler before the first chunk is
written. So tasks are submitted in a sliding window: whoever runs them, threads or a cluster, only
ever knows a few per worker, and the client holds one small result at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import islice
from typing import Any, Protocol, TypeVar

from stemcodecs.errors import StemcodecsError

__all__ = ["DaskEngine", "Engine", "ThreadEngine", "WorkersLostError"]

Result = TypeVar("Result")


class WorkersLostError(StemcodecsError):
    """The cluster lost the scheduler, or workers died again and again on the same block."""


class Engine(Protocol):
    """Somewhere to run tasks."""

    def map(
        self, function: Callable[[Any, int], Result], common: Any, indices: Iterable[int]
    ) -> Generator[Result, None, None]:
        """Yield ``function(common, index)`` in order of completion.

        The first error cancels what has not started, waits for what has, and is raised.
        """


class ThreadEngine:
    """Threads of this process: the kernels release the GIL, and nothing is copied.

    Parameters
    ----------
    workers : int
        Blocks in work at once.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def map(
        self, function: Callable[[Any, int], Result], common: Any, indices: Iterable[int]
    ) -> Generator[Result, None, None]:
        """See `Engine.map`."""
        todo = iter(indices)
        # Not a with-block: leaving it would run what is still queued after an error or Ctrl-C.
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="stemcodecs-block")
        try:
            # One spare task per worker hides the time that the client spends on a result.
            running = {pool.submit(function, common, i) for i in islice(todo, 2 * self.workers)}
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
                running |= {pool.submit(function, common, i) for i in islice(todo, len(done))}
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class DaskEngine:
    """Workers of a `distributed` cluster: LocalCluster, SLURM, or any scheduler address.

    Parameters
    ----------
    client : distributed.Client
        Connected client; the engine does not close it. Indices that take no time share a task.
    retries : int
        How often a block is tried again when its worker dies or its node fails.
    """

    _WINDOW = 4
    """Tasks per worker thread known to the scheduler: enough that none waits for the client."""
    _LONGEST = 256
    """Most indices in one task."""

    def __init__(self, client: Any, retries: int = 3) -> None:
        self.client = client
        self.retries = retries

    def map(
        self, function: Callable[[Any, int], Result], common: Any, indices: Iterable[int]
    ) -> Generator[Result, None, None]:
        """See `Engine.map`."""
        from distributed import as_completed
        from distributed.client import FutureCancelledError
        from distributed.scheduler import KilledWorker

        todo = iter(indices)
        futures: set[Any] = set()
        length = 1
        try:
            completed: Any = as_completed(  # type: ignore[no-untyped-call]
                loop=self.client.loop, with_results=True, raise_errors=False
            )
            size = 0
            checked = 0.0
            while True:
                if time.monotonic() - checked > 1.0:
                    # The cluster may grow or shrink while we run.
                    size = self._WINDOW * max(1, sum(self.client.nthreads().values()))
                    checked = time.monotonic()
                while len(futures) < size and (run := list(islice(todo, length))):
                    future = self.client.submit(run_several, function, common, run, pure=False, retries=self.retries)
                    futures.add(future)
                    completed.add(future)
                if not futures:
                    return
                for future, result in completed.next_batch(block=True):
                    futures.discard(future)
                    if future.status != "finished":
                        raise _unwrapped(future, result)
                    future.release()
                    seconds, results = result
                    length = self._next_length(len(results), seconds)
                    yield from results
        except KilledWorker as error:
            raise WorkersLostError(
                "the workers that ran one block died again and again, most likely for want "
                "of memory; "
                "give them more memory or use a smaller --chunk, then continue with --resume"
            ) from error
        except (FutureCancelledError, OSError, TimeoutError) as error:
            raise WorkersLostError(
                f"the connection to the scheduler was lost ({type(error).__name__}); "
                "start the cluster again and continue with --resume"
            ) from error
        finally:
            with suppress(Exception):
                self.client.cancel(list(futures), force=True)

    def _next_length(self, length: int, seconds: float) -> int:
        """Indices of the next task: a scheduler spends milliseconds on each, so short ones go together."""
        if seconds < 0.1:
            return min(2 * length, self._LONGEST)
        return max(1, length // 2) if seconds > 0.4 else length


def run_several(function: Callable[[Any, int], Result], common: Any, indices: list[int]) -> tuple[float, list[Result]]:
    """Results of some indices, and how many seconds they took. Runs on a worker."""
    start = time.perf_counter()
    results = [function(common, index) for index in indices]
    return time.perf_counter() - start, results


def _unwrapped(future: Any, result: Any) -> BaseException:
    """The exception of a failed task."""
    from distributed.client import FutureCancelledError

    if future.status == "error":
        error = result[1] if isinstance(result, tuple) and len(result) == 3 else future.exception()
        return error if isinstance(error, BaseException) else RuntimeError(str(error))
    return FutureCancelledError(future.key, "lost")
