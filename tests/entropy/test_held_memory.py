"""What the coder holds on to between chunks stays small, however many chunks and callers there are."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from stemcodecs.codecs import PixelHistogram
from stemcodecs.entropy import decoder as module
from stemcodecs.entropy.threads import run_all, set_threads


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


def test_scratch_belongs_to_the_pool_not_to_its_callers():
    before = set_threads(2)
    try:
        with ThreadPoolExecutor(8) as callers:
            seen = list(callers.map(lambda _: run_all(threading.get_ident, [()])[0], range(40)))
    finally:
        set_threads(before)
    assert len(set(seen)) <= 2
