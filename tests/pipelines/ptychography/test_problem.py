"""What a problem takes, what it refuses, and how its patterns are read."""

from __future__ import annotations

import tracemalloc

import dask.array as da
import numpy as np
import pytest
import zarr

from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.ptychography import pattern_source
from stemcodecs_pipelines.ptychography.amplitudes import Amplitudes
from stemcodecs_pipelines.ptychography.geometry import Orientation
from stemcodecs_pipelines.ptychography.problem import MARGIN, PtychographyProblem
from stemcodecs_pipelines.ptychography.reconstruct import describe_memory

N = 8


@pytest.fixture(scope="module")
def counts():
    return np.random.default_rng(0).poisson(3.0, (5, 6, N, N)).astype(np.uint16)


@pytest.fixture(scope="module")
def positions():
    return np.stack(np.meshgrid(np.arange(5), np.arange(6), indexing="ij"), -1) * 2.5


def problem_of(patterns, positions, **given):
    return PtychographyProblem.of(patterns, positions, np.ones((N, N), complex), **given)


def collected(problem, memory=1 << 30):
    """Amplitudes of a pass in the order of the positions, and how many segments there were."""
    amplitudes = np.full((problem.count, N, N), np.nan, np.float32)
    segments = 0
    for numbers, values in Amplitudes(problem, memory).segments(np.random.default_rng(1)):
        assert np.isnan(amplitudes[numbers]).all()
        amplitudes[numbers] = values
        segments += 1
    return amplitudes, segments


def test_any_source_gives_the_same_amplitudes(counts, positions, tmp_path, monkeypatch):
    monkeypatch.setattr(pattern_source, "BLOCK_BYTES", 4 * 4 * N * N)
    np.save(tmp_path / "scan.npy", counts)
    stored = zarr.create_array(tmp_path / "scan.zarr", shape=counts.shape, dtype="u2", chunks=(2, 4, N, N))
    stored[:] = counts
    expected = np.fft.ifftshift(np.sqrt(counts.reshape(-1, N, N).astype(np.float32)), axes=(1, 2))
    sources = {
        "array": counts,
        "stack": counts.reshape(-1, N, N),
        "map": np.load(tmp_path / "scan.npy", mmap_mode="r"),
        "path": tmp_path / "scan.npy",
        "zarr": stored,
        "zarr path": str(tmp_path / "scan.zarr"),
        "dask": da.from_array(counts, chunks=(3, 3, N, N)),
    }
    for name, source in sources.items():
        found, _ = collected(problem_of(source, positions.reshape(-1, 2)))
        assert np.array_equal(found, expected), name


def test_a_scan_larger_than_memory_comes_in_segments(counts, positions, monkeypatch):
    monkeypatch.setattr(pattern_source, "BLOCK_BYTES", 2 * 4 * N * N)
    problem = problem_of(counts, positions)
    whole, one = collected(problem)
    parts, many = collected(problem, memory=6 * 4 * N * N)
    assert one == 1
    assert many == 5
    assert np.array_equal(whole, parts)
    reader = Amplitudes(problem, 6 * 4 * N * N)
    assert not reader.in_memory
    assert max(len(v) for _, v in reader.segments(np.random.default_rng(0))) <= 6
    assert reader.total_counts == pytest.approx(counts.sum())
    assert "read anew in every iteration" in describe_memory(problem, "epie", 6 * 4 * N * N)


def test_a_pass_takes_the_memory_that_it_states(monkeypatch):
    monkeypatch.setattr(pattern_source, "BLOCK_BYTES", 1 << 20)
    stack = zarr.create_array({}, shape=(2048, 64, 64), dtype="u2", chunks=(64, 64, 64))
    stack[:] = 3
    positions = np.stack(np.divmod(np.arange(2048), 64), -1) * 1.0
    reader = Amplitudes(PtychographyProblem.of(stack, positions, np.ones((64, 64), complex)), memory=24 << 20)
    tracemalloc.start()
    try:
        reader.mean_counts()
        for _ in reader.segments(np.random.default_rng(0)):
            pass
        assert tracemalloc.get_traced_memory()[1] < 1.1 * reader.held_bytes
    finally:
        tracemalloc.stop()
    assert reader.total_counts == pytest.approx(3 * 2048 * 64 * 64, rel=1e-6)


def test_a_part_reads_its_own_patterns(counts, positions):
    problem = problem_of(counts, positions)
    chosen = np.array([3, 4, 17])
    found, _ = collected(problem.part(chosen))
    assert np.array_equal(found, collected(problem)[0][chosen])
    with pytest.raises(ConfigurationError, match="no position is left"):
        problem.part([])


def test_patterns_are_turned_with_their_mask(counts, positions):
    mask = np.ones((N, N), bool)
    mask[1, 2] = False
    dirty = counts.astype(np.float32)
    dirty[..., 1, 2] = np.nan
    problem = problem_of(dirty, positions, mask=mask, orientation=Orientation(transpose=True, flip_x=True))
    assert np.argwhere(~problem.mask).tolist() == [[2, N - 2]]
    found, _ = collected(problem)
    turned = counts.reshape(-1, N, N).swapaxes(1, 2)[:, :, ::-1]
    assert np.allclose(np.fft.fftshift(found, axes=(1, 2))[:, problem.mask] ** 2, turned[:, problem.mask])


def test_positions_keep_their_fractions_and_their_differences(counts, positions):
    problem = problem_of(counts, positions * 1e-9 + 5e-6, metres=True, pixel_size=0.4e-9)
    assert np.allclose(problem.positions, positions.reshape(-1, 2) / 0.4 + MARGIN)
    assert problem.object_shape == (25 + N + 2 * MARGIN, 32 + N + 2 * MARGIN)


def refuses(message, patterns, positions, probe=None, **given):
    with pytest.raises(ConfigurationError, match=message) as caught:
        PtychographyProblem.of(patterns, positions, np.ones((N, N), complex) if probe is None else probe, **given)
    assert "\n" not in str(caught.value)


def test_refusals(counts, positions):
    refuses("29 positions for 30 patterns", counts, positions.reshape(-1, 2)[1:])
    refuses("not square", counts[..., :7], positions)
    refuses("are no scan", counts[0, 0], positions)
    refuses("position 1 is not a number", counts[0, :3], [[0, 0], [np.nan, 1], [2, 2]])
    refuses("check their units", counts, positions * 1e-9)
    refuses("check the units", counts, positions * 1e9)
    refuses("need the object pixel", counts, positions, metres=True)
    refuses("lies outside an object of 12×20", counts, positions, object_shape=(12, 20))
    refuses("does not fit patterns of 8×8", counts, positions, probe=np.ones((N, N + 1), complex))
    refuses("the probe is zero", counts, positions, probe=np.zeros((N, N), complex))
    refuses("leaves no pixel", counts, positions, mask=np.zeros((N, N)))
    refuses("mask of shape", counts, positions, mask=np.ones((N, 2)))
    refuses("pixel size of -1", counts, positions, pixel_size=-1.0)
    refuses("no counts", counts.astype(complex), positions)
    with pytest.raises(ConfigurationError, match="patterns of the same scan"):
        problem_of(counts, positions).with_patterns(counts[:4])


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_what_is_no_count_is_named(counts, positions, value):
    dirty = counts.astype(np.float32)
    dirty[2, 3, 4, 5] = value
    with pytest.raises(ConfigurationError, match=rf"pattern 15 has {value:g} at \(4, 5\)"):
        collected(problem_of(dirty, positions))


def test_where_the_probe_was():
    probe = np.zeros((N, N), complex)
    probe[3:5, 3:5] = 1
    positions = [[0.0, 0.0], [0.0, 2.0], [2.0, 0.0], [2.0, 2.0]]
    problem = PtychographyProblem.of(np.ones((4, N, N)), positions, probe)
    covered = problem.covered()
    assert covered.sum() == 16
    assert covered[MARGIN + 3 : MARGIN + 7, MARGIN + 3 : MARGIN + 7].all()
