"""One pattern of an isolated object."""

from __future__ import annotations

import numpy as np
import pytest

from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.ptychography.fienup import FienupSettings, fienup

N = 64


@pytest.fixture(scope="module")
def isolated():
    """A real object without symmetry, in a third of the field, and its support."""
    y, x = np.mgrid[:N, :N] - N // 2
    support = (np.abs(y) <= 10) & (np.abs(x) <= 8) & (y + x > -13)
    texture = np.random.default_rng(3).random((N, N))
    return np.where(support, 0.4 + texture, 0.0), support


def pattern_of(wave):
    return np.abs(np.fft.fftshift(np.fft.fft2(wave, norm="ortho"))) ** 2


def likeness(found, truth):
    """Largest correlation over shifts, of the object or its twin."""
    both = (found, np.conj(found[::-1, ::-1]))
    peaks = [np.abs(np.fft.ifft2(np.fft.fft2(f) * np.conj(np.fft.fft2(truth)))).max() for f in both]
    return max(peaks) / np.linalg.norm(found) / np.linalg.norm(truth)


def test_a_known_support_gives_the_object(isolated):
    truth, support = isolated
    settings = FienupSettings(shrink_every=0, positive=True, iterations=300)
    result = fienup(1e4 * pattern_of(truth), support, settings=settings)
    assert likeness(result.object, truth) > 0.99
    assert result.errors[-1] < 1e-3
    assert not result.object[~support].any()


@pytest.mark.slow
def test_shrink_wrap_finds_the_support(isolated):
    truth, support = isolated
    counts = np.random.default_rng(0).poisson(1e4 * pattern_of(truth))
    best = min(
        (fienup(counts, settings=FienupSettings(positive=True, seed=s)) for s in range(3)), key=lambda r: r.errors[-1]
    )
    assert likeness(best.object, truth) > 0.97
    assert best.support.sum() < 1.5 * support.sum()


def test_a_beam_stop_does_not_count(isolated):
    truth, support = isolated
    mask = np.ones((N, N), bool)
    mask[N // 2, N // 2] = False
    counts = np.where(mask, 1e4 * pattern_of(truth), np.nan)
    settings = FienupSettings(shrink_every=0, positive=True)
    assert likeness(fienup(counts, support, mask, settings).object, truth) > 0.95


def test_refusals(isolated):
    pattern = pattern_of(isolated[0])
    for message, given in (
        ("not square", (pattern[1:],)),
        ("support is empty", (pattern, np.zeros((N, N)))),
        ("mask is empty", (pattern, None, np.zeros((N, N)))),
        ("not negative", (pattern - 1,)),
        ("not negative", (0 * pattern,)),
    ):
        with pytest.raises(ConfigurationError, match=message):
            fienup(*given)
    with pytest.raises(ConfigurationError, match="feedback"):
        FienupSettings(feedback=0)
