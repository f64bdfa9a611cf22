"""Sampling: whole chunks from all over the scan, and an error that tells the truth."""

from __future__ import annotations

import numpy as np
import pytest

from stemcodecs.readers import open_scan
from stemcodecs_pipelines.compare.run import compare
from stemcodecs_pipelines.compare.sample import FEWEST_BLOCKS, choose_blocks, sample_as_scan
from stemcodecs_pipelines.run import plan
from tests.pipelines.compare.conftest import GZIP


@pytest.fixture
def uneven(tmp_path, monkeypatch):
    """A scan of some hundred chunks, brighter towards one corner and cut at the edges."""
    monkeypatch.setattr(plan, "LARGEST_CHUNK", 1 << 15)
    rng = np.random.default_rng(3)
    dose = np.linspace(0.2, 4, 61)[:, None] * np.linspace(0.5, 1.5, 70)
    counts = rng.poisson(dose[..., None, None], (61, 70, 16, 16)).astype(np.uint16)
    np.save(tmp_path / "uneven.npy", counts)
    return tmp_path / "uneven.npy"


def test_blocks_are_whole_and_spread_over_the_scan(uneven):
    with open_scan(uneven) as scan:
        chosen = choose_blocks(scan, 400_000)
    assert 4 <= len(chosen.numbers) <= 13
    assert len(set(chosen.numbers)) == len(chosen.numbers)
    rows = {region[0].start for region in chosen.regions}
    columns = {region[1].start for region in chosen.regions}
    assert len(rows) > 2
    assert len(columns) > 2
    assert not chosen.whole


def test_a_scan_of_the_size_of_the_sample_is_read_whole(uneven):
    with open_scan(uneven) as scan:
        assert choose_blocks(scan, scan.nbytes).whole
        few = choose_blocks(scan, 1)
    # From one or two blocks nobody could tell how much they differ.
    assert len(few.numbers) == FEWEST_BLOCKS


def test_the_stated_error_covers_the_size_of_the_whole(uneven, few):
    few(GZIP)
    whole = compare(uneven).rows[0]
    assert whole.bits_error == 0
    for sample in (300_000, 1_000_000, 2_000_000):
        report = compare(uneven, sample=sample)
        row = report.rows[0]
        assert report.sample.raw_bytes < report.sample.of_bytes
        assert 0 < row.bits_error < 0.5 * row.bits_per_value
        assert abs(row.bits_per_value - whole.bits_per_value) < 3 * row.bits_error


def test_all_blocks_have_no_error_and_the_model_counts_once(uneven):
    with open_scan(uneven) as scan:
        chosen = choose_blocks(scan, scan.nbytes)
        sizes = [100] * len(chosen.numbers)
        bits, error = chosen.bits_per_value(sizes, model=50)
        assert error == 0
        assert bits == pytest.approx(8 * (sum(sizes) + 50) / np.prod(scan.shape))


def test_a_sample_as_a_scan_has_the_values_of_its_blocks(uneven, tmp_path):
    with open_scan(uneven) as scan:
        chosen = choose_blocks(scan, 400_000)
        with sample_as_scan(scan, chosen, tmp_path / "sample.npy") as part:
            rows = chosen.plan.chunk[0]
            shapes = [tuple(s.stop - s.start for s in region) for region in chosen.regions]
            first = chosen.regions[shapes.index(chosen.plan.chunk)]
            np.testing.assert_array_equal(part.read((slice(0, rows),)), scan.read(first))
            assert part.shape[0] % rows == 0
