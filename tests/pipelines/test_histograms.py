from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stemcodecs.errors import ConfigurationError, UnsupportedDtypeError
from stemcodecs.readers import open_scan
from stemcodecs_pipelines import histograms as module
from stemcodecs_pipelines.histograms import CountHistograms, histograms, pixel_counts

arrays = st.sampled_from(["u1", "i2", "u4", "i8"]).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        st.tuples(st.integers(2, 12), st.integers(1, 4), st.integers(1, 4)),
        elements=st.integers(0, 3) | st.integers(np.iinfo(dtype).min, np.iinfo(dtype).max),
    )
)


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


def test_scan_is_counted_whatever_the_blocks(scan, counts, monkeypatch):
    whole = histograms(scan)
    assert whole.attrs["patterns"] == 130
    assert whole["histogram"].dims == ("value", "det_y", "det_x")
    assert np.array_equal(whole["histogram"][0], (counts == 0).sum((0, 1)))
    assert int(whole["histogram"].sum()) + int(whole["tail_occurrences"].sum()) == counts.size

    from stemcodecs_pipelines import reduction

    plain = reduction.make_plan
    monkeypatch.setattr(reduction, "make_plan", lambda scan, **options: plain(scan, **(options | {"chunk": (3, 4)})))
    seen = []
    cut = histograms(scan, workers=2, progress=seen.append)
    assert len(seen) == 16
    assert sum(seen) == scan.nbytes
    xr.testing.assert_identical(cut, whole)


def test_counts_in_floats_are_counted(counts, tmp_path):
    np.save(tmp_path / "float.npy", counts.astype("f4"))
    with open_scan(tmp_path / "float.npy") as scan:
        found = histograms(scan)
    assert np.array_equal(found["histogram"][3], (counts == 3).sum((0, 1)))


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, 1e30])
def test_other_floats_are_refused(value):
    with pytest.raises(UnsupportedDtypeError, match="whole numbers"):
        CountHistograms(detector=(1, 1)).block(np.full((2, 1, 1), value))


def test_histograms_that_would_fill_the_memory_are_refused(monkeypatch):
    monkeypatch.setattr(module, "_TAIL_BYTES", 100)
    statistics = CountHistograms(detector=(1, 1))
    parts = [statistics.block(np.arange(a, a + 9).reshape(-1, 1, 1)) for a in (1000, 2000)]
    with pytest.raises(ConfigurationError, match="histograms need more"):
        statistics.merge(*parts)
