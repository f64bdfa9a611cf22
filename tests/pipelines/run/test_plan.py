from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.run.plan import (
    GROUP,
    LARGEST_CHUNK,
    Plan,
    choose_chunk,
    make_plan,
    memory_bytes,
)

sizes = st.integers(1, 3000)


@given(
    scan=st.tuples(sizes, sizes) | st.tuples(sizes),
    detector=st.sampled_from([16, 128, 256, 1024, 4096]),
    item=st.sampled_from([1, 2, 4]),
    whole=st.booleans(),
)
def test_default_chunk_is_of_bounded_size_and_holds_whole_groups(scan, detector, item, whole):
    shape = (*scan, detector, detector)
    chunk = choose_chunk(shape, item, whole_detector=whole)
    assert all(1 <= c <= n for c, n in zip(chunk, shape, strict=True))
    assert math.prod(chunk) * item <= LARGEST_CHUNK
    assert chunk[-1] == detector
    positions = math.prod(chunk[:-2])
    if whole:
        assert chunk[-2] == detector
    elif math.prod(scan) > 4 * GROUP:
        # A group of 64 positions fits, and the padding of narrow scans does not empty it.
        assert positions >= GROUP / 2
    if not whole:
        assert GROUP * chunk[-2] * detector * max(item, 2) <= LARGEST_CHUNK


@pytest.mark.parametrize(
    ("shape", "chunk"),
    [
        ((256, 256, 1024, 1024), (8, 8, 512, 1024)),
        ((64, 64, 4096, 4096), (8, 8, 128, 4096)),
        ((1000, 2048, 2048), (64, 256, 2048)),
        ((10, 2048, 2048), (10, 256, 2048)),
    ],
)
def test_large_detectors_are_cut_into_bands_so_that_a_chunk_holds_a_group(shape, chunk):
    assert choose_chunk(shape, 2) == chunk


@pytest.mark.parametrize(
    ("shape", "item"),
    [((256, 256, 256, 256), 2), ((1000, 700, 128, 128), 1), ((200, 150, 192, 192), 2), ((100_000, 256, 256), 2)],
)
def test_large_scans_get_whole_groups_of_at_least_half_a_chunk(shape, item):
    chunk = choose_chunk(shape, item)
    assert math.prod(chunk[:-2]) % GROUP == 0
    assert LARGEST_CHUNK / 2 <= math.prod(chunk) * item <= LARGEST_CHUNK


def test_small_scan_is_one_chunk():
    assert choose_chunk((24, 24, 256, 256), 1) == (24, 24, 256, 256)
    assert choose_chunk((516, 128, 128), 2) == (516, 128, 128)


def test_pattern_larger_than_a_chunk_is_cut_into_rows():
    assert choose_chunk((4, 4, 20_000, 20_000), 4) == (4, 4, 13, 20_000)
    assert choose_chunk((100, 90), 2) == (100, 90)


@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    chunk=st.tuples(*[st.integers(1, 9)] * 3),
)
def test_blocks_cover_the_scan_once(shape, chunk):
    plan = Plan(shape=shape, dtype="<u1", chunk=chunk)
    seen = np.zeros(shape, int)
    for index in range(plan.blocks):
        seen[plan.region(index)] += 1
    assert (seen == 1).all()


def test_memory_chooses_chunks_and_workers(scan):
    class Large:
        shape = (512, 512, 256, 256)
        dtype = np.dtype("u2")
        chunks = None

    full = make_plan(Large, workers=2)
    small = make_plan(Large, workers=2, memory=450_000_000)
    assert small.memory_bound <= 450_000_000 < full.memory_bound
    assert small.block_bytes < full.block_bytes
    fewer = make_plan(Large, chunk=(16, 16), memory=500_000_000)
    assert fewer.workers == 1
    with pytest.raises(ConfigurationError, match="is not enough"):
        make_plan(Large, memory=301_000_000, chunk=(64, 64))


def test_bound_is_four_chunks_per_worker_and_300_mb():
    plan = Plan(shape=(64, 64, 256, 256), dtype="<u2", chunk=(8, 8, 256, 256), workers=2)
    assert plan.memory_bound == 300_000_000 + 2 * 4 * plan.block_bytes
    assert replace(plan, scratch_bytes=7_000_000).memory_bound == plan.memory_bound + 2 * 7_000_000


def test_a_chunk_of_fewer_positions_takes_the_memory_of_a_group():
    few = Plan(shape=(64, 64, 256, 256), dtype="<u2", chunk=(2, 2, 256, 256))
    group = Plan(shape=(64, 64, 256, 256), dtype="<u2", chunk=(8, 8, 256, 256))
    assert few.memory_bound == group.memory_bound


def test_bound_of_a_cluster_is_that_of_each_process():
    class Client:
        def nthreads(self):
            return {"tcp://one": 2, "tcp://two": 2, "tcp://three": 1}

    class Cluster:
        client = Client()

    class Large:
        shape = (512, 512, 256, 256)
        dtype = np.dtype("u2")
        chunks = None

    plan = make_plan(Large, engine=Cluster())
    assert plan.workers == 5
    assert plan.memory_bound == make_plan(Large, workers=2).memory_bound
    assert "in each process" in plan.describe()
    # Its threads are what they are: only smaller chunks can save memory.
    assert make_plan(Large, engine=Cluster(), memory=450_000_000).workers == 5
    with pytest.raises(ConfigurationError, match="is not enough"):
        make_plan(Large, engine=Cluster(), chunk=(16, 16), memory=450_000_000)


def test_bound_counts_the_chunks_of_the_source():
    class Chunked:
        shape = (64, 64, 32, 32)
        dtype = np.dtype("u2")
        chunks = (64, 64, 32, 32)

    class Plain(Chunked):
        chunks = None

    extra = make_plan(Chunked, workers=1).memory_bound - make_plan(Plain, workers=1).memory_bound
    assert extra == 64 * 64 * 32 * 32 * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk": (4,)}, "does not fit a scan of shape 10×13×12×16"),
        ({"chunk": (0, 4)}, "positive numbers"),
        ({"chunk": (4, 4), "shard": (6, 8)}, "is not a multiple of the chunk"),
        ({"workers": 0}, "at least one worker"),
    ],
)
def test_choices_that_do_not_fit_are_refused(scan, options, message):
    with pytest.raises(ConfigurationError, match=message):
        make_plan(scan, **options)


@pytest.mark.parametrize(("text", "count"), [("4GB", 4 * 10**9), ("500 mb", 5 * 10**8), ("1.5GiB", 3 << 29), ("7", 7)])
def test_sizes_are_read(text, count):
    assert memory_bytes(text) == count


@pytest.mark.parametrize("text", ["", " ", "GB", "4 apples", "-1GB", "0", "4iB", "nan", "1e999GB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ConfigurationError, match="is not a size"):
        memory_bytes(text)
