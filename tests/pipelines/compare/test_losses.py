"""What loss costs, against plain NumPy, scikit-image and the metrics of the lower floor."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from stemcodecs.metrics import dose_equivalent
from stemcodecs_pipelines.compare.losses import ERROR_EDGES, LossSums
from stemcodecs_pipelines.store.virtual_images import VirtualDetectors


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:20, :20]
    rate = np.where((y - 9) ** 2 + (x - 10) ** 2 <= 30, 20.0, 1.0)
    dose = 1 + rng.random((14, 12, 1, 1))
    source = rng.poisson(rate * dose).astype(np.int64)
    return source, source + rng.integers(-1, 2, source.shape) * (source > 3)


def sums(source, decoded, rows=14, known=None):
    detectors = VirtualDetectors.from_pattern(source.mean((0, 1)))
    found = LossSums(shape=source.shape, detectors=detectors)
    whole = slice(0, 20)
    for first in range(0, 14, rows):
        region = (slice(first, min(first + rows, 14)), slice(0, 12), whole, whole)
        part = None if known is None else known[region].reshape(-1, 20, 20)
        found.add(source[region].reshape(-1, 20, 20), decoded[region].reshape(-1, 20, 20), part, region)
    return found


def test_numbers_are_those_of_numpy(pair):
    source, decoded = pair
    loss = sums(source, decoded).loss(whole=True)
    scaled = (decoded - source) / np.sqrt(np.maximum(source, 1))
    assert loss.largest_error == pytest.approx(np.abs(scaled).max())
    assert loss.added_noise == pytest.approx(np.sqrt((scaled**2).mean()))
    assert loss.total_bias == pytest.approx(decoded.sum() / source.sum() - 1)
    assert loss.diffraction_mse == pytest.approx(((np.sqrt(decoded) - np.sqrt(source)) ** 2).mean())


def test_similarity_is_that_of_scikit_image(pair):
    source, decoded = pair
    loss = sums(source, decoded).loss(whole=True)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    a, b = source.mean((0, 1)), decoded.mean((0, 1))
    assert loss.ssim_mean_pattern == pytest.approx(
        structural_similarity(b, a, data_range=np.ptp(a), **options), abs=1e-3
    )
    image = source.sum((2, 3)).astype(float)
    other = decoded.sum((2, 3)).astype(float)
    assert loss.ssim_images <= structural_similarity(other, image, data_range=np.ptp(image), **options) + 1e-3


def test_the_dose_is_that_of_thinned_counts(pair):
    source, decoded = pair
    stated = sums(source, decoded).loss(whole=True).dose_equivalent
    found = dose_equivalent(source, decoded, lambda counts: float(((counts - source) ** 2).mean()))
    assert stated == pytest.approx(found, abs=0.01)


@pytest.mark.parametrize("rows", [1, 5, 14])
def test_blocks_add_up_to_the_whole(rows, pair):
    one, several = (sums(*pair, rows=n).loss(whole=True) for n in (14, rows))
    for name, value in vars(one).items():
        assert vars(several)[name] == (None if value is None else pytest.approx(value)), name


def test_what_is_no_count_counts_nowhere(pair):
    source, decoded = pair
    known = np.ones(source.shape, bool)
    known[:, :, 4, 5] = False
    spoiled = decoded.copy()
    spoiled[:, :, 4, 5] = 10_000
    clean = sums(source, decoded, known=known).loss(whole=True)
    assert sums(source, spoiled, known=known).loss(whole=True) == clean


def test_the_histogram_holds_every_value(pair):
    source, decoded = pair
    found = sums(source, decoded + 100)
    assert found.histogram.sum() == source.size
    assert found.histogram[-1] > 0.9 * source.size
    assert len(found.histogram) == len(ERROR_EDGES) - 1


def test_no_loss_is_no_loss(pair):
    source, _ = pair
    loss = sums(source, source).loss(whole=True)
    assert (loss.largest_error, loss.total_bias, loss.added_noise, loss.diffraction_mse) == (0, 0, 0, 0)
    assert (loss.dose_equivalent, loss.ssim_mean_pattern, loss.ssim_images) == (1, 1, 1)
