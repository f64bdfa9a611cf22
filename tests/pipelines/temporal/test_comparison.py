"""What movies are compared with: real bytes, within the budget, and pictures that show what is there."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

from stemcodecs.errors import ConfigurationError
from stemcodecs.simulate import simulate_movie
from stemcodecs_pipelines.temporal import comparison
from stemcodecs_pipelines.temporal.comparison import coders, denoised_by_bm3d, filtered, psnr, temporal_mean
from stemcodecs_pipelines.temporal.comparison_figures import draw_frames, draw_quality, spectrum

MOVIE = simulate_movie("grains", (4, 64, 64), "slow", seed=5, dose=40)


@pytest.mark.parametrize(("name", "package"), [("jpeg", "PIL"), ("jpeg_xl", "imagecodecs")])
def test_image_codecs_keep_to_the_bytes_of_a_measurement(name, package):
    if not find_spec(package):
        pytest.skip(f"{package} comes with the extra compare")
    movie = simulate_movie("grains", (4, 128, 128), "slow", seed=5, dose=40)
    size, frames = getattr(comparison, name)(movie.frames)
    assert size <= movie.frames.size / 4
    # The best that fits: a codec that gave half of it away would be no rival.
    assert size > movie.frames.size / 4 * 0.8
    assert frames.shape == movie.frames.shape
    assert psnr(frames, movie.clean) > psnr(movie.frames, movie.clean) - 1


def test_the_temporal_mean_costs_one_frame():
    size, frames = temporal_mean(MOVIE.frames)
    assert size == 64 * 64
    assert np.allclose(frames, MOVIE.frames.mean(axis=0))
    assert frames.shape == MOVIE.frames.shape


def test_every_coder_gives_frames_and_their_bytes():
    found = coders(4, 4)
    assert {"temporal mean", "bins, interpolate", "bins, gap-tv", "tiled, gap-tv", "random, gap-tv"} <= set(found)
    for code in found.values():
        size, frames = code(MOVIE.frames)
        assert 0 < size < 1.2 * MOVIE.frames.size
        assert frames.shape == MOVIE.frames.shape


def test_networks_are_compared_where_they_can_be_run():
    names = set(coders(10, 8))
    assert ({"bins, network", "tiled, network"} <= names) == bool(find_spec("onnxruntime"))
    assert "tiled, network" not in coders(11, 8)


def test_a_filter_helps_noisy_frames_and_never_harms():
    behind = filtered(MOVIE.frames, MOVIE.clean)
    assert psnr(behind, MOVIE.clean) > psnr(MOVIE.frames, MOVIE.clean) + 3
    assert np.array_equal(filtered(MOVIE.clean, MOVIE.clean), MOVIE.clean)


def test_psnr_is_the_mean_over_frames():
    reference = np.zeros((2, 8, 8))
    frames = reference + np.array([1.0, 10.0])[:, None, None]
    assert psnr(frames, reference, 100) == pytest.approx((40 + 20) / 2)


def test_bm3d_gets_the_noise_of_the_frames(monkeypatch):
    asked = []

    def bm3d(frame, sigma_psd):
        asked.append(sigma_psd)
        return frame / 2

    monkeypatch.setitem(sys.modules, "bm3d", SimpleNamespace(bm3d=bm3d))
    frames = np.random.default_rng(0).normal(100, 7, (3, 64, 64))
    assert np.allclose(denoised_by_bm3d(frames), frames / 2)
    assert asked == pytest.approx([7] * 3, rel=0.1)
    monkeypatch.setitem(sys.modules, "bm3d", None)
    with pytest.raises(ConfigurationError, match="install it with: pip install bm3d"):
        denoised_by_bm3d(frames)


def test_a_lattice_is_two_spots_in_its_spectrum():
    wave = np.cos(2 * np.pi * np.arange(64) / 8) * np.ones((64, 1))
    power = spectrum(wave)
    assert set(map(tuple, np.argwhere(power > power.max() - 0.1))) == {(32, 24), (32, 40)}


def test_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    movies = {"raw": MOVIE.frames, "mean": temporal_mean(MOVIE.frames)[1]}
    assert draw_frames(movies, (0, 3), tmp_path / "frames.png").stat().st_size > 10_000
    curves = {"bins": {10: (30.0, 0.9), 20: (31.0, 0.92)}, "tiled": {10: (33.0, 0.93)}}
    assert draw_quality(curves, tmp_path / "quality.png").stat().st_size > 10_000
