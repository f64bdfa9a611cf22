"""The pool of threads that all callers share, while its size is changed under them."""

from __future__ import annotations

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from stemcodecs.codecs import PixelHistogram
from stemcodecs.entropy.kernels import threads
from stemcodecs.entropy.kernels.threads import begin, get_threads, run_all, set_threads
from stemcodecs.errors import ConfigurationError


@pytest.fixture(autouse=True)
def _as_before():
    before = get_threads()
    yield
    set_threads(before)


@pytest.mark.slow
def test_threads_may_be_set_while_others_code():
    stop = threading.Event()

    def code() -> int:
        done = 0
        while not stop.is_set():
            assert run_all(lambda x: 2 * x, [(k,) for k in range(5)]) == [0, 2, 4, 6, 8]
            assert begin(lambda: 7)() == 7
            done += 1
        return done

    with ThreadPoolExecutor(4) as callers:
        coding = [callers.submit(code) for _ in range(4)]
        end = time.monotonic() + 1
        try:
            while time.monotonic() < end:
                for n in (2, 3, 4):
                    set_threads(n)
        finally:
            stop.set()
        assert all(caller.result() > 0 for caller in coding)


@pytest.mark.slow
def test_chunks_are_right_while_threads_are_set():
    counts = np.random.default_rng(0).poisson(2, (24, 16, 12, 12)).astype(np.uint16)
    codec = PixelHistogram()
    data = codec.encode_chunk(counts)
    with ThreadPoolExecutor(3) as callers:
        coding = [callers.submit(lambda: (codec.encode_chunk(counts), codec.decode_chunk(data))) for _ in range(12)]
        while not all(caller.done() for caller in coding):
            set_threads(2 + get_threads() % 3)
        for caller in coding:
            encoded, decoded = caller.result()
            assert encoded == data
            np.testing.assert_array_equal(decoded, counts)


def test_callers_who_begin_together_start_one_pool(monkeypatch):
    started = []

    class SlowPool(ThreadPoolExecutor):
        def __init__(self, *args, **kwargs):
            started.append(self)
            time.sleep(0.05)
            super().__init__(*args, **kwargs)

    set_threads(2)
    monkeypatch.setattr(threads, "ThreadPoolExecutor", SlowPool)
    with ThreadPoolExecutor(6) as callers:
        list(callers.map(lambda _: run_all(lambda: None, [(), ()]), range(6)))
    assert len(started) == 1


@pytest.mark.slow
def test_threads_of_pools_that_were_replaced_end():
    for n in (2, 3, 4, 5):
        set_threads(n)
        run_all(time.sleep, [(0.001,)] * (4 * n))
    set_threads(2)
    gc.collect()
    end = time.monotonic() + 10
    while any(thread.name.startswith("stemcodecs") for thread in threading.enumerate()):
        assert time.monotonic() < end, "threads of pools that nobody uses are still there"
        time.sleep(0.01)


@pytest.mark.parametrize("n", [0, -1])
def test_no_threads_are_refused(n):
    with pytest.raises(ConfigurationError, match="give 1 or more"):
        set_threads(n)
