"""One pool of threads for the kernels of a process, however many callers there are.

The kernels release the GIL. Every caller, be it a Dask worker thread or one of Zarr's, hands its groups to the same
pool, so that chunks decoded side by side do not multiply the number of busy threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from stemcodecs.errors import ConfigurationError

__all__ = ["begin", "get_threads", "in_parts", "run_all", "set_threads"]

T = TypeVar("T")

_pool: ThreadPoolExecutor | None = None
_threads: int | None = None
_starting = threading.Lock()
_by_caller = threading.Lock()


def _default_threads() -> int:
    wish = os.environ.get("STEMCODECS_THREADS")
    if wish is not None:
        if not wish.isdecimal() or int(wish) < 1:
            raise ConfigurationError(f"STEMCODECS_THREADS={wish!r}: set it to a number of threads, 1 or more")
        return int(wish)
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every platform
        return os.cpu_count() or 1


def get_threads() -> int:
    """Threads that encode and decode the groups of a chunk (``STEMCODECS_THREADS``, else the processors allowed)."""
    global _threads
    if _threads is None:
        _threads = _default_threads()
    return _threads


def set_threads(n: int) -> int:
    """Set the number of threads of this process; returns the number before.

    Raises
    ------
    ConfigurationError
        If ``n`` is less than one.
    """
    global _pool, _threads
    if n < 1:
        raise ConfigurationError(f"cannot code on {n} threads; give 1 or more")
    with _starting:
        before = get_threads()
        # Not shut down: another thread may be about to use it. Its threads end when nobody holds it any more, and
        # after all that was given to it.
        _threads, _pool = n, None
    return before


def _forget_pool() -> None:
    # The threads of a pool do not survive a fork, and a lock may have been copied locked.
    global _pool, _starting
    _pool, _starting = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def begin(function: Callable[..., T], *arguments: object) -> Callable[[], T]:
    """Begin a call on the pool; what is returned waits for its result."""
    if get_threads() == 1:
        result = function(*arguments)
        return lambda: result
    return _the_pool().submit(function, *arguments).result


def _the_pool() -> ThreadPoolExecutor:
    global _pool
    with _starting:
        if _pool is None:
            _pool = ThreadPoolExecutor(get_threads(), thread_name_prefix="stemcodecs")
        return _pool


def run_all(function: Callable[..., T], jobs: Iterable[tuple[object, ...]]) -> list[T]:
    """Call ``function(*job)`` for every job on the pool; results in order.

    One caller at a time does a single job itself: waking a thread costs a fifth of what a group takes to decode. More
    of them would multiply the scratch memory: Zarr and Dask call from many threads.
    """
    jobs = list(jobs)
    if not jobs or get_threads() == 1:
        return [function(*job) for job in jobs]
    # Never waited for, so that a fork may copy it locked.
    if len(jobs) == 1 and _by_caller.acquire(blocking=False):
        try:
            return [function(*jobs[0])]
        finally:
            _by_caller.release()
    return list(_the_pool().map(lambda job: function(*job), jobs))


def in_parts(function: Callable[[int, int], T]) -> list[T]:
    """Call ``function(part, parts)`` on every thread, for as many parts as there are threads."""
    n = get_threads()
    return run_all(function, [(part, n) for part in range(n)])
