"""Simulated movies: what the seed decides, what a class of motion means, and what the camera adds."""

from __future__ import annotations

import numpy as np
import pytest

from stemcodecs.errors import ConfigurationError, UnsupportedDtypeError
from stemcodecs.simulate import MOTIONS, MOVIES, simulate_movie

SHAPE = (6, 40, 56)


@pytest.mark.parametrize("kind", MOVIES)
@pytest.mark.parametrize("motion", MOTIONS)
def test_frames_are_the_clean_ones_with_noise(kind, motion):
    movie = simulate_movie(kind, SHAPE, motion, seed=2, dose=200)
    assert movie.frames.shape == movie.clean.shape == SHAPE
    assert movie.frames.dtype == np.uint8
    assert movie.kind == kind
    # The camera's converter ends at 0 and white, where noise is cut: a bias of a few grey values at most.
    assert abs(movie.frames.mean() - movie.clean.mean()) < 2
    expected = movie.clean.mean() * 255 / 200 + (0.01 * 255) ** 2
    assert np.var(movie.frames - movie.clean) == pytest.approx(expected, rel=0.2)


def test_the_seed_decides_everything():
    one, same = (simulate_movie(shape=SHAPE, seed=5) for _ in range(2))
    assert np.array_equal(one.frames, same.frames)
    assert np.array_equal(one.clean, same.clean)
    assert not np.array_equal(one.frames, simulate_movie(shape=SHAPE, seed=6).frames)


def test_every_kind_and_both_paces_are_drawn():
    movies = [simulate_movie(shape=(1, 8, 8), seed=seed) for seed in range(40)]
    assert {movie.kind for movie in movies} == set(MOVIES)
    assert {movie.motion for movie in movies} == {"medium", "fast"}


def test_fast_movies_change_more():
    def change(motion):
        clean = [simulate_movie(shape=(10, 48, 48), motion=motion, seed=seed).clean for seed in range(6)]
        return np.mean([np.square(movie[-1] - movie[0]).mean() for movie in clean])

    assert change("slow") < change("mixed") < change("fast")


def test_particles_grow_together():
    """The neck between two particles widens: less of the background is left, whatever they do by themselves."""
    clean = [simulate_movie("nanoparticles", (40, 64, 64), "mixed", seed=seed).clean for seed in range(8)]
    assert max(np.square(movie[-1] - movie[0]).mean() for movie in clean) > 20


def test_twelve_bits():
    movie = simulate_movie("columns", SHAPE, "slow", dtype=np.uint16, seed=1)
    assert movie.frames.dtype == np.uint16
    assert movie.white == 4095
    assert 255 < movie.frames.max() <= 4095


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"kind": "cats"}, "no movie 'cats'; choose one of nanoparticles"),
        ({"motion": "still"}, "no motion 'still'"),
        ({"shape": (3, 4, 64)}, "at least 8 by 8"),
        ({"dose": 0}, "dose 0 must be positive"),
        ({"read_noise": -1}, "read_noise -1 from 0 to 1"),
    ],
)
def test_what_cannot_be_is_refused(words, message):
    with pytest.raises(ConfigurationError, match=message):
        simulate_movie(**words)


def test_other_dtypes_are_refused():
    with pytest.raises(UnsupportedDtypeError, match="uint8 or uint16, not float32"):
        simulate_movie(shape=SHAPE, dtype=np.float32)
