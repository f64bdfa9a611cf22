"""What comes back of measurements: better than what was measured, and the same every time."""

from __future__ import annotations

import numpy as np
import pytest

from stemcodecs.simulate import simulate_movie
from stemcodecs.temporal import Sampling
from stemcodecs.temporal.coherence import MOST_REPLACED, replaced
from stemcodecs.temporal.decoders import gap_tv_frames, interpolated_frames
from stemcodecs.temporal.interpolate import between_bins

BINS = Sampling(measurement="bins", time_bins=4, space_bins=2)


def error(frames, movie):
    return np.square(frames - movie.clean).mean()


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(measurement="random"), BINS], ids=lambda s: s.measurement)
def test_gap_tv_is_better_than_noisy_frames(sampling):
    for kind in ("grains", "fibres"):
        movie = simulate_movie(kind, (10, 48, 52), "slow", seed=2, dose=60)
        total = sampling.measure(movie.frames)
        found = gap_tv_frames(total, sampling, (48, 52))
        assert found.dtype == np.float32
        assert error(found, movie) < 0.5 * error(movie.frames.astype(float), movie)
        assert np.array_equal(found, gap_tv_frames(total, sampling, (48, 52)))


def test_gap_tv_follows_what_moves():
    """The mean of the open frames does not."""
    movie = simulate_movie("fibres", (10, 64, 64), "fast", seed=8, dose=300)
    sampling = Sampling()
    total = sampling.measure(movie.frames)
    still = np.repeat(total / sampling.opened((64, 64)), 10, axis=0)
    assert error(gap_tv_frames(total, sampling, (64, 64)), movie) < error(still, movie)


@pytest.mark.parametrize("shape", [(1, 1), (5, 8), (16, 13)])
def test_interpolation_of_a_constant_and_of_a_ramp(shape):
    edges = np.array([0, 2, 5, 7, 10])
    s = 2
    rows, columns = (-(-n // s) for n in shape)
    flat = between_bins(np.full((4, rows, columns), 7.5, np.float32), edges, s, shape)
    assert flat.shape == (10, *shape)
    assert np.allclose(flat, 7.5, atol=1e-5)
    if min(shape) >= 16:
        return
    # A ramp in x, measured in bins that are all whole, comes back between the middles of the outermost ones.
    ramp = np.arange(24, dtype=np.float32)
    means = np.broadcast_to(ramp.reshape(-1, 2).mean(axis=1), (4, rows, 12)).astype(np.float32)
    back = between_bins(means, edges, s, (shape[0], 24))
    assert np.allclose(back[..., 3:-3], ramp[3:-3], atol=1e-4)


def test_frames_far_from_the_edge_follow_time():
    edges = np.array([0, 2, 4, 6])
    means = np.array([10, 20, 30], np.float32)[:, None, None]
    back = between_bins(means, edges, 1, (1, 1)).ravel()
    assert np.allclose(back, [10, 12.5, 17.5, 22.5, 27.5, 30])


def test_interpolated_bins_of_uneven_edges():
    sampling = Sampling(measurement="bins", frames=5, time_bins=2, space_bins=3)
    total = sampling.measure(np.full((5, 7, 8), 9, np.uint8))
    assert np.allclose(interpolated_frames(total, sampling, (7, 8)), 9, atol=1e-5)


@pytest.mark.parametrize("motion", ["slow", "mixed"])
def test_what_moves_little_is_coherent(motion):
    for seed in range(12):
        movie = simulate_movie("any", (10, 64, 64), motion, seed=seed)
        if movie.motion != "fast":
            assert replaced(movie.frames) < MOST_REPLACED


def test_noise_and_blank_frames_are_coherent():
    rng = np.random.default_rng(0)
    assert replaced(rng.poisson(50, (10, 64, 64)).astype(np.uint8)) < MOST_REPLACED
    assert replaced(np.zeros((10, 64, 64), np.uint8)) == 0
    assert replaced(np.full((1, 9, 9), 3, np.uint8)) == 0
    assert replaced(np.full((4, 1, 9), 3, np.uint8)) == 0


@pytest.mark.parametrize("at", [1, 5, 9])
def test_a_cut_is_found_wherever_it_is(at):
    found = []
    for seed in range(12):
        one, other = (simulate_movie("any", (10, 64, 64), "slow", seed=s).frames for s in (seed, seed + 100))
        cut = np.concatenate([one[:at], other[at:]])
        found += [replaced(cut), replaced(cut, BINS.bin_edges)]
    # A dim scene after a bright one leaves much of the contrast where it was.
    assert np.mean(np.array(found) > MOST_REPLACED) > 0.9


def test_bins_take_faster_motion_than_masks():
    movies = [simulate_movie("any", (10, 64, 64), "fast", seed=seed).frames for seed in range(12)]
    assert np.mean([replaced(m, BINS.bin_edges) for m in movies]) < np.mean([replaced(m) for m in movies]) - 0.2


def test_motion_too_fast_is_found():
    movie = simulate_movie("columns", (1, 64, 64), "slow", seed=3, dose=200).clean[0]
    frames = np.stack([np.roll(movie, 3 * t, axis=1) for t in range(10)])
    noisy = np.random.default_rng(0).poisson(frames).clip(0, 255).astype(np.uint8)
    assert replaced(noisy) > MOST_REPLACED
