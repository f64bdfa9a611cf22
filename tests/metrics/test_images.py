"""Image errors against closed forms, and against scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
from skimage import metrics

from stemcodecs.errors import ConfigurationError
from stemcodecs.metrics import psnr, smse, ssim


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:48, :64]
    truth = 5 + np.sin(x / 5.0) + np.cos(y / 3.0)
    return truth + 0.3 * rng.standard_normal(truth.shape), truth


def test_smse_divides_by_the_pixels_within_the_support():
    image, truth = np.zeros((4, 4)), np.full((4, 4), 2.0)
    support = np.zeros((4, 4), bool)
    support[1, 1:3] = True
    image[1, 1] = 5.0
    assert smse(image, truth, support) == pytest.approx((9 + 4) / 2)
    assert smse(image, truth) == pytest.approx((9 + 15 * 4) / 16)
    assert smse(1j * image, 1j * truth, support) == pytest.approx(6.5)


def test_psnr_of_a_known_error():
    truth = np.array([[0.0, 10.0], [5.0, 5.0]])
    assert psnr(truth + 1.0, truth) == pytest.approx(20.0)
    assert psnr(truth + 1.0, truth, data_range=100) == pytest.approx(40.0)
    assert psnr(truth, truth) == math.inf


def test_ssim_of_constant_images_is_its_luminance_term():
    # No variance in either: (2 μ_x μ_y + C1) / (μ_x² + μ_y² + C1).
    c1 = 0.01**2
    assert ssim(np.full((16, 16), 0.4), np.full((16, 16), 0.8), data_range=1) == pytest.approx(
        (2 * 0.32 + c1) / (0.16 + 0.64 + c1)
    )


def test_ssim_of_equal_and_of_inverted_images(images):
    _, truth = images
    assert ssim(truth, truth) == pytest.approx(1.0)
    assert ssim(2 * truth.mean() - truth, truth) < 0


def test_both_agree_with_scikit_image(images):
    image, truth = images
    span = truth.max() - truth.min()
    assert psnr(image, truth) == pytest.approx(metrics.peak_signal_noise_ratio(truth, image, data_range=span))
    theirs = metrics.structural_similarity(
        truth, image, data_range=span, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(image, truth) == pytest.approx(theirs, abs=1e-10)


@pytest.mark.parametrize("metric", [smse, psnr, ssim])
def test_what_cannot_be_compared_is_one_line(metric):
    image = np.arange(256.0).reshape(16, 16)
    with pytest.raises(ConfigurationError, match="differ; compare arrays of one shape"):
        metric(image, image[:-1])
    broken = image.copy()
    broken[3, 4] = np.nan
    with pytest.raises(ConfigurationError, match="not finite"):
        metric(broken, image)
    with pytest.raises(ConfigurationError, match="compare numbers"):
        metric(image.astype("U8"), image)


def test_a_support_must_fit_and_hold_something():
    image = np.ones((4, 4))
    with pytest.raises(ConfigurationError, match="support is empty"):
        smse(image, image, np.zeros((4, 4), bool))
    with pytest.raises(ConfigurationError, match="give one of the same shape"):
        smse(image, image, np.ones((4, 5), bool))


def test_a_constant_reference_has_no_range(images):
    with pytest.raises(ConfigurationError, match="give data_range"):
        psnr(images[0], np.ones_like(images[0]))
    with pytest.raises(ConfigurationError, match="at least 11×11"):
        ssim(np.eye(10), np.eye(10))
    with pytest.raises(ConfigurationError, match="real images"):
        ssim(1j * images[0], images[0])
