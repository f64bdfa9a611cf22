"""What the coder holds on to between chunks stays small, however many chunks and callers there are."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from stemcodecs.codecs import PixelHistogram
from stemcodecs.entropy.chunk import unrolled_model as module
from stemcodecs.entropy.fit.grouped_counts import GroupedCounts
from stemcodecs.entropy.kernels import scratch
from stemcodecs.entropy.kernels.threads import run_all, set_threads


@pytest.fixture
def chunks():
    rng = np.random.default_rng(0)
    codec = PixelHistogram()
    counts = [rng.poisson(0.2 + k, (64, 32, 32)).astype(np.uint16) for k in range(5)]
    return codec, [(c, codec.encode_chunk(c)) for c in counts]


@pytest.mark.parametrize("decoders", [0, 2])
def test_only_the_last_decoders_are_kept(chunks, decoders, monkeypatch):
    codec, pairs = chunks
    monkeypatch.setattr(module, "_kept", {})
    codec.decode_chunk(pairs[0][1])
    (first,) = module._kept.values()
    monkeypatch.setattr(module, "KEPT_BYTES", int(1.2 * decoders * first.nbytes))
    for counts, data in pairs:
        np.testing.assert_array_equal(codec.decode_chunk(data), counts)
    assert 1 <= len(module._kept) <= max(decoders, 1)
    assert sum(d.nbytes for d in module._kept.values()) <= max(module.KEPT_BYTES, 2 * first.nbytes)
    before = list(module._kept.values())[-1]
    codec.decode_chunk(pairs[-1][1])
    assert list(module._kept.values())[-1] is before


@pytest.fixture
def threads():
    before = set_threads(16)
    yield
    set_threads(before)


def test_scratch_grows_with_groups_in_work_not_with_threads(threads, monkeypatch):
    monkeypatch.setattr(scratch, "_rows", [])
    monkeypatch.setattr(scratch, "_outputs", [])
    codec = PixelHistogram()
    counts = np.random.default_rng(1).poisson(0.5, (8, 16, 24, 24)).astype(np.uint16)
    for _ in range(20):
        np.testing.assert_array_equal(codec.decode_chunk(codec.encode_chunk(counts)), counts)
    assert 1 <= len(scratch._outputs) <= 2
    assert 1 <= len(scratch._rows) <= 4


def test_a_chain_is_loaded_once_to_fit_and_once_to_encode(threads, monkeypatch):
    loaded = []
    plain = GroupedCounts.load_chain

    def load_chain(self, chain, rows):
        loaded.append(chain)
        return plain(self, chain, rows)

    monkeypatch.setattr(GroupedCounts, "load_chain", load_chain)
    counts = np.random.default_rng(1).poisson(0.5, (32, 32, 16, 16)).astype(np.uint16)
    for _ in range(5):
        loaded.clear()
        PixelHistogram(mode="scan").encode_chunk(counts)
        assert loaded == [0, 0]


def test_callers_do_not_multiply_the_jobs_in_work():
    lock, at_work, most = threading.Lock(), 0, 0

    def job():
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        time.sleep(0.002)
        with lock:
            at_work -= 1
        return threading.get_ident()

    before = set_threads(2)
    try:
        assert run_all(job, [()]) == [threading.get_ident()]
        with ThreadPoolExecutor(8) as callers:
            list(callers.map(lambda _: run_all(job, [()]), range(40)))
    finally:
        set_threads(before)
    assert most == 3  # the pool, and one of the callers
