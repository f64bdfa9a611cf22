"""What the coder holds on to between chunks stays small, however many chunks and callers there are."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest

from stemcodecs.codecs import PixelHistogram
from stemcodecs.entropy.chunk.unrolled_model import KEPT_BYTES, Decoder
from stemcodecs.entropy.fit.grouped_counts import GroupedCounts
from stemcodecs.entropy.kernels import scratch
from stemcodecs.entropy.kernels.threads import run_all, set_threads


class Held:
    """Memory of arrays and objects that was not given back, in bytes."""

    nbytes = 0


@contextmanager
def held() -> Iterator[Held]:
    result = Held()
    tracemalloc.start()
    try:
        yield result
        gc.collect()
        result.nbytes = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@contextmanager
def on_threads(n: int) -> Iterator[None]:
    before = set_threads(n)
    try:
        yield
    finally:
        set_threads(before)


@pytest.mark.slow
def test_models_of_chunks_decoded_before_are_let_go():
    codec, rng = PixelHistogram(), np.random.default_rng(0)
    counts = rng.poisson(0.5 + 3 * rng.random((128, 128)), (64, 128, 128)).astype(np.uint16)
    # A row less each time: every chunk has a model of its own.
    chunks = [codec.encode_chunk(counts[:, k:]) for k in range(30)]
    codec.decode_chunk(chunks[0])
    with held() as memory:
        for data in chunks:
            codec.decode_chunk(data)
    assert 0.5 * KEPT_BYTES < memory.nbytes < 1.2 * KEPT_BYTES


def test_a_model_decoded_just_before_is_not_unrolled_again(monkeypatch):
    codec = PixelHistogram()
    counts = np.random.default_rng(0).poisson(2, (64, 16, 16)).astype(np.uint16)
    data = codec.encode_chunk(counts)
    codec.decode_chunk(data)

    def unroll(self, model):
        raise AssertionError("unrolled again")

    monkeypatch.setattr(Decoder, "__init__", unroll)
    np.testing.assert_array_equal(codec.decode_chunk(data), counts)


@pytest.mark.slow
def test_scratch_grows_with_groups_in_work_not_with_threads(monkeypatch):
    monkeypatch.setattr(scratch, "_rows", [])
    monkeypatch.setattr(scratch, "_outputs", [])
    codec = PixelHistogram()
    counts = np.random.default_rng(1).poisson(0.5, (8, 16, 24, 24)).astype(np.uint16)
    data = codec.encode_chunk(counts)
    with on_threads(1), held() as alone:
        for _ in range(3):
            codec.decode_chunk(codec.encode_chunk(counts))
    with on_threads(16), held() as many:
        for _ in range(20):
            np.testing.assert_array_equal(codec.decode_chunk(codec.encode_chunk(counts)), counts)
    assert len(data) == len(codec.encode_chunk(counts))
    # Two groups are in work at most; 16 threads would hold 16 of each array.
    assert many.nbytes < max(4 * alone.nbytes, 4 << 20)


@pytest.mark.slow
def test_scratch_of_a_large_detector_is_let_go(monkeypatch):
    monkeypatch.setattr(scratch, "_rows", [])
    monkeypatch.setattr(scratch, "_outputs", [])
    monkeypatch.setattr(scratch, "KEPT_ROWS", 1 << 20)
    monkeypatch.setattr(scratch, "KEPT_OUTPUTS", 1 << 20)
    counts = np.random.default_rng(1).poisson(0.5, (64, 128, 128)).astype(np.uint16)
    codec = PixelHistogram()
    codec.decode_chunk(codec.encode_chunk(counts))
    with held() as memory:
        np.testing.assert_array_equal(codec.decode_chunk(codec.encode_chunk(counts)), counts)
    assert memory.nbytes < 6 << 20


@pytest.mark.slow
def test_a_chain_is_loaded_once_to_fit_and_once_to_encode(monkeypatch):
    loaded = []
    plain = GroupedCounts.load_chain

    def load_chain(self, chain, rows):
        loaded.append(chain)
        return plain(self, chain, rows)

    monkeypatch.setattr(GroupedCounts, "load_chain", load_chain)
    counts = np.random.default_rng(1).poisson(0.5, (32, 32, 16, 16)).astype(np.uint16)
    with on_threads(16):
        for _ in range(5):
            loaded.clear()
            PixelHistogram(mode="scan").encode_chunk(counts)
            assert loaded == [0, 0]


def test_callers_do_not_multiply_the_jobs_in_work():
    lock, at_work, most = threading.Lock(), 0, 0

    def job() -> None:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        time.sleep(0.002)
        with lock:
            at_work -= 1

    with on_threads(2), ThreadPoolExecutor(8) as callers:
        list(callers.map(lambda _: run_all(job, [()]), range(40)))
    assert most <= 3  # the pool, and one of the callers


@pytest.mark.parametrize("threads", [1, 2])
def test_one_job_is_done_by_its_caller(threads):
    with on_threads(threads):
        assert run_all(threading.get_ident, [()]) == [threading.get_ident()]
