"""Run one function over many blocks with a bounded number of tasks in flight.

A Dask graph over a scan of a million chunks freezes the scheduler before the first chunk is
written. So tasks are submitted in a sliding window: whoever runs them, threads or a cluster, only
ever knows a few per worker, and the client holds one small result at a time.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

from stemcodecs.errors import WorkersLostError

__all__ = ["DaskEngine", "Engine", "Patience", "ThreadEngine"]

Result = TypeVar("Result")
Item = TypeVar("Item")


class Engine(Protocol):
    """Somewhere to run tasks."""

    def map(
        self, function: Callable[[Any, int], Result], common: Any, indices: Iterable[int]
    ) -> Generator[Result, None, None]:
        """Yield ``function(common, index)`` in order of completion.

        The first error cancels what has not started, and is raised. What has started may still be running then: threads
        are waited for, workers of a cluster are not. So a task must do no harm when it ends late.
        """

    def compute(self, total: Any, parts: Sequence[Any], done: Callable[[int], None]) -> Any:
        """Value of a Dask graph of few tasks; calls ``done`` with the number of every part of it that is finished.

        Parameters
        ----------
        total : dask.delayed.Delayed
            What to compute.
        parts : sequence of dask.delayed.Delayed
            Tasks of the graph that tell how far it is.
        done : callable
            Called with an index into ``parts``, once for each.
        """

    def tell(self, function: Callable[[str], None], argument: str) -> None:
        """Call a function once in every process that runs tasks; one that cannot be reached has nothing to tidy."""


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

    def compute(self, total: Any, parts: Sequence[Any], done: Callable[[int], None]) -> Any:
        """See `Engine.compute`."""
        from dask.callbacks import Callback

        numbers = {part.key: number for number, part in enumerate(parts)}

        def finished(key: Any, *_: Any) -> None:
            if key in numbers:
                done(numbers[key])

        with Callback(posttask=finished):  # type: ignore[no-untyped-call]
            return total.compute(scheduler="threads", num_workers=self.workers)

    def tell(self, function: Callable[[str], None], argument: str) -> None:
        """See `Engine.tell`."""
        function(argument)


class Patience:
    """What to do while a cluster has no worker: say so at once, and give up in the end.

    Parameters
    ----------
    seconds : float
        How long to wait for a worker before and during a run.
    report : callable, optional
        Called with one line whenever the reason changes.
    reason : callable, optional
        Says why there is no worker.
    advice : str
        What the user can do about it; ends the error message.
    """

    def __init__(
        self,
        seconds: float = 600.0,
        *,
        report: Callable[[str], None] | None = None,
        reason: Callable[[], str] = lambda: "no worker is connected to the scheduler",
        advice: str = "start workers, then continue with --resume",
    ) -> None:
        self.seconds = seconds
        self.report = report
        self.reason = reason
        self.advice = advice
        self._said = ""
        self._since: float | None = None

    def look(self, workers: int) -> None:
        """Take note of how many workers there are now.

        Raises
        ------
        WorkersLostError
            There have been none for too long.
        """
        now = time.monotonic()
        if workers:
            self._since, self._said = None, ""
            return
        # Counted from the first look that found none: whoever takes our results may be slow himself.
        self._since = now if self._since is None else self._since
        reason = self.reason()
        if now - self._since >= self.seconds:
            raise WorkersLostError(f"gave up after {_duration(self.seconds)}: {reason}; {self.advice}")
        if self.report is not None and reason != self._said:
            self.report(f"waiting: {reason}")
        self._said = reason


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:g} seconds"


class DaskEngine:
    """Workers of a `distributed` cluster: LocalCluster, SLURM, or any scheduler address.

    What a dying worker, job or connection takes away is submitted again. A block may therefore run
    twice, even at the same time; its result is given once.

    Parameters
    ----------
    client : distributed.Client
        Connected client; the engine does not close it. Indices that take no time share a task.
    retries : int
        How often a block is tried again that failed on its worker, and how often one that was lost.
        The scheduler by itself survives three deaths of a worker per try (``allowed-failures``).
    patience : Patience, optional
        How long to wait while there is no worker at all; default: ten minutes.
    """

    _WINDOW = 4
    """Tasks per worker thread known to the scheduler: enough that none waits for the client."""
    _LONGEST = 256
    """Most indices in one task."""

    def __init__(self, client: Any, retries: int = 3, patience: Patience | None = None) -> None:
        self.client = client
        self.retries = retries
        self.patience = patience or Patience()

    def map(
        self, function: Callable[[Any, int], Result], common: Any, indices: Iterable[int]
    ) -> Generator[Result, None, None]:
        """See `Engine.map`."""
        todo = _Todo(indices, self.retries)
        flying: dict[Any, list[int]] = {}
        settled: queue.SimpleQueue[_Settled] = queue.SimpleQueue()
        length = 1
        threads, checked = 1, float("-inf")
        try:
            while True:
                self._require_scheduler()
                if time.monotonic() - checked > 1.0:
                    # The cluster may grow or shrink while we run.
                    threads, checked = self._threads(threads), time.monotonic()
                while len(flying) < self._WINDOW * threads and (run := todo.take(length)):
                    future = self.client.submit(run_several, function, common, run, pure=False, retries=self.retries)
                    flying[future] = run
                    self.client.loop.add_callback(_settle, self.client, future, settled)
                if not flying:
                    return
                for outcome in _arrived(settled):
                    run = flying.pop(outcome.future)
                    outcome.future.release()
                    if outcome.lost:
                        todo.lost(run, outcome.error)
                    elif outcome.error is not None:
                        raise outcome.error
                    else:
                        todo.done(run)
                        seconds, results = outcome.value
                        length = self._next_length(len(results), seconds)
                        yield from results
        finally:
            if self.client.status == "running":
                with suppress(Exception):
                    self.client.cancel(list(flying), force=True)

    def compute(self, total: Any, parts: Sequence[Any], done: Callable[[int], None]) -> Any:
        """See `Engine.compute`.

        Raises
        ------
        WorkersLostError
            The scheduler is gone, or a task kills its workers.
        """
        finished: queue.SimpleQueue[int] = queue.SimpleQueue()
        future, *reading = self.client.compute([total, *parts], retries=self.retries)
        for number, part in enumerate(reading):
            part.add_done_callback(lambda _, number=number: finished.put(number))
        try:
            while not future.done() or not finished.empty():
                self._require_scheduler()
                self._threads(1)
                for number in _arrived(finished):
                    done(number)
                    # The graph keeps it for as long as it needs it.
                    reading[number].release()
            return self._value(future)
        finally:
            if self.client.status == "running":
                with suppress(Exception):
                    self.client.cancel([future, *reading], force=True)

    def tell(self, function: Callable[[str], None], argument: str) -> None:
        """See `Engine.tell`."""
        if self.client.status == "running":
            with suppress(Exception):
                self.client.run(function, argument, on_error="ignore")

    @staticmethod
    def _value(future: Any) -> Any:
        from distributed.scheduler import KilledWorker

        try:
            return future.result()
        except KilledWorker as error:
            raise WorkersLostError(
                "the workers that read the scan died again and again, most likely for want of memory; "
                "give them more memory, then start again"
            ) from error
        except (Exception, asyncio.CancelledError) as error:
            if future.status == "error":
                raise
            # Distributed's own words for a scheduler that is gone are "cancelled for reason: unknown".
            raise WorkersLostError("the scheduler is gone, and the work with it; start again") from error

    def _next_length(self, length: int, seconds: float) -> int:
        """Indices of the next task: a scheduler spends milliseconds on each, so short ones go together."""
        if seconds < 0.1:
            return min(2 * length, self._LONGEST)
        return max(1, length // 2) if seconds > 0.4 else length

    def _require_scheduler(self) -> None:
        """Wait while the client connects again; it gives up after ``distributed.comm.timeouts.connect``."""
        while self.client.status == "connecting":
            time.sleep(0.05)
        if self.client.status != "running":
            raise WorkersLostError(
                "the connection to the scheduler was lost and nothing answers at its address; "
                "start the cluster again and continue with --resume"
            )

    def _threads(self, before: int) -> int:
        """Threads of all workers; at least one, so that a task waits where the next worker will find it."""
        try:
            threads: int = sum(self.client.nthreads().values())
        except (OSError, TimeoutError):
            return before  # The connection broke just now, and the client's status is about to tell.
        self.patience.look(threads)
        return max(1, threads)


class _Todo:
    """Indices that wait to be submitted: fresh ones in runs, lost ones alone.

    The scheduler blames the death of a worker on every task that was there, running or waiting. So
    the blocks that it gives up as killers are tried again one at a time: the next to be blamed with
    nobody of that kind beside it is one indeed.
    """

    def __init__(self, indices: Iterable[int], retries: int) -> None:
        self._fresh = iter(indices)
        self._retries = retries
        self._lost: deque[int] = deque()
        self._suspects: deque[int] = deque()
        self._on_trial: int | None = None
        self._losses: Counter[int] = Counter()

    def take(self, length: int) -> list[int]:
        """Indices of the next task; none when there is nothing to submit now."""
        if self._suspects and self._on_trial is None:
            self._on_trial = self._suspects.popleft()
            return [self._on_trial]
        return [self._lost.popleft()] if self._lost else list(islice(self._fresh, length))

    def done(self, run: list[int]) -> None:
        """A task came back with its results."""
        if run == [self._on_trial]:
            self._on_trial = None

    def lost(self, run: list[int], error: BaseException | None) -> None:
        """A task is to be done again.

        Raises
        ------
        WorkersLostError
            One of its blocks was lost too often.
        """
        from distributed.scheduler import KilledWorker

        self.done(run)
        self._losses.update(run)
        worst = max(run, key=self._losses.__getitem__)
        killed = isinstance(error, KilledWorker)
        if self._losses[worst] <= self._retries:
            (self._suspects if killed else self._lost).extend(run)
        elif killed:
            raise WorkersLostError(
                f"the workers that ran block {worst} died again and again, most likely for want of memory; "
                "give them more memory or use a smaller --chunk, then continue with --resume"
            ) from error
        else:
            raise WorkersLostError(
                f"block {worst} was lost {self._losses[worst]} times "
                f"({getattr(error, 'reason', None) or type(error).__name__}); "
                "look into the logs of scheduler and workers, then continue with --resume"
            ) from error


def run_several(function: Callable[[Any, int], Result], common: Any, indices: list[int]) -> tuple[float, list[Result]]:
    """Results of some indices, and how many seconds they took. Runs on a worker."""
    start = time.perf_counter()
    results = [function(common, index) for index in indices]
    return time.perf_counter() - start, results


@dataclass(frozen=True, kw_only=True)
class _Settled:
    """What became of a task: a value, an error of its own, or lost through no fault of its own."""

    future: Any
    value: Any = None
    error: BaseException | None = None
    lost: bool = False


async def _settle(client: Any, future: Any, settled: queue.SimpleQueue[_Settled]) -> None:
    """Wait for a task, fetch its value and say what became of it. Runs on the client's event loop.

    What a future's status says holds for this moment and this thread only. When a worker dies whose
    result is in the client's hands already, the status turns from "finished" to "lost"; so the
    thread that takes the results must never look at it. And a task must always be reported, or its
    block would be waited for forever: `distributed.as_completed` forgets one whose value is being
    fetched when the connection breaks.
    """
    from distributed.scheduler import KilledWorker

    try:
        value = await client.gather(future, asynchronous=True)
    except (Exception, asyncio.CancelledError) as error:
        own = future.status == "error" and not isinstance(error, KilledWorker)
        settled.put(_Settled(future=future, error=error, lost=not own))
    else:
        settled.put(_Settled(future=future, value=value))


def _arrived(settled: queue.SimpleQueue[Item]) -> Iterator[Item]:
    """All that has arrived; waits a second at most, so that the cluster is looked at in between."""
    try:
        yield settled.get(timeout=1.0)
        while True:
            yield settled.get_nowait()
    except queue.Empty:
        return
