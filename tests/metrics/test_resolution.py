"""Fourier ring correlation against what it must be."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stemcodecs.errors import ConfigurationError
from stemcodecs.metrics import FourierRingCorrelation, fourier_ring_correlation, half_bit_resolution


def filtered(noise, keep):
    """Only the frequencies below `keep` cycles per pixel."""
    k = np.hypot(np.fft.fftfreq(noise.shape[0])[:, None], np.fft.fftfreq(noise.shape[1]))
    return np.fft.ifft2(np.fft.fft2(noise) * (k < keep)).real


def test_an_image_and_itself():
    image = np.random.default_rng(0).standard_normal((32, 48))
    frc = fourier_ring_correlation(image, image, pixel_size=0.5)
    np.testing.assert_allclose(frc.correlation, 1)
    assert frc.frequencies[0] == 0
    assert frc.frequencies[-1] == pytest.approx(1.0)  # Nyquist of half-unit pixels
    assert half_bit_resolution(frc) == pytest.approx(1.0)  # two pixels
    np.testing.assert_allclose(fourier_ring_correlation(image, -image).correlation, -1)


def test_rings_hold_each_pixel_up_to_nyquist_once():
    frc = fourier_ring_correlation(np.eye(16), np.eye(16))
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(16, 1 / 16), np.fft.fftfreq(16, 1 / 16)))
    assert frc.n_pixels.tolist() == [int((np.rint(k) == r).sum()) for r in range(9)]


def test_threshold_is_that_of_van_heel_and_schatz():
    frc = fourier_ring_correlation(np.eye(64), np.eye(64))
    root = 1 / np.sqrt(frc.n_pixels)
    np.testing.assert_allclose(frc.half_bit, (0.2071 + 1.9102 * root) / (1.2071 + 0.9102 * root), atol=1e-4)


def test_known_signal_to_noise_gives_its_correlation():
    # The expectation of the FRC of two images is SNR / (1 + SNR).
    rng = np.random.default_rng(5)
    signal = rng.standard_normal((256, 256))
    a, b = (signal + 0.5 * rng.standard_normal(signal.shape) for _ in range(2))
    frc = fourier_ring_correlation(a, b)
    assert frc.correlation[20:].mean() == pytest.approx(4 / 5, abs=0.01)


def test_resolution_is_where_the_signal_ends():
    rng = np.random.default_rng(6)
    signal = filtered(rng.standard_normal((256, 256)), 0.2)
    a, b = (signal + 0.05 * rng.standard_normal(signal.shape) for _ in range(2))
    assert half_bit_resolution(fourier_ring_correlation(a, b, 3.0)) == pytest.approx(3 / 0.2, rel=0.03)


def test_complex_images_and_images_without_common_signal():
    rng = np.random.default_rng(7)
    wave = np.exp(1j * rng.standard_normal((64, 64)))
    np.testing.assert_allclose(fourier_ring_correlation(wave, 3 * wave).correlation, 1)
    assert half_bit_resolution(fourier_ring_correlation(wave, -wave)) == math.inf
    assert fourier_ring_correlation(np.zeros((8, 8)), wave[:8, :8]).correlation.tolist() == [0.0] * 5


def test_crossing_is_interpolated():
    ones = np.ones(4)
    frc = FourierRingCorrelation(np.array([0, 0.1, 0.2, 0.3]), np.array([1, 1, 0.9, 0.3]), 0.5 * ones, ones)
    assert half_bit_resolution(frc) == pytest.approx(1 / (0.2 + 0.1 * 0.4 / 0.6))


def test_what_cannot_be():
    image = np.eye(8)
    with pytest.raises(ConfigurationError, match="one shape"):
        fourier_ring_correlation(image, np.eye(9))
    with pytest.raises(ConfigurationError, match="is no image"):
        fourier_ring_correlation(image[0], image[0])
    for size in (0, -1, math.nan):
        with pytest.raises(ConfigurationError, match="pixel size"):
            fourier_ring_correlation(image, image, size)
