"""On-detector encoding and contrast matching."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemcodecs.errors import ConfigurationError
from stemcodecs.lowrank import (
    DetectorEncoder,
    contrast_factor,
    exact_basis,
    fractional_scattering,
    probe_mask,
)
from stemcodecs.metrics import phase_mse
from stemcodecs_pipelines.ptychography.forward import diffraction_patterns
from stemcodecs_pipelines.ptychography.problem import PtychographyProblem
from stemcodecs_pipelines.ptychography.reconstruct import reconstruct

Array = np.ndarray[Any, Any]


def phantom(contrast: float = 1.0, size: int = 60, seed: int = 0) -> Array:
    noise = np.random.default_rng(seed).standard_normal((size, size))
    k = np.fft.fftfreq(size)
    smooth = np.fft.ifft2(np.fft.fft2(noise) * np.exp(-60 * (k[:, None] ** 2 + k**2))).real
    return np.exp(1j * contrast * smooth / smooth.std())


def disc_probe(n: int = 24) -> Array:
    k = np.fft.fftfreq(n)
    square = k[:, None] ** 2 + k**2
    wave = np.fft.fftshift(np.fft.ifft2((square < 0.2**2) * np.exp(-60j * square)))
    return wave / np.sqrt((np.abs(wave) ** 2).sum())


def positions(size: int = 60, n: int = 24, step: int = 4) -> Array:
    return np.array([(y, x) for y in range(0, size - n, step) for x in range(0, size - n, step)])


def test_one_pattern_and_a_batch_agree(scan: Array) -> None:
    encoder = DetectorEncoder.fit(scan, ratio=20)
    assert encoder.ratio == 20
    assert encoder.matrix.shape == (120, 6)
    batch = encoder.encode(scan[2])
    assert batch.shape == (11, 6)
    assert np.allclose(encoder.encode(scan[2, 3]), batch[3], rtol=1e-4, atol=1e-3)
    assert np.allclose(encoder.encode(scan[2, 3]), scan[2, 3].ravel() @ encoder.matrix, rtol=1e-4)
    assert encoder.decode(batch).shape == (11, 12, 10)


def test_patterns_within_the_span_are_restored(rate: Array) -> None:
    encoder = DetectorEncoder.fit(rate[:6], coefficients=4)
    assert np.allclose(encoder.decode(encoder.encode(rate[6:])), rate[6:], rtol=1e-2, atol=1e-2)


def test_higher_compression_is_a_prefix(scan: Array) -> None:
    encoder = DetectorEncoder.fit(scan, coefficients=8)
    fewer = encoder.at(ratio=40)
    assert fewer.basis.rank == 3
    assert np.allclose(fewer.encode(scan), encoder.encode(scan)[..., :3], rtol=1e-4, atol=1e-3)


@pytest.mark.slow
@given(ratio=st.floats(1.3, 120.0), wide=st.booleans())
@settings(max_examples=30, deadline=None)
def test_any_ratio(ratio: float, wide: bool) -> None:
    """C = N/S' need not be whole, nor divide the number of pixels."""
    training = np.random.default_rng(0).poisson(3.0, (100, 8, 15) if wide else (100, 15, 8))
    encoder = DetectorEncoder.fit(training, ratio=ratio)
    assert encoder.basis.rank == max(1, round(120 / ratio))
    coefficients = encoder.encode(training[0])
    assert coefficients.shape == (encoder.basis.rank,)
    assert encoder.decode(coefficients).shape == training.shape[1:]


def test_a_basis_fitted_elsewhere_is_an_encoder(scan: Array) -> None:
    """For a first scan that is larger than memory."""
    fitted = exact_basis(scan, rank=6, centred=False, stabilised=False)
    assert np.array_equal(DetectorEncoder(basis=fitted).encode(scan), DetectorEncoder.fit(scan, ratio=20).encode(scan))


def test_more_coefficients_than_training_patterns(scan: Array) -> None:
    with pytest.raises(ConfigurationError, match="allows 1 to 11"):
        DetectorEncoder.fit(scan[0], ratio=10)


def test_refusals(scan: Array) -> None:
    with pytest.raises(ConfigurationError, match="either"):
        DetectorEncoder.fit(scan)
    with pytest.raises(ConfigurationError, match="choose 1 to 120"):
        DetectorEncoder.fit(scan, ratio=0.5)
    encoder = DetectorEncoder.fit(scan, coefficients=3)
    with pytest.raises(ConfigurationError, match="12 × 10"):
        encoder.encode(np.zeros((10, 12)))
    with pytest.raises(ConfigurationError, match="3 coefficients"):
        encoder.decode(np.zeros((5, 4)))


@pytest.mark.slow
def test_contrast_factor_matches_the_scattered_fraction() -> None:
    probe, where = disc_probe(), positions()
    vacuum = np.abs(np.fft.fftshift(np.fft.fft2(probe, norm="ortho"))) ** 2
    mask = probe_mask(vacuum)
    assert np.isclose(vacuum[~mask].sum(), 0, atol=1e-6)

    def mean_pattern(eta: float) -> Array:
        return diffraction_patterns(phantom(0.2 * eta, seed=5), probe, where).mean(0)

    experiment = diffraction_patterns(phantom(0.5), probe, where).mean(0)
    kappa = fractional_scattering(experiment, mask)
    eta = contrast_factor(mean_pattern, kappa, mask)
    assert np.isclose(fractional_scattering(mean_pattern(eta), mask), kappa, rtol=0.01)
    assert 2.0 < eta < 3.2  # the two objects have the same statistics: close to 0.5/0.2
    with pytest.raises(ConfigurationError, match="no fractional scattering"):
        contrast_factor(mean_pattern, 1e3, mask)
    with pytest.raises(ConfigurationError, match="no counts"):
        probe_mask(np.zeros((4, 4)))


@pytest.mark.slow
def test_epie_recovers_the_phase_that_is_lost_in_compression() -> None:
    probe, where, truth = disc_probe(), positions(), phantom(0.4)
    rate = diffraction_patterns(truth, probe, where) * 2e4
    inside = np.zeros(truth.shape, bool)
    inside[14:-14, 14:-14] = True
    counts = np.random.default_rng(0).poisson(rate)

    def error(patterns: Array) -> float:
        # Patterns from few coefficients are negative here and there, which no count is.
        problem = PtychographyProblem.of(np.maximum(patterns, 0), where, probe, object_shape=truth.shape)
        image = reconstruct(problem, "epie", iterations=12, object_step=1.0).object
        return phase_mse(image, truth, inside)

    basis = exact_basis(counts, rank=30, centred=False, stabilised=False)
    full, coarse = error(counts), error(basis.truncate(4).rebuild(basis.truncate(4).project(counts)))
    assert full < 0.03
    assert coarse > 3 * full
