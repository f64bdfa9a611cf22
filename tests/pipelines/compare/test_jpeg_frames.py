"""JPEG at a budget of bytes a frame: what it takes, what comes back, and what it cannot do."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from stemcodecs.errors import ConfigurationError, UnsupportedDtypeError
from stemcodecs.simulate import simulate_movie
from stemcodecs_pipelines.compare.jpeg_frames import best_within, jpeg_frames


@pytest.fixture(scope="module")
def movie():
    return simulate_movie("fibres", (3, 64, 64), dose=60, seed=1)


def test_the_best_quality_that_fits_is_found():
    def encode(quality):
        return bytes(round(quality))

    assert len(best_within(encode, 37, 1, 95, 7)) in (36, 37)
    assert len(best_within(encode, 0, 5, 95, 7)) == 5  # the lowest, where none fits


def test_no_frame_takes_more_than_its_budget_and_more_bytes_give_better_frames(movie):
    pytest.importorskip("PIL")
    errors = []
    for budget in (600, 1200, 2400):
        size, decoded = jpeg_frames(movie.frames, budget)
        assert size <= 3 * budget
        assert decoded.shape == movie.frames.shape
        assert decoded.dtype == np.uint8
        errors.append(np.square(decoded.astype(float) - movie.frames).mean())
    assert errors[0] > errors[1] > errors[2]
    # A better quality would not have fitted: the bytes are nearly spent.
    assert size > 0.8 * 3 * budget


def test_only_bytes_are_taken(movie):
    with pytest.raises(UnsupportedDtypeError, match="scale the frames to 8 bits"):
        jpeg_frames(movie.frames.astype(np.uint16), 1000)


def test_without_pillow(movie, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'stemcodecs\[plot\]'"):
        jpeg_frames(movie.frames, 1000)
