"""One pool of threads for the kernels of a process, however many callers there are.

The kernels release the GIL. Every caller, be it a Dask worker thread or one of Zarr's, hands its groups to the same
pool, so that chunks decoded side by side do not multiply the number of busy threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from stemcodecs.errors import ConfigurationError

__all__ = ["deal", "get_threads", "run_all", "set_threads"]

T = TypeVar("T")

_pool: ThreadPoolExecutor | None = None
_threads: int | None = None


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
    before = get_threads()
    _threads, old, _pool = n, _pool, None
    if old is not None:
        old.shutdown(wait=False)
    return before


def _forget_pool() -> None:
    # The threads of a pool do not survive a fork.
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def deal(items: Sequence[T]) -> list[tuple[list[T]]]:
    """Items dealt out to the threads, as jobs of one argument for :func:`run_all`."""
    n = get_threads()
    return [(list(items[k::n]),) for k in range(min(n, len(items)))]


def run_all(function: Callable[..., T], jobs: Iterable[tuple[object, ...]]) -> list[T]:
    """Call ``function(*job)`` for every job on the pool; results in order.

    A single job goes there too: kernels keep scratch memory per thread, and Zarr and Dask call from many.
    """
    global _pool
    jobs = list(jobs)
    if not jobs or get_threads() == 1:
        return [function(*job) for job in jobs]
    if _pool is None:
        _pool = ThreadPoolExecutor(get_threads(), thread_name_prefix="stemcodecs")
    return list(_pool.map(lambda job: function(*job), jobs))
