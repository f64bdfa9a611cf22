from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stemcodecs.errors import ConfigurationError, UnsupportedDtypeError, WorkersLostError
from stemcodecs.readers import open_scan
from stemcodecs_pipelines.histograms.pixel_counts import CountHistograms, pixel_counts
from stemcodecs_pipelines.histograms.scan_histograms import histogram_graph, histograms
from stemcodecs_pipelines.run import reduction
from stemcodecs_pipelines.run.engine import DaskEngine
from tests.pipelines.clusters import cluster_of

arrays = st.sampled_from(["u1", "i2", "u4", "i8"]).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        st.tuples(st.integers(2, 12), st.integers(1, 4), st.integers(1, 4)),
        elements=st.integers(0, 3) | st.integers(np.iinfo(dtype).min, np.iinfo(dtype).max),
    )
)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(patterns=arrays, cuts=st.lists(st.integers(1, 11), max_size=4), data=st.data())
def test_any_cut_and_order_gives_the_same_exact_histograms(patterns, cuts, data):
    statistics = CountHistograms(detector=patterns.shape[1:])
    whole = statistics.finalize(statistics.block(patterns))
    pieces = np.split(patterns, sorted({c for c in cuts if c < len(patterns)}))
    parts = [statistics.block(piece) for piece in data.draw(st.permutations(pieces))]
    while len(parts) > 1:
        first = parts.pop(data.draw(st.integers(0, len(parts) - 1)))
        second = parts.pop(data.draw(st.integers(0, len(parts) - 1)))
        parts.append(statistics.merge(first, second))
    xr.testing.assert_identical(statistics.finalize(parts[0]), whole)
    for y, x in np.ndindex(patterns.shape[1:]):
        values, counts = pixel_counts(whole, y, x)
        expected = np.unique(patterns[:, y, x], return_counts=True)
        assert np.array_equal(values, expected[0])
        assert np.array_equal(counts, expected[1])


@pytest.mark.slow
def test_scan_is_counted_whatever_the_blocks(scan, counts, monkeypatch):
    whole = histograms(scan).counts
    assert whole.attrs["patterns"] == 130
    assert whole["histogram"].dims == ("value", "det_y", "det_x")
    assert np.array_equal(whole["histogram"][0], (counts == 0).sum((0, 1)))
    assert int(whole["histogram"].sum()) + int(whole["tail_occurrences"].sum()) == counts.size

    cut_into(monkeypatch, (3, 4))
    seen = []
    cut = histograms(scan, workers=2, progress=seen.append)
    assert len(seen) == 16
    assert sum(seen) == scan.nbytes
    xr.testing.assert_identical(cut.counts, whole)


def test_counts_in_floats_are_counted(counts, tmp_path):
    np.save(tmp_path / "float.npy", counts.astype("f4"))
    with open_scan(tmp_path / "float.npy") as scan:
        found = histograms(scan)
    assert np.array_equal(found.counts["histogram"][3], (counts == 3).sum((0, 1)))
    np.testing.assert_array_equal(found.codec().decode_chunk(found.codec().encode_chunk(counts)), counts)


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, 1e30])
def test_other_floats_are_refused(value):
    with pytest.raises(UnsupportedDtypeError, match="whole numbers"):
        CountHistograms(detector=(1, 1)).block(np.full((2, 1, 1), value))


def test_histograms_that_would_fill_the_memory_are_refused():
    statistics = CountHistograms(detector=(1, 1), tail_bytes=100)
    parts = [statistics.block(np.arange(a, a + 8).reshape(-1, 1, 1)) for a in (1000, 2000)]
    with pytest.raises(ConfigurationError, match="allow more memory"):
        statistics.merge(*parts)


def test_statistics_are_a_dask_graph_of_bounded_size_with_a_tree(scan, monkeypatch):
    cut_into(monkeypatch, (2, 2))
    plan = reduction.make_plan(scan, workers=2, whole_detector=True)
    assert plan.blocks == 35
    graph = histogram_graph(scan, plan=plan)
    assert len(graph.parts) == 16
    assert sum(graph.part_bytes) == scan.nbytes
    dependencies = dask_dependencies(graph.total)
    # Scan and statistics, what all agree on, 16 runs, 15 merges, and the outcome; no merge takes more than two parts.
    assert len(dependencies) <= 2 + 1 + 16 + 15 + 1
    depth = {}
    for key in sorted(dependencies, key=lambda k: len(ancestors(dependencies, k))):
        depth[key] = 1 + max((depth[k] for k in dependencies[key]), default=0)
    assert max(depth.values()) == 3 + 4 + 1
    found = dask.compute(graph.total, scheduler="sync")[0]
    expected = histograms(scan)
    xr.testing.assert_identical(found.counts, expected.counts)
    assert found.shared.data == expected.shared.data


@pytest.mark.slow
def test_on_a_cluster_the_same_comes_out(scan, client, monkeypatch):
    cut_into(monkeypatch, (3, 4))
    seen = []
    found = histograms(scan, engine=DaskEngine(client), progress=seen.append)
    assert sum(seen) == scan.nbytes
    expected = histograms(scan)
    xr.testing.assert_identical(found.counts, expected.counts)
    assert found.shared.data == expected.shared.data


@pytest.mark.slow
def test_an_error_in_a_task_reaches_the_caller(client, tmp_path):
    np.save(tmp_path / "half.npy", np.full((70, 4, 4), 0.5))
    with open_scan(tmp_path / "half.npy") as scan:
        for engine in (None, DaskEngine(client, retries=0)):
            with pytest.raises(UnsupportedDtypeError, match="whole numbers"):
                histograms(scan, model=False, engine=engine)


def test_a_scheduler_that_is_gone_is_said_so(scan, monkeypatch):
    cut_into(monkeypatch, (2, 2))
    with cluster_of(1, threads_per_worker=1) as client:
        engine = DaskEngine(client)
        with pytest.raises(WorkersLostError, match="scheduler"):
            histograms(scan, engine=engine, progress=lambda _: client.cluster.close())


def test_parts_can_be_left_out(scan):
    alone = histograms(scan, counts=False)
    assert alone.counts is None
    assert alone.shared.data == histograms(scan).shared.data
    counted = histograms(scan, model=False)
    with pytest.raises(ValueError, match="model=True"):
        counted.configuration()


def test_memory_is_stated_and_bounds_the_lists(scan):
    plans = []
    histograms(scan, workers=1, start=plans.append)
    histograms(scan, workers=1, counts=False, start=plans.append)
    histograms(scan, workers=1, memory=450_000_000, start=plans.append)
    assert plans[1].memory_bound < plans[2].memory_bound <= 450_000_000 < plans[0].memory_bound


def cut_into(monkeypatch, chunk):
    plain = reduction.make_plan
    monkeypatch.setattr(reduction, "make_plan", lambda scan, **options: plain(scan, **(options | {"chunk": chunk})))


def dask_dependencies(total):
    graph = dict(total.__dask_graph__())
    return {key: set(task.dependencies) if hasattr(task, "dependencies") else set() for key, task in graph.items()}


def ancestors(dependencies, key):
    found, todo = set(), [key]
    while todo:
        for other in dependencies[todo.pop()] - found:
            found.add(other)
            todo.append(other)
    return found
